//! Ticks every rollout that isn't over.

use tokio_util::sync::CancellationToken;

use crate::app::AppState;
use crate::domain::rollouts;
use crate::supervisor::TaskError;

/// Runs until shutdown.
///
/// # Errors
/// The first error of the database.
pub async fn run(state: AppState, shutdown: CancellationToken) -> Result<(), TaskError> {
    let period = state.config.jobs.rollout_tick;
    super::every(&state, "rollouts", period, &shutdown, || async {
        rollouts::tick_all(&state).await?;
        Ok(())
    })
    .await
}
