//! What the driver works on: the boot record, the shelf, the table, and how a step is persisted, acted on and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::message::{Cause, CauseKind, Hardware, TaskReport};
use protocol::{Counter, Digest, ModelName};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use trust::Repository;
use trust::director::DirectorKeys;

use super::account::Passing;
use super::memory::OverBudget;
use super::metadata::{Freshness, MetadataError, TrustedStore};
use super::observe::{Observer, Verdict, judge};
use super::report::{Reported, log_transition};
use super::selftest::{cause, load_cause};
use crate::config;
use crate::health::{Clock, Footprint, LoadLog, Problem, ProblemKind};
use crate::link::Links;
use crate::link::http::Http;
use crate::machine::{Action, Event, Held, Phase, Record, Task, step};
use crate::retry::{self, Backoff};
use crate::slots::{self, BootRecord, BootStore, Loaded, Shelf, Table};

/// What a [`Core`] is put together from.
pub struct CoreParts {
    /// Where everything durable lives.
    pub state_dir: PathBuf,
    /// `[update]`
    pub config: config::Update,
    /// Bounded time.
    pub clock: Clock,
    /// Blobs and manifests.
    pub shelf: Shelf,
    /// What answers now.
    pub table: Table,
    /// Trusted metadata.
    pub trusted: TrustedStore,
    /// The boot record.
    pub boot: BootStore,
    /// The way to the server.
    pub links: watch::Receiver<Arc<Links>>,
    /// What the hardware is.
    pub hardware: Hardware,
    /// The agent's own memory.
    pub footprint: Footprint,
    /// Watches what serves.
    pub observer: Arc<dyn Observer>,
    /// Task reports as they happen. When full they are dropped: the last one of each model is said again.
    pub reports: mpsc::Sender<TaskReport>,
    /// The last task report of each model.
    pub tasks: watch::Sender<BTreeMap<ModelName, TaskReport>>,
    /// For hello and status.
    pub reported: watch::Sender<Reported>,
    /// Problems found at start that stay true.
    pub lasting_problems: Vec<Problem>,
    /// When new releases may be loaded: later than now if the crash-loop breaker has opened.
    pub load_at: Instant,
    /// When this start has not ended early.
    pub settled_at: Instant,
}

/// The update machine's hands.
pub struct Core {
    pub(super) state_dir: PathBuf,
    pub(super) config: config::Update,
    pub(super) clock: Clock,
    pub(super) shelf: Shelf,
    pub(super) table: Table,
    pub(super) trusted: TrustedStore,
    pub(super) links: watch::Receiver<Arc<Links>>,
    pub(super) hardware: Hardware,
    pub(super) footprint: Footprint,
    pub(super) director: Option<DirectorKeys>,
    pub(super) boot: BootStore,
    observer: Arc<dyn Observer>,
    pub(super) reports: mpsc::Sender<TaskReport>,
    pub(super) tasks: watch::Sender<BTreeMap<ModelName, TaskReport>>,
    pub(super) reported: watch::Sender<Reported>,
    pub(super) lasting_problems: Vec<Problem>,
    load_at: Instant,
    is_held_back: bool,
    settled_at: Option<Instant>,
    pub(super) metadata: Mutex<Option<Freshness>>,
    /// What metadata says since [`Core::follow_fences`] was here last.
    pub(super) fences: Mutex<BTreeMap<ModelName, Counter>>,
    /// When each model's fetch may begin.
    pub(super) turns: Mutex<BTreeMap<ModelName, (Digest, Instant)>>,
    /// Models whose preferred variant was tried since the configuration was read.
    pub(super) raised: BTreeSet<ModelName>,
    /// Models whose committed release the memory budget keeps out.
    pub(super) kept_out: BTreeSet<ModelName>,
    /// Models whose candidate is to run beside and does not, and why.
    pub(super) kept_beside: BTreeMap<ModelName, String>,
    pub(super) trouble: Option<Problem>,
    pub(super) metadata_trouble: Option<Problem>,
    /// Memory of threads that load.
    pub(super) passing: Passing,
    loads: LoadLog,
    pub(super) warm: BTreeMap<ModelName, Arc<Loaded>>,
    probation_since: BTreeMap<ModelName, Instant>,
    retries: BTreeMap<ModelName, (Backoff, Instant)>,
    pub(super) paused_until: Instant,
}

