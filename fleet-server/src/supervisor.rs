//! Every task of the server runs here under a name: end, error and panic are three different events, restarts
//! back off, and shutdown has a deadline after which the log says who was still running.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Whatever a task fails with; printed once, with its causes.
pub type TaskError = Box<dyn Error + Send + Sync>;

/// What happens when a task ends before shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// It is started again after a pause that doubles up to a minute.
    Restart,
    /// The whole server shuts down: nothing works without it.
    StopServer,
}

const RESTART_MIN: Duration = Duration::from_millis(500);
const RESTART_MAX: Duration = Duration::from_mins(1);
/// A task that ran so long is taken as healthy: its next pause starts small again.
const HEALTHY_AFTER: Duration = Duration::from_mins(2);

/// Starts, restarts and ends named tasks.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    shutdown: CancellationToken,
    is_failed: bool,
}

/// How the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Tasks that were still running at the deadline and were aborted.
    pub aborted: Vec<&'static str>,
    /// Whether a task that nothing works without ended by itself.
    pub is_failed: bool,
}

impl Supervisor {
    /// The signal that asks every task to end; cancel it to shut down.
    pub fn shutdown_signal(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs `start` under `name`. It is called again for each restart and gets the shutdown signal.
    pub fn spawn<F, Fut>(&mut self, name: &'static str, on_end: OnEnd, start: F)
    where
        F: Fn(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let handle = self.tasks.spawn(keep_running(name, on_end, self.shutdown.clone(), start));
        self.names.insert(handle.id(), name);
    }

    /// Waits for the shutdown signal (or the end of a task that nothing works without), then up to `deadline`
    /// for the tasks to drain.
    pub async fn run(mut self, deadline: Duration) -> Ending {
        while !self.shutdown.is_cancelled() {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.note_end(&ended),
            }
        }
        self.drain(deadline).await
    }

    fn note_end(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(e) => e.id(),
        };
        let name = self.names.remove(&id).unwrap_or("unknown");
        // Once shutdown was asked for, an end is what everybody waits for.
        if self.shutdown.is_cancelled() {
            return;
        }
        error!(task = name, "task {name} ended for good; the server stops");
        self.is_failed = true;
        self.shutdown.cancel();
    }

    async fn drain(mut self, deadline: Duration) -> Ending {
        let until = Instant::now() + deadline;
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, self.tasks.join_next_with_id()).await {
            let id = match ended {
                Ok((id, ())) => id,
                Err(e) => e.id(),
            };
            self.names.remove(&id);
        }
        let mut aborted: Vec<_> = self.names.values().copied().collect();
        aborted.sort_unstable();
        self.tasks.shutdown().await;
        Ending { aborted, is_failed: self.is_failed }
    }
}

async fn keep_running<F, Fut>(name: &'static str, on_end: OnEnd, shutdown: CancellationToken, start: F)
where
    F: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
{
    let mut pause = RESTART_MIN;
    loop {
        let began = Instant::now();
        // Its own task, so that a panic is an event here and not the end of this loop.
        let ended = tokio::spawn(start(shutdown.clone())).await;
        if shutdown.is_cancelled() {
            return;
        }
        match ended {
            Ok(Ok(())) => warn!(task = name, "task {name} ended by itself"),
            Ok(Err(e)) => error!(task = name, "task {name} failed: {}", with_causes(e.as_ref())),
            Err(e) => error!(task = name, "task {name} panicked: {e}"),
        }
        if on_end == OnEnd::StopServer {
            return;
        }
        if began.elapsed() > HEALTHY_AFTER {
            pause = RESTART_MIN;
        }
        info!(task = name, "task {name} starts again in {} ms", pause.as_millis());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RESTART_MAX);
    }
}

/// An error and its causes in one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panicking_task_is_started_again() {
        let mut supervisor = Supervisor::default();
        let shutdown = supervisor.shutdown_signal();
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        supervisor.spawn("flaky", OnEnd::Restart, move |shutdown| {
            let counted = counted.clone();
            async move {
                assert!(counted.fetch_add(1, Ordering::SeqCst) > 1, "on purpose");
                shutdown.cancel();
                Ok(())
            }
        });
        let ending = supervisor.run(Duration::from_secs(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert!(shutdown.is_cancelled() && ending.aborted.is_empty() && !ending.is_failed);
    }

    #[tokio::test]
    async fn who_hangs_at_shutdown_is_named() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("hangs", OnEnd::Restart, |_| std::future::pending());
        supervisor.spawn("drains", OnEnd::Restart, |shutdown| async move {
            shutdown.cancelled().await;
            Ok(())
        });
        supervisor.shutdown_signal().cancel();
        assert_eq!(supervisor.run(Duration::from_millis(50)).await.aborted, ["hangs"]);
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_stops_the_server() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("vital", OnEnd::StopServer, |_| async { Err("port in use".into()) });
        assert!(supervisor.run(Duration::from_secs(1)).await.is_failed);
    }
}
