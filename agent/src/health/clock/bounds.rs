//! What bounds the clock, as plain arithmetic: every instant comes in as an argument.
//!
//! Whose word counts: a wall clock that stands at or after the floor (give or take [`SLACK_MS`]) runs, and no server
//! leads it further; one that stands earlier was lost, and signed time takes its place, up to the end of root.

use std::time::Instant;

use protocol::UnixMillis;
use trust::clock::TimeFloor;

/// A higher floor is written to disk only when it has moved by this much: flash wears.
pub(super) const PERSIST_STEP_MS: i64 = 60 * 60 * 1000;
/// By how much two clocks may differ before one of them is said to be wrong.
pub(super) const SLACK_MS: i64 = 24 * 60 * 60 * 1000;
/// One part in so many is taken off what the monotonic clock counts: a fast oscillator shall not lead past the truth.
const OSCILLATOR_SLACK: u128 = 1000;

#[derive(Debug)]
pub(super) struct Bounds {
    floor: TimeFloor,
    built: UnixMillis,
    /// A time that had been reached at `since`.
    base: UnixMillis,
    since: Instant,
    persisted: UnixMillis,
    /// No true floor is later; none before it is known who may raise it.
    pub(super) latest: Option<UnixMillis>,
    /// No signed time after this is believed: root, which no server signs, ends then.
    signed_until: Option<UnixMillis>,
    /// A stored floor that can't be true.
    pub(super) set_aside: Option<UnixMillis>,
    /// The last signed time, if it was not believed, and what it was now.
    pub(super) ahead: Option<(UnixMillis, UnixMillis)>,
}

impl Bounds {
    pub(super) fn new(built: UnixMillis, stored: Option<UnixMillis>) -> Self {
        let mut floor = TimeFloor::new(built);
        let persisted = stored.unwrap_or_default();
        floor.raise(persisted);
        Self {
            floor,
            built,
            base: floor.get(),
            since: Instant::now(),
            persisted,
            latest: None,
            signed_until: None,
            set_aside: None,
            ahead: None,
        }
    }

    pub(super) fn floor(&self) -> UnixMillis {
        self.floor.get()
    }

    pub(super) fn bound(&mut self, latest: UnixMillis) {
        // The build has happened, whatever a certificate says.
        let latest = latest.max(self.built);
        let floor = self.floor();
        if floor > latest {
            self.forget();
            self.set_aside = Some(floor);
        }
        self.latest = Some(latest);
    }

    pub(super) fn believe_until(&mut self, root_ends: UnixMillis) {
        self.signed_until = Some(root_ends);
    }

    /// Back to what needs nobody's word: the build.
    pub(super) fn forget(&mut self) {
        *self = Self { latest: self.latest, ..Self::new(self.built, None) };
    }

    /// What must have been reached by now.
    pub(super) fn reached(&self) -> UnixMillis {
        let passed = self.since.elapsed().as_millis();
        let passed = passed - passed / OSCILLATOR_SLACK;
        self.base.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    pub(super) fn now(&self, wall: UnixMillis) -> UnixMillis {
        self.reached().max(wall)
    }

    /// Takes a signed time for what it is worth beside this wall clock.
    pub(super) fn hear(&mut self, signed: UnixMillis, wall: UnixMillis) {
        let now = self.now(wall);
        let believed = if wall.plus_millis(SLACK_MS) >= self.floor() {
            // Never past a clock that runs: else it would seem lost to the next signed time.
            (signed <= now.plus_millis(SLACK_MS)).then(|| signed.min(now))
        } else {
            let bounds = [self.latest, self.signed_until];
            bounds.into_iter().flatten().all(|bound| signed <= bound).then_some(signed)
        };
        self.ahead = believed.is_none().then_some((signed, now));
        if let Some(to) = believed {
            self.raise(to);
        }
    }

    fn raise(&mut self, to: UnixMillis) {
        self.floor.raise(to);
        if to > self.reached() {
            (self.base, self.since) = (to, Instant::now());
        }
    }

    /// What is worth writing to disk: far enough above what lies there.
    pub(super) fn due(&mut self) -> Option<UnixMillis> {
        let reached = self.reached();
        (reached.millis_since(self.persisted) >= PERSIST_STEP_MS).then(|| {
            self.persisted = reached;
            reached
        })
    }

    /// As if it had been made earlier.
    #[cfg(test)]
    fn aged(mut self, by: std::time::Duration) -> Option<Self> {
        self.since = self.since.checked_sub(by)?;
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY_MS: i64 = SLACK_MS;
    const BUILT: UnixMillis = UnixMillis(1_000 * DAY_MS);

    fn day(n: i64) -> UnixMillis {
        BUILT.plus_millis(n * DAY_MS)
    }

    #[test]
    fn f3_a_server_ahead_of_time_freezes_nobody() {
        let (mut bounds, wall) = (Bounds::new(BUILT, Some(day(9))), day(10));
        bounds.hear(day(60), wall);
        assert_eq!(bounds.ahead, Some((day(60), wall)), "it is said");
        assert_eq!((bounds.floor(), bounds.now(wall)), (day(9), wall), "and it moves nothing");
        bounds.hear(day(10), wall);
        assert_eq!((bounds.floor(), bounds.ahead), (day(10), None), "the right time heals");
    }

    #[test]
    fn f3_no_number_of_small_steps_leads_past_a_clock_that_runs() {
        let (mut bounds, wall) = (Bounds::new(BUILT, Some(day(9))), day(10));
        for _ in 0..100 {
            bounds.hear(bounds.now(wall).plus_millis(DAY_MS - 1), wall);
            assert!(bounds.floor() < wall.plus_millis(DAY_MS), "{:?}", bounds.floor());
        }
        // One that was set back by less than a day is no lost one.
        let wall = day(9).plus_millis(DAY_MS / 2);
        bounds.hear(day(60), wall);
        assert_eq!(bounds.ahead.map(|(signed, _)| signed), Some(day(60)));
        assert!(bounds.floor() < day(11));
    }

    #[test]
    fn f3_a_clock_that_was_lost_takes_signed_time_up_to_the_end_of_root() {
        let (mut bounds, lost) = (Bounds::new(BUILT, Some(day(9))), UnixMillis(10_000));
        bounds.bound(day(3_650));
        bounds.believe_until(day(365));
        bounds.hear(day(100), lost);
        assert_eq!((bounds.floor(), bounds.ahead), (day(100), None));
        bounds.hear(day(366), lost);
        assert_eq!((bounds.floor(), bounds.ahead.is_some()), (day(100), true));
    }

    #[test]
    fn a_signed_time_after_the_end_of_the_ca_raises_nothing() {
        let (mut bounds, lost) = (Bounds::new(BUILT, None), UnixMillis(0));
        bounds.bound(day(365));
        bounds.hear(day(365).plus_millis(1), lost);
        assert_eq!(bounds.floor(), BUILT);
        bounds.hear(day(365), lost);
        assert_eq!(bounds.floor(), day(365));
    }

    #[test]
    fn what_has_passed_is_kept_once_it_is_worth_a_write() {
        let at = |ago| Bounds::new(BUILT, Some(BUILT)).aged(ago);
        assert_eq!(at(Duration::ZERO).unwrap().due(), None);
        // A machine that was just booted has no earlier instants.
        let long = Duration::from_millis(u64::try_from(PERSIST_STEP_MS).unwrap() * 2);
        if let Some(mut bounds) = at(long) {
            assert!(bounds.due().unwrap().millis_since(BUILT) >= PERSIST_STEP_MS);
            assert_eq!(bounds.due(), None, "once is enough");
        }
    }
}