impl Core {
    /// Puts it together; nothing is loaded yet.
    pub fn new(parts: CoreParts) -> Self {
        let director = parts.trusted.stored_director();
        let freshness = parts.trusted.freshness();
        if let Some(freshness) = freshness {
            parts.clock.believe_until(freshness.root_expires);
        }
        let metadata = Mutex::new(freshness);
        let loads = LoadLog::open(&parts.state_dir);
        let metadata_trouble =
            parts.trusted.check().err().map(|error| Problem::new(trouble_kind(&error), crate::chain(&error)));
        let core = Self {
            state_dir: parts.state_dir,
            config: parts.config,
            clock: parts.clock,
            shelf: parts.shelf,
            table: parts.table,
            trusted: parts.trusted,
            links: parts.links,
            hardware: parts.hardware,
            footprint: parts.footprint,
            director,
            boot: parts.boot,
            observer: parts.observer,
            reports: parts.reports,
            tasks: parts.tasks,
            reported: parts.reported,
            lasting_problems: parts.lasting_problems,
            load_at: parts.load_at,
            is_held_back: parts.load_at > Instant::now(),
            settled_at: Some(parts.settled_at),
            metadata,
            fences: Mutex::default(),
            turns: Mutex::default(),
            raised: BTreeSet::new(),
            kept_out: BTreeSet::new(),
            kept_beside: BTreeMap::new(),
            trouble: None,
            metadata_trouble,
            passing: Passing::default(),
            loads,
            warm: BTreeMap::new(),
            probation_since: BTreeMap::new(),
            retries: BTreeMap::new(),
            paused_until: Instant::now(),
        };
        // Who asks before the first release is loaded hears what is recorded, not that there is no such model.
        for (model, held) in &core.record().models {
            if let Some(held) = &held.active {
                core.table.set_absent(model, format!("{} is being loaded", held.release.version));
            }
        }
        core.announce();
        core
    }

    /// After a start: counts it, then loads what the boot record names. No network is needed, and expired metadata
    /// does not matter.
    pub async fn start(&mut self) {
        let models: Vec<ModelName> = self.record().models.keys().cloned().collect();
        for model in models {
            // The count is durable before anything is loaded that might end the process.
            self.apply(&model, Event::Boot).await;
            let record = self.model(&model);
            if matches!(record.phase, Phase::Failed { .. }) {
                // When it is tried again was known to the earlier run only.
                self.entered(&model, &record);
            }
            self.report(&model);
        }
        self.load_all().await;
        // What a run that was killed had fetched beside what it serves.
        self.collect().await;
        self.announce();
    }

    /// The agent was told to end, and loses no try by it; unless it ends because it outgrew its memory.
    pub(super) async fn ends_in_order(&mut self) {
        if self.footprint.has_outgrown() {
            return;
        }
        let models: Vec<ModelName> = self.record().models.keys().cloned().collect();
        for model in models {
            self.apply(&model, Event::EndsInOrder).await;
        }
    }

    async fn load_all(&mut self) {
        let models = self.by_service();
        for model in &models {
            self.load_active(model).await;
        }
        if self.is_held_back {
            return;
        }
        // What was committed goes before candidates.
        self.follow_shadows().await;
    }

    pub(super) fn record(&self) -> &BootRecord {
        self.boot.record()
    }

    pub(super) fn model(&self, model: &ModelName) -> Record {
        self.record().models.get(model).cloned().unwrap_or_default()
    }

    pub(super) fn http(&self) -> Http {
        self.links.borrow().http.clone()
    }

    /// Signed metadata was accepted.
    pub(super) fn refreshed(&self, repository: &Repository) {
        let freshness = Freshness::of(repository, self.clock.now());
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = Some(freshness);
    }

    /// Being offline is no problem of its own: hello says how old the metadata is.
    pub(super) fn refresh_failed(&mut self, error: &MetadataError) {
        let why = error.cause();
        let kind = trouble_kind(error);
        let detail = format!("signed metadata could not be refreshed: {}", why.detail);
        self.metadata_trouble = (why.kind != CauseKind::Download).then(|| Problem::new(kind, detail));
        self.announce();
    }

    /// Asks again for what the last accepted Desired says wherever a task ended that was another one, or one that found no
    /// room where there is room now.
    pub(super) async fn follow_desired(&mut self, now: Instant) {
        self.take_back().await;
        if !self.may_load(now) {
            return;
        }
        self.follow_room().await;
        let boot = self.record();
        let strayed = boot.desired.iter().filter_map(|wanted| {
            let task = Task::of(wanted, boot.revision);
            self.model(&wanted.model).has_strayed(&task).then(|| (wanted.model.clone(), task))
        });
        for (model, task) in strayed.collect::<Vec<_>>() {
            tracing::info!(model = %model, version = %task.release.version, "the last Desired is followed again");
            self.apply(&model, Event::Wanted(task)).await;
        }
    }

