//! All parts, made from the configuration, and how they are tied together: one method for each part that needs more
//! than a line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use protocol::ModelName;
use protocol::message::TaskReport;
use protocol::telemetry::{DeviceEvent, Kind};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::reload::Outcome;
use super::words::{self, Facts, LastReading, MakeHello, commands, hello, offer, status, watch_over};
use super::{AppError, Run, terms};
use crate::config::{self, Config};
use crate::health::{
    Advance, Breaker, Footprint, LogRing, Problem, ProblemKind, Pulse, Start, Supervisor, give_back_in_time,
    starting,
};
use crate::inputs;
use crate::link::http::{Refusal, Terms};
use crate::link::{
    Admission, Downlink, Identity, Inputs, LinkState, Links, Renewal, Reporter, SampleUpload, Session,
};
use crate::monitor::{Capture, Monitor, Shadow, Vitals};
use crate::serve;
use crate::slots::{BootStore, Kept, Loaded, Shelf, Table};
use crate::store::{Samples, SpoolHandle};
use crate::trusted_files;
use crate::update::{Core, CoreParts, Driver, Jobs, Measuring, Observer, Reported, Steps, metadata};

/// Task reports on their way to the link. When full the newest wait as "last report of the model".
const REPORTS: usize = 64;
/// Messages from the server on their way to the driver.
const DOWNLINK: usize = 16;

/// What most parts use; cheap to clone.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) config: Arc<Config>,
    pub(super) run: Run,
    pub(super) table: Table,
    pub(super) monitor: Arc<Monitor>,
    pub(super) spool: SpoolHandle,
    pub(super) links: watch::Sender<Arc<Links>>,
    pub(super) pulse: Pulse,
    pub(super) footprint: Footprint,
    /// Of all requests to the server.
    pub(super) terms: Terms,
}

/// Everything between configuration and running tasks.
pub(super) struct Parts {
    pub(super) common: Common,
    logs: LogRing,
    reporter: Reporter,
    boot: BootStore,
    trusted: metadata::TrustedStore,
    shelf: Shelf,
    problems: Vec<Problem>,
    load_at: tokio::time::Instant,
}

impl Parts {
    pub(super) fn new(
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
        let mended = trusted.mend();
        let (boot, kept) =
            BootStore::open(state_dir, &trusted_files::trusted_dir(state_dir)).map_err(AppError::State)?;
        let shelf = Shelf::open(state_dir).map_err(AppError::State)?;
        let terms = terms(&config.link);
        let links = Links::new(identity, &run.clock, terms.clone()).map_err(AppError::Tls)?;
        let sink = spool.clone();
        let table = Table::default();
        let shadow = Shadow::new(table.clone(), config.update.shadow_cpu_percent);
        let samples = Samples::open(state_dir, &config.spool, run.clock.now());
        let capture = Arc::new(Capture::new(config.capture.clone(), samples, run.number));
        let monitor = Monitor::new(
            &config.monitor,
            run.number,
            shadow,
            capture,
            Box::new(move |kind, body| sink.offer(kind, body)),
        );
        let common = Common {
            run,
            table,
            monitor: Arc::new(monitor),
            spool,
            links: watch::Sender::new(Arc::new(links)),
            pulse: Pulse::default(),
            footprint: Footprint::new(config.health.memory),
            terms,
            config: Arc::new(config),
        };
        common.spool.beat_in(common.pulse.clone());
        let mut parts = Self {
            common,
            logs,
            reporter,
            boot,
            trusted,
            shelf,
            problems: Vec::new(),
            load_at: tokio::time::Instant::now(),
        };
        parts.note_start(kept, start);
        parts.note_root(mended);
        Ok(parts)
    }

    fn note_start(&mut self, kept: Kept, start: Start) {
        match kept {
            Kept::Whole => {}
            Kept::OlderCopy => self.event(ProblemKind::BootRecordRepaired, "one copy of the boot record, or of its marks, was damaged; the other is used".into()),
            Kept::Lost => self.event(
                ProblemKind::BootRecordLost,
                "both copies of the boot record were damaged at this start: no model serves before the server has said again what to run".into(),
            ),
        }
        if let Start::HoldingBack { early_ends } = start {
            let wait = self.common.config.health.settled_after;
            self.load_at += wait;
            let detail = format!(
                "the last {early_ends} starts ended early; committed models serve, new releases wait {} s",
                wait.as_secs()
            );
            self.event(ProblemKind::CrashLoop, detail);
        }
        if let Some(Problem { kind, detail }) = self.common.run.clock.problem() {
            self.event(kind, detail);
        }
        if let Some(Problem { kind, detail }) = self.common.run.clock.behind() {
            // Whether it still does is asked whenever problems are told.
            self.say(kind, detail);
        }
    }

