//! How much a release's requests compute, with what is counted of them, as far as it decides where the next one runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shorter than this an inference takes about as long as handing it to another thread and back does.
const SHORT: Duration = Duration::from_micros(100);
/// What was short is so until its mean is above this: the first requests meet cold memory, and on the way over other threads
/// all take longer.
const NO_MORE_SHORT: Duration = Duration::from_micros(300);
/// The last one counts by this part: one of ten milliseconds keeps the next forty out, one of a moment none.
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
    is_short: AtomicBool,
}

impl Pace {
    /// Counts one of so many rows that took so much CPU time. Two at once may count as one: it is an estimate.
    pub fn note(&self, took: Duration, rows: usize) {
        let is_first = self.nanos.load(Ordering::Relaxed) == 0;
        let follow = |mean: &AtomicU32, last: u32| {
            let before = if is_first { last } else { mean.load(Ordering::Relaxed) };
            mean.store((before - before / SHARE).saturating_add(last / SHARE).max(1), Ordering::Relaxed);
        };
        follow(&self.rows, u32::try_from(rows).unwrap_or(u32::MAX).saturating_mul(PART));
        follow(&self.nanos, u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        let bound = if self.is_short() { NO_MORE_SHORT } else { SHORT };
        let mean = Duration::from_nanos(self.nanos.load(Ordering::Relaxed).into());
        self.is_short.store(mean < bound, Ordering::Relaxed);
    }

    /// Whether the last inferences were short.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// Whether what is known of the last inferences tells how long one of so many rows takes.
    pub fn admits(&self, rows: usize) -> bool {
        let most = self.rows.load(Ordering::Relaxed).saturating_mul(FAR);
        u32::try_from(rows).unwrap_or(u32::MAX).saturating_mul(PART) <= most
    }
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
        assert!((20..100).contains(&short_ones_until_short(&pace)));
        pace.note(Duration::from_secs(10_000), 1);
        assert!((100..500).contains(&short_ones_until_short(&pace)));
        for _ in 0..100 {
            pace.note(Duration::from_micros(8), 1);
        }
        pace.note(Duration::from_millis(4), 1);
        assert!(pace.is_short());
        for _ in 0..100 {
            pace.note(Duration::from_micros(200), 1);
        }
        assert!(pace.is_short(), "it was before");
        pace.note(Duration::from_millis(10), 1);
        for _ in 0..100 {
            pace.note(Duration::from_micros(200), 1);
        }
        assert!(!pace.is_short(), "it was not before");
        let one_in_ten = (0..200).map(|n| Duration::from_micros(if n % 10 == 0 { 3000 } else { 8 }));
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
}
