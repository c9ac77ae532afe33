//! Panes of a full spool merge into wider windows instead of being dropped: counters add up exactly, only the
//! resolution in time is lost. Pure; the writer applies what comes out.
//!
//! Only panes that were never handed to the link may merge: the server may already hold the others, and what it counted
//! once must not come again inside a wider one.

use std::collections::BTreeMap;

use profile::Pane;
use protocol::telemetry::MAX_RECORD_BYTES;
use protocol::{Digest, ModelName};

/// What panes must share to be added up.
type Key = (ModelName, Digest, Digest, String);

/// Several records that become one.
#[derive(Debug, PartialEq)]
pub(super) struct Merged {
    /// Their numbers, rising; the last one keeps the result.
    pub(super) seqs: Vec<u64>,
    /// The record's body.
    pub(super) body: Vec<u8>,
}

struct Open {
    pane: Pane,
    seqs: Vec<u64>,
}

/// Gathers panes in the order of their numbers.
pub(super) struct Merger {
    widest_ms: i64,
    open: BTreeMap<Key, Open>,
}

impl Merger {
    /// Windows get no wider than `widest_ms`.
    pub(super) fn new(widest_ms: i64) -> Self {
        Self { widest_ms, open: BTreeMap::new() }
    }

    /// Takes one record; what can't be read stays alone. Returns a group that is complete.
    pub(super) fn add(&mut self, seq: u64, body: &[u8]) -> Option<Merged> {
        let pane = Pane::decode(body).ok()?;
        if pane.key.revision > 0 {
            return None;
        }
        let key = (pane.key.model.clone(), pane.key.digest, pane.key.schema, pane.key.segment.clone());
        let Some(open) = self.open.get_mut(&key) else {
            self.open.insert(key, Open { pane, seqs: vec![seq] });
            return None;
        };
        let end = pane.key.end.max(open.pane.key.end);
        let length = end.millis_since(pane.key.start.min(open.pane.key.start));
        let before = (length <= self.widest_ms).then(|| open.pane.clone());
        if before.is_some() && open.pane.merge(&pane).is_ok() && open.pane.encode().len() <= MAX_RECORD_BYTES
        {
            open.seqs.push(seq);
            return None;
        }
        if let Some(before) = before {
            open.pane = before;
        }
        std::mem::replace(open, Open { pane, seqs: vec![seq] }).close()
    }

    /// What is still open.
    pub(super) fn finish(self) -> impl Iterator<Item = Merged> {
        self.open.into_values().filter_map(Open::close)
    }
}

impl Open {
    /// One record alone is left as it is.
    fn close(self) -> Option<Merged> {
        (self.seqs.len() > 1).then(|| Merged { seqs: self.seqs, body: self.pane.encode() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use profile::ReferenceBuilder;
    use profile::features::Extractor;
    use protocol::UnixMillis;

    const MINUTE: i64 = 60_000;

    pub(in crate::store) fn pane(model: &str, minute: i64, answered: u64) -> Vec<u8> {
        let mut builder = ReferenceBuilder::new(Extractor::Nothing, vec!["a".into(), "b".into()]);
        (0..20).for_each(|_| builder.add_classified(&[], &[0.8, 0.2], Some(0)));
        let reference = builder.build().unwrap();
        let key = profile::PaneKey {
            model: ModelName::new(model).unwrap(),
            digest: Digest::from_bytes([1; 32]),
            schema: reference.schema.digest(),
            segment: String::new(),
            start: UnixMillis(minute * MINUTE),
            end: UnixMillis((minute + 1) * MINUTE),
            run: 1,
            revision: 0,
        };
        let mut pane = Pane::new(key, &reference.schema);
        (0..answered).for_each(|_| pane.counters.observe_answer(5.0));
        pane.encode()
    }

    #[test]
    fn panes_of_one_model_add_up_within_the_widest_window() {
        let mut merger = Merger::new(3 * MINUTE);
        let mut done: Vec<Merged> = (0..7)
            .filter_map(|n| {
                merger.add(10 + 2 * u64::try_from(n).unwrap(), &pane("m", n, 1 + u64::try_from(n).unwrap()))
            })
            .collect();
        done.extend(merger.finish());
        let seqs: Vec<Vec<u64>> = done.iter().map(|merged| merged.seqs.clone()).collect();
        assert_eq!(seqs, [vec![10, 12, 14], vec![16, 18, 20]], "the seventh stays alone");
        let first = Pane::decode(&done[0].body).unwrap();
        assert_eq!((first.counters.answered, first.key.start), (1 + 2 + 3, UnixMillis(0)));
        assert_eq!(first.key.end, UnixMillis(3 * MINUTE));
    }

    #[test]
    fn models_are_kept_apart_and_garbage_stays_alone() {
        let mut merger = Merger::new(60 * MINUTE);
        assert!(merger.add(1, &pane("a", 0, 1)).is_none());
        assert!(merger.add(2, b"garbage").is_none());
        assert!(merger.add(3, &pane("b", 0, 1)).is_none());
        assert!(merger.add(4, &pane("a", 1, 1)).is_none());
        let done: Vec<Merged> = merger.finish().collect();
        assert_eq!(done.iter().map(|merged| merged.seqs.clone()).collect::<Vec<_>>(), [vec![1, 4]]);
    }
}