    /// Ends what the last Desired doesn't ask for any more.
    pub(super) async fn take_back(&mut self) {
        let boot = self.record();
        let is_wanted = |model: &ModelName| boot.desired.iter().any(|wanted| wanted.model == *model);
        let unwanted =
            boot.models.iter().filter(|(model, record)| record.may_be_taken_back() && !is_wanted(model));
        for model in unwanted.map(|(model, _)| model.clone()).collect::<Vec<_>>() {
            tracing::info!(model = %model, "nobody asks for the release under way any more: it is not brought in");
            self.apply(&model, Event::Unwanted).await;
        }
    }

    /// One step: persist, act, report.
    pub(super) async fn apply(&mut self, model: &ModelName, event: Event) {
        let mut boot = self.record().clone();
        let before = boot.models.remove(model).unwrap_or_default();
        let (mut after, actions) = step(before.clone(), event);
        if after.active != before.active {
            after.since = after.active.as_ref().map(|_| self.clock.now());
        }
        boot.models.insert(model.clone(), after.clone());
        if after != before && !self.persist(boot) {
            return;
        }
        if after.phase != before.phase {
            log_transition(model, &after.phase);
            self.entered(model, &after);
        }
        if let Some(lost) = after.lost.filter(|lost| before.lost.as_ref() != Some(lost)) {
            let detail = format!("{model} {}: {}", lost.release.version, lost.cause.detail);
            self.observer.attention(ProblemKind::ReleaseLost, detail);
        }
        for action in actions {
            self.act(model, action).await;
        }
        self.announce();
    }

    fn entered(&mut self, model: &ModelName, record: &Record) {
        match &record.phase {
            Phase::Probation { .. } => {
                self.probation_since.entry(model.clone()).or_insert_with(Instant::now);
            }
            Phase::Failed { cause, .. } if cause.kind.is_retryable() => {
                self.warm.remove(model);
                let (backoff, at) = self
                    .retries
                    .entry(model.clone())
                    .or_insert_with(|| (Backoff::new(self.config.retry), Instant::now()));
                *at = Instant::now() + backoff.next_delay(retry::random());
            }
            // Of another release.
            Phase::Fetching { .. } => drop(self.warm.remove(model)),
            _ => {
                self.probation_since.remove(model);
                if record.phase.word().is_terminal() {
                    self.retries.remove(model);
                    self.warm.remove(model);
                }
            }
        }
    }

    async fn act(&mut self, model: &ModelName, action: Action) {
        match action {
            Action::Report => self.report(model),
            Action::ReportSuperseded(task, end) => self.report_superseded(model, &task, end),
            Action::SwitchBack => self.load_active(model).await,
            Action::StopShadow => self.table.set_shadow(model, None),
            Action::Collect => self.collect().await,
        }
    }

    /// Loads the active slot and lets it answer; falls back in memory when it can't be loaded. While new releases
    /// are held back, one in probation waits and its fallback answers.
    pub(super) async fn load_active(&mut self, model: &ModelName) {
        self.kept_out.remove(model);
        let record = self.model(model);
        let Some(held) = record.active.clone() else { return self.table.unload(model) };
        if self.table.active(model).is_some_and(|loaded| is_of(&loaded, &held)) {
            // It answers from memory, whatever became of its files.
            return self.table.set_shadow(model, None);
        }
        if self.is_held_back && matches!(record.phase, Phase::Probation { .. }) {
            let why =
                format!("{} is in probation and waits: the last starts ended early", held.release.version);
            return self.load_meanwhile(model, record.fallback, why).await;
        }
        if self.is_held_back && !self.loads.may_load(model) {
            let why = format!(
                "{} ended the agent several times in a row while it was loaded; it is tried again later",
                held.release.version
            );
            return self.table.set_absent(model, why);
        }
        if let Err(why) = self.still_fits(model, &held) {
            tracing::error!(model = %model, version = %held.release.version, %why, "the active release is not loaded");
            return self.keep_out(model, &held, why).await;
        }
        self.give_way(model, &held);
        match self.load_counted(model, held.clone()).await {
            Ok(loaded) => self.serve(loaded),
            Err(why) => {
                tracing::error!(model = %model, version = %held.release.version, why = why.detail, "the active release can't be loaded");
                self.table.set_absent(model, format!("{}: {}", held.release.version, why.detail));
                Box::pin(self.apply(model, Event::Unloadable(why))).await;
                self.stand_in(model, &held).await;
            }
        }
    }

