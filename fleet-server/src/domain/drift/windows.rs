//! Panes of one window -> one row per device and one for the fleet. Safe to repeat: late panes and corrected
//! panes only make the same rows again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use profile::{Pane, Reference};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis};

use tracing::debug;

use super::panes::{DriftError, newest, sum, usable_release};
use super::reports::compared;
use crate::app::AppState;
use crate::clock::before;
use crate::store::drift::{self, DriftWindow, Findings, Grain, Span};
use crate::store::releases::Release;
use crate::store::telemetry;
use crate::store::telemetry::PaneRow;

const HOUR_MS: i64 = 3_600_000;

/// How windows are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRules {
    /// Length of a window.
    pub length_ms: i64,
    /// How long after its end a window waits for late panes before alerts look at it.
    pub late_ms: i64,
}

impl WindowRules {
    /// From the configuration.
    pub fn new(length: Duration, late: Duration) -> Self {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Self { length_ms: millis(length).max(1), late_ms: millis(late) }
    }

    /// Start of the window that `at` lies in.
    pub fn slot(self, at: UnixMillis) -> UnixMillis {
        UnixMillis(at.0.div_euclid(self.length_ms).saturating_mul(self.length_ms))
    }

    /// How windows are cut once they are merged: by the hour, or the whole number of windows next above it.
    pub(super) fn coarse(self) -> Self {
        self.at_least(HOUR_MS)
    }

    /// Of hours, days, or the whole number of hours next above one.
    pub(super) fn days(self) -> Self {
        self.at_least(24 * HOUR_MS)
    }

    /// The whole number of windows that is this long, or next above it.
    pub(super) fn at_least(self, length_ms: i64) -> Self {
        let windows = length_ms.saturating_add(self.length_ms - 1) / self.length_ms;
        Self { length_ms: self.length_ms.saturating_mul(windows.max(1)), ..self }
    }
}

/// Computes one window of a model anew, for every release, device and segment that it holds. Where windows are merged
/// already that is [`refresh_merged`]'s.
///
/// # Errors
/// [`DriftError`] when database or blob store fail; nothing of this window is changed then.
pub async fn refresh(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    slot: UnixMillis,
    rules: WindowRules,
) -> Result<Vec<DriftWindow>, DriftError> {
    if is_too_late(state, slot) {
        debug!(%project, %model, start = slot.0, "panes that came too late are left out of drift");
        return Ok(Vec::new());
    }
    let windows = computed(state, project, model, slot, rules).await?;
    let mut tx = state.store.begin().await?;
    for window in &windows {
        drift::put(&mut tx, project, window).await?;
    }
    tx.commit().await?;
    Ok(windows)
}

/// Computes the merged windows of a model anew, where late panes came; `slot` is a [`merged_slot`].
///
/// # Errors
/// [`DriftError`] when database or blob store fail; nothing is changed then.
pub async fn refresh_merged(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    slot: UnixMillis,
    rules: WindowRules,
) -> Result<Vec<DriftWindow>, DriftError> {
    if is_too_late(state, slot) {
        debug!(%project, %model, start = slot.0, "panes that came too late are left out of drift");
        return Ok(Vec::new());
    }
    let coarse = rules.coarse();
    let mut windows = computed(state, project, model, slot, coarse).await?;
    let digests: BTreeSet<_> = windows.iter().map(|window| window.digest).collect();
    let span = Span { project, model, from: slot, to: slot.plus_millis(coarse.length_ms) };
    let mut tx = state.store.begin().await?;
    for digest in &digests {
        drift::delete_span(&mut tx, span, digest).await?;
    }
    for window in &mut windows {
        window.grain = Grain::Hour;
        drift::put(&mut tx, project, window).await?;
    }
    tx.commit().await?;
    Ok(windows)
}

/// Other panes of this time are deleted already: to count the late one alone would be wrong.
fn is_too_late(state: &AppState, slot: UnixMillis) -> bool {
    slot < before(state.clock.now(), state.config.retention.panes)
}

