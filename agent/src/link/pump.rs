//! Which part of the spool is on the way. Pure: it decides what to send next and when to send again; deleting is the
//! spool's, on the server's cumulative acknowledgement only.
//!
//! Live first: what became durable after the connect goes ahead, the backlog follows behind it in the room that is
//! left. An acknowledgement names the ranges that are stored above the cumulative number, so both lanes move on.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Live batches in a row before the backlog gets a turn: a device that is always busy drains it too.
const LIVE_RUN: u32 = 3;

/// Numbers to read for one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    /// The first one that was not sent yet.
    pub(super) from: u64,
    /// None from here on.
    pub(super) before: u64,
    is_live: bool,
}

/// A batch on the way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    first: u64,
    last: u64,
    sent_at: Instant,
    /// A batch that was sent later has arrived: this one may be lost, whatever else moves on.
    is_overtaken: bool,
}

/// The sending side of the sliding window.
#[derive(Debug)]
pub(super) struct Pump {
    window: usize,
    ack_timeout: Duration,
    /// Next number of the backlog; it ends before `split`.
    backlog: u64,
    split: u64,
    /// Next number of what is live.
    live: u64,
    live_run: u32,
    /// Batches on the way, as they were sent.
    outstanding: VecDeque<Flight>,
    last_progress: Instant,
    stalls: u32,
}

impl Pump {
    pub(super) fn new(window: usize, ack_timeout: Duration, now: Instant) -> Self {
        Self {
            window,
            ack_timeout,
            backlog: 1,
            split: 1,
            live: 1,
            live_run: 0,
            outstanding: VecDeque::new(),
            last_progress: now,
            stalls: 0,
        }
    }

    /// Other bounds from now on.
    pub(super) fn reconfigure(&mut self, window: usize, ack_timeout: Duration) {
        (self.window, self.ack_timeout) = (window, ack_timeout);
    }

    /// A fresh connection: nothing is on the way, everything not acknowledged goes again; what comes after `durable`
    /// is live.
    pub(super) fn restart(&mut self, durable: u64, now: Instant) {
        self.split = durable.saturating_add(1);
        (self.backlog, self.live, self.live_run) = (1, self.split, 0);
        self.outstanding.clear();
        self.last_progress = now;
    }

    /// What to read next, if the window has room and there is anything; `sendable` is the highest number to send.
    pub(super) fn next(&self, sendable: u64) -> Option<Lane> {
        let has_live = self.live <= sendable;
        let has_backlog = self.backlog < self.split;
        let room = self.window.saturating_sub(self.outstanding.len());
        // One place stays free for what is live.
        let backlog_room = if self.window > 1 && self.split > 1 { room.saturating_sub(1) } else { room };
        let is_its_turn = !has_live || self.live_run >= LIVE_RUN;
        if has_backlog && backlog_room > 0 && is_its_turn {
            let before = self.split.min(sendable.saturating_add(1));
            return Some(Lane { from: self.backlog, before, is_live: false })
                .filter(|lane| lane.from < lane.before);
        }
        (has_live && room > 0).then(|| Lane {
            from: self.live,
            before: sendable.saturating_add(1),
            is_live: true,
        })
    }

    /// Nothing is left in this lane.
    pub(super) fn exhausted(&mut self, lane: Lane) {
        self.advance(lane, lane.before);
    }

    /// A batch of this lane up to `last_seq` was handed over.
    pub(super) fn sent(&mut self, lane: Lane, last_seq: u64, now: Instant) {
        if self.outstanding.is_empty() {
            self.last_progress = now;
        }
        let flight = Flight { first: lane.from, last: last_seq, sent_at: now, is_overtaken: false };
        self.outstanding.push_back(flight);
        self.advance(lane, last_seq.saturating_add(1));
    }

    fn advance(&mut self, lane: Lane, next: u64) {
        if lane.is_live {
            (self.live, self.live_run) = (next, self.live_run.saturating_add(1));
        } else {
            (self.backlog, self.live_run) = (next, 0);
        }
    }

    /// The server has everything up to `upto_seq`, and these ranges above it.
    pub(super) fn acknowledged(&mut self, upto_seq: u64, ahead: &[(u64, u64)], now: Instant) {
        let has_arrived = |flight: &Flight| {
            let is_ahead = ahead.iter().any(|range| range.0 <= flight.first && flight.last <= range.1);
            flight.last <= upto_seq || is_ahead
        };
        let Some(latest) = self.outstanding.iter().rposition(has_arrived) else { return };
        self.outstanding.iter_mut().take(latest).for_each(|flight| flight.is_overtaken = true);
        self.outstanding.retain(|flight| !has_arrived(flight));
        (self.last_progress, self.stalls) = (now, 0);
    }

