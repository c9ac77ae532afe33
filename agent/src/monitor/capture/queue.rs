//! Samples on their way to the disk, bounded by bytes: a batch that is labelled at once fits, a disk that can't keep up
//! costs no more memory than that. The most valuable goes first; when it is full, the least valuable makes room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use protocol::sample::Strategy;

use super::draft::Draft;

/// Drafts that wait. Full: the newest of the lowest strategy is dropped, or the one that comes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By strategy, the lowest first; none is empty.
    lanes: BTreeMap<Strategy, VecDeque<Draft>>,
    bytes: usize,
    is_closed: bool,
}

impl Waiting {
    fn lower_bytes(&self, strategy: Strategy) -> usize {
        self.lanes.range(..strategy).flat_map(|(_, lane)| lane).map(Draft::size_bytes).sum()
    }

    /// Takes one out of a lane.
    fn pop(&mut self, strategy: Strategy, pick: fn(&mut VecDeque<Draft>) -> Option<Draft>) -> Option<Draft> {
        let lane = self.lanes.get_mut(&strategy)?;
        let draft = pick(lane)?;
        if lane.is_empty() {
            self.lanes.remove(&strategy);
        }
        self.bytes = self.bytes.saturating_sub(draft.size_bytes());
        Some(draft)
    }

    fn lowest(&self) -> Option<Strategy> {
        self.lanes.first_key_value().map(|(strategy, _)| *strategy)
    }

    fn highest(&self) -> Option<Strategy> {
        self.lanes.last_key_value().map(|(strategy, _)| *strategy)
    }
}

impl Queue {
    /// Takes a draft in; alone it always has room. Returns how many were dropped for it, itself included.
    pub(super) fn push(&self, draft: Draft, max_bytes: usize) -> u64 {
        let mut waiting = self.lock();
        let (strategy, size) = (draft.head.strategy, draft.size_bytes());
        let has_room = |used: usize| used == 0 || used.saturating_add(size) <= max_bytes;
        let is_full = !has_room(waiting.bytes);
        if waiting.is_closed || is_full && !has_room(waiting.bytes - waiting.lower_bytes(strategy)) {
            return 1;
        }
        let mut dropped = 0;
        while !has_room(waiting.bytes)
            && let Some(lowest) = waiting.lowest()
            && waiting.pop(lowest, VecDeque::pop_back).is_some()
        {
            dropped += 1;
        }
        waiting.bytes += size;
        waiting.lanes.entry(strategy).or_default().push_back(draft);
        self.came.notify_one();
        dropped
    }

    /// Waits for the most valuable draft, the oldest of its strategy; none once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Draft> {
        let mut waiting = self.lock();
        loop {
            if let Some(draft) =
                waiting.highest().and_then(|highest| waiting.pop(highest, VecDeque::pop_front))
            {
                return Some(draft);
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Throws away what waits, and says how many.
    pub(super) fn clear(&self) -> u64 {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.lanes).into_values().map(|lane| lane.len() as u64).sum()
    }

    /// Takes nothing more in; what waits can still be taken out.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.came.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use protocol::sample::Said;

    use super::super::draft::Reason;
    use super::super::draft::tests::{inputs, origin};
    use super::*;

    fn draft(id: &str, strategy: Strategy) -> Draft {
        let reason = Reason::new(strategy, 1.0);
        Draft::new(&origin(id, 1), &inputs(1), 0, Said::default(), reason).unwrap()
    }

    fn ids(queue: &Queue) -> Vec<String> {
        queue.close();
        std::iter::from_fn(|| queue.take()).map(|draft| draft.head.id).collect()
    }

    #[test]
    fn the_most_valuable_goes_first_and_the_oldest_of_its_kind() {
        let queue = Queue::default();
        for (id, strategy) in [
            ("r", Strategy::Random),
            ("c1", Strategy::Contradiction),
            ("u", Strategy::Uncertainty),
            ("c2", Strategy::Contradiction),
        ] {
            assert_eq!(queue.push(draft(id, strategy), usize::MAX), 0);
        }
        assert_eq!(ids(&queue), ["c1", "c2", "u", "r"]);
    }

    #[test]
    fn when_it_is_full_the_least_valuable_makes_room_and_never_the_other_way() {
        let queue = Queue::default();
        let room = draft("x", Strategy::Random).size_bytes() * 3;
        for id in ["r1", "r2", "r3"] {
            assert_eq!(queue.push(draft(id, Strategy::Random), room), 0);
        }
        assert_eq!(queue.push(draft("r4", Strategy::Random), room), 1, "among equals the newest goes");
        assert_eq!(queue.push(draft("c1", Strategy::Contradiction), room), 1);
        assert_eq!(queue.push(draft("u1", Strategy::Uncertainty), room), 1);
        assert_eq!(queue.push(draft("r5", Strategy::Random), room), 1);
        assert_eq!(ids(&queue), ["c1", "u1", "r1"]);
        assert_eq!(queue.push(draft("late", Strategy::Random), room), 1, "it is closed");
    }

    #[test]
    fn a_draft_that_can_not_fit_displaces_nothing_and_one_alone_always_fits() {
        let queue = Queue::default();
        assert_eq!(queue.push(draft("c", Strategy::Contradiction), 1), 0);
        assert_eq!(queue.push(draft("d", Strategy::Contradiction), 1), 1);
        assert_eq!((queue.clear(), queue.clear()), (1, 0));
        assert_eq!(queue.push(draft("r", Strategy::Random), 1), 0);
        assert_eq!(queue.push(draft("e", Strategy::Contradiction), 1), 1);
        assert_eq!(ids(&queue), ["e"]);
    }
}
