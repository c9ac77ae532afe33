//! Requests whose true label may still come, in memory, bounded by bytes: the oldest goes. A label may also come
//! before its request is here, because counting begins when the answer has left; so the last early ones wait too.

use std::collections::{HashMap, VecDeque};

use inference::Tensor;
use protocol::ModelName;
use protocol::sample::Said;

use super::draft::Origin;

/// Early labels that wait. An application that labels at once overtakes by one or two.
const MAX_EARLY: usize = 64;
/// Places in the order that may be stale beside one for each request.
const SLACK: usize = 64;
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

#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: HashMap<(ModelName, String), (u64, Kept)>,
    order: VecDeque<(u64, (ModelName, String))>,
    early: VecDeque<((ModelName, String), Truths)>,
    next: u64,
    bytes: u64,
}

impl Recent {
    /// Takes a request in. If its label has come already, both are given back at once.
    pub(super) fn remember(&mut self, kept: Kept, max_bytes: u64) -> Option<(Kept, Truths)> {
        let key = (kept.origin.model.clone(), kept.origin.id.clone());
        if let Some(at) = self.early.iter().position(|(early, _)| *early == key) {
            let truths = self.early.remove(at)?.1;
            return Some((kept, truths));
        }
        let bytes = size(&kept);
        if bytes > max_bytes {
            return None;
        }
        self.forget(&key);
        while self.bytes.saturating_add(bytes) > max_bytes {
            let Some((number, oldest)) = self.order.pop_front() else { break };
            if self.kept.get(&oldest).is_some_and(|(kept, _)| *kept == number) {
                self.forget(&oldest);
            }
        }
        self.bytes += bytes;
        self.order.push_back((self.next, key.clone()));
        self.kept.insert(key, (self.next, kept));
        self.next += 1;
        None
    }

    /// The request that a label belongs to. If it isn't here, it may be about to come: the label waits.
    pub(super) fn labelled(&mut self, model: &ModelName, id: &str, truths: Truths) -> Option<(Kept, Truths)> {
        let key = (model.clone(), id.to_owned());
        if let Some(kept) = self.forget(&key) {
            return Some((kept, truths));
        }
        if self.early.len() >= MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back((key, truths));
        None
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget(&mut self, key: &(ModelName, String)) -> Option<Kept> {
        let (_, kept) = self.kept.remove(key)?;
        self.bytes = self.bytes.saturating_sub(size(&kept));
        // Places of those that are gone already; now and then, so that it costs nothing on average.
        if self.order.len() > 2 * self.kept.len() + SLACK {
            let kept = &self.kept;
            self.order.retain(|(number, key)| kept.get(key).is_some_and(|(known, _)| known == number));
        }
        Some(kept)
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

    fn model() -> ModelName {
        "m".parse().unwrap()
    }

    #[test]
    fn a_label_finds_its_request_whichever_comes_first() {
        let mut recent = Recent::default();
        assert!(recent.remember(kept("a"), 10_000).is_none());
        assert_eq!(recent.labelled(&model(), "a", truth()).unwrap().0.origin.id, "a");
        assert!(recent.labelled(&model(), "b", truth()).is_none(), "not here yet");
        assert_eq!(recent.remember(kept("b"), 10_000).unwrap().1, truth());
        assert!(recent.remember(kept("b"), 10_000).is_none(), "a label is used once");
    }

    #[test]
    fn the_oldest_goes_when_memory_is_full_and_nothing_leaks() {
        let mut recent = Recent::default();
        let room = size(&kept("a")) * 3;
        for id in 0..100 {
            recent.remember(kept(&id.to_string()), room);
        }
        assert_eq!((recent.kept.len(), recent.bytes), (3, room));
        assert!(recent.labelled(&model(), "96", truth()).is_none());
        assert!(recent.labelled(&model(), "97", truth()).is_some());
        for _ in 0..100 {
            recent.remember(kept("same"), room);
        }
        assert!(recent.bytes <= room && recent.order.len() <= 2 * 3 + SLACK + 1);
        assert!(
            recent.remember(kept("a"), 10).is_none() && !recent.kept.contains_key(&(model(), "a".into()))
        );
        for id in 0..1000 {
            recent.labelled(&model(), &format!("unknown {id}"), truth());
        }
        assert_eq!(recent.early.len(), MAX_EARLY);
        recent.clear();
        assert_eq!((recent.kept.len(), recent.bytes, recent.early.len()), (0, 0, 0));
    }
}
