//! Deletes what is older than its bound, and gives the room back.

use std::time::Duration;

use protocol::UnixMillis;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::AppState;
use crate::clock::before;
use crate::config::Retention;
use crate::domain::{orphans, samples};
use crate::store::StoreError;
use crate::store::retention::{self, Kind};
use crate::supervisor::TaskError;

/// Between two transactions: SQLite's other writers only look now and then whether it is their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs until shutdown.
///
/// # Errors
/// The first error of the database.
pub async fn run(state: AppState, shutdown: CancellationToken) -> Result<(), TaskError> {
    let period = state.config.jobs.retention_tick;
    super::every(&state, "retention", period, &shutdown, || tick(&state)).await
}

/// One round; safe to repeat.
///
/// # Errors
/// The first error of the database.
pub async fn tick(state: &AppState) -> Result<(), TaskError> {
    let now = state.clock.now();
    for (kind, age) in bounds(&state.config.retention) {
        let rows = delete_old(state, kind, before(now, age)).await?;
        if rows > 0 {
            info!(?kind, rows, "retention deleted old rows");
        }
    }
    let samples = samples::delete_old(state).await?;
    if samples > 0 {
        info!(samples, "retention deleted old samples");
    }
    let orphans = orphans::remove(state, before(now, state.config.retention.orphan_blobs)).await?;
    if orphans != orphans::Removed::default() {
        let orphans::Removed { blobs, derived, leftovers } = orphans;
        info!(blobs, derived, leftovers, "blobs that nothing names were removed");
    }
    let pages = state.store.give_back_space().await?;
    if pages > 0 {
        info!(pages, "the database's file became smaller");
    }
    Ok(())
}

fn bounds(kept: &Retention) -> [(Kind, Duration); 15] {
    [
        (Kind::Panes, kept.panes),
        (Kind::Resources, kept.resources),
        (Kind::Events, kept.events),
        (Kind::Logs, kept.events),
        (Kind::Quarantine, kept.events),
        (Kind::Streams, kept.events),
        (Kind::DriftWindows, kept.drift),
        (Kind::TaskReports, kept.task_reports),
        (Kind::RolloutJournal, kept.rollouts),
        (Kind::Evidence, kept.rollouts),
        (Kind::Alerts, kept.alerts),
        (Kind::EnrollmentTokens, kept.tokens),
        (Kind::ApiTokens, kept.tokens),
        (Kind::Sessions, Duration::ZERO),
        (Kind::Audit, kept.audit),
    ]
}

async fn delete_old(state: &AppState, kind: Kind, before: UnixMillis) -> Result<u64, StoreError> {
    let dialect = state.store.dialect();
    let mut deleted = 0;
    loop {
        let places = retention::find(&mut *state.store.read().await?, dialect, kind, before).await?;
        if places.is_empty() {
            return Ok(deleted);
        }
        let mut tx = state.store.begin().await?;
        let rows = retention::delete(&mut tx, dialect, kind, before, &places).await?;
        tx.commit().await?;
        deleted += rows;
        if rows == 0 {
            // All of them moved meanwhile: their turn comes with the next round.
            return Ok(deleted);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