/// The windows of one slot, from its panes.
async fn computed(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    slot: UnixMillis,
    rules: WindowRules,
) -> Result<Vec<DriftWindow>, DriftError> {
    let end = slot.plus_millis(rules.length_ms);
    let mut conn = state.store.read().await?;
    let rows = telemetry::panes(&mut conn, project, model, slot, end).await?;
    let mut by_release: BTreeMap<Digest, Vec<PaneRow>> = BTreeMap::new();
    // A pane longer than a window (merged on a full device) counts where it starts.
    for row in rows {
        by_release.entry(row.digest).or_default().push(row);
    }
    let mut windows = Vec::new();
    for (digest, rows) in by_release {
        let Some((release, reference)) =
            usable_release(&mut conn, &state.blobs, project, model, &digest).await?
        else {
            continue;
        };
        let of = Of { release, reference, slot, end, now: state.clock.now() };
        // Long work for a large fleet: away from the async threads, and before the write lock is taken.
        let computed = tokio::task::spawn_blocking(move || compute(&of, &rows)).await;
        windows.extend(computed.map_err(DriftError::Panicked)?);
    }
    Ok(windows)
}

/// What the windows of one release have in common.
pub(super) struct Of {
    pub(super) release: Release,
    pub(super) reference: Reference,
    pub(super) slot: UnixMillis,
    pub(super) end: UnixMillis,
    pub(super) now: UnixMillis,
}

impl Of {
    /// The window of a device, or of the fleet, that counted this.
    pub(super) fn window(&self, device: Option<DeviceId>, segment: String, pane: &Pane) -> DriftWindow {
        let report = compared(&self.reference, pane);
        DriftWindow {
            model: self.release.model.clone(),
            version: self.release.version.clone(),
            digest: self.release.digest,
            device,
            segment,
            window_start: self.slot,
            window_end: pane.key.end.max(self.end),
            n: pane.counters.answered,
            is_drifting: report.verdict.drifted > 0,
            findings: Findings::from(&report),
            report: None,
            pane: Some(pane.encode()),
            grain: Grain::Window,
            updated_at: self.now,
        }
    }
}

fn compute(of: &Of, rows: &[PaneRow]) -> Vec<DriftWindow> {
    let panes = newest(&of.reference, rows);
    let merged = merged(&panes).into_iter();
    merged.map(|((device, segment), pane)| of.window(device, segment, &pane)).collect()
}

/// Per device and segment, and for the fleet (`None`) per segment.
fn merged(panes: &[(DeviceId, Pane)]) -> BTreeMap<(Option<DeviceId>, String), Pane> {
    let mut groups: BTreeMap<(Option<DeviceId>, String), Vec<&Pane>> = BTreeMap::new();
    for (device, pane) in panes {
        groups.entry((Some(device.clone()), pane.key.segment.clone())).or_default().push(pane);
        groups.entry((None, pane.key.segment.clone())).or_default().push(pane);
    }
    groups.into_iter().filter_map(|(key, panes)| Some((key, sum(panes)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_cut_by_event_time() {
        let rules = WindowRules::new(Duration::from_secs(10), Duration::ZERO);
        assert_eq!(rules.slot(UnixMillis(10_000)), UnixMillis(10_000));
        assert_eq!(rules.slot(UnixMillis(19_999)), UnixMillis(10_000));
        assert_eq!(rules.slot(UnixMillis(0)), UnixMillis(0));
    }

    #[test]
    fn merged_windows_hold_whole_windows() {
        let coarse_s = |window_s| {
            WindowRules::new(Duration::from_secs(window_s), Duration::ZERO).coarse().length_ms / 1000
        };
        assert_eq!([10, 300, 1500, 3600, 7000].map(coarse_s), [3600, 3600, 4500, 3600, 7000]);
        let days_s = |window_s| {
            let rules = WindowRules::new(Duration::from_secs(window_s), Duration::ZERO);
            rules.coarse().days().length_ms / 1000
        };
        assert_eq!([10, 300, 1500, 7000, 100_000].map(days_s), [86_400, 86_400, 90_000, 91_000, 100_000]);
    }
}
