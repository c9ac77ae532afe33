//! Devices' windows that nobody looks at one by one any more become one row an hour, as the devices' become the fleet's:
//! by adding their panes. Runs in the job that computes windows, so that no window is written while it is merged.

use std::collections::BTreeMap;

use protocol::{DeviceId, Digest, UnixMillis};
use tracing::warn;

use super::panes::{DriftError, sum, usable_release};
use super::reports::sound_pane;
use super::windows::{Of, WindowRules};
use crate::app::AppState;
use crate::clock::before;
use crate::store::drift::{self, DriftWindow, Span};

/// Devices of one transaction; each brings at most an hour's windows per release and segment.
const DEVICES: i64 = 40;
/// Transactions of one call. What is left waits for the next one: a database of an earlier version has years of windows.
const STEPS: usize = 20;

/// Where the window of this slot is merged into, if it lies so far back.
pub fn merged_slot(state: &AppState, rules: WindowRules, slot: UnixMillis) -> Option<UnixMillis> {
    (slot < merged_before(state, rules)).then(|| rules.coarse().slot(slot))
}

/// Devices' windows that start before this are merged.
fn merged_before(state: &AppState, rules: WindowRules) -> UnixMillis {
    rules.coarse().slot(before(state.clock.now(), state.config.retention.drift_detail))
}

/// Merges old windows of devices; returns how many were taken in. Safe to repeat.
///
/// # Errors
/// [`DriftError`] when database or blob store fail; what was merged before stays so.
pub async fn merge_old(state: &AppState, rules: WindowRules) -> Result<usize, DriftError> {
    let mut taken = 0;
    for _ in 0..STEPS {
        match step(state, rules).await? {
            0 => break,
            windows => taken += windows,
        }
    }
    Ok(taken)
}

async fn step(state: &AppState, rules: WindowRules) -> Result<usize, DriftError> {
    let coarse = rules.coarse();
    let mut conn = state.store.read().await?;
    let oldest = drift::unmerged_before(&mut conn, merged_before(state, rules)).await?;
    let Some((project, model, at)) = oldest else { return Ok(0) };
    let from = coarse.slot(at);
    let span = Span { project: &project, model: &model, from, to: from.plus_millis(coarse.length_ms) };
    let old = drift::unmerged(&mut conn, span, DEVICES).await?;
    let mut by_release: BTreeMap<Digest, Vec<DriftWindow>> = BTreeMap::new();
    for window in &old {
        by_release.entry(window.digest).or_default().push(window.clone());
    }
    let mut new = Vec::new();
    for (digest, windows) in by_release {
        let usable = usable_release(&mut conn, &state.blobs, &project, &model, &digest).await?;
        let Some((release, reference)) = usable else {
            new.extend(windows);
            continue;
        };
        let of = Of { release, reference, slot: span.from, end: span.to, now: state.clock.now() };
        let merged = tokio::task::spawn_blocking(move || merged(&of, windows)).await;
        new.extend(merged.map_err(DriftError::Panicked)?);
    }
    drop(conn);
    let mut tx = state.store.begin().await?;
    for window in &old {
        drift::delete(&mut tx, &project, window).await?;
    }
    for window in new {
        drift::put(&mut tx, &project, &DriftWindow { is_merged: true, ..window }).await?;
    }
    tx.commit().await?;
    Ok(old.len())
}

/// One window per device and segment. What can't be merged stays as it is: it counts as merged, and the work goes on.
fn merged(of: &Of, windows: Vec<DriftWindow>) -> Vec<DriftWindow> {
    let mut groups: BTreeMap<(Option<DeviceId>, String), Vec<DriftWindow>> = BTreeMap::new();
    for window in windows {
        groups.entry((window.device.clone(), window.segment.clone())).or_default().push(window);
    }
    let mut all = Vec::new();
    for ((device, segment), windows) in groups {
        let panes: Vec<_> = windows.iter().filter_map(|window| sound_pane(window, &of.reference)).collect();
        match sum(&panes) {
            Some(pane) if panes.len() == windows.len() => {
                // Not now: the windows job takes the newest of these times for its own last work.
                let updated_at = windows.iter().map(|w| w.updated_at).max().unwrap_or(of.now);
                all.push(DriftWindow { updated_at, ..of.window(device, segment, &pane) });
            }
            _ => {
                warn!(model = %of.release.model, "drift windows of an hour are not merged");
                all.extend(windows);
            }
        }
    }
    all
}
