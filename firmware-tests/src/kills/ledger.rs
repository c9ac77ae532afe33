//! What the killed workers said of single records, line by line: which are durable, which are about to be dropped, and
//! what lay in the spool at each start. From that follows which records were dropped, one by one.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::Result;
use flotilla_agent::store::{DROPPED, SpoolHandle};
use protocol::message::Loss;
use protocol::telemetry::Kind;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span;

/// A line of a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// After a start: the next number, and the first and last of each stretch of numbers that are held.
    Opened { next: u64, held: Vec<(u64, u64)> },
    /// An application heard that its record is durable.
    Durable { seq: u64, kind: Kind, text: String },
    /// Kind and cause as the spool names them.
    Dropped { seq: u64, kind: String, cause: String },
    /// So many records of the kind were offered, and nobody waited for them.
    Offered { kind: Kind, records: u64 },
    /// The spool is empty.
    Drained { last: u64, dropped: Vec<Loss> },
}

impl Said {
    /// A line at once: whoever prints may be killed right after it.
    pub(super) fn print(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// What lies in a spool that has just been opened.
    pub(super) fn opened(spool: &SpoolHandle) -> Result<Self> {
        let (mut held, mut from) = (Vec::<(u64, u64)>::new(), 0);
        loop {
            let chunk = spool.read(from, 1000, 1 << 20)?;
            let Some(last) = chunk.records.last() else { break };
            from = last.seq + 1;
            for seq in chunk.records.iter().map(|record| record.seq) {
                match held.last_mut() {
                    Some(stretch) if stretch.1 + 1 == seq => stretch.1 = seq,
                    _ => held.push((seq, seq)),
                }
            }
        }
        Ok(Self::Opened { next: *spool.durable_seq().borrow() + 1, held })
    }
}

/// What follows from all lines so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Kind and text by number.
    pub(super) durable: BTreeMap<u64, (Kind, String)>,
    /// Kind and cause by number.
    pub(super) dropped: BTreeMap<u64, (String, String)>,
    /// Records that were offered, durable or not.
    pub(super) offered: BTreeMap<Kind, u64>,
}

impl Ledger {
    pub(super) fn note(&mut self, said: Said) {
        match said {
            // A drop is said before it is done. What is there again, or gets its number again, was not dropped.
            Said::Opened { next, held } => self.dropped.retain(|seq, _| {
                *seq < next && !held.iter().any(|(first, last)| (*first..=*last).contains(seq))
            }),
            Said::Durable { seq, kind, text } => drop(self.durable.insert(seq, (kind, text))),
            Said::Dropped { seq, kind, cause } => drop(self.dropped.insert(seq, (kind, cause))),
            Said::Offered { kind, records } => *self.offered.entry(kind).or_default() += records,
            Said::Drained { .. } => {}
        }
    }

    /// How many were dropped, by kind and cause, in the spool's words.
    pub(super) fn dropped_by_cause(&self) -> BTreeMap<(String, String), u64> {
        let mut counts = BTreeMap::new();
        for key in self.dropped.values() {
            *counts.entry(key.clone()).or_default() += 1;
        }
        counts
    }
}

/// The same of what a spool reports.
pub(super) fn reported_by_cause(dropped: &[Loss]) -> BTreeMap<(String, String), u64> {
    let named = |loss: &Loss| ((format!("{:?}", loss.kind), format!("{:?}", loss.cause)), loss.count);
    dropped.iter().map(named).collect()
}

/// Prints the spool's log lines about single records, and no others.
pub(super) struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == DROPPED
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        Said::Dropped { seq: fields.seq, kind: fields.kind, cause: fields.cause }.print();
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    seq: u64,
    kind: String,
    cause: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "seq" {
            self.seq = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "kind" => self.kind = format!("{value:?}"),
            "cause" => self.cause = format!("{value:?}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(seq: u64) -> Said {
        Said::Dropped { seq, kind: "Event".into(), cause: "Full".into() }
    }

    #[test]
    fn what_is_there_again_or_has_no_number_was_not_dropped() {
        let mut ledger = Ledger::default();
        (1..=9).for_each(|seq| ledger.note(dropped(seq)));
        ledger.note(Said::Opened { next: 8, held: vec![(3, 4), (7, 7)] });
        assert_eq!(ledger.dropped.keys().copied().collect::<Vec<_>>(), [1, 2, 5, 6]);
        ledger.note(dropped(5));
        assert_eq!(ledger.dropped_by_cause(), [(("Event".into(), "Full".into()), 4)].into());
    }
}