    /// When to send again if nothing is acknowledged until then; later after each stall. Progress of later batches
    /// gives an overtaken one no more time: live telemetry would hide a lost backlog for ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let wait = self.ack_timeout.saturating_mul(2_u32.saturating_pow(self.stalls.min(5)));
        let due = |flight: &Flight| if flight.is_overtaken { flight.sent_at } else { self.last_progress };
        self.outstanding.iter().map(|flight| due(flight) + wait).min()
    }

    /// The deadline has passed: all of it goes again, in plain order. A server that names no ranges gets on with that.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.stalls += 1;
        self.restart(0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn pump(durable: u64) -> (Pump, Instant) {
        let now = Instant::now();
        let mut pump = Pump::new(3, TIMEOUT, now);
        pump.restart(durable, now);
        (pump, now)
    }

    fn send(pump: &mut Pump, sendable: u64, last: u64) -> u64 {
        let lane = pump.next(sendable).unwrap();
        pump.sent(lane, last, Instant::now());
        lane.from
    }

    #[test]
    fn the_backlog_goes_in_order_and_leaves_a_place_for_what_is_live() {
        let (mut pump, now) = pump(100);
        assert_eq!((send(&mut pump, 100, 10), send(&mut pump, 100, 20)), (1, 11));
        assert_eq!(pump.next(100), None, "the third place is kept free");
        assert_eq!(send(&mut pump, 105, 105), 101, "a live record overtakes");
        assert_eq!(pump.next(110), None, "the window is full");
        pump.acknowledged(9, &[], now);
        assert_eq!(pump.next(110), None, "not the whole batch");
        pump.acknowledged(10, &[(101, 105)], now);
        assert_eq!(send(&mut pump, 110, 110), 106);
        pump.acknowledged(20, &[(101, 110)], now);
        assert_eq!((send(&mut pump, 110, 100), pump.next(110)), (21, None));
    }

    #[test]
    fn a_device_that_is_always_busy_drains_its_backlog_too() {
        let (mut pump, now) = pump(1000);
        let (mut sendable, mut lanes) = (1001, Vec::new());
        for _ in 0..12 {
            let lane = pump.next(sendable).unwrap();
            lanes.push(lane.is_live);
            let last = if lane.is_live { sendable } else { lane.from + 9 };
            pump.sent(lane, last, now);
            pump.acknowledged(u64::MAX, &[], now);
            sendable += 1;
        }
        assert_eq!(lanes.iter().filter(|is_live| !**is_live).count(), 3, "{lanes:?}");
    }

    #[test]
    fn without_progress_everything_goes_again_in_order_and_each_stall_waits_longer() {
        let (mut pump, now) = pump(10);
        let lane = pump.next(10).unwrap();
        pump.sent(lane, 10, now);
        assert_eq!(pump.deadline(), Some(now + TIMEOUT));
        pump.stalled(now);
        assert_eq!(pump.deadline(), None);
        let lane = pump.next(12).unwrap();
        assert_eq!((lane.from, lane.before), (1, 13), "live ones are no exception now");
        pump.sent(lane, 10, now);
        assert_eq!(pump.deadline(), Some(now + TIMEOUT * 2));
        pump.acknowledged(10, &[], now);
        let lane = pump.next(12).unwrap();
        pump.sent(lane, 12, now);
        assert_eq!(pump.deadline(), Some(now + TIMEOUT));
    }

    #[test]
    fn a_lost_batch_goes_again_though_later_ones_arrive() {
        let (mut pump, now) = pump(10);
        let lane = pump.next(10).unwrap();
        pump.sent(lane, 10, now);
        for second in 1..=19 {
            let (now, seq) = (now + Duration::from_secs(second), 10 + second);
            let lane = pump.next(seq).unwrap();
            pump.sent(lane, seq, now);
            pump.acknowledged(0, &[(11, seq)], now);
        }
        assert_eq!(pump.deadline(), Some(now + TIMEOUT), "what is live has not moved it");
        pump.stalled(now + TIMEOUT);
        assert_eq!(pump.next(29).map(|lane| lane.from), Some(1));
    }

    #[test]
    fn an_empty_lane_is_passed_over_until_something_comes() {
        let (mut pump, _) = pump(0);
        let lane = pump.next(0);
        assert_eq!(lane, None, "nothing was ever stored");
        let lane = pump.next(5).unwrap();
        pump.exhausted(lane);
        assert_eq!(pump.next(5), None);
        assert_eq!(pump.next(6).map(|lane| lane.from), Some(6));
    }
}
