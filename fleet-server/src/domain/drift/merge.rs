//! Windows that nobody looks at one by one any more become one row an hour, and later one a day, as the devices' become the
//! fleet's: by adding their panes, so that nothing is lost but the time of day. Runs in the job that computes windows, so
//! that no window is written while it is merged.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{DeviceId, Digest, UnixMillis};
use tracing::warn;

use super::panes::{DriftError, sum, usable_release};
use super::reports::sound_pane;
use super::windows::{Of, WindowRules};
use crate::app::AppState;
use crate::clock::before;
use crate::config::Retention;
use crate::store::drift::{self, DriftWindow, Grain, Span};

/// Devices of one transaction; each brings at most an hour's windows, or a day's hours, per release and segment.
const DEVICES: i64 = 40;
/// Transactions of one call. What is left waits for the next one: a database of an earlier version has years of windows.
const STEPS: usize = 20;

/// Where the window of this slot is merged into, if it lies so far back: an hour. Days are made of what no late pane can
/// change any more.
pub fn merged_slot(state: &AppState, rules: WindowRules, slot: UnixMillis) -> Option<UnixMillis> {
    let hours = rules.coarse();
    (slot < merged_before(state, hours, Grain::Window)).then(|| hours.slot(slot))
}

/// Windows of this grain that start before this are merged, into those of `rules`.
fn merged_before(state: &AppState, rules: WindowRules, grain: Grain) -> UnixMillis {
    let kept = &state.config.retention;
    let age = if grain == Grain::Window { kept.drift_detail } else { kept_as_hours(kept) };
    rules.slot(before(state.clock.now(), age))
}

/// A late pane makes its hour anew from all panes of it, which needs both to be there.
fn kept_as_hours(kept: &Retention) -> Duration {
    kept.drift_hours.max(kept.panes).max(kept.drift_detail)
}

/// Merges old windows; returns how many were taken in. Safe to repeat.
///
/// # Errors
/// [`DriftError`] when database or blob store fail; what was merged before stays so.
pub async fn merge_old(state: &AppState, rules: WindowRules) -> Result<usize, DriftError> {
    let mut taken = 0;
    for _ in 0..STEPS {
        let hours = step(state, rules.coarse(), Grain::Window).await?;
        // A day is made once, of all of its hours.
        let days = if hours == 0 { step(state, rules.coarse().days(), Grain::Hour).await? } else { 0 };
        if hours + days == 0 {
            break;
        }
        taken += hours + days;
    }
    Ok(taken)
}

/// Merges some windows of this grain into those of `coarse`.
async fn step(state: &AppState, coarse: WindowRules, grain: Grain) -> Result<usize, DriftError> {
    let mut conn = state.store.read().await?;
    let oldest = drift::oldest(&mut conn, grain, merged_before(state, coarse, grain)).await?;
    let Some((project, model, at)) = oldest else { return Ok(0) };
    let from = coarse.slot(at);
    let span = Span { project: &project, model: &model, from, to: from.plus_millis(coarse.length_ms) };
    let old = drift::of_grain(&mut conn, span, grain, DEVICES).await?;
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
    let coarser = if grain == Grain::Window { Grain::Hour } else { Grain::Day };
    let mut tx = state.store.begin().await?;
    for window in &old {
        drift::delete(&mut tx, &project, window).await?;
    }
    for window in new {
        drift::put(&mut tx, &project, &DriftWindow { grain: coarser, ..window }).await?;
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
                warn!(model = %of.release.model, "drift windows are not merged");
                all.extend(windows);
            }
        }
    }
    all
}
