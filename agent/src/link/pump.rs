//! Which part of the spool is on the way. Pure: it decides what to send next and when to send again; deleting is the
//! spool's, on the server's cumulative acknowledgement only.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The sending side of the sliding window.
#[derive(Debug)]
pub(super) struct Pump {
    window: usize,
    ack_timeout: Duration,
    cursor: u64,
    outstanding: VecDeque<u64>,
    last_progress: Instant,
    stalls: u32,
}

impl Pump {
    pub(super) fn new(window: usize, ack_timeout: Duration, now: Instant) -> Self {
        Self { window, ack_timeout, cursor: 0, outstanding: VecDeque::new(), last_progress: now, stalls: 0 }
    }

    /// A fresh connection: nothing is on the way, everything not acknowledged goes again.
    pub(super) fn restart(&mut self, now: Instant) {
        self.cursor = 0;
        self.outstanding.clear();
        self.last_progress = now;
    }

    /// Where to read from, if the window has room.
    pub(super) fn read_from(&self) -> Option<u64> {
        (self.outstanding.len() < self.window).then_some(self.cursor)
    }

    /// Whether a chunk that begins with `first_seq` may go now. A gap before it is only understood by the server
    /// when nothing is on the way: then the batch's floor is its first record.
    pub(super) fn may_send(&self, first_seq: u64) -> bool {
        self.outstanding.is_empty() || first_seq == self.cursor
    }

    /// A chunk up to `last_seq` was handed over.
    pub(super) fn sent(&mut self, last_seq: u64, now: Instant) {
        if self.outstanding.is_empty() {
            self.last_progress = now;
        }
        self.outstanding.push_back(last_seq);
        self.cursor = last_seq + 1;
    }

    /// The server has everything up to `upto_seq`.
    pub(super) fn acknowledged(&mut self, upto_seq: u64, now: Instant) {
        let before = self.outstanding.len();
        while self.outstanding.front().is_some_and(|last| *last <= upto_seq) {
            self.outstanding.pop_front();
        }
        if self.outstanding.len() < before {
            (self.last_progress, self.stalls) = (now, 0);
        }
    }

    /// When to send again if nothing is acknowledged until then; later after each stall.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let wait = self.ack_timeout.saturating_mul(2_u32.saturating_pow(self.stalls.min(5)));
        (!self.outstanding.is_empty()).then(|| self.last_progress + wait)
    }

    /// The deadline has passed.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.stalls += 1;
        self.restart(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn pump() -> (Pump, Instant) {
        let now = Instant::now();
        (Pump::new(2, TIMEOUT, now), now)
    }

    #[test]
    fn the_window_fills_and_opens_with_acknowledgements() {
        let (mut pump, now) = pump();
        assert_eq!(pump.read_from(), Some(0));
        pump.sent(10, now);
        assert_eq!(pump.read_from(), Some(11));
        pump.sent(20, now);
        assert_eq!(pump.read_from(), None);
        pump.acknowledged(9, now);
        assert_eq!(pump.read_from(), None, "not the whole batch");
        pump.acknowledged(20, now);
        assert_eq!((pump.read_from(), pump.deadline()), (Some(21), None));
    }

    #[test]
    fn without_progress_everything_goes_again_and_each_stall_waits_longer() {
        let (mut pump, now) = pump();
        pump.sent(10, now);
        assert_eq!(pump.deadline(), Some(now + TIMEOUT));
        pump.stalled(now);
        assert_eq!((pump.read_from(), pump.deadline()), (Some(0), None));
        pump.sent(10, now);
        assert_eq!(pump.deadline(), Some(now + TIMEOUT * 2));
        pump.acknowledged(10, now);
        pump.sent(20, now);
        assert_eq!(pump.deadline(), Some(now + TIMEOUT));
    }

    #[test]
    fn a_gap_waits_until_nothing_is_on_the_way() {
        let (mut pump, now) = pump();
        pump.sent(10, now);
        assert!(pump.may_send(11) && !pump.may_send(15));
        pump.acknowledged(10, now);
        assert!(pump.may_send(15));
    }
}