    /// What is damaged in both copies is a problem of the metadata, as long as it lasts.
    fn note_root(&mut self, mended: Result<metadata::Copies, metadata::MetadataError>) {
        match mended {
            Ok(metadata::Copies::Both) => {}
            Ok(metadata::Copies::One) => self.event(
                ProblemKind::TrustRepaired,
                "one copy of the trusted root was damaged; the other is used".into(),
            ),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "what this device trusts was not made whole");
            }
        }
    }

    /// Says it in the log and to the server.
    pub(super) fn say(&self, kind: ProblemKind, detail: String) {
        say(&self.common.spool, kind, detail);
    }

    /// The same, and in hello and status as long as this run lasts.
    pub(super) fn event(&mut self, kind: ProblemKind, detail: String) {
        self.say(kind, detail.clone());
        self.problems.push(Problem::new(kind, detail));
    }

    /// Ties the parts together and lets the local API answer; what remains begins by [`Waiting::begin`].
    ///
    /// # Errors
    /// [`AppError`]; what has started ends with the supervisor.
    pub(super) fn spawn(
        self,
        listener: serve::Listening,
        changes: Changes,
        rereading: Outcome,
    ) -> Result<(Supervisor, Waiting, serve::Api), AppError> {
        let mut supervisor = Supervisor::default();
        let common = self.common.clone();
        let (core_ends, session_ends, link) = channels(changes);
        let measuring = core_ends.measuring.subscribe();
        let reported = session_ends.reported.clone();
        let troubles = inputs::Troubles::default();
        let (pulse, failures) = (common.pulse.clone(), supervisor.failures());
        let of_parts = move || {
            let now = Instant::now();
            let parts = failures.problems(now).into_iter().chain(pulse.problem(now));
            parts.chain(rereading.problems()).collect()
        };
        let problems = words::problems(
            reported.clone(),
            common.run.clock.clone(),
            common.config.state_dir.clone(),
            common.spool.clone(),
            common.footprint.clone(),
            troubles.clone(),
            of_parts,
        );
        let labels = common.config.device.labels.clone();
        let hello =
            hello(common.run.clone(), labels, reported.clone(), common.spool.clone(), problems.clone());
        let resources = LastReading::default();
        let samples = common.samples(link.clone());
        let refusal = watch::Sender::new(None);
        let facts = common.facts(link.clone(), refusal.subscribe(), reported, measuring, resources.clone());
        let admission = Admission { links: common.links.subscribe(), link, refusal };
        let status = status(&common.run, &common.links, hello.clone(), problems, facts);
        let (driver, reporter) = self.driver(core_ends);
        let session = common.session(reporter, hello, session_ends)?;
        let api = common.serve(&mut supervisor, listener, status, &troubles)?;
        Ok((supervisor, Waiting { common, driver, session, samples, admission, resources }, api))
    }

    /// The update machine, and what remains of the parts.
    fn driver(self, ends: CoreEnds) -> (Driver, Reporter) {
        let common = self.common;
        let core = Core::new(CoreParts {
            state_dir: common.config.state_dir.clone(),
            config: common.config.update.clone(),
            clock: common.run.clock.clone(),
            shelf: self.shelf,
            table: common.table.clone(),
            trusted: self.trusted,
            boot: self.boot,
            links: common.links.subscribe(),
            hardware: common.run.hardware.clone(),
            footprint: common.footprint.clone(),
            observer: Arc::new(Watching {
                monitor: common.monitor.clone(),
                table: common.table.clone(),
                spool: common.spool.clone(),
            }),
            reports: ends.reports,
            tasks: ends.tasks,
            reported: ends.reported,
            lasting_problems: self.problems,
            load_at: self.load_at,
            settled_at: tokio::time::Instant::now() + common.config.health.settled_after,
        });
        let jobs = Jobs::new(words::measurements(common.spool.clone()), ends.measuring);
        let commands = commands(common.spool, common.monitor, self.logs, common.run.clock);
        let (downlink, updates, pulse) = (ends.downlink, ends.updates, common.pulse);
        let steps = Steps::default();
        (Driver { core, downlink, updates, commands, jobs, steps, pulse }, self.reporter)
    }
}

/// Parts that wait until what is committed is loaded.
pub(super) struct Waiting {
    common: Common,
    driver: Driver,
    session: Session,
    samples: SampleUpload,
    admission: Admission,
    resources: LastReading,
}

impl Waiting {
    #[cfg(test)]
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Loads what is committed. May take minutes, each release as long as a step: systemd is asked for the time.
    pub(super) async fn load(&mut self) {
        let table = &self.common.table;
        let advance = Advance::new(self.common.config.update.step_timeout, || table.changes());
        starting(advance, self.driver.core.start()).await;
    }

