//! The composition root: the only place that names every part and ties them together.

mod error;
mod reload;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::ModelName;
use protocol::message::{Hardware, TaskReport};
use protocol::telemetry::{DeviceEvent, Kind};
use tokio::sync::{Mutex, mpsc, watch};

use crate::config::{self, Config};
use crate::durable::{self, DurableError};
use crate::health::{self, Breaker, Clock, LogRing, Problem, ProblemKind, Pulse, Start, Supervisor};
use crate::inputs;
use crate::link::{self, Identity, Inputs, LinkState, Links, Renewal, Reporter, Session};
use crate::monitor::{Monitor, Shadow};
use crate::serve;
use crate::slots::{BootStore, Kept, Loaded, Shelf, Table};
use crate::store::{Spool, SpoolHandle};
use crate::update::{Core, CoreParts, Driver, Observer, Reported, Vitals, metadata};

pub use error::AppError;
use reload::Reload;
pub use reload::Reloaded;
use words::{Facts, LastReading, commands, hello, offer, status, watch_over};

/// Task reports on their way to the link. When full the newest wait as "last report of the model".
const REPORTS: usize = 64;
/// Messages from the server on their way to the driver.
const DOWNLINK: usize = 16;

/// Facts about this run that several parts say.
#[derive(Clone)]
struct Run {
    boot_id: String,
    number: u64,
    started: Instant,
    hardware: Hardware,
    clock: Clock,
}

/// The running agent.
pub struct App {
    supervisor: Supervisor,
    spool: Spool,
    breaker: Breaker,
    monitor: Arc<Monitor>,
    clock: Clock,
    drain: Duration,
    reload: Reload,
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
        max_rate_bytes_s: config.max_rate_bytes_s,
        proxies: config.proxies.clone(),
    }
}

impl App {
    /// Builds every part and starts them.
    ///
    /// # Errors
    /// [`AppError`]; nothing runs then.
    pub async fn start(config: Config, logs: LogRing) -> Result<Self, AppError> {
        durable::make_dir(&config.state_dir).map_err(AppError::State)?;
        let lock = lock(&config.state_dir)?;
        let clock = Clock::open(&config.state_dir).map_err(AppError::State)?;
        let identity = Identity::load(&config.state_dir).map_err(AppError::Identity)?;
        let listener = serve::Listening::open(&config.serve).await.map_err(AppError::Listen)?;
        let listening = listener.places();
        let device = format!("{}/{}", identity.project, identity.device);
        let (breaker, start, uncounted) = Breaker::start(&config.state_dir, config.health.max_early_ends);
        let (spool, spool_report) =
            Spool::open(&config.state_dir, &config.spool, &clock).map_err(AppError::Spool)?;
        let number = getrandom::u64().unwrap_or_else(|_| clock.now().0.unsigned_abs());
        let run = Run {
            boot_id: format!("{number:016x}"),
            number,
            started: Instant::now(),
            hardware: health::read_hardware(&config.device.class),
            clock: clock.clone(),
        };
        let (update, updates) = watch::channel(config.update.clone());
        let (link, link_changes) = watch::channel(config.link.clone());
        let reload =
            Reload { current: config.clone(), update, link, spool: spool.handle(), logs: logs.clone() };
        let mut parts = Parts::new(config, identity, run, spool.handle(), logs, start)?;
        if let Some(error) = uncounted {
            let detail = format!("the state directory takes no writes: {}", crate::chain(&error));
            parts.event(ProblemKind::StateUnwritable, detail);
        }
        if let Some(detail) = spool_report {
            parts.event(ProblemKind::SpoolQuarantined, detail);
        }
        let (monitor, drain) = (parts.monitor.clone(), parts.config.health.drain);
        let supervisor = parts.spawn(listener, &breaker, (updates, link_changes)).await?;
        Ok(Self { supervisor, spool, breaker, monitor, clock, drain, reload, listening, device, _lock: lock })
    }

    /// Takes over what may change while the agent serves.
    pub fn reload(&mut self, config: Config) -> Reloaded {
        self.reload.apply(config)
    }

