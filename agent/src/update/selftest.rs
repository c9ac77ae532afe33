//! The self-test: the release's golden samples, its latency and its memory, on this very device.

use std::sync::Arc;

use inference::golden::{self, GoldenSet};
use profile::Reference;
use protocol::ModelName;
use protocol::message::{Cause, CauseKind, SelfTestResult};

use crate::health::resident_bytes;
use crate::machine::Held;
use crate::shown::bytes;
use crate::slots::{self, LoadReleaseError, Loaded, Shelf, ShelfError};

/// Loads the held release and tries it. Blocks.
///
/// # Errors
/// The cause that the task ends with.
pub(super) fn run(
    shelf: &Shelf,
    model: &ModelName,
    held: &Held,
) -> Result<(Arc<Loaded>, SelfTestResult), Cause> {
    // 0 where the system does not say.
    let resident = || resident_bytes().unwrap_or(0);
    let before = resident();
    let loaded = slots::load(shelf, model, held).map_err(|error| load_cause(&error))?;
    let memory_bytes = resident().saturating_sub(before);
    let manifest = loaded.manifest.clone();
    if let Err(error) = Reference::parse(&loaded.reference) {
        // It would serve, and nobody would ever see how well.
        let detail = format!("the release's reference profile can't be used: {}", crate::chain(&error));
        return Err(cause(CauseKind::Load, detail));
    }
    let golden = shelf.read_blob(&manifest.golden).map_err(|error| shelf_cause(&error))?;
    let golden =
        GoldenSet::parse(&golden).map_err(|error| cause(CauseKind::GoldenMismatch, crate::chain(&error)))?;
    // A good release must not be condemned for what else the device did in these moments; what applications wait for is
    // judged in probation and by the rollout's gates.
    let Ok(report) = golden::check(&loaded.runtime, &golden, &mut slots::cpu_time);
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let result = SelfTestResult {
        samples: report.samples,
        passed: report.passed,
        p50_us: micros(report.p50),
        p95_us: micros(report.p95),
        memory_bytes,
    };
    if !report.is_passed() {
        let why = report.first_failure.unwrap_or_default();
        let detail = format!("{} of {} golden samples passed; {why}", report.passed, report.samples);
        return Err(cause(CauseKind::GoldenMismatch, detail));
    }
    within_budgets(&result, &manifest.budgets)?;
    Ok((Arc::new(loaded), result))
}

fn within_budgets(result: &SelfTestResult, budgets: &release::Budgets) -> Result<(), Cause> {
    if result.p95_us > budgets.latency_p95_us {
        let detail = format!(
            "95 % of the samples took up to {} µs of CPU time, the budget is {} µs",
            result.p95_us, budgets.latency_p95_us
        );
        return Err(cause(CauseKind::TooSlow, detail));
    }
    if result.memory_bytes > budgets.memory_bytes {
        let detail = format!(
            "loading took {}, the budget is {}",
            bytes(result.memory_bytes),
            bytes(budgets.memory_bytes)
        );
        return Err(cause(CauseKind::TooBig, detail));
    }
    Ok(())
}

/// As a task's cause.
pub(super) fn load_cause(error: &LoadReleaseError) -> Cause {
    match error {
        LoadReleaseError::Shelf(error) => shelf_cause(error),
        LoadReleaseError::NoVariant(_) | LoadReleaseError::Runtime(_) => {
            cause(CauseKind::Load, crate::chain(error))
        }
    }
}

/// As a task's cause.
pub(super) fn shelf_cause(error: &ShelfError) -> Cause {
    let kind = match error {
        ShelfError::Disk(source) if source.is_disk_full() => CauseKind::DiskFull,
        ShelfError::Disk(_) | ShelfError::Gone { .. } | ShelfError::Manifest { .. } => CauseKind::Storage,
    };
    cause(kind, crate::chain(error))
}

pub(super) fn cause(kind: CauseKind, detail: String) -> Cause {
    Cause { kind, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_name_what_is_over() {
        let result = SelfTestResult { samples: 1, passed: 1, p50_us: 5, p95_us: 10, memory_bytes: 100 };
        let over = |latency_p95_us, memory_bytes| {
            within_budgets(&result, &release::Budgets { latency_p95_us, memory_bytes })
                .map_err(|cause| cause.kind)
        };
        assert_eq!(over(10, 100), Ok(()));
        assert_eq!(over(9, 100), Err(CauseKind::TooSlow));
        assert_eq!(over(10, 99), Err(CauseKind::TooBig));
    }
}
