//! The composition root: the only place that names every part and ties them together.

mod error;
mod parts;
mod reload;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::message::Hardware;
use protocol::telemetry::{DeviceEvent, Kind};
use tokio::sync::watch;

use crate::config::{self, Config, ConfigErrors};
use crate::durable::{self, DurableError};
use crate::health::{self, Breaker, Clock, Footprint, LogRing, ProblemKind, Supervisor};
use crate::link::{self, Identity};
use crate::monitor::Monitor;
use crate::serve;
use crate::status::Noted;
use crate::store::Spool;

pub use error::AppError;
use parts::{Changes, Parts, Waiting};
use reload::{Outcome, Reload};
pub use reload::{Reloaded, Rereading};

/// Facts about this run that several parts say.
#[derive(Clone)]
struct Run {
    boot_id: String,
    number: u64,
    started: Instant,
    hardware: Hardware,
    clock: Clock,
}

/// Time for counting what was answered last; it takes microseconds, unless an inference that was given up still runs.
const LAST_COUNTS: Duration = Duration::from_secs(1);

/// Time for what is written last. With the drain it is less than the unit's `TimeoutStopSec=`.
const LAST_WRITES: Duration = Duration::from_secs(15);
/// What had to be given up where it hangs.
const DISK: &str = "disk";

/// The running agent.
pub struct App {
    supervisor: Supervisor,
    spool: Spool,
    breaker: Breaker,
    monitor: Arc<Monitor>,
    clock: Clock,
    drain: Duration,
    reload: Reload,
    footprint: Footprint,
    api: serve::Api,
    /// None once everything runs.
    waiting: Option<Waiting>,
    is_cut_off: bool,
    /// Where the local API listens.
    pub listening: String,
    /// `project/device`
    pub device: String,
    _lock: std::fs::File,
}

/// How requests to the server go.
pub fn terms(config: &config::Link) -> link::http::Terms {
    link::http::Terms {
        connect: config.connect_timeout,
        min_rate_bytes_s: config.min_rate_bytes_s,
        rate_window: link::http::RATE_WINDOW,
        max_rate: link::http::MaxRate::new(config.max_rate_bytes_s),
        proxies: config.proxies.clone(),
    }
}

impl App {
    /// Builds every part and starts the local API; [`App::load`] does the rest.
    ///
    /// # Errors
    /// [`AppError`]; nothing runs then.
    pub async fn start(config: Config, logs: LogRing) -> Result<Self, AppError> {
        durable::make_dir(&config.state_dir).map_err(AppError::State)?;
        let lock = lock(&config.state_dir)?;
        let files = health::raise_file_limit(config.serve.max_connections);
        let clock = Clock::open(&config.state_dir).map_err(AppError::State)?;
        let identity = Identity::load(&config.state_dir).map_err(AppError::Identity)?;
        if let Err(error) = identity.mend(&config.state_dir) {
            tracing::warn!(error = crate::chain(&error), "the device's identity lies in one place only");
        }
        clock.bound(identity.ca_validity().map_err(AppError::Identity)?.not_after);
        let listener = serve::Listening::open(&config.serve).await.map_err(AppError::Listen)?;
        let listening = listener.places();
        if let Some(exposure) = config.serve.exposure() {
            tracing::warn!(exposure, "set serve.listen to 127.0.0.1, or keep others out by a firewall");
        }
        let device = format!("{}/{}", identity.project, identity.device);
        let (breaker, start, uncounted) = Breaker::start(&config.state_dir, config.health.max_early_ends);
        let (spool, spool_report) =
            Spool::open(&config.state_dir, &config.spool, &clock).map_err(AppError::Spool)?;
        inference::keep_tensors_in_heap();
        let number = getrandom::u64().unwrap_or_else(|_| clock.now().0.unsigned_abs());
        let run = Run {
            boot_id: format!("{number:016x}"),
            number,
            started: Instant::now(),
            hardware: health::read_hardware(&config.device.class),
            clock: clock.clone(),
        };
        let (update, update_changes) = watch::channel(config.update.clone());
        let (link, link_changes) = watch::channel(config.link.clone());
        let changes = Changes { update: update_changes, link: link_changes };
        let mut bounded = config.clone();
        if let Err(files) = &files {
            bounded.serve.max_connections = files.connections();
        }
        let mut parts = Parts::new(bounded, identity, run, spool.handle(), logs.clone(), start)?;
        let capture = parts.common.monitor.capture().clone();
        let max_rate = parts.common.links.borrow().http.max_rate().clone();
        let outcome = Outcome::default();
        let reload = Reload {
            current: config,
            update,
            link,
            max_rate,
            spool: spool.handle(),
            logs,
            capture,
            outcome: outcome.clone(),
        };
        if let Err(files) = files {
            parts.event(ProblemKind::FewFiles, files.to_string());
        }
        if let Some(error) = uncounted {
            let detail = format!("the state directory takes no writes: {}", crate::chain(&error));
            // Whether it still takes none is asked whenever problems are told.
            parts.say(ProblemKind::StateUnwritable, detail);
        }
        if let Some(why) = health::take_reason(&reload.current.state_dir) {
            parts.event(ProblemKind::PartFailing, format!("the agent had to end itself: {why}"));
        }
        if let Some(detail) = spool_report {
            parts.event(ProblemKind::SpoolQuarantined, detail);
        }
        note(&parts.common.run.boot_id, &listener, &parts.common.config);
        let footprint = parts.common.footprint.clone();
        let (monitor, drain) = (parts.common.monitor.clone(), parts.common.config.health.drain);
        let (supervisor, waiting, api) = parts.spawn(listener, changes, outcome)?;
        Ok(Self {
            supervisor,
            spool,
            breaker,
            monitor,
            clock,
            drain,
            reload,
            footprint,
            api,
            waiting: Some(waiting),
            is_cut_off: false,
            listening,
            device,
            _lock: lock,
        })
    }