    /// Ends everything in order. Returns the names of the tasks that had to be cut off.
    pub async fn shut_down(self) -> Vec<&'static str> {
        health::stopping();
        self.monitor.flush(None, self.clock.now());
        let late = self.supervisor.shut_down(self.drain).await;
        // Committing what was offered blocks; the runtime is about to end anyway.
        drop(self.spool);
        self.breaker.settled();
        late
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

/// Everything between configuration and running tasks.
struct Parts {
    config: Config,
    run: Run,
    table: Table,
    monitor: Arc<Monitor>,
    spool: SpoolHandle,
    logs: LogRing,
    pulse: Pulse,
    links: watch::Sender<Arc<Links>>,
    reporter: Reporter,
    boot: BootStore,
    trusted: metadata::TrustedStore,
    shelf: Shelf,
    problems: Vec<Problem>,
    load_at: tokio::time::Instant,
}

impl Parts {
    fn new(
        config: Config,
        identity: Identity,
        run: Run,
        spool: SpoolHandle,
        logs: LogRing,
        start: Start,
    ) -> Result<Self, AppError> {
        let state_dir = &config.state_dir;
        let (project, device) = (identity.project.clone(), identity.device.clone());
        let key = identity.report_key().map_err(AppError::Identity)?;
        let reporter =
            Reporter::open(state_dir, project.clone(), device, key, &run.clock).map_err(AppError::Report)?;
        let trusted =
            metadata::TrustedStore::open(state_dir, project, identity.root_pin).map_err(AppError::State)?;
        let (boot, kept) =
            BootStore::open(state_dir, &metadata::trusted_dir(state_dir)).map_err(AppError::State)?;
        let shelf = Shelf::open(state_dir).map_err(AppError::State)?;
        let links = Links::new(identity, &run.clock, terms(&config.link)).map_err(AppError::Tls)?;
        let sink = spool.clone();
        let table = Table::default();
        let shadow = Shadow::new(table.clone(), config.update.shadow_cpu_percent);
        let monitor = Monitor::new(
            &config.monitor,
            run.number,
            shadow,
            Box::new(move |kind, body| sink.offer(kind, body)),
        );
        let mut parts = Self {
            run,
            table,
            monitor: Arc::new(monitor),
            spool,
            logs,
            pulse: Pulse::default(),
            links: watch::Sender::new(Arc::new(links)),
            reporter,
            boot,
            trusted,
            shelf,
            problems: Vec::new(),
            load_at: tokio::time::Instant::now(),
            config,
        };
        parts.note_start(kept, start);
        Ok(parts)
    }

    fn note_start(&mut self, kept: Kept, start: Start) {
        match kept {
            Kept::Whole => {}
            Kept::OlderCopy => self.event(ProblemKind::BootRecordRepaired, "one copy of the boot record was damaged; the other is used".into()),
            Kept::Lost => self.event(
                ProblemKind::BootRecordLost,
                "both copies of the boot record were damaged; nothing serves until the server says what to run".into(),
            ),
        }
        if let Start::HoldingBack { early_ends } = start {
            let wait = self.config.health.settled_after;
            self.load_at += wait;
            let detail = format!(
                "the last {early_ends} starts ended early; committed models serve, new releases wait {} s",
                wait.as_secs()
            );
            self.event(ProblemKind::CrashLoop, detail);
        }
        if !self.run.clock.is_plausible() {
            self.event(
                ProblemKind::ClockImplausible,
                "the wall clock stands before a time that is known to have passed; the bound is used".into(),
            );
        }
    }

    /// Says it in the log, to the server as a record, and in hello as long as this run lasts.
    fn event(&mut self, kind: ProblemKind, detail: String) {
        tracing::error!(event = kind.name(), detail, "something needs attention");
        let event = DeviceEvent { name: kind.name(), detail: detail.clone() };
        offer(&self.spool, Kind::Event, &event);
        self.problems.push(Problem::new(kind, detail));
    }

