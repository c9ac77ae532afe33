//! Parts of the agent that have failed: those that were started again, and the one that ended the last run. Both are
//! told in status and hello, since nobody reads a log that looks well again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::problem::{Problem, ProblemKind};
use crate::durable;

/// A failure is told for so long after it was the last one of its part.
const TOLD_FOR: Duration = Duration::from_hours(1);
const MAX_BYTES: u64 = 4096;

/// Failures of this run, by part. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<&'static str, Failure>>>);

#[derive(Debug)]
struct Failure {
    times: u32,
    last: Instant,
    why: String,
}

impl Failures {
    /// `part` has failed and is started again.
    pub(super) fn note(&self, part: &'static str, now: Instant, why: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = all.entry(part).or_insert_with(|| Failure { times: 0, last: now, why: String::new() });
        *failure = Failure { times: failure.times.saturating_add(1), last: now, why };
    }

    /// What has failed lately.
    pub fn problems(&self, now: Instant) -> Vec<Problem> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = all.iter().filter(|(_, failure)| now.saturating_duration_since(failure.last) < TOLD_FOR);
        lately
            .map(|(part, Failure { times, why, .. })| {
                let detail =
                    format!("the part \"{part}\" failed and was started again, {times} times: {why}");
                Problem::new(ProblemKind::PartFailing, detail)
            })
            .collect()
    }
}

/// Leaves for the next run why this one ends itself.
pub fn leave_reason(state_dir: &Path, why: &str) {
    let end = why.floor_char_boundary(usize::try_from(MAX_BYTES).unwrap_or(why.len()));
    if let Err(error) = durable::write_atomic(&path(state_dir), &why.as_bytes()[..end]) {
        tracing::warn!(error = crate::chain(&error), "why the agent ends could not be noted");
    }
}

/// Why the last run ended itself, if it did; asked once.
pub fn take_reason(state_dir: &Path) -> Option<String> {
    let bytes = durable::read_bounded(&path(state_dir), MAX_BYTES).ok()??;
    let _said_again_where_it_stays = std::fs::remove_file(path(state_dir));
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("why-it-ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_for_a_while_with_how_often_it_came() {
        let (failures, now) = (Failures::default(), Instant::now());
        failures.note("folder", now, "it panicked: a".into());
        failures.note("folder", now + Duration::from_secs(1), "it panicked: b".into());
        let told = failures.clone().problems(now + Duration::from_mins(1));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].kind.name(), "part_failing");
        assert!(told[0].detail.contains("folder") && told[0].detail.contains("2 times: it panicked: b"));
        assert_eq!(failures.problems(now + TOLD_FOR + Duration::from_secs(1)), []);
    }

    #[test]
    fn the_next_run_hears_once_why_the_last_one_ended_itself() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take_reason(dir.path()), None);
        leave_reason(dir.path(), &"é".repeat(4000));
        assert_eq!(take_reason(dir.path()), Some("é".repeat(2048)));
        assert_eq!(take_reason(dir.path()), None);
    }
}