    /// Starts the loops.
    pub(super) fn begin(self, supervisor: &mut Supervisor, breaker: &Breaker) {
        let Self { common, driver, session, samples, admission, resources } = self;
        keep_one(supervisor, "update", Arc::new(Mutex::new(driver)), |driver, stop| {
            Box::pin(async move { driver.run(&stop).await })
        });
        keep_one(supervisor, "link", Arc::new(Mutex::new(session)), |session, stop| {
            Box::pin(async move { session.run(&stop).await })
        });
        keep_one(supervisor, "renewal", Arc::new(Mutex::new(common.renewal())), |renewal, stop| {
            Box::pin(async move { renewal.run(&stop).await })
        });
        keep(supervisor, "samples", move |stop| samples.clone().run(stop));
        keep(supervisor, "admission", move |stop| admission.clone().run(stop));
        common.look_after(supervisor, resources, breaker);
    }
}

impl Common {
    fn facts(
        &self,
        link: watch::Receiver<LinkState>,
        refusal: watch::Receiver<Option<Refusal>>,
        reported: watch::Receiver<Reported>,
        measuring: watch::Receiver<Vec<Measuring>>,
        resources: LastReading,
    ) -> Facts {
        Facts {
            link,
            refusal,
            reported,
            measuring,
            resources,
            monitor: self.monitor.clone(),
            spool: self.spool.clone(),
            keep_free_bytes: self.config.update.keep_free_bytes,
        }
    }

    fn session(&self, reporter: Reporter, hello: MakeHello, ends: SessionEnds) -> Result<Session, AppError> {
        let inputs = Inputs {
            links: self.links.subscribe(),
            reporter,
            spool: self.spool.clone(),
            hello: Box::new(move || hello()),
            changed: signal(ends.reported),
            tasks: ends.tasks,
            reports: ends.reports,
            downlink: ends.downlink,
            state: ends.state,
            boot_id: self.run.boot_id.clone(),
            clock: self.run.clock.clone(),
            pulse: self.pulse.clone(),
            config: self.config.link.clone(),
            config_changes: ends.changes,
        };
        Session::new(inputs).map_err(AppError::Address)
    }

    /// The local API, and the inputs that ask it.
    fn serve(
        &self,
        supervisor: &mut Supervisor,
        listener: serve::Listening,
        status: serve::StatusSource,
        troubles: &inputs::Troubles,
    ) -> Result<serve::Api, AppError> {
        let clock = self.run.clock.clone();
        let now = Arc::new(move || clock.now());
        let (table, monitor) = (self.table.clone(), self.monitor.clone());
        let api = serve::Api::new(&self.config.serve, table, monitor, self.run.number, now, status);
        if let Some(folder) = self.config.folder.clone() {
            let (api, troubles) = (api.clone(), troubles.clone());
            keep(supervisor, "folder", move |stop| {
                inputs::watch(folder.clone(), api.clone(), troubles.clone(), stop)
            });
        }
        if let Some(mqtt) = self.config.mqtt.clone() {
            let (api, troubles) = (api.clone(), troubles.clone());
            keep(supervisor, "local broker", move |stop| {
                inputs::listen(mqtt.clone(), api.clone(), troubles.clone(), stop)
            });
        }
        // Its sockets can't be had twice.
        let serving = listener.start(api.clone(), self.pulse.clone(), supervisor.stop_signal());
        supervisor.vital("api", serving.map_err(AppError::Listen)?);
        Ok(api)
    }

    fn samples(&self, link: watch::Receiver<LinkState>) -> SampleUpload {
        let capture = self.monitor.capture().clone();
        SampleUpload { capture, links: self.links.subscribe(), link, retry: self.config.update.retry }
    }

    fn renewal(&self) -> Renewal {
        Renewal {
            state_dir: self.config.state_dir.clone(),
            links: self.links.clone(),
            clock: self.run.clock.clone(),
            terms: self.terms.clone(),
        }
    }