    async fn spawn(
        self,
        listener: serve::Listening,
        breaker: &Breaker,
        (updates, link_changes): (watch::Receiver<config::Update>, watch::Receiver<config::Link>),
    ) -> Result<Supervisor, AppError> {
        let mut supervisor = Supervisor::default();
        let stop = supervisor.stop_signal();
        let (reports_tx, reports) = mpsc::channel::<TaskReport>(REPORTS);
        let (downlink_tx, downlink) = mpsc::channel(DOWNLINK);
        let (tasks_tx, tasks) = watch::channel(BTreeMap::<ModelName, TaskReport>::new());
        let (reported_tx, reported) = watch::channel(Reported::default());
        let (link_tx, link) = watch::channel(LinkState::default());

        let core = Core::new(CoreParts {
            state_dir: self.config.state_dir.clone(),
            config: self.config.update.clone(),
            clock: self.run.clock.clone(),
            shelf: self.shelf,
            table: self.table.clone(),
            trusted: self.trusted,
            boot: self.boot,
            links: self.links.subscribe(),
            hardware: self.run.hardware.clone(),
            observer: Arc::new(Watching(self.monitor.clone(), self.table.clone())),
            reports: reports_tx,
            tasks: tasks_tx,
            reported: reported_tx,
            lasting_problems: self.problems,
            load_at: self.load_at,
            settled_at: tokio::time::Instant::now() + self.config.health.settled_after,
        });
        let commands = commands(self.spool.clone(), self.monitor.clone(), self.logs, self.run.clock.clone());
        let driver = Driver { core, downlink, updates, commands, pulse: self.pulse.clone() };

        let problems = words::problems(reported.clone(), self.spool.clone());
        let labels = self.config.device.labels.clone();
        let hello = hello(self.run.clone(), labels, reported.clone(), self.spool.clone(), problems.clone());
        let resources = LastReading::default();
        let facts = Facts {
            link,
            reported: reported.clone(),
            resources: resources.clone(),
            monitor: self.monitor.clone(),
            spool: self.spool.clone(),
            spool_max_bytes: self.config.spool.max_bytes,
            keep_free_bytes: self.config.update.keep_free_bytes,
        };
        let status = status(&self.run, &self.links, hello.clone(), problems, facts);
        let session = Session::new(Inputs {
            links: self.links.subscribe(),
            reporter: self.reporter,
            spool: self.spool.clone(),
            hello: Box::new(move || hello()),
            changed: reported,
            tasks,
            reports,
            downlink: downlink_tx,
            state: link_tx,
            boot_id: self.run.boot_id.clone(),
            clock: self.run.clock.clone(),
            pulse: self.pulse.clone(),
            config: self.config.link.clone(),
            config_changes: link_changes,
        })
        .map_err(AppError::Address)?;

        let clock = self.run.clock.clone();
        let now = Arc::new(move || clock.now());
        let api = serve::Api::new(
            &self.config.serve,
            self.table,
            self.monitor.clone(),
            self.run.number,
            now,
            status,
        );
        if let Some(folder) = self.config.folder.clone() {
            supervisor.once("folder", inputs::watch(folder, api.clone(), stop.clone()));
        }
        if let Some(mqtt) = self.config.mqtt.clone() {
            supervisor.once("local broker", inputs::listen(mqtt, api.clone(), stop.clone()));
        }
        let stop_api = stop.clone();
        supervisor.once("api", listener.run(api, stop_api));

        let driver = Arc::new(Mutex::new(driver));
        driver.lock().await.core.start().await;
        keep(&mut supervisor, "update", driver, |driver, stop| {
            Box::pin(async move { driver.run(&stop).await })
        });
        keep(&mut supervisor, "link", Arc::new(Mutex::new(session)), |session, stop| {
            Box::pin(async move { session.run(&stop).await })
        });
        let renewal = Renewal {
            state_dir: self.config.state_dir.clone(),
            links: self.links,
            clock: self.run.clock.clone(),
            terms: terms(&self.config.link),
        };
        keep(&mut supervisor, "renewal", Arc::new(Mutex::new(renewal)), |renewal, stop| {
            Box::pin(async move { renewal.run(&stop).await })
        });
        let resources = (self.config.state_dir, self.config.monitor.resources_every, resources);
        supervisor
            .once("monitor", watch_over(self.monitor, self.spool, self.run.clock, resources, stop.clone()));
        let settled = breaker.settle_after(self.config.health.settled_after);
        supervisor.once("settling", async move {
            tokio::select! { () = stop.cancelled() => {}, () = settled => {} }
        });
        let pulse = self.pulse;
        let stop = supervisor.stop_signal();
        supervisor.once("watchdog", async move {
            tokio::select! { () = stop.cancelled() => {}, () = pulse.feed_watchdog() => {} }
        });
        Ok(supervisor)
    }
}

type Loop<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Keeps one part's loop running; the part itself survives a panic of its loop.
fn keep<T: Send + 'static>(
    supervisor: &mut Supervisor,
    name: &'static str,
    part: Arc<Mutex<T>>,
    run: for<'a> fn(&'a mut T, tokio_util::sync::CancellationToken) -> Loop<'a>,
) {
    let stop = supervisor.stop_signal();
    supervisor.keep(name, move || {
        let (part, stop) = (part.clone(), stop.clone());
        async move {
            run(&mut *part.lock().await, stop).await;
            Ok::<(), std::convert::Infallible>(())
        }
    });
}

/// The monitor as the update machine's observer.
struct Watching(Arc<Monitor>, Table);

impl Observer for Watching {
    fn begin(&self, loaded: &Loaded) {
        self.0.activated(&loaded.model, loaded.release.digest);
    }

    fn vitals(&self, model: &ModelName) -> Vitals {
        let Some(loaded) = self.1.active(model) else { return Vitals::default() };
        let seen = self.0.probation(model, loaded.release.digest);
        Vitals { requests: seen.requests, errors: seen.errors, p95_us: seen.p95_us }
    }
}
