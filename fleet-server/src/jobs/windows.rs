//! Computes drift windows where panes arrived, looks at each touched model's last windows for alerts, and merges old
//! windows.

use std::collections::BTreeSet;

use protocol::UnixMillis;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::domain::drift::{
    Hysteresis, WindowRules, merge_old, merged_slot, refresh, refresh_merged, review,
};
use crate::store::StoreError;
use crate::store::drift::{self, Touched};
use crate::supervisor::TaskError;

/// Panes that arrived this long before the newest computed window are looked at again: a transaction that was
/// open then may have been committed after.
const OVERLAP_MS: i64 = 10_000;

/// Runs until shutdown.
///
/// # Errors
/// The first error of database or blob store.
pub async fn run(state: AppState, shutdown: CancellationToken) -> Result<(), TaskError> {
    let period = state.config.jobs.window_tick;
    super::every(&state, "windows", period, &shutdown, || tick(&state)).await
}

/// One round; safe to repeat.
///
/// # Errors
/// The first error of database or blob store.
pub async fn tick(state: &AppState) -> Result<(), TaskError> {
    let jobs = &state.config.jobs;
    let rules = WindowRules::new(jobs.window, jobs.window_late);
    let touched = touched(state).await?;
    let slots: BTreeSet<_> =
        touched.into_iter().map(|(project, model, at)| (project, model, rules.slot(at))).collect();
    let places: BTreeSet<_> = slots
        .iter()
        .map(|(project, model, slot)| match merged_slot(state, rules, *slot) {
            Some(hour) => (project, model, hour, true),
            None => (project, model, *slot, false),
        })
        .collect();
    let mut changed = BTreeSet::new();
    for (project, model, slot, is_merged) in places {
        let written = if is_merged {
            refresh_merged(state, project, model, slot, rules).await?
        } else {
            refresh(state, project, model, slot, rules).await?
        };
        debug!(%project, %model, windows = written.len(), "drift windows computed");
        changed.extend(written.into_iter().map(|w| (project, format!("{}/{}", w.model, w.version))));
    }
    let models: BTreeSet<_> = slots.iter().map(|(project, model, _)| (project, model)).collect();
    for (project, model) in models {
        review(state, project, model, rules, Hysteresis::default()).await?;
    }
    for (project, release) in changed {
        state.bus.changed(project, ChangeKind::Release, release);
    }
    let merged = merge_old(state, rules).await?;
    debug!(windows = merged, "old drift windows merged");
    Ok(())
}

/// Where panes arrived that no window may have counted yet.
async fn touched(state: &AppState) -> Result<BTreeSet<Touched>, StoreError> {
    const END: UnixMillis = UnixMillis(i64::MAX);
    let jobs = &state.config.jobs;
    let tick_ms = i64::try_from(jobs.window_tick.as_millis()).unwrap_or(i64::MAX);
    let overlap = OVERLAP_MS.max(tick_ms.saturating_mul(2));
    let mut conn = state.store.read().await?;
    let newest = drift::last_update(&mut conn, END).await?.unwrap_or(UnixMillis(0));
    let now = state.clock.now().plus_millis(overlap);
    let mut found = drift::touched(&mut conn, (newest.plus_millis(-overlap), END)).await?;
    if newest > now {
        // The clock was ahead. What was counted then stands later than anything that is to come for long: what to
        // go on from is the newest window of before, or of now.
        let last = drift::last_update(&mut conn, now).await?.unwrap_or(UnixMillis(0));
        found.extend(drift::touched(&mut conn, (last.plus_millis(-overlap), now)).await?);
    }
    Ok(found)
}
