//! Recent inferences by id, so that a label that comes later finds what was said.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{Digest, ModelName, UnixMillis};

/// A true label as an application says it: the class's name, or its number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// By number.
    Class(usize),
    /// By name.
    Name(String),
}

impl Label {
    /// What was given, shortened for people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Class(class) => class.to_string(),
            Self::Name(name) => format!("{:?}", name.chars().take(80).collect::<String>()),
        }
    }

    /// The class that it names; none when the model doesn't know it.
    pub(super) fn class(&self, labels: &[String]) -> Option<usize> {
        match self {
            Self::Class(class) => Some(*class).filter(|class| *class < labels.len()),
            Self::Name(name) => labels.iter().position(|label| label == name),
        }
    }
}

/// Why a label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// Never seen, or forgotten.
    #[error(
        "inference {id:?} of model {model} is unknown; ids are remembered for {ttl_s} s, for the last {max} inferences, fewer of large batches, and until the agent restarts"
    )]
    UnknownId {
        /// The id that was given.
        id: String,
        /// The model that was named.
        model: ModelName,
        /// How long an id is remembered.
        ttl_s: u64,
        /// How many ids are remembered.
        max: usize,
    },
    /// Labelled before.
    #[error("inference {id:?} has its label already; the first one counts")]
    Twice {
        /// The id that was given.
        id: String,
    },
    /// Not as many labels as items.
    #[error("inference {id:?} answered {expected} items, got {got} labels")]
    Count {
        /// The id that was given.
        id: String,
        /// Items of the batch.
        expected: usize,
        /// Labels that came.
        got: usize,
    },
    /// Counted as a wrong answer, a misspelt label would make a good model look bad.
    #[error("label {label} is no class of model {model}; known are: {known}")]
    UnknownLabel {
        /// What was given.
        label: String,
        /// The model that was named.
        model: ModelName,
        /// Its first classes.
        known: String,
    },
    /// Classes of the model's answers aren't counted: it is no classifier, or its publisher gave a profile without them.
    #[error("the reference profile of model {model} counts no classes; labels can't be compared")]
    NoClasses {
        /// The model that was named.
        model: ModelName,
    },
}

/// Memory that one inference of one item takes, about.
const ENTRY_BYTES: usize = 450;
/// What all inferences may take however few there may be: enough for one large batch.
const LEAST_BYTES: usize = 1 << 20;

/// What was said then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) model: ModelName,
    pub(super) digest: Digest,
    pub(super) at: UnixMillis,
    /// Predicted class per item.
    pub(super) classes: Vec<usize>,
}

impl Said {
    /// Memory that it takes here, about.
    fn bytes(&self) -> usize {
        ENTRY_BYTES.saturating_add(self.classes.len().saturating_mul(size_of::<usize>()))
    }
}

/// The last inferences. The oldest are forgotten when a new one needs their place. Trees, because a table that doubles
/// holds up every inference for tens of milliseconds.
#[derive(Debug)]
pub(super) struct Recent {
    ttl: Duration,
    max: usize,
    max_bytes: usize,
    /// Of all that is remembered.
    bytes: usize,
    /// Ids by their numbers, an id that came again more than once.
    order: BTreeMap<u64, String>,
    said: BTreeMap<String, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    said: Said,
    /// When, in the time that has passed since the agent started: its clock may be set meanwhile.
    since: Duration,
    is_labelled: bool,
}

impl Recent {
    /// `max` bounds the memory too: what batches of many items take counts as so many more inferences.
    pub(super) fn new(ttl: Duration, max: usize) -> Self {
        let max_bytes = max.saturating_mul(ENTRY_BYTES * 2).max(LEAST_BYTES);
        Self { ttl, max, max_bytes, bytes: 0, order: BTreeMap::new(), said: BTreeMap::new(), next: 0 }
    }

