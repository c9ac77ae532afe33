//! Background work: each job is a loop under the supervisor; with several replicas a lease lets one run it.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::AppState;
use crate::store::leases;
use crate::supervisor::TaskError;

pub mod retention;
pub mod rollouts;
pub mod windows;

mod standstill;

use standstill::Refusal;
pub use standstill::Standstill;

/// Calls `tick` every `period` while this process holds the lease `name`, until shutdown. A failed tick ends the
/// loop with its error; the supervisor logs it and starts the job again.
///
/// # Errors
/// The first error of a tick or of the database.
pub async fn every<F, Fut>(
    state: &AppState,
    name: &'static str,
    period: Duration,
    shutdown: &CancellationToken,
    mut tick: F,
) -> Result<(), TaskError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), TaskError>>,
{
    let mut clock = tokio::time::interval(period);
    let mut refusal = Refusal::default();
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = clock.tick() => {}
        }
        // The lease outlives the pause between two ticks, so that its owner keeps it.
        let validity = state.config.jobs.lease.max(period * 3);
        let is_ours = leases::take(&state.store, name, &state.instance, state.clock.now(), validity).await?
            || refusal.is_overcome(state, name, validity).await?;
        if is_ours {
            refusal.end(state, name);
            tick().await?;
        }
    }
    leases::give_back(&state.store, name, &state.instance).await?;
    Ok(())
}