    /// Loads what is committed, then starts what remains. May take minutes; `end` ends that, and has to be followed by
    /// [`App::shut_down`].
    ///
    /// # Errors
    /// What `end` gave.
    pub async fn load<E>(&mut self, end: impl Future<Output = E>) -> Result<(), E> {
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        health::unless_ended(waiting.load(), end).await.inspect_err(|_| self.is_cut_off = true)?;
        if let Some(waiting) = self.waiting.take() {
            waiting.begin(&mut self.supervisor, &self.breaker);
        }
        Ok(())
    }

    /// Ends once a part has failed that can't be started again; shut down then.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.supervisor.failed()
    }

    /// Takes over what may change while the agent serves, and tells in hello and status what could not.
    ///
    /// # Errors
    /// Those of the configuration that was read; nothing has changed then.
    pub fn reload(&mut self, read: Result<Config, ConfigErrors>) -> Result<Reloaded, ConfigErrors> {
        self.reload.take(read)
    }

    /// Returns once the agent's memory stays above its hard bound, after saying so; end it then.
    pub async fn outgrown(&mut self) {
        let detail = self.footprint.stays_over_hard().await;
        let kind = ProblemKind::MemoryRestart;
        tracing::error!(event = kind.name(), detail, "something needs attention");
        words::offer(&self.reload.spool, Kind::Event, &DeviceEvent { name: kind.name(), detail });
    }

    /// Ends everything in order. Returns the names of the tasks that had to be cut off; "disk" among them is a disk that
    /// does not answer.
    pub async fn shut_down(self) -> Vec<&'static str> {
        health::stopping();
        // A start that was given up: its parts are done with the spool.
        drop(self.waiting);
        let failure = self.supervisor.failure();
        self.monitor.flush(None, self.clock.now());
        let mut late = self.supervisor.shut_down(self.drain).await;
        // What was answered meanwhile, and what is counted only once its answer has left.
        self.api.at_rest(LAST_COUNTS).await;
        self.monitor.flush(None, self.clock.now());
        // An end that would come again and again counts as an early one, if it comes right after the start: for want of
        // memory, by a part that fails, or by a service manager that has waited long enough for what is loading.
        let is_settled = !self.footprint.has_outgrown() && !self.is_cut_off && failure.is_none();
        let (spool, breaker, state_dir) = (self.spool, self.breaker, self.reload.current.state_dir);
        let written = health::ends_within(LAST_WRITES, move || {
            Noted::take_away(&state_dir);
            // Commits what was offered.
            drop(spool);
            if let Some(why) = &failure {
                health::leave_reason(&state_dir, why);
            }
            if is_settled {
                breaker.settled();
            }
        });
        if !written.await {
            tracing::error!("the disk does not answer: records that waited in memory for it are lost");
            late.push(DISK);
        }
        late
    }
}

/// Notes where the agent listens, for `status` and `doctor`; they have their configuration if that fails.
fn note(boot_id: &str, listener: &serve::Listening, config: &Config) {
    let noted = Noted::new(boot_id.to_owned(), listener.address(), &config.serve);
    if let Err(error) = noted.leave(&config.state_dir) {
        tracing::warn!(error = crate::chain(&error), "the local API's address could not be noted");
    }
}

/// Makes sure that nobody else works on this state directory, until the file is dropped.
///
/// # Errors
/// [`AppError::Locked`], or [`AppError::State`] when the directory can't be opened.
pub fn lock(state_dir: &Path) -> Result<std::fs::File, AppError> {
    // The folder itself: locking must need no write.
    let failed = |operation, source| {
        AppError::State(DurableError::Io { operation, path: state_dir.to_owned(), source })
    };
    let folder = std::fs::File::open(state_dir).map_err(|source| failed("open", source))?;
    match rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AppError::Locked(state_dir.display().to_string())),
        Err(errno) => Err(failed("lock", errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::link::Links;

    #[tokio::test]
    async fn a_rate_that_changes_is_that_of_the_links_also_after_a_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_str().unwrap();
        let config = |rate: u32| {
            let flags = [
                format!("state_dir={state}"),
                "serve.listen=127.0.0.1:0".into(),
                format!("link.max_rate_bytes_s={rate}"),
            ];
            RawConfig::default().with_flags(flags.iter().map(String::as_str)).check().unwrap()
        };
        let identity = link::alone::links(&Clock::open(dir.path()).unwrap()).identity;
        identity.store(dir.path()).unwrap();
        let mut app = App::start(config(70_000), LogRing::default()).await.unwrap();
        let common = app.waiting.as_ref().unwrap().common();
        let (links, terms, clock) = (common.links.subscribe(), common.terms.clone(), app.clock.clone());
        let rate = |links: &Links| links.http.max_rate().get();
        assert_eq!(rate(&links.borrow()), 70_000);
        assert_eq!(app.reload(Ok(config(90_000))).unwrap().applied, ["link"]);
        assert_eq!(rate(&links.borrow()), 90_000);
        assert_eq!(rate(&Links::new(identity, &clock, terms).unwrap()), 90_000, "with another certificate");
        app.shut_down().await;
    }
}