    /// Remembers one inference; an earlier one of the same id is forgotten. One that is larger than all memory for them
    /// is not remembered, and the others stay. Returns the number by which it is told from others of its id.
    pub(super) fn remember(&mut self, id: String, said: Said, now: Duration) -> Option<u64> {
        self.forget(&id);
        let bytes = said.bytes();
        if bytes > self.max_bytes {
            return None;
        }
        while self.order.len() >= self.max || self.bytes + bytes > self.max_bytes {
            self.forget_oldest();
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.order.insert(number, id.clone());
        self.said.insert(id, Entry { number, said, since: now, is_labelled: false });
        Some(number)
    }

    /// Finds what was said, with its number, and marks it as labelled.
    pub(super) fn take(
        &mut self,
        model: &ModelName,
        id: &str,
        labels: usize,
        now: Duration,
    ) -> Result<(u64, Said), FeedbackError> {
        self.expire(now);
        let (ttl_s, max) = (self.ttl.as_secs(), self.max);
        let unknown = || FeedbackError::UnknownId { id: id.to_owned(), model: model.clone(), ttl_s, max };
        let entry = self.said.get_mut(id).filter(|entry| entry.said.model == *model).ok_or_else(unknown)?;
        if entry.is_labelled {
            return Err(FeedbackError::Twice { id: id.to_owned() });
        }
        let expected = entry.said.classes.len();
        if expected != labels {
            return Err(FeedbackError::Count { id: id.to_owned(), expected, got: labels });
        }
        entry.is_labelled = true;
        Ok((entry.number, entry.said.clone()))
    }

    /// Lets an id be labelled again: the label that was taken for it can't be used.
    pub(super) fn give_back(&mut self, id: &str) {
        if let Some(entry) = self.said.get_mut(id) {
            entry.is_labelled = false;
        }
    }

    fn expire(&mut self, now: Duration) {
        while let Some((number, id)) = self.order.first_key_value() {
            let entry = self.said.get(id).filter(|entry| entry.number == *number);
            if entry.is_some_and(|entry| now.saturating_sub(entry.since) <= self.ttl) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((number, id)) = self.order.pop_first() else { return };
        if self.said.get(&id).is_some_and(|entry| entry.number == number) {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(entry) = self.said.remove(id) {
            self.bytes -= entry.said.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    fn said() -> Said {
        let model = ModelName::new("m").unwrap();
        Said { model, digest: Digest::from_bytes([0; 32]), at: UnixMillis(0), classes: vec![3] }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn take(recent: &mut Recent, id: &str, now: u64) -> Result<Said, FeedbackError> {
        recent.take(&ModelName::new("m").unwrap(), id, 1, ms(now)).map(|(_, said)| said)
    }

    #[test]
    fn a_label_counts_once() {
        let mut recent = Recent::new(Duration::from_secs(10), MAX);
        recent.remember("a".into(), said(), ms(0));
        assert_eq!(take(&mut recent, "a", 1).unwrap().classes, [3]);
        assert!(matches!(take(&mut recent, "a", 1), Err(FeedbackError::Twice { .. })));
        assert!(matches!(take(&mut recent, "b", 1), Err(FeedbackError::UnknownId { .. })));
    }

    #[test]
    fn ids_are_forgotten_by_age_and_by_number() {
        let mut recent = Recent::new(Duration::from_secs(10), MAX);
        recent.remember("old".into(), said(), ms(0));
        assert!(matches!(take(&mut recent, "old", 10_001), Err(FeedbackError::UnknownId { .. })));
        for i in 0..=MAX {
            recent.remember(i.to_string(), said(), ms(20_000));
        }
        assert!(take(&mut recent, "0", 20_000).is_err() && take(&mut recent, "1", 20_000).is_ok());
        assert_eq!(recent.said.len(), recent.order.len());
    }

    #[test]
    fn many_rows_are_forgotten_before_they_fill_the_memory() {
        let mut recent = Recent::new(Duration::from_secs(10), MAX);
        let of = |rows: usize| Said { classes: vec![3; rows], ..said() };
        let most = (LEAST_BYTES - ENTRY_BYTES) / size_of::<usize>();
        for i in 0..MAX {
            recent.remember(i.to_string(), of(most / 10), ms(0));
            let held: usize = recent.said.values().map(|entry| entry.said.bytes()).sum();
            assert!(held == recent.bytes && held <= LEAST_BYTES, "{held}");
        }
        let last = (MAX - 1).to_string();
        recent.remember("huge".into(), of(most + 1), ms(0));
        assert!(recent.said.len() == 9 && recent.said.contains_key(&last), "the others stay");
        recent.remember("whole".into(), of(most), ms(0));
        assert!(recent.said.len() == 1 && recent.said.contains_key("whole"));
        recent.remember("whole".into(), of(most + 1), ms(0));
        assert_eq!((recent.said.len(), recent.bytes), (0, 0), "an earlier one of the same id");
        recent.remember("one".into(), said(), ms(0));
        assert!(take(&mut recent, "one", 0).is_ok());
    }

    #[test]
    fn an_id_of_another_model_or_another_count_is_refused() {
        let mut recent = Recent::new(Duration::from_secs(10), MAX);
        recent.remember("a".into(), said(), ms(0));
        let other = ModelName::new("other").unwrap();
        assert!(matches!(recent.take(&other, "a", 1, ms(0)), Err(FeedbackError::UnknownId { .. })));
        let model = ModelName::new("m").unwrap();
        assert!(matches!(recent.take(&model, "a", 2, ms(0)), Err(FeedbackError::Count { .. })));
        assert!(take(&mut recent, "a", 0).is_ok(), "a refused label doesn't use the id up");
    }
}