    /// What finds no room waits for it; in probation it begins anew, where a variant is chosen that finds some.
    async fn keep_out(&mut self, model: &ModelName, held: &Held, why: OverBudget) {
        let why = format!("{}: {why}", held.release.version);
        if !matches!(self.model(model).phase, Phase::Probation { .. }) {
            self.kept_out.insert(model.clone());
            return self.table.set_absent(model, why);
        }
        Box::pin(self.apply(model, Event::OutOfRoom)).await;
        let record = self.model(model);
        if matches!(record.phase, Phase::Probation { .. }) {
            // It could not be written down; the next start finds it as it was.
            self.load_meanwhile(model, record.fallback, why).await;
        }
    }

    /// Lets the fallback answer where it could not be made the active release: the boot record took no write, or
    /// the active one is whole and may load another time.
    async fn stand_in(&mut self, model: &ModelName, failed: &Held) {
        let record = self.model(model);
        let (true, Some(fallback)) = (record.active.as_ref() == Some(failed), record.fallback) else {
            return;
        };
        if matches!(record.phase, Phase::Probation { .. }) {
            return;
        }
        match self.load(model, fallback).await {
            Ok(loaded) => {
                self.serve(loaded);
                self.announce();
            }
            Err(why) => {
                tracing::error!(model = %model, why = why.detail, "the fallback can't be loaded either");
            }
        }
    }

    /// Lets the fallback answer for what is in probation and waits, if it may.
    async fn load_meanwhile(&mut self, model: &ModelName, fallback: Option<Held>, why: String) {
        let loaded = match fallback {
            Some(fallback) if self.loads.may_load(model) && self.still_fits(model, &fallback).is_ok() => {
                self.load_counted(model, fallback).await.ok()
            }
            Some(_) | None => None,
        };
        match loaded {
            Some(loaded) => self.serve(loaded),
            None => self.table.set_absent(model, why),
        }
    }

    /// While starts end early, who was being loaded is noted, so that the next start knows.
    async fn load_counted(&mut self, model: &ModelName, held: Held) -> Result<Arc<Loaded>, Cause> {
        let loading = load(self.shelf.clone(), model.clone(), held);
        let _until_it_is_back = self.loads.begin(model, self.is_held_back);
        loading.await
    }

    pub(super) fn serve(&mut self, loaded: Arc<Loaded>) {
        tracing::info!(model = %loaded.model, version = %loaded.release.version, variant = loaded.variant, "now answering");
        self.observer.begin(&loaded);
        self.kept_out.remove(&loaded.model);
        if matches!(self.model(&loaded.model).phase, Phase::Probation { .. }) {
            self.probation_since.insert(loaded.model.clone(), Instant::now());
        }
        self.table.swap(loaded);
    }

    pub(super) async fn load(&self, model: &ModelName, held: Held) -> Result<Arc<Loaded>, Cause> {
        load(self.shelf.clone(), model.clone(), held).await
    }

    /// Whether new releases may be loaded now: not while starts end early, nor right after the disk failed.
    pub(super) fn may_load(&self, now: Instant) -> bool {
        now >= self.paused_until && !self.is_held_back
    }

    /// What passed its self-test waits here for the swap, so that it is loaded once.
    pub(super) fn keep_warm(&mut self, loaded: Arc<Loaded>) {
        self.warm.insert(loaded.model.clone(), loaded);
    }

    pub(super) fn warm(&self, model: &ModelName, held: &Held) -> Option<Arc<Loaded>> {
        self.warm.get(model).filter(|warm| is_of(warm, held)).cloned()
    }

    /// What the self-test or shadow mode has loaded.
    pub(super) fn loaded_already(&self, model: &ModelName, held: &Held) -> Option<Arc<Loaded>> {
        let shadow = self.table.shadow(model).filter(|shadow| is_of(shadow, held));
        shadow.or_else(|| self.warm(model, held))
    }

    /// The candidate is warm: from now on it answers, watched. Where that can't be written down it waits, and what answered
    /// goes on.
    pub(super) async fn activate(&mut self, model: &ModelName, loaded: Arc<Loaded>) {
        self.keep_warm(loaded.clone());
        self.apply(model, Event::Activated).await;
        if self.model(model).active.is_some_and(|held| is_of(&loaded, &held)) {
            self.warm.remove(model);
            self.serve(loaded);
            self.announce();
        }
    }

    /// After the self-test: the machine decides between shadow and swap.
    pub(super) async fn tested(&mut self, model: &ModelName, event: Event) {
        self.apply(model, event).await;
        self.follow_shadows().await;
    }

