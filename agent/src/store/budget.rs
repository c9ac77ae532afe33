//! The budget of flash writes. Counted is what the kernel says that this process has caused to be written, blobs and
//! boot record included: that is what wears the device. What the spool can do about it is to commit less often.

use std::time::Duration;

use protocol::UnixMillis;

const DAY_MS: i64 = 24 * 3600 * 1000;
/// The longest that commits are put off.
const LONGEST: Duration = Duration::from_mins(1);
/// A day further ahead was a mistake of the clock.
const MAX_DAYS_AHEAD: i64 = 7;
/// Part of the day's budget that may be used before its time: a start and an update write much at once.
const AHEAD: f64 = 0.25;
/// How much rarer commits get at the budget's edge.
const STEEPNESS: f64 = 8.0;

/// Bytes written in one day, against what may be.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Budget {
    /// 0: no bound.
    pub(super) per_day: u64,
    /// Which day, in days since 1970.
    pub(super) day: i64,
    /// Bytes written in it.
    pub(super) used: u64,
    last_total: Option<u64>,
}

impl Budget {
    pub(super) fn new(per_day: u64) -> Self {
        Self { per_day, ..Self::default() }
    }

    /// Takes over what an earlier run has counted.
    pub(super) fn resume(&mut self, day: i64, used: u64) {
        if day > self.day {
            (self.day, self.used) = (day, 0);
        }
        if day == self.day {
            self.used = self.used.saturating_add(used);
        }
    }

    /// The process has written `total` bytes since its start.
    pub(super) fn note(&mut self, now: UnixMillis, total: Option<u64>) {
        let day = now.0.div_euclid(DAY_MS);
        if is_other_day(day, self.day) {
            (self.day, self.used) = (day, 0);
        }
        if let (Some(total), last) = (total, self.last_total.unwrap_or(0)) {
            self.used = self.used.saturating_add(total.saturating_sub(last));
            self.last_total = Some(total);
        }
    }

    /// How far the day's writes are ahead of what the time of day permits; up to 1 is within the budget.
    fn pace(&self, now: UnixMillis) -> f64 {
        if self.per_day == 0 {
            return 0.0;
        }
        let of_day = now.0.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        self.used as f64 / (self.per_day as f64 * of_day.max(AHEAD))
    }

    /// Whether commits are rarer than configured.
    pub(super) fn is_exceeded(&self, now: UnixMillis) -> bool {
        self.pace(now) > 1.0
    }

    /// How long a record may wait instead of `wait`. What waits for nothing still waits for nothing.
    pub(super) fn stretch(&self, wait: Duration, now: UnixMillis) -> Duration {
        let pace = self.pace(now);
        if pace <= 1.0 { wait } else { wait.mul_f64((pace * STEEPNESS).min(1e6)).min(LONGEST.max(wait)) }
    }
}

/// Whether what was counted on the day `counted` is over on `today`. A clock that steps back stays in the newest day,
/// but not in one that it should never have named.
pub(super) fn is_other_day(today: i64, counted: i64) -> bool {
    today > counted || counted.saturating_sub(today) > MAX_DAYS_AHEAD
}

/// Bytes that this process has caused to be written; none where the kernel does not count them.
pub(super) fn written_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMillis = UnixMillis(DAY_MS / 2);
    const WAIT: Duration = Duration::from_millis(200);

    #[test]
    fn within_the_budget_nothing_waits_longer_and_over_it_commits_get_rarer_to_a_bound() {
        let mut budget = Budget::new(1000);
        budget.note(NOON, Some(500));
        assert_eq!((budget.stretch(WAIT, NOON), budget.is_exceeded(NOON)), (WAIT, false));
        budget.note(NOON, Some(600));
        let rarer = budget.stretch(WAIT, NOON);
        assert!(rarer > WAIT && rarer < LONGEST && budget.is_exceeded(NOON), "{rarer:?}");
        budget.note(NOON, Some(1_000_000));
        assert_eq!(budget.stretch(WAIT, NOON), LONGEST);
        assert_eq!(budget.stretch(Duration::ZERO, NOON), Duration::ZERO);
    }

    #[test]
    fn a_new_day_begins_anew_and_a_restart_goes_on() {
        let mut budget = Budget::new(1000);
        budget.note(NOON, Some(600));
        let mut after = Budget::new(1000);
        after.resume(budget.day, budget.used);
        after.note(NOON, Some(50));
        assert_eq!(after.used, 650);
        after.note(NOON.plus_millis(DAY_MS), Some(60));
        assert_eq!(after.used, 10);
        after.resume(0, 999);
        assert_eq!(after.used, 10, "an earlier day counts no more");
        after.note(NOON.plus_millis(3650 * DAY_MS), Some(70));
        after.note(NOON.plus_millis(DAY_MS), Some(75));
        assert_eq!(
            (after.day, after.used),
            (NOON.0 / DAY_MS + 1, 5),
            "a clock that was years ahead is set back"
        );
    }

    #[test]
    fn without_a_bound_nothing_is_exceeded() {
        let mut budget = Budget::new(0);
        budget.note(NOON, Some(u64::MAX));
        assert!(!budget.is_exceeded(NOON));
    }
}
