//! A lease that lies further in the future than any server gives it: the clock of its holder is ahead, or was, when the
//! holder died. To wait for its end would stop the job for as long as the clock was ahead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::app::AppState;
use crate::store::StoreError;
use crate::store::leases::{self, Lease};

/// Jobs that nobody runs just now, and why. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Standstill(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Standstill {
    /// Why a job stands still, if one does.
    pub fn why(&self) -> Option<String> {
        self.jobs().values().next().cloned()
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a job remembers of a lease that it could not have.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// One that lies too far in the future, and since when it was not renewed.
    seen: Option<(Lease, Instant)>,
}

impl Refusal {
    /// Looks why the lease was refused; `true` when it was taken over, because nobody renewed it for long enough.
    /// One that is renewed stays with its holder, whatever its clock says: somebody does the work.
    pub(super) async fn is_overcome(
        &mut self,
        state: &AppState,
        name: &'static str,
        validity: Duration,
    ) -> Result<bool, StoreError> {
        let Some(lease) = leases::get(&state.store, name).await? else { return Ok(false) };
        let now = state.clock.now();
        let validity_ms = i64::try_from(validity.as_millis()).unwrap_or(i64::MAX);
        let ahead_ms = lease.until.millis_since(now);
        // Twice: clocks of replicas may differ a little.
        if ahead_ms <= validity_ms.saturating_mul(2) {
            debug!(job = name, "another replica runs {name}");
            self.end(state, name);
            return Ok(false);
        }
        let Some((_, since)) = self.seen.as_ref().filter(|(seen, _)| *seen == lease) else {
            self.meet(state, name, lease, ahead_ms);
            return Ok(false);
        };
        let silent = since.elapsed();
        if silent < state.config.jobs.lease {
            let why = format!(
                "No server runs the job {name}: its lease ends in {} s, because the clock of a server that is gone was \
                 ahead. It is taken over soon.",
                ahead_ms / 1000
            );
            state.standstill.jobs().insert(name, why);
            return Ok(false);
        }
        let new = Lease { holder: state.instance.to_string(), until: now.plus_millis(validity_ms) };
        let is_taken = leases::take_over(&state.store, name, &lease, &new).await?;
        if is_taken {
            warn!(
                job = name,
                "the job {name} was taken over: its lease was not renewed for {} s",
                silent.as_secs()
            );
        }
        Ok(is_taken)
    }

    /// The lease is ours, or may well be another one's.
    pub(super) fn end(&mut self, state: &AppState, name: &'static str) {
        if self.seen.take().is_some() {
            state.standstill.jobs().remove(name);
        }
    }

    fn meet(&mut self, state: &AppState, name: &'static str, lease: Lease, ahead_ms: i64) {
        if self.seen.is_none() {
            let (holder, ahead_s) = (&lease.holder, ahead_ms / 1000);
            warn!(
                job = name,
                %holder,
                ahead_s,
                "the lease of the job {name} ends in {ahead_s} s: the clock of its holder is ahead, or was, or this one's \
                 is behind"
            );
        }
        state.standstill.jobs().remove(name);
        self.seen = Some((lease, Instant::now()));
    }
}
