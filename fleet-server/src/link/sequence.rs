//! Which sequence numbers of a stream are stored: pure arithmetic, so that "nothing twice, nothing lost" can be
//! tried exhaustively.

/// Most separate ranges that are remembered above the contiguous part. Stops a device that leaves every second
/// number out from growing its row without bound; what finds no room is sent again when the gaps have closed.
const MAX_RANGES: usize = 1024;

/// The stored numbers of one stream: all up to `upto`, and some ranges above.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    upto: u64,
    ahead: Vec<Range>,
}

/// Numbers from the first to the last, both included.
pub type Range = (u64, u64);

/// What became of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Seen for the first time: store the record.
    New,
    /// Stored before: drop the record.
    Duplicate,
    /// Can't be remembered now: don't store the record, the device sends it again.
    NoRoom,
}

impl Received {
    /// From the database.
    pub fn new(upto: u64, ahead: Vec<Range>) -> Self {
        let mut received = Self { upto, ahead };
        received.absorb();
        received
    }

    /// Highest number without a gap before it.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// The ranges above it.
    pub fn ahead(&self) -> &[Range] {
        &self.ahead
    }

    /// The device holds nothing below `floor` any more: what is missing there never comes.
    pub fn raise_floor(&mut self, floor: u64) {
        self.upto = self.upto.max(floor.saturating_sub(1));
        self.absorb();
    }

    /// Numbers from `first` to `last` never come, unless they are stored already.
    pub fn skip(&mut self, first: u64, last: u64) {
        let first = first.max(self.upto.saturating_add(1));
        if first > last {
            return;
        }
        let begin = self.ahead.partition_point(|range| range.1 < first - 1);
        let end = self.ahead.partition_point(|range| range.0 <= last.saturating_add(1));
        let touching = self.ahead.get(begin..end).unwrap_or_default();
        let is_full = self.ahead.len() >= MAX_RANGES && first != self.upto + 1;
        if touching.is_empty() && is_full {
            return;
        }
        let joined = touching.iter().fold((first, last), |(a, b), range| (a.min(range.0), b.max(range.1)));
        self.ahead.splice(begin..end.max(begin), [joined]);
        self.absorb();
    }

    /// Notes one number.
    pub fn insert(&mut self, seq: u64) -> Insert {
        if seq <= self.upto {
            return Insert::Duplicate;
        }
        // The first range that ends at or after the number's predecessor: the only one that can hold or touch it.
        let at = self.ahead.partition_point(|range| range.1 < seq - 1);
        let is_full = self.ahead.len() >= MAX_RANGES && seq != self.upto + 1;
        match self.ahead.get_mut(at) {
            Some(range) if range.0 <= seq && seq <= range.1 => return Insert::Duplicate,
            Some(range) if range.1 == seq - 1 => range.1 = seq,
            Some(range) if range.0 - 1 == seq => range.0 = seq,
            _ if is_full => return Insert::NoRoom,
            _ => self.ahead.insert(at, (seq, seq)),
        }
        self.absorb();
        Insert::New
    }

    /// Joins ranges that touch each other or the contiguous part.
    fn absorb(&mut self) {
        let mut joined: Vec<Range> = Vec::with_capacity(self.ahead.len());
        for range in self.ahead.drain(..) {
            if range.0 <= self.upto.saturating_add(1) {
                self.upto = self.upto.max(range.1);
                continue;
            }
            match joined.last_mut() {
                Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
                _ => joined.push(range),
            }
        }
        self.ahead = joined;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn gaps_hold_the_acknowledgement_back_until_they_close() {
        let mut received = Received::default();
        assert_eq!([1, 2, 5, 4].map(|seq| received.insert(seq)), [Insert::New; 4]);
        assert_eq!((received.upto(), received.ahead()), (2, &[(4, 5)][..]));
        assert_eq!(received.insert(5), Insert::Duplicate);
        assert_eq!(received.insert(3), Insert::New);
        assert_eq!((received.upto(), received.ahead().len()), (5, 0));
    }

    #[test]
    fn numbers_below_the_floor_are_not_waited_for() {
        let mut received = Received::default();
        received.insert(7);
        received.raise_floor(7);
        assert_eq!(received.upto(), 7);
        received.raise_floor(3);
        assert_eq!(received.upto(), 7, "a lower floor changes nothing");
    }

    #[test]
    fn every_second_number_can_not_grow_the_row_without_bound() {
        let mut received = Received::default();
        let refused = (1..10_000).filter(|n| received.insert(n * 2) == Insert::NoRoom).count();
        assert!(refused > 8000 && received.ahead().len() == MAX_RANGES);
        assert_eq!(received.insert(1), Insert::New, "what closes the first gap always finds room");
    }

    #[test]
    fn skipped_numbers_agree_with_a_plain_set_whatever_was_there() {
        for seed in 0..300u64 {
            let (mut received, mut model) = (Received::default(), BTreeSet::new());
            let mut x = seed;
            for _ in 0..30 {
                x = (x.wrapping_mul(6_364_136_223_846_793_005)).wrapping_add(1_442_695_040_888_963_407);
                let (first, length) = ((x >> 33) % 40 + 1, (x >> 50) % 6);
                if x.is_multiple_of(2) {
                    received.skip(first, first + length);
                    model.extend(first..=first + length);
                } else {
                    let expected = if model.insert(first) { Insert::New } else { Insert::Duplicate };
                    assert_eq!(received.insert(first), expected, "seed {seed}");
                }
                let held = |n: &u64| {
                    *n <= received.upto() || received.ahead().iter().any(|r| r.0 <= *n && *n <= r.1)
                };
                let found: BTreeSet<u64> = (1..60).filter(held).collect();
                assert_eq!(found, model, "seed {seed}");
                let again = Received::new(received.upto(), received.ahead().to_vec());
                assert_eq!(again, received, "seed {seed}: ranges are joined");
            }
        }
    }

    #[test]
    fn the_end_of_the_numbers_is_no_panic() {
        let mut received = Received::default();
        received.skip(0, u64::MAX - 1);
        received.insert(u64::MAX);
        received.raise_floor(u64::MAX);
        assert_eq!(received.upto(), u64::MAX);
        assert_eq!(received.insert(u64::MAX), Insert::Duplicate);
    }

    #[test]
    fn any_order_agrees_with_a_plain_set() {
        // A small linear congruence walks through orders and repeats; the model is a set of numbers.
        for seed in 0..200u64 {
            let (mut received, mut model) = (Received::default(), BTreeSet::new());
            let mut x = seed;
            for _ in 0..60 {
                x = (x.wrapping_mul(6_364_136_223_846_793_005)).wrapping_add(1_442_695_040_888_963_407);
                let seq = (x >> 33) % 24 + 1;
                let expected = if model.insert(seq) { Insert::New } else { Insert::Duplicate };
                assert_eq!(received.insert(seq), expected, "seed {seed}");
                let upto = (1..=u64::MAX).take_while(|n| model.contains(n)).last().unwrap_or(0);
                assert_eq!(received.upto(), upto, "seed {seed}");
                let again = Received::new(received.upto(), received.ahead().to_vec());
                assert_eq!(again, received, "what the database gives back is the same");
            }
        }
    }
}
