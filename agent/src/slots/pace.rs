//! How much a release's requests compute, with what is counted of them, as far as it decides where the next one runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shorter than this a request holds up the other ones about as long as waking a few threads does.
pub(super) const SHORT: Duration = Duration::from_micros(300);
/// The last one counts by this part: one of ten milliseconds keeps the next dozen out, one of a moment none.
const SHARE: u32 = 16;

/// CPU time of this thread: what an inference takes, whatever else the device does in these moments.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}

/// Rows are counted in parts of this.
const PART: u32 = 1 << 8;
/// A batch of more than so many times the mean rows is another matter than the last inferences.
const FAR: u32 = 4;

/// The mean of the last inferences.
#[derive(Debug, Default)]
pub struct Pace {
    /// CPU time in nanoseconds, rounded up; 0 before the first inference.
    nanos: AtomicU32,
    /// Rows, in [`PART`]s.
    rows: AtomicU32,
    /// Rows of which it was seen that they are short.
    known: usize,
}

impl Pace {
    /// Of a release of which one row takes `one`, and so many rows are short.
    pub fn known(one: Duration, rows: usize) -> Self {
        let pace = Self { known: rows, ..Self::default() };
        pace.note(one, 1);
        pace
    }

    /// Counts one of so many rows that took so much CPU time. Two at once may count as one: it is an estimate.
    pub fn note(&self, took: Duration, rows: usize) {
        let is_first = self.nanos.load(Ordering::Relaxed) == 0;
        let follow = |mean: &AtomicU32, last: u32| {
            let before = if is_first { last } else { mean.load(Ordering::Relaxed) };
            mean.store((before - before / SHARE).saturating_add(last / SHARE).max(1), Ordering::Relaxed);
        };
        follow(&self.rows, in_parts(rows));
        follow(&self.nanos, u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Whether the last inferences were short.
    pub fn is_short(&self) -> bool {
        let nanos = self.nanos.load(Ordering::Relaxed);
        nanos > 0 && Duration::from_nanos(nanos.into()) < SHORT
    }

    /// Whether what is known of the last inferences tells how long one of so many rows takes.
    pub fn admits(&self, rows: usize) -> bool {
        rows <= self.known || in_parts(rows) <= self.rows.load(Ordering::Relaxed).saturating_mul(FAR)
    }
}

fn in_parts(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX).saturating_mul(PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short_ones_until_short(pace: &Pace) -> usize {
        let short = (0..10_000).take_while(|_| {
            pace.note(Duration::from_micros(8), 1);
            !pace.is_short()
        });
        short.count()
    }

    #[test]
    fn one_long_inference_is_remembered_for_many_short_ones_and_a_moment_for_none() {
        let pace = Pace::default();
        assert!(!pace.is_short(), "nothing is known yet");
        pace.note(Duration::ZERO, 1);
        assert!(pace.is_short());
        pace.note(Duration::from_millis(10), 1);
        assert!((8..40).contains(&short_ones_until_short(&pace)));
        pace.note(Duration::from_secs(10_000), 1);
        assert!((50..500).contains(&short_ones_until_short(&pace)));
        for _ in 0..100 {
            pace.note(Duration::from_micros(8), 1);
        }
        pace.note(Duration::from_millis(4), 1);
        assert!(pace.is_short());
        let one_in_ten = (0..200).map(|n| Duration::from_micros(if n % 10 == 0 { 5000 } else { 8 }));
        one_in_ten.for_each(|took| pace.note(took, 1));
        assert!(!pace.is_short());
    }

    #[test]
    fn a_batch_much_larger_than_the_others_is_not_known() {
        let pace = Pace::default();
        for _ in 0..100 {
            pace.note(Duration::from_micros(8), 1);
        }
        assert!(pace.admits(1) && pace.admits(3) && !pace.admits(5) && !pace.admits(usize::MAX));
        for _ in 0..100 {
            pace.note(Duration::from_micros(50), 30);
        }
        assert!(pace.admits(1) && pace.admits(100) && !pace.admits(130));
    }

    #[test]
    fn a_batch_of_which_it_is_known_is_short_whatever_came_lately_and_large_ones_are_soon_forgotten() {
        let pace = Pace::known(Duration::from_micros(8), 32);
        assert!(pace.is_short() && pace.admits(32) && !pace.admits(33));
        for _ in 0..100 {
            pace.note(Duration::from_millis(2), 200);
        }
        assert!(!pace.is_short());
        let others = (0..100).take_while(|_| {
            pace.note(Duration::from_micros(200), 16);
            !pace.is_short()
        });
        assert!(others.count() < 50, "what is just short is so again");
    }
}
