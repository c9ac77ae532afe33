//! Deletes what is older than its bound.

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::AppState;
use crate::domain::samples;
use crate::store::{drift, history, quarantine, sessions, telemetry};
use crate::supervisor::TaskError;

/// Runs until shutdown.
///
/// # Errors
/// The first error of the database.
pub async fn run(state: AppState, shutdown: CancellationToken) -> Result<(), TaskError> {
    let period = state.config.jobs.retention_tick;
    super::every(&state, "retention", period, &shutdown, || tick(&state)).await
}

async fn tick(state: &AppState) -> Result<(), TaskError> {
    let now = state.clock.now();
    let kept = &state.config.retention;
    let before =
        |age: std::time::Duration| now.plus_millis(-i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let mut tx = state.store.begin().await?;
    let panes = telemetry::delete_panes_before(&mut tx, before(kept.panes)).await?;
    let resources = telemetry::delete_resources_before(&mut tx, before(kept.resources)).await?;
    let events = history::delete_before(&mut tx, before(kept.events)).await?;
    let quarantine = quarantine::delete_before(&mut tx, before(kept.events)).await?;
    let logs = telemetry::delete_logs_before(&mut tx, before(kept.events)).await?;
    let drift = drift::delete_before(&mut tx, before(kept.drift)).await?;
    let audit = crate::store::audit::delete_before(&mut tx, before(kept.audit)).await?;
    sessions::delete_expired(&mut tx, now).await?;
    tx.commit().await?;
    let samples = samples::delete_old(state).await?;
    if panes + resources + events + quarantine + logs + drift + audit + samples > 0 {
        info!(
            panes,
            resources, events, quarantine, logs, drift, audit, samples, "retention deleted old rows"
        );
    }
    Ok(())
}
