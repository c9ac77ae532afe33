//! Requests whose true label may still come, in memory, bounded by bytes: the oldest goes. A label may also come
//! before its request is here, because counting begins when the answer has left; so the last early ones wait too.
//! Both are told by the number under which the monitor remembers the inference: applications use ids again.

use std::collections::{BTreeMap, VecDeque};

use inference::Tensor;
use protocol::sample::Said;

use super::draft::Origin;

/// Early labels that wait. An application that labels at once overtakes by one or two.
const MAX_EARLY: usize = 64;
/// What a request takes beside its values.
const ENTRY_BYTES: u64 = 512;

/// A request that was answered.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) origin: Origin,
    pub(super) inputs: Vec<Tensor>,
    /// By item.
    pub(super) said: Vec<Said>,
}

/// By item: the true label where it is not what was said.
pub(super) type Truths = Vec<Option<String>>;

/// By the monitor's numbers, which rise.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: BTreeMap<u64, Kept>,
    early: VecDeque<(u64, Truths)>,
    bytes: u64,
}

impl Recent {
    /// Takes a request in. If its label has come already, both are given back at once.
    pub(super) fn remember(&mut self, number: u64, kept: Kept, max_bytes: u64) -> Option<(Kept, Truths)> {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == number) {
            let truths = self.early.remove(at)?.1;
            return Some((kept, truths));
        }
        let bytes = size(&kept);
        if bytes > max_bytes {
            return None;
        }
        while self.bytes.saturating_add(bytes) > max_bytes {
            let Some((_, oldest)) = self.kept.pop_first() else { break };
            self.bytes = self.bytes.saturating_sub(size(&oldest));
        }
        self.bytes += bytes;
        self.kept.insert(number, kept);
        None
    }

    /// The request that a label belongs to. If it isn't here, it may be about to come: the label waits.
    pub(super) fn labelled(&mut self, number: u64, truths: Truths) -> Option<(Kept, Truths)> {
        if let Some(kept) = self.kept.remove(&number) {
            self.bytes = self.bytes.saturating_sub(size(&kept));
            return Some((kept, truths));
        }
        if self.early.len() >= MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back((number, truths));
        None
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn size(kept: &Kept) -> u64 {
    let values: usize = kept.inputs.iter().map(Tensor::binary_len).sum();
    u64::try_from(values).unwrap_or(u64::MAX).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::super::draft::tests::{inputs, origin};
    use super::*;

    fn kept(id: &str) -> Kept {
        Kept { origin: origin(id, 1), inputs: inputs(1), said: vec![Said::default()] }
    }

    fn truth() -> Truths {
        vec![Some("b".into())]
    }

    #[test]
    fn a_label_finds_its_request_whichever_comes_first() {
        let mut recent = Recent::default();
        assert!(recent.remember(0, kept("a"), 10_000).is_none());
        assert_eq!(recent.labelled(0, truth()).unwrap().0.origin.id, "a");
        assert!(recent.labelled(1, truth()).is_none(), "not here yet");
        assert_eq!(recent.remember(1, kept("b"), 10_000).unwrap().1, truth());
    }

    #[test]
    fn a_label_that_came_too_late_is_not_the_next_ones_of_the_same_id() {
        let mut recent = Recent::default();
        let room = size(&kept("a"));
        recent.remember(0, kept("frame"), room);
        recent.remember(1, kept("other"), room);
        assert!(recent.labelled(0, truth()).is_none(), "its request had to go");
        assert!(recent.remember(2, kept("frame"), room).is_none());
    }

    #[test]
    fn the_oldest_goes_when_memory_is_full_and_nothing_leaks() {
        let mut recent = Recent::default();
        let room = size(&kept("a")) * 3;
        for number in 0..100 {
            recent.remember(number, kept("same"), room);
        }
        assert_eq!((recent.kept.len(), recent.bytes), (3, room));
        assert!(recent.labelled(96, truth()).is_none());
        assert!(recent.labelled(97, truth()).is_some());
        assert!(recent.remember(100, kept("a"), 10).is_none() && !recent.kept.contains_key(&100));
        for number in 200..1200 {
            recent.labelled(number, truth());
        }
        assert_eq!(recent.early.len(), MAX_EARLY);
        recent.clear();
        assert_eq!((recent.kept.len(), recent.bytes, recent.early.len()), (0, 0, 0));
    }
}
