//! The crash-loop breaker: counts starts that ended early, in a row. Over the bound the agent starts without
//! models, so that it stays reachable and a fix can arrive.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable;

/// What this start may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Everything.
    Normal,
    /// No model is loaded: so many starts in a row ended early.
    WithoutModels {
        /// How many.
        early_ends: u32,
    },
}

/// Keeps the count on disk.
#[derive(Debug)]
pub struct Breaker {
    path: PathBuf,
}

impl Breaker {
    /// Counts this start as ended early until [`Breaker::settled`] is called. An unreadable count is taken for
    /// none, and one that can't be written (full disk) is only logged: the breaker must never be what keeps an
    /// agent down.
    pub fn start(state_dir: &Path, max_early_ends: u32) -> (Self, Start) {
        let path = state_dir.join("early-ends");
        let stored = durable::read_bounded(&path, 16).ok().flatten();
        let early_ends: u32 =
            stored.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()).unwrap_or(0);
        if let Err(error) = durable::write_atomic(&path, early_ends.saturating_add(1).to_string().as_bytes())
        {
            tracing::warn!(error = %error, "this start can't be counted; starting all the same");
        }
        let start =
            if early_ends >= max_early_ends { Start::WithoutModels { early_ends } } else { Start::Normal };
        (Self { path }, start)
    }

    /// Calls [`Breaker::settled`] after so long.
    pub fn settle_after(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let breaker = Self { path: self.path.clone() };
        async move {
            tokio::time::sleep(time).await;
            breaker.settled();
        }
    }

    /// The agent has run long enough, or ends in order.
    pub fn settled(&self) {
        if let Err(error) = durable::write_atomic(&self.path, b"0") {
            tracing::warn!(error = %error, "the count of early ends could not be reset");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_ends_in_a_row_start_without_models_and_a_settled_start_resets() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            assert_eq!(Breaker::start(dir.path(), 3).1, Start::Normal);
        }
        let (breaker, start) = Breaker::start(dir.path(), 3);
        assert_eq!(start, Start::WithoutModels { early_ends: 3 });
        breaker.settled();
        assert_eq!(Breaker::start(dir.path(), 3).1, Start::Normal);
    }

    #[test]
    fn garbage_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("early-ends"), "\u{fffd}").unwrap();
        assert_eq!(Breaker::start(dir.path(), 1).1, Start::Normal);
    }

    #[test]
    fn a_start_that_can_not_be_counted_is_a_start_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Breaker::start(&dir.path().join("absent"), 1).1, Start::Normal);
    }
}
