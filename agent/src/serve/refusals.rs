//! How soon an overload is told. A few refusals leave at once: who comes back when `Retry-After` says is one of few. Of more
//! than that each answer waits for a moment, on a timer and without the body, so that those who come back at once take
//! no processor from those who have a place. It holds for all connections together: who opens a new one each time
//! is no quicker.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an answer waits, and over how long refusals are counted.
const PAUSE: Duration = Duration::from_millis(100);
/// Refusals in that time that don't wait.
const AT_ONCE: u32 = 8;

/// Counts the refusals of late.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Option<Lately>>);

#[derive(Debug, Clone, Copy)]
struct Lately {
    since: Instant,
    count: u32,
}

impl Refusals {
    /// Ends when a request that came then may be told that it was refused. Who has waited for its turn longer than
    /// that already waits no more.
    pub(super) async fn pause(&self, came: Instant) {
        if !self.is_at_once(Instant::now()) {
            tokio::time::sleep_until(came + PAUSE).await;
        }
    }

    fn is_at_once(&self, now: Instant) -> bool {
        let mut lately = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = lately.filter(|lately| now.saturating_duration_since(lately.since) < PAUSE);
        let Lately { since, count } = counted.unwrap_or(Lately { since: now, count: 0 });
        let count = count.saturating_add(1);
        *lately = Some(Lately { since, count });
        count <= AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_refusals_are_told_at_once_and_many_after_a_moment() {
        let (refusals, begun) = (Refusals::default(), Instant::now());
        let told_at_once = |at: Duration| (0..20).filter(|_| refusals.is_at_once(begun + at)).count();
        assert_eq!(told_at_once(Duration::ZERO), 8);
        assert_eq!(told_at_once(PAUSE / 2), 0);
        assert_eq!(told_at_once(PAUSE), 8, "those before are forgotten");
        assert_eq!(told_at_once(PAUSE + PAUSE / 2), 0);
        let now_and_then = (0..100).map(|n| begun + PAUSE * 2 + PAUSE / 8 * n);
        assert!(now_and_then.into_iter().all(|at| refusals.is_at_once(at)));
    }
}
