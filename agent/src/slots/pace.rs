//! How much a release's requests compute, with what is counted of them, as far as it decides where the next one runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shorter than this an inference takes about as long as handing it to another thread and back does.
const SHORT: Duration = Duration::from_micros(100);
/// The last one counts by this part: one of ten milliseconds keeps the next forty out, one of a moment
/// none.
const SHARE: u32 = 16;

/// CPU time of this thread: what an inference takes, whatever else the device does in these moments.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}

/// The mean of the last inferences, in CPU time.
#[derive(Debug, Default)]
pub struct Pace {
    /// In nanoseconds, rounded up; 0 before the first inference.
    mean: AtomicU32,
}

impl Pace {
    /// Counts one that took so much CPU time. Two at once may count as one: it is an estimate.
    pub fn note(&self, took: Duration) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).max(1);
        let mean = match self.mean.load(Ordering::Relaxed) {
            0 => took,
            mean => (mean - mean / SHARE).saturating_add(took.div_ceil(SHARE)),
        };
        self.mean.store(mean, Ordering::Relaxed);
    }

    /// Whether the last inferences were short.
    pub fn is_short(&self) -> bool {
        let mean = self.mean.load(Ordering::Relaxed);
        mean > 0 && Duration::from_nanos(mean.into()) < SHORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short_ones_until_short(pace: &Pace) -> usize {
        let short = (0..10_000).take_while(|_| {
            pace.note(Duration::from_micros(8));
            !pace.is_short()
        });
        short.count()
    }

    #[test]
    fn one_long_inference_is_remembered_for_many_short_ones_and_a_moment_for_none() {
        let pace = Pace::default();
        assert!(!pace.is_short(), "nothing is known yet");
        pace.note(Duration::ZERO);
        assert!(pace.is_short());
        pace.note(Duration::from_millis(10));
        assert!((20..100).contains(&short_ones_until_short(&pace)));
        pace.note(Duration::from_secs(10_000));
        assert!((100..500).contains(&short_ones_until_short(&pace)));
        for _ in 0..100 {
            pace.note(Duration::from_micros(8));
        }
        pace.note(Duration::from_micros(400));
        assert!(pace.is_short());
        let one_in_ten = (0..200).map(|n| Duration::from_micros(if n % 10 == 0 { 3000 } else { 8 }));
        one_in_ten.for_each(|took| pace.note(took));
        assert!(!pace.is_short());
    }
}
