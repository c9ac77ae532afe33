//! Reports of stored windows, made from pane and reference when somebody asks for them: a report is many times as large as
//! the pane, and hardly one in a thousand is ever read.

use std::collections::{BTreeMap, BTreeSet};

use profile::drift::{DriftReport, Thresholds, compare_counters};
use profile::{Pane, Reference};
use protocol::{Digest, ModelName, ProjectId};
use tracing::warn;

use super::panes::{DriftError, reference_of};
use crate::app::AppState;
use crate::store::drift::DriftWindow;
use crate::store::releases;

/// The comparison of a pane with its release's reference.
pub(super) fn compared(reference: &Reference, pane: &Pane) -> DriftReport {
    let (schema, counted) = (&reference.schema, &reference.counters);
    compare_counters(schema, counted, &pane.counters, &reference.noise, &Thresholds::default())
}

/// The windows of a model with their reports; one whose pane can't be read is left out, with a line in the log.
///
/// # Errors
/// [`DriftError`] when database or blob store fail, or a release's reference is gone.
pub async fn with_reports(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    windows: Vec<DriftWindow>,
) -> Result<Vec<(DriftWindow, DriftReport)>, DriftError> {
    let needed = windows.iter().filter(|window| window.report.is_none()).map(|window| window.digest);
    let references = references_of(state, project, model, needed.collect()).await?;
    let made = tokio::task::spawn_blocking(move || {
        windows.into_iter().filter_map(|window| with_report(window, &references)).collect()
    });
    made.await.map_err(DriftError::Panicked)
}

/// The references of these releases.
///
/// # Errors
/// [`DriftError`] when database or blob store fail, or one is gone.
pub(super) async fn references_of(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    digests: BTreeSet<Digest>,
) -> Result<BTreeMap<Digest, Reference>, DriftError> {
    let mut references = BTreeMap::new();
    for digest in digests {
        let mut conn = state.store.read().await?;
        let release = releases::by_digest(&mut conn, project, model, &digest).await?;
        drop(conn);
        let missing = || DriftError::Missing { release: format!("{model} of manifest {digest}") };
        references.insert(digest, reference_of(&state.blobs, &release.ok_or_else(missing)?).await?);
    }
    Ok(references)
}

fn with_report(
    window: DriftWindow,
    references: &BTreeMap<Digest, Reference>,
) -> Option<(DriftWindow, DriftReport)> {
    if let Some(report) = window.report.clone() {
        return Some((window, report));
    }
    let reference = references.get(&window.digest)?;
    let pane = sound_pane(&window, reference)?;
    let report = compared(reference, &pane);
    Some((window, report))
}

/// A stored window's pane, if it can be read.
pub(super) fn sound_pane(window: &DriftWindow, reference: &Reference) -> Option<Pane> {
    let pane = Pane::decode(window.pane.as_deref().unwrap_or_default());
    let checked = pane.and_then(|pane| pane.check(reference).map(|()| pane));
    let note = |e: &profile::PaneError| {
        warn!(model = %window.model, start = window.window_start.0, "a drift window can't be read: {e}");
    };
    checked.inspect_err(note).ok()
}
