//! The crash-loop breaker: counts starts that ended early, in a row. Over the bound new releases are held back until
//! the agent has stayed up; what is committed serves at once, unless loading it is what ended the agent. An end while
//! loading is an early one whoever asked for it: a service manager ends like that what never gets ready.
//! Nothing here needs the disk to take a write: a count that can't be kept is a problem to report, no more.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::ModelName;

use super::kept_number::KeptNumber;
use crate::durable::{self, DurableError};

/// Loads of a model, in a row, that may end the agent before the model is held back too.
const MAX_LOST_LOADS: u32 = 3;
const MAX_LOADS_BYTES: u64 = 64 * 1024;

/// What this start may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Everything.
    Normal,
    /// No candidate is loaded: so many starts in a row ended early.
    HoldingBack {
        /// How many.
        early_ends: u32,
    },
}

/// Keeps the count on disk.
#[derive(Debug)]
pub struct Breaker {
    count: Arc<Mutex<KeptNumber>>,
}

impl Breaker {
    /// Counts this start as ended early until [`Breaker::settled`] is called. An unreadable count is taken for
    /// none: the breaker must never be what keeps an agent down. The error, if any, says why the count could not
    /// be kept.
    pub fn start(state_dir: &Path, max_early_ends: u32) -> (Self, Start, Option<DurableError>) {
        let path = state_dir.join("early-ends");
        let (mut count, stored) =
            KeptNumber::open(&path).unwrap_or_else(|_| (KeptNumber::begin_anew(&path), None));
        let early_ends = stored.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let kept = count.write(i64::from(early_ends.saturating_add(1)));
        let start =
            if early_ends >= max_early_ends { Start::HoldingBack { early_ends } } else { Start::Normal };
        (Self { count: Arc::new(Mutex::new(count)) }, start, kept.err())
    }

    /// Calls [`Breaker::settled`] after so long.
    pub fn settle_after(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let breaker = Self { count: Arc::clone(&self.count) };
        async move {
            tokio::time::sleep(time).await;
            breaker.settled();
        }
    }

    /// The agent has run long enough, or ends in order after it was ready.
    pub fn settled(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = count.write(0) {
            tracing::warn!(error = crate::chain(&error), "the count of early ends could not be reset");
        }
    }
}

/// Which models were being loaded when the agent ended, and how often in a row.
#[derive(Debug)]
pub struct LoadLog {
    path: PathBuf,
    lost: BTreeMap<ModelName, u32>,
}

impl LoadLog {
    /// Reads what the last starts left. What can't be read counts as nothing.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("lost-loads");
        let stored = durable::read_bounded(&path, MAX_LOADS_BYTES).ok().flatten();
        let lost = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, lost }
    }

    /// Whether loads of `model` have not ended the agent too often in a row.
    pub fn may_load(&self, model: &ModelName) -> bool {
        self.lost.get(model).is_none_or(|lost| *lost < MAX_LOST_LOADS)
    }

    /// `model` is about to be loaded. It is noted, where that is asked for, until the load comes back, well or not, or
    /// is given up in order.
    pub fn begin<'a>(&'a mut self, model: &'a ModelName, is_noted: bool) -> Loading<'a> {
        if is_noted {
            *self.lost.entry(model.clone()).or_default() += 1;
            self.keep();
        }
        Loading { log: self, model }
    }

    fn done(&mut self, model: &ModelName) {
        if self.lost.remove(model).is_some() {
            self.keep();
        }
    }

    fn keep(&self) {
        let bytes = serde_json::to_vec(&self.lost).unwrap_or_default();
        if let Err(error) = durable::write_atomic(&self.path, &bytes) {
            tracing::warn!(error = crate::chain(&error), "who is being loaded could not be noted");
        }
    }
}

/// Does `work`, unless `end` comes before it is done. `work` is then neither gone on with nor dropped: which load was
/// under way stays noted, as when the process is killed. Only for a process that ends after that.
///
/// # Errors
/// What `end` gave.
pub async fn unless_ended<T, E>(work: impl Future<Output = T>, end: impl Future<Output = E>) -> Result<T, E> {
    let mut work = ManuallyDrop::new(Box::pin(work));
    let ended = tokio::select! {
        biased;
        ended = end => return Err(ended),
        done = work.as_mut() => done,
    };
    drop(ManuallyDrop::into_inner(work));
    Ok(ended)
}

/// A load; dropping it takes the note away. What ends the process leaves it.
#[derive(Debug)]
pub struct Loading<'a> {
    log: &'a mut LoadLog,
    model: &'a ModelName,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.log.done(self.model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_ends_in_a_row_hold_back_and_a_settled_start_resets() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            assert_eq!(Breaker::start(dir.path(), 3).1, Start::Normal);
        }
        let (breaker, start, trouble) = Breaker::start(dir.path(), 3);
        assert_eq!((start, trouble.is_none()), (Start::HoldingBack { early_ends: 3 }, true));
        breaker.settled();
        assert_eq!(Breaker::start(dir.path(), 3).1, Start::Normal);
    }

    #[test]
    fn garbage_counts_as_none() {
        for name in ["early-ends", "early-ends.a", "early-ends.b"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(name), "\u{fffd}").unwrap();
            assert_eq!(Breaker::start(dir.path(), 1).1, Start::Normal, "{name}");
        }
    }

    #[test]
    fn the_count_of_an_earlier_version_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("early-ends"), "3").unwrap();
        assert_eq!(Breaker::start(dir.path(), 3).1, Start::HoldingBack { early_ends: 3 });
        assert_eq!(Breaker::start(dir.path(), 3).1, Start::HoldingBack { early_ends: 4 });
    }

    #[test]
    fn a_disk_that_takes_no_write_does_not_stop_the_start() {
        let dir = tempfile::tempdir().unwrap();
        // The copies' names are taken by folders: no write comes through, for root neither.
        for copy in ["early-ends.a", "early-ends.b"] {
            std::fs::create_dir(dir.path().join(copy)).unwrap();
        }
        let (_, start, trouble) = Breaker::start(dir.path(), 1);
        assert_eq!((start, trouble.is_some()), (Start::Normal, true));
    }

    #[tokio::test]
    async fn a_model_whose_load_ends_the_agent_again_and_again_is_held_back_until_it_loads() {
        let dir = tempfile::tempdir().unwrap();
        let (bad, good) = (ModelName::new("bad").unwrap(), ModelName::new("good").unwrap());
        for _ in 0..MAX_LOST_LOADS {
            let mut log = LoadLog::open(dir.path());
            assert!(log.may_load(&bad));
            drop(log.begin(&good, true));
            let loading = async {
                let _until_it_is_back = log.begin(&bad, true);
                std::future::pending::<()>().await;
            };
            let ended = unless_ended(loading, tokio::task::yield_now());
            assert!(ended.await.is_err(), "as by a service manager that has waited long enough");
        }
        let mut log = LoadLog::open(dir.path());
        assert!(!log.may_load(&bad) && log.may_load(&good));
        let load = async { drop(log.begin(&bad, false)) };
        assert!(unless_ended(load, std::future::pending::<()>()).await.is_ok());
        assert!(LoadLog::open(dir.path()).may_load(&bad));
    }
}
