//! Every task is spawned here, with a name. End, error and panic are three different events; what ends without
//! being asked is started again after a jittered delay. One signal stops all; who does not stop in time is named.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::retry::{self, Backoff, Policy};

const RESTART: Policy = Policy { min: Duration::from_secs(1), max: Duration::from_mins(1) };

/// Owns the agent's tasks.
#[derive(Debug)]
pub struct Supervisor {
    restart: Policy,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    names: BTreeMap<Id, &'static str>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(RESTART)
    }
}

impl Supervisor {
    /// Without tasks; what ends without being asked starts again after `restart`.
    pub fn new(restart: Policy) -> Self {
        Self { restart, stop: CancellationToken::new(), tasks: JoinSet::new(), names: BTreeMap::new() }
    }

    /// Raised when everything must end.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `make()` under `name`, again and again until the stop signal.
    pub fn keep<F, E>(&mut self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let stop = self.stop.clone();
        let mut backoff = Backoff::new(self.restart);
        let task = async move {
            loop {
                // A task of its own, so that a panic ends only it.
                let outcome = tokio::spawn(make()).await;
                if stop.is_cancelled() {
                    return;
                }
                match outcome {
                    Ok(Ok(())) => {
                        tracing::error!(task = name, "a task ended without being asked; it starts again");
                    }
                    Ok(Err(error)) => {
                        tracing::error!(task = name, error = %error, "a task failed; it starts again");
                    }
                    Err(error) => {
                        tracing::error!(task = name, error = %error, "a task panicked; it starts again");
                    }
                }
                let delay = backoff.next_delay(retry::random());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        };
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Runs `task` once under `name`; it may end whenever it is done.
    pub fn once(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Stops everything within `drain`. Returns the names of those that had to be cut off.
    pub async fn shut_down(mut self, drain: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        let names = &mut self.names;
        let tasks = &mut self.tasks;
        let all = async {
            while let Some(ended) = tasks.join_next_with_id().await {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                names.remove(&id);
            }
        };
        let is_in_time = tokio::time::timeout(drain, all).await.is_ok();
        self.tasks.abort_all();
        if is_in_time { Vec::new() } else { self.names.into_values().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const FAST: Policy = Policy { min: Duration::from_millis(1), max: Duration::from_millis(5) };

    #[tokio::test]
    async fn a_task_that_ends_fails_or_panics_starts_again() {
        let runs = Arc::new(AtomicU32::new(0));
        let mut supervisor = Supervisor::new(FAST);
        let (seen, stop) = (runs.clone(), supervisor.stop_signal());
        supervisor.keep("wobbly", move || {
            let (seen, stop) = (seen.clone(), stop.clone());
            async move {
                match seen.fetch_add(1, Ordering::Relaxed) {
                    0 => Ok(()),
                    1 => Err("broken"),
                    2 => panic!("on purpose"),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        while runs.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(supervisor.shut_down(Duration::from_secs(5)).await.is_empty());
        assert_eq!(runs.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn who_does_not_stop_is_named() {
        let mut supervisor = Supervisor::default();
        supervisor.once("deaf", std::future::pending());
        supervisor.once("quick", async {});
        assert_eq!(supervisor.shut_down(Duration::from_millis(50)).await, ["deaf"]);
    }
}