    /// Removes what no release in a slot needs.
    pub(super) async fn collect(&self) {
        let records = self.record().models.values();
        let held =
            records.clone().flat_map(|r| [&r.active, &r.fallback]).flatten().map(|held| held.release.digest);
        let tasks = records.filter_map(|r| r.phase.task().map(|task| task.release.digest));
        let pinned: BTreeSet<_> = held.chain(tasks).collect();
        let shelf = self.shelf.clone();
        let collecting = tokio::task::spawn_blocking(move || {
            let collected = shelf.collect(&pinned);
            // An update has ended: what it took besides the disk's room goes back as well.
            inference::trim_heap();
            collected
        })
        .await;
        if let Ok(Err(error)) = collecting {
            tracing::warn!(error = crate::chain(&error), "old releases could not be removed");
        }
    }

    /// The next model with something to work on.
    pub(super) fn next_work(&self, now: Instant) -> Option<(ModelName, crate::machine::Work)> {
        if !self.may_load(now) {
            return None;
        }
        self.record().models.iter().find_map(|(model, record)| Some((model.clone(), record.phase.work()?)))
    }

    /// When something has to be looked at without being asked.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retries = self.retries.values().map(|(_, at)| *at);
        let probation = (!self.probation_since.is_empty()).then(|| now + Duration::from_secs(1));
        let paused = (self.paused_until > now).then_some(self.paused_until);
        let held_back = self.is_held_back.then_some(self.load_at);
        retries.chain(probation).chain(paused).chain(held_back).chain(self.settled_at).min()
    }

    /// Retries that are due, and what probation says.
    pub(super) async fn look(&mut self, now: Instant) {
        self.try_record_again(now);
        if self.is_held_back && now >= self.load_at {
            tracing::info!("the agent has stayed up; nothing is held back any more");
            self.is_held_back = false;
            self.lasting_problems.retain(|problem| problem.kind != ProblemKind::CrashLoop);
            self.load_all().await;
        }
        if self.settled_at.is_some_and(|at| at <= now) {
            self.settled_at = None;
            let models: Vec<ModelName> = self.record().models.keys().cloned().collect();
            for model in models {
                self.apply(&model, Event::Settled).await;
            }
        }
        let due: Vec<_> =
            self.retries.iter().filter(|(_, (_, at))| *at <= now).map(|(model, _)| model.clone()).collect();
        for model in due {
            if let Some((_, at)) = self.retries.get_mut(&model) {
                // Only `Failed` sets it again; the backoff itself lives on until the task ends.
                *at = now + Duration::from_hours(24);
            }
            self.apply(&model, Event::Retry).await;
        }
        let watched: Vec<_> =
            self.probation_since.iter().map(|(model, since)| (model.clone(), now - *since)).collect();
        for (model, elapsed) in watched {
            self.look_at_probation(&model, elapsed).await;
        }
    }

    async fn look_at_probation(&mut self, model: &ModelName, elapsed: Duration) {
        let record = self.model(model);
        let (Phase::Probation { task, .. }, Some(loaded)) = (&record.phase, self.table.active(model)) else {
            return;
        };
        if loaded.release != task.release {
            return;
        }
        let seen = self.observer.vitals(model);
        match judge(&loaded.manifest.probation, self.config.probation, elapsed, seen) {
            Verdict::Wait => {}
            Verdict::Healthy => {
                let mark = release::HighWater::after_commit(
                    record.mark.as_ref(),
                    task.release.digest,
                    &loaded.manifest,
                );
                self.apply(model, Event::Healthy(mark)).await;
            }
            Verdict::Unhealthy(cause) => self.apply(model, Event::Failed(cause)).await,
        }
    }
}

async fn load(shelf: Shelf, model: ModelName, held: Held) -> Result<Arc<Loaded>, Cause> {
    let loading = tokio::task::spawn_blocking(move || slots::load(&shelf, &model, &held));
    match loading.await {
        Ok(Ok(loaded)) => Ok(Arc::new(loaded)),
        Ok(Err(error)) => Err(load_cause(&error)),
        Err(panic) => Err(cause(CauseKind::Internal, panic.to_string())),
    }
}

pub(super) fn is_of(loaded: &Loaded, held: &Held) -> bool {
    loaded.release == held.release && loaded.variant == held.variant
}

/// What metadata that can't be used is for people.
fn trouble_kind(error: &MetadataError) -> ProblemKind {
    match error.cause().kind {
        _ if error.is_damage() => ProblemKind::TrustDamaged,
        CauseKind::MetadataExpired => ProblemKind::MetadataExpired,
        CauseKind::DiskFull | CauseKind::Storage => ProblemKind::StateUnwritable,
        _ => ProblemKind::MetadataRefused,
    }
}