    /// Readings and panes in time, the breaker's settling, the watchdog.
    fn look_after(&self, supervisor: &mut Supervisor, resources: LastReading, breaker: &Breaker) {
        let resources = (self.config.state_dir.clone(), self.config.monitor.resources_every, resources);
        let (monitor, spool, clock) = (self.monitor.clone(), self.spool.clone(), self.run.clock.clone());
        keep(supervisor, "monitor", move |stop| {
            watch_over(monitor.clone(), spool.clone(), clock.clone(), resources.clone(), stop)
        });
        keep(supervisor, "pages", |stop| async move {
            tokio::select! { () = stop.cancelled() => {}, () = give_back_in_time() => {} }
        });
        let (settled, stop) =
            (breaker.settle_after(self.config.health.settled_after), supervisor.stop_signal());
        supervisor.once("settling", async move {
            tokio::select! { () = stop.cancelled() => {}, () = settled => {} }
        });
        let (pulse, stop) = (self.pulse.clone(), supervisor.stop_signal());
        supervisor.once("watchdog", async move {
            tokio::select! { () = stop.cancelled() => {}, () = pulse.feed_watchdog() => {} }
        });
    }
}

/// Sections of the configuration that may change while their parts run.
pub(super) struct Changes {
    pub(super) update: watch::Receiver<config::Update>,
    pub(super) link: watch::Receiver<config::Link>,
}

/// The update machine's ends of the channels.
struct CoreEnds {
    reports: mpsc::Sender<TaskReport>,
    tasks: watch::Sender<BTreeMap<ModelName, TaskReport>>,
    reported: watch::Sender<Reported>,
    downlink: mpsc::Receiver<Downlink>,
    updates: watch::Receiver<config::Update>,
    measuring: watch::Sender<Vec<Measuring>>,
}

/// The session's ends.
struct SessionEnds {
    reports: mpsc::Receiver<TaskReport>,
    tasks: watch::Receiver<BTreeMap<ModelName, TaskReport>>,
    reported: watch::Receiver<Reported>,
    downlink: mpsc::Sender<Downlink>,
    state: watch::Sender<LinkState>,
    changes: watch::Receiver<config::Link>,
}

fn channels(changes: Changes) -> (CoreEnds, SessionEnds, watch::Receiver<LinkState>) {
    let (reports_tx, reports) = mpsc::channel(REPORTS);
    let (downlink_tx, downlink) = mpsc::channel(DOWNLINK);
    let (tasks_tx, tasks) = watch::channel(BTreeMap::new());
    let (reported_tx, reported) = watch::channel(Reported::default());
    let (state, link) = watch::channel(LinkState::default());
    let Changes { update, link: changes } = changes;
    let core = CoreEnds {
        reports: reports_tx,
        tasks: tasks_tx,
        reported: reported_tx,
        downlink,
        updates: update,
        measuring: watch::Sender::default(),
    };
    (core, SessionEnds { reports, tasks, reported, downlink: downlink_tx, state, changes }, link)
}

/// Tells when `told` changes, not what it says: the link knows nothing of updates.
fn signal(mut told: watch::Receiver<Reported>) -> watch::Receiver<()> {
    let (changes, changed) = watch::channel(());
    tokio::spawn(async move { while told.changed().await.is_ok() && changes.send(()).is_ok() {} });
    changed
}

type Loop<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Keeps a part running that is made anew each time.
fn keep<F: Future<Output = ()> + Send + 'static>(
    supervisor: &mut Supervisor,
    name: &'static str,
    make: impl Fn(CancellationToken) -> F + Send + 'static,
) {
    let stop = supervisor.stop_signal();
    supervisor.keep(name, move || make(stop.clone()));
}

/// Keeps one part's loop running; the part itself survives a panic of its loop.
fn keep_one<T: Send + 'static>(
    supervisor: &mut Supervisor,
    name: &'static str,
    part: Arc<Mutex<T>>,
    run: for<'a> fn(&'a mut T, CancellationToken) -> Loop<'a>,
) {
    let stop = supervisor.stop_signal();
    supervisor.keep(name, move || {
        let (part, stop) = (part.clone(), stop.clone());
        async move { run(&mut *part.lock().await, stop).await }
    });
}

/// Says it in the log, and to the server as a record.
fn say(spool: &SpoolHandle, kind: ProblemKind, detail: String) {
    tracing::error!(event = kind.name(), detail, "something needs attention");
    offer(spool, Kind::Event, &DeviceEvent { name: kind.name(), detail });
}

/// The monitor as the update machine's observer.
struct Watching {
    monitor: Arc<Monitor>,
    table: Table,
    spool: SpoolHandle,
}

impl Observer for Watching {
    fn begin(&self, loaded: &Loaded) {
        self.monitor.activated(&loaded.model, loaded.release.digest);
    }

    fn vitals(&self, model: &ModelName) -> Vitals {
        let Some(loaded) = self.table.active(model) else { return Vitals::default() };
        let seen = self.monitor.probation(model, loaded.release.digest);
        Vitals { requests: seen.requests, errors: seen.errors, p95_us: seen.p95_us }
    }

    fn attention(&self, kind: ProblemKind, detail: String) {
        say(&self.spool, kind, detail);
    }
}
