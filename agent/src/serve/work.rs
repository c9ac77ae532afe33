//! What all handlers share: the serving releases, the monitor, and the bounded way to the blocking threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::{ModelName, UnixMillis};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::ApiError;
use crate::config;
use crate::monitor::Monitor;
use crate::slots::{Loaded, Table};

/// Writes the agent's own part of `/status`; the API adds its models.
pub type StatusSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// The local API's state; cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(super) table: Table,
    pub(super) monitor: Arc<Monitor>,
    pub(super) now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    pub(super) status: StatusSource,
    pub(super) max_body_bytes: usize,
    pub(super) overloads: Arc<AtomicU64>,
    queue: usize,
    timeout: Duration,
    run: u64,
    next_id: Arc<AtomicU64>,
    /// Requests that wait or run. Full: refuse.
    places: Arc<Semaphore>,
    /// Requests that run. Full: wait in place.
    threads: Arc<Semaphore>,
}

impl Api {
    /// `run` is a random number of this run of the agent; inference ids begin with it. `now` is the device's clock.
    pub fn new(
        config: &config::Serve,
        table: Table,
        monitor: Arc<Monitor>,
        run: u64,
        now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
        status: StatusSource,
    ) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            table,
            monitor,
            now,
            status,
            max_body_bytes: config.max_body_bytes,
            overloads: Arc::default(),
            queue: config.queue,
            timeout: config.timeout,
            run,
            next_id: Arc::default(),
            places: Arc::new(Semaphore::new(config.queue)),
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// The release that serves `name` now; with a version, only if it is that one.
    pub(super) fn serving(&self, name: &str, version: Option<&str>) -> Result<Arc<Loaded>, ApiError> {
        let asked = ModelName::new(name).ok();
        let Some(loaded) = asked.as_ref().and_then(|model| self.table.active(model)) else {
            if let Some(why) = asked.and_then(|model| self.table.absent(&model)) {
                return Err(ApiError::NotLoaded { name: name.to_owned(), why });
            }
            let served = self.table.all_active();
            let served: Vec<&str> = served.iter().map(|loaded| loaded.model.as_str()).collect();
            let name = name.chars().take(80).collect();
            return Err(ApiError::UnknownModel { name, served: served.join(", ") });
        };
        match version {
            Some(wanted) if wanted != loaded.release.version.as_str() => Err(ApiError::UnknownVersion {
                name: name.to_owned(),
                serving: loaded.release.version.to_string(),
                wanted: wanted.chars().take(80).collect(),
            }),
            Some(_) | None => Ok(loaded),
        }
    }

    /// An id that no other inference of this device has.
    pub(super) fn new_id(&self) -> String {
        format!("{:08x}-{:x}", self.run & 0xffff_ffff, self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs `work` on a blocking thread: refused when the queue is full, given up after the timeout. Work that
    /// was given up keeps its place until it is done, so that slow models can't pile up threads. `after` runs on
    /// the same thread once the answer has left.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> (T, After) + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            self.overloads.fetch_add(1, Ordering::Relaxed);
            ApiError::Overloaded { queue: self.queue }
        })?;
        let answer = async {
            let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| ApiError::Died)?;
            spawn(work, [place, thread]).await.map_err(|_| ApiError::Died)
        };
        let timed = tokio::time::timeout(self.timeout, answer).await;
        timed.unwrap_or_else(|_| Err(ApiError::Timeout { timeout_ms: self.timeout.as_millis() }))
    }

    /// Requests that wait or run now.
    pub(super) fn waiting(&self) -> usize {
        self.queue.saturating_sub(self.places.available_permits())
    }
}

/// Something to do once the answer has left.
pub(super) type After = Box<dyn FnOnce() + Send>;

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> (T, After) + Send + 'static,
    permits: [OwnedSemaphorePermit; 2],
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let (answer, after) = work();
        // The caller may have given up; counting goes on all the same.
        let _ = sender.send(answer);
        after();
        drop(permits);
    });
    receiver
}
