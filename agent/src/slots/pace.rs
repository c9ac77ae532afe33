//! How long a release's requests take, with what is counted of them, as far as it decides where the next one runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Shorter than this an inference takes about as long as handing it to another thread and back does.
const SHORT: Duration = Duration::from_micros(300);
/// A longest time is forgotten by this part with each inference.
const FORGETS: u32 = 64;

/// The longest of the last inferences.
#[derive(Debug, Default)]
pub struct Pace {
    /// In microseconds, rounded up; 0 before the first inference.
    longest: AtomicU32,
}

impl Pace {
    /// Counts one. Two at once may count as one: it is an estimate.
    pub fn note(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).saturating_add(1);
        let longest = self.longest.load(Ordering::Relaxed);
        self.longest.store(took.max(longest - longest / FORGETS), Ordering::Relaxed);
    }

    /// Whether all of the last inferences were short.
    pub fn is_short(&self) -> bool {
        let longest = self.longest.load(Ordering::Relaxed);
        longest > 0 && Duration::from_micros(longest.into()) < SHORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_inference_is_remembered_for_many_short_ones() {
        let pace = Pace::default();
        assert!(!pace.is_short(), "nothing is known yet");
        pace.note(Duration::ZERO);
        assert!(pace.is_short());
        pace.note(Duration::from_secs(10_000));
        let short = (0..10_000).take_while(|_| {
            pace.note(Duration::from_micros(8));
            !pace.is_short()
        });
        assert!((500..2000).contains(&short.count()));
        pace.note(Duration::from_micros(400));
        assert!(!pace.is_short());
    }
}
