//! What waits in the spool, kind by kind. It is counted once, when the database is opened, and changes with every
//! batch after that: a bound can be judged without looking at the disk.

use std::collections::BTreeMap;

use protocol::telemetry::Kind;

/// Some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub(super) records: u64,
    /// Their bodies as they lie on disk.
    pub(super) bytes: u64,
}

impl Amount {
    /// One record whose body has this length.
    pub(super) fn record(length: usize) -> Self {
        Self { records: 1, bytes: u64::try_from(length).unwrap_or(u64::MAX) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Records by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Depth(BTreeMap<Kind, Amount>);

impl Depth {
    pub(super) fn of(&self, kind: Kind) -> Amount {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    pub(super) fn total(&self) -> Amount {
        self.0.values().fold(Amount::default(), |sum, amount| sum.plus(*amount))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Kind, Amount)> {
        self.0.iter().map(|(kind, amount)| (*kind, *amount))
    }

    pub(super) fn add(&mut self, kind: Kind, amount: Amount) {
        let held = self.0.entry(kind).or_default();
        *held = held.plus(amount);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|(kind, amount)| self.add(kind, amount));
    }

    pub(super) fn take(&mut self, kind: Kind, amount: Amount) {
        let held = self.0.entry(kind).or_default();
        *held = held.minus(amount);
    }

    pub(super) fn take_all(&mut self, other: &Self) {
        other.iter().for_each(|(kind, amount)| self.take(kind, amount));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_apart_and_add_up() {
        let mut depth = Depth::default();
        depth.add(Kind::Log, Amount::record(10));
        depth.add(Kind::Pane, Amount::record(5));
        depth.add(Kind::Log, Amount::record(1));
        assert_eq!(depth.of(Kind::Log), Amount { records: 2, bytes: 11 });
        assert_eq!(depth.total(), Amount { records: 3, bytes: 16 });
        let mut gone = Depth::default();
        gone.add(Kind::Log, Amount::record(11));
        depth.take_all(&gone);
        assert_eq!(
            (depth.of(Kind::Log), depth.of(Kind::Event)),
            (Amount { records: 1, bytes: 0 }, Amount::default())
        );
    }
}
