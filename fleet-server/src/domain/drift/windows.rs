//! Panes of one window -> one row per device and one for the fleet. Safe to repeat: late panes and corrected
//! panes only make the same rows again.

use std::collections::BTreeMap;
use std::time::Duration;

use profile::drift::{Thresholds, compare_counters};
use profile::{Pane, Reference};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis};

use super::panes::{DriftError, newest, sum, usable_release};
use crate::app::AppState;
use crate::store::drift::{self, DriftWindow};
use crate::store::releases::Release;
use crate::store::telemetry;
use crate::store::telemetry::PaneRow;

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
}

/// Computes one window of a model anew, for every release, device and segment that it holds.
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
    let end = slot.plus_millis(rules.length_ms);
    let mut conn = state.store.read().await?;
    let rows = telemetry::panes(&mut conn, project, model, slot, end).await?;
    let mut by_release: BTreeMap<Digest, Vec<PaneRow>> = BTreeMap::new();
    // A pane longer than a window (merged on a full device) counts where it starts.
    for row in rows.into_iter().filter(|row| rules.slot(row.window_start) == slot) {
        by_release.entry(row.digest).or_default().push(row);
    }
    let mut written = Vec::new();
    for rows in by_release.into_values() {
        let Some(first) = rows.first() else { continue };
        let usable = usable_release(&mut conn, &state.blobs, project, first).await?;
        let Some((release, reference)) = usable else { continue };
        let of = Of { release, reference, slot, end, now: state.clock.now() };
        // Long work for a large fleet: away from the async threads, and before the write lock is taken.
        let computed = tokio::task::spawn_blocking(move || compute(&of, &rows)).await;
        written.extend(computed.map_err(DriftError::Panicked)?);
    }
    drop(conn);
    let mut tx = state.store.begin().await?;
    for window in &written {
        drift::put(&mut tx, project, window).await?;
    }
    tx.commit().await?;
    Ok(written)
}

/// What the windows of one release have in common.
struct Of {
    release: Release,
    reference: Reference,
    slot: UnixMillis,
    end: UnixMillis,
    now: UnixMillis,
}

fn compute(of: &Of, rows: &[PaneRow]) -> Vec<DriftWindow> {
    let Of { release, reference, slot, end, now } = of;
    let (schema, counted) = (&reference.schema, &reference.counters);
    let panes = newest(reference, rows);
    let window = |((device, segment), pane): ((Option<DeviceId>, String), Pane)| {
        let report =
            compare_counters(schema, counted, &pane.counters, &reference.noise, &Thresholds::default());
        DriftWindow {
            model: release.model.clone(),
            version: release.version.clone(),
            digest: release.digest,
            device,
            segment,
            window_start: *slot,
            window_end: pane.key.end.max(*end),
            n: pane.counters.answered,
            is_drifting: report.verdict.drifted > 0,
            report,
            pane: Some(pane.encode()),
            updated_at: *now,
        }
    };
    merged(&panes).into_iter().map(window).collect()
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
}
