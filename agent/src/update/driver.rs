//! The driver: takes Desired and commands, and performs what the machine asks, one step at a time. A new Desired
//! interrupts a transfer; transfers resume, so nothing is lost by it. It doesn't interrupt the other steps (`steps`).

use std::sync::Arc;
use std::time::Duration;

use protocol::message::{Cause, CauseKind, Command, CommandAction};
use protocol::{ModelName, Revision};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use trust::desired::{self, Desired};
use trust::director::DirectorKeys;
use trust::{TrustError, Verified};

use super::account;
use super::core::Core;
use super::fetch::{Chosen, fetch};
use super::jobs::{self, Job, Jobs};
use super::memory::Refusal;
use super::metadata::MetadataError;
use super::selftest::cause;
use super::steps::{Step, Steps};
use crate::config;
use crate::health::{Advance, BEAT_EVERY, Pulse};
use crate::link::Downlink;
use crate::machine::{Event, Task, Work};
use crate::slots::{Loaded, Table};

/// Why a Desired was not accepted.
#[derive(Debug, thiserror::Error)]
enum DesiredError {
    /// It may be signed by a new director, and the metadata that would name it can't be had.
    #[error("who may sign it is not known")]
    Refresh(#[source] MetadataError),
    /// Nobody may sign one.
    #[error("no director is named in the signed metadata")]
    NoDirector,
    /// It breaks a rule.
    #[error("it does not verify")]
    Refused(#[source] TrustError),
}

/// Probation and retries of other models wait so long while one is being worked on.
const LOOK_WHILE_WORKING: Duration = Duration::from_secs(30);

/// Runs updates.
pub struct Driver {
    /// What it works on.
    pub core: Core,
    /// From the server.
    pub downlink: mpsc::Receiver<Downlink>,
    /// `[update]`, when the configuration was read again.
    pub updates: watch::Receiver<config::Update>,
    /// Commands that are not about updates go on here.
    pub commands: Box<dyn Fn(Command) + Send + Sync>,
    /// Measurements that the server asks for.
    pub jobs: Jobs,
    /// Steps that nothing interrupts.
    pub steps: Steps,
    /// Fed by this loop.
    pub pulse: Pulse,
}

/// Beats while releases are loaded within this loop, one after another: each has the time of a step, and no more.
struct Loading {
    pulse: Pulse,
    table: Table,
    bound: Duration,
}

impl Loading {
    fn beating<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        // What loads is large, and stands in many places of the loop.
        let work = Box::pin(work);
        let advance = Advance::new(self.bound, || self.table.changes());
        self.pulse.beating_while("update", advance, work)
    }
}

enum Next {
    Stop,
    Heard(Downlink),
    Worked(Outcome),
    Stepped(Step, Outcome),
    Measured,
    Look,
    Configured,
}

/// What is worked on until something else happens.
enum Doing {
    Fetch(ModelName),
    /// What needs no work.
    Now(ModelName, Outcome),
    FetchFor(Job),
}

/// What came of a step.
pub(super) enum Outcome {
    FetchedFor(Result<(), Cause>),
    Event(Event),
    Tested(Box<(Arc<Loaded>, Event)>),
    Warm(Arc<Loaded>),
    Fetched(Chosen),
}

impl Driver {
    /// Works until `stop`. What is under way goes on after the next start.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let mut refresh_at = Instant::now() + self.core.config.refresh_every;
        loop {
            let (now, loading) = (Instant::now(), self.loading());
            loading
                .beating(async {
                    self.core.follow_fences().await;
                    self.core.follow_desired(now).await;
                })
                .await;
            let work = self.next_doing(now);
            let model = match &work {
                Some(Doing::Fetch(model) | Doing::Now(model, _)) => Some(model.clone()),
                Some(Doing::FetchFor(_)) | None => None,
            };
            let mut look_at = self.core.next_deadline(now).unwrap_or(refresh_at).min(refresh_at);
            if work.is_some() {
                // Looking elsewhere interrupts a transfer: not too often.
                look_at = look_at.max(now + LOOK_WHILE_WORKING);
            }
            match self.wait(stop, work, look_at).await {
                Next::Stop => {
                    self.jobs.end_all();
                    self.core.ends_in_order().await;
                    self.core.clock.keep();
                    return self.pulse.retire("update");
                }
                Next::Heard(Downlink::Desired(bytes)) => self.desired(&bytes).await,
                Next::Heard(Downlink::Command(command)) => self.command(command).await,
                Next::Worked(Outcome::FetchedFor(fetched)) => {
                    self.jobs.fetched(&self.core, fetched);
                    if !self.jobs.is_running() {
                        self.core.collect().await;
                    }
                }
                Next::Worked(outcome) => {
                    if let Some(model) = model {
                        loading.beating(self.worked(&model, outcome)).await;
                    }
                }
                Next::Stepped(step, outcome) => {
                    // What was asked for meanwhile may have made it stale.
                    if step.is_wanted(&self.core) {
                        loading.beating(self.worked(&step.model, outcome)).await;
                    }
                }
                Next::Measured => self.core.collect().await,
                Next::Look => loading.beating(self.core.look(Instant::now())).await,
                Next::Configured => {
                    self.core.config = self.updates.borrow_and_update().clone();
                    self.core.raised.clear();
                    refresh_at = refresh_at.min(Instant::now() + self.core.config.refresh_every);
                    self.core.announce();
                }
            }
            if Instant::now() >= refresh_at {
                self.core.clock.keep();
                self.refresh().await;
                refresh_at = Instant::now() + self.core.config.refresh_every;
            }
        }
    }

    fn loading(&self) -> Loading {
        let (pulse, table) = (self.pulse.clone(), self.core.table.clone());
        Loading { pulse, table, bound: self.core.config.step_timeout }
    }

    /// Updates come first: a measurement can be asked for again, the way back from a bad release can't wait for it.
    fn next_doing(&mut self, now: Instant) -> Option<Doing> {
        if self.steps.is_running() {
            return None;
        }
        let Some((model, work)) = self.core.next_work(now) else {
            return self.jobs.next().map(Doing::FetchFor);
        };
        if self.jobs.give_way() {
            return None;
        }
        match work {
            Work::Fetch => Some(Doing::Fetch(model)),
            Work::BeginTest => Some(Doing::Now(model, Outcome::Event(Event::TestBegins))),
            Work::Stage | Work::SelfTest | Work::Activate => {
                let step = Step::of(&self.core, &model, work)?;
                if let Some(loaded) = step.loaded_already(&self.core) {
                    return Some(Doing::Now(model, Outcome::Warm(loaded)));
                }
                if let Err(why) = step.finds_room(&self.core) {
                    return Some(Doing::Now(
                        model,
                        refused(account::refused(why, self.core.passing.bytes())),
                    ));
                }
                self.steps.begin(&self.core, step);
                None
            }
        }
    }

    async fn wait(&mut self, stop: &CancellationToken, doing: Option<Doing>, look_at: Instant) -> Next {
        let core = &self.core;
        let mut working = std::pin::pin!(async move {
            match doing {
                Some(Doing::Fetch(model)) => fetch_for(core, &model).await,
                Some(Doing::Now(_, outcome)) => outcome,
                Some(Doing::FetchFor(job)) => Outcome::FetchedFor(jobs::fetch(core, job).await),
                None => std::future::pending().await,
            }
        });
        let mut beat = tokio::time::interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Next::Stop,
                Some(heard) = self.downlink.recv() => return Next::Heard(heard),
                Ok(()) = self.updates.changed() => return Next::Configured,
                outcome = &mut working => return Next::Worked(outcome),
                (step, outcome) = self.steps.over() => return Next::Stepped(step, outcome),
                () = self.jobs.over() => return Next::Measured,
                () = tokio::time::sleep_until(look_at) => return Next::Look,
                _ = beat.tick() => self.pulse.beat("update"),
            }
        }
    }

    async fn worked(&mut self, model: &ModelName, outcome: Outcome) {
        match outcome {
            // The loop has seen to it.
            Outcome::FetchedFor(_) => {}
            Outcome::Event(event) => self.core.apply(model, event).await,
            Outcome::Fetched(Chosen { variant, instead }) => {
                if let Some(why) = instead {
                    tracing::warn!(model = %model, why, "a smaller variant was taken");
                }
                self.core.apply(model, Event::Fetched { variant }).await;
            }
            Outcome::Tested(tested) => {
                let (loaded, event) = *tested;
                self.core.keep_warm(loaded);
                self.core.tested(model, event).await;
            }
            Outcome::Warm(loaded) => self.core.activate(model, loaded).await,
        }
    }

    async fn desired(&mut self, bytes: &[u8]) {
        let desired = match self.verify(bytes).await {
            Ok(Some(desired)) => desired,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "a Desired was refused");
                return;
            }
        };
        self.core.clock.raise(desired.issued_at);
        let mut record = self.core.record().clone();
        record.revision = desired.revision;
        record.signers = self.core.director.as_ref().map(|keys| keys.signers_of(bytes)).unwrap_or_default();
        record.desired.clone_from(&desired.models);
        if !self.core.persist(record) {
            return;
        }
        tracing::info!(
            revision = desired.revision.0,
            models = desired.models.len(),
            "a new Desired was accepted"
        );
        let loading = self.loading();
        for wanted in &desired.models {
            let task = Task::of(wanted, desired.revision);
            loading.beating(self.core.apply(&wanted.model, Event::Wanted(task))).await;
        }
        loading.beating(self.core.take_back()).await;
        self.core.announce();
    }

    /// None for a repeated one. With other keys than those that are known, or none known yet, metadata is refreshed
    /// once: the director may be new or rotated.
    async fn verify(&mut self, bytes: &[u8]) -> Result<Option<Verified<Desired>>, DesiredError> {
        if self.core.director.is_some() {
            match self.check(bytes) {
                Ok(desired) => return Ok(Some(desired)),
                Err(TrustError { cause: trust::Cause::NotRising { floor, got, .. }, .. }) => {
                    // The same one comes with every connection; an older one never should.
                    if got < floor {
                        tracing::warn!(revision = got, accepted = floor, "an older Desired was refused");
                    }
                    return Ok(None);
                }
                Err(error) => tracing::warn!(
                    error = crate::chain(&error),
                    "Desired does not verify; refreshing metadata"
                ),
            }
        }
        self.try_refresh().await.map_err(DesiredError::Refresh)?;
        if self.core.director.is_none() {
            return Err(DesiredError::NoDirector);
        }
        match self.check(bytes) {
            Ok(desired) => Ok(Some(desired)),
            Err(TrustError { cause: trust::Cause::NotRising { .. }, .. }) => Ok(None),
            Err(error) => Err(DesiredError::Refused(error)),
        }
    }

    fn check(&self, bytes: &[u8]) -> Result<Verified<Desired>, TrustError> {
        let links = self.core.links.borrow().clone();
        let keys = self.core.director.as_ref().ok_or_else(|| TrustError {
            role: "director".into(),
            step: "keys",
            cause: trust::Cause::TargetAbsent,
        })?;
        let (project, device) = (&links.identity.project, &links.identity.device);
        desired::verify(
            bytes,
            keys,
            project,
            device,
            self.core.clock.now(),
            self.core.record().floor(Some(keys)),
        )
    }

    /// Takes over who may sign Desired. A record that doesn't say who signed the last one was written by an earlier
    /// version: it is put down to the keys that held until now.
    fn follow_director(&mut self, next: Option<DirectorKeys>) {
        let floor = self.core.record().floor(self.core.director.as_ref());
        let before = std::mem::replace(&mut self.core.director, next);
        let unsaid = before.filter(|before| {
            let record = self.core.record();
            record.signers.is_empty()
                && record.revision > Revision::default()
                && self.core.director.as_ref().is_some_and(|next| next != before)
        });
        if let Some(before) = unsaid {
            let mut record = self.core.record().clone();
            record.signers = before.ids();
            self.core.persist(record);
        }
        if floor > self.core.record().floor(self.core.director.as_ref()) {
            tracing::warn!(revision = floor.0, "the director's key was replaced: revisions begin anew");
        }
    }

    async fn try_refresh(&mut self) -> Result<(), MetadataError> {
        let http = self.core.http();
        let refreshing = self.core.trusted.refresh(&http, None, &self.core.clock);
        let refreshed = self.pulse.beating("update", refreshing).await;
        let refreshed = refreshed.inspect_err(|error| self.core.refresh_failed(error))?;
        self.core.metadata_trouble = None;
        self.core.refreshed(&refreshed.repository);
        self.follow_director(refreshed.director);
        self.core.announce();
        Ok(())
    }

    async fn refresh(&mut self) {
        match self.try_refresh().await {
            Ok(()) => self.pulse.beating("update", self.core.refresh_fences()).await,
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "signed metadata could not be refreshed");
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command.action {
            CommandAction::Refresh => self.refresh().await,
            CommandAction::Measure { .. } => {
                self.jobs.ask(command, Instant::now(), self.core.clock.now());
            }
            CommandAction::CollectLogs { .. }
            | CommandAction::Unknown
            | CommandAction::FlushPanes { .. }
            | CommandAction::ReportFloor { .. }
            | CommandAction::WidenJitter { .. } => {
                (self.commands)(command);
            }
        }
    }
}

async fn fetch_for(core: &Core, model: &ModelName) -> Outcome {
    let record = core.model(model);
    let Some(task) = record.phase.task().cloned() else {
        return failed(cause(CauseKind::Internal, "no task".into()));
    };
    // It only shrinks from here on: no thread begins meanwhile.
    let passing = core.passing.bytes();
    let fetched = fetch(core, model, &record, &task).await;
    fetched.map_or_else(|why| refused(account::refused(why, passing)), Outcome::Fetched)
}

fn refused(Refusal { cause, lacked }: Refusal) -> Outcome {
    Outcome::Event(lacked.map_or(Event::Failed(cause.clone()), |lacked| Event::TooBig(cause, lacked)))
}

pub(super) fn failed(cause: Cause) -> Outcome {
    Outcome::Event(Event::Failed(cause))
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use protocol::message::TaskPhase;
    use trust::desired::{DesiredModel, Mode};

    use super::super::memory;
    use super::super::rig::{F32_BYTES, INT8_BYTES, Rig, name};
    use super::*;
    use crate::machine::{Phase, Task};

    fn driver(core: Core) -> Driver {
        Driver {
            downlink: mpsc::channel(1).1,
            updates: watch::channel(core.config.clone()).1,
            core,
            commands: Box::new(|_| {}),
            jobs: Jobs::new(Box::new(|_| {}), watch::Sender::default()),
            steps: Steps::default(),
            pulse: Pulse::default(),
        }
    }

    #[tokio::test]
    async fn what_is_recorded_is_told_before_anything_is_loaded() {
        let mut rig = Rig::new();
        let (model, release) = (name("digits"), rig.held.release.clone());
        let task = Task { release, mode: Mode::Replace, rollout: None, attempt: 0, revision: Revision(1) };
        rig.stands(&model, Phase::Committed { task });
        let started = Rig::core(rig.folder.path(), None, crate::monitor::Vitals::default());
        let told = started.reported.borrow().models.clone();
        let active = told.first().and_then(|model| model.active.clone());
        assert_eq!((told.len(), active), (1, Some(rig.held.release)));
    }

    #[tokio::test]
    async fn the_loop_beats_while_it_loads() {
        let mut rig = Rig::new();
        let model = name("digits");
        rig.stands(&model, Phase::Idle);
        let mut driver = driver(rig.core);
        // There is room for it now: this is the first thing that the loop does.
        driver.core.kept_out.insert(model.clone());
        let (pulse, table, stop) =
            (driver.pulse.clone(), driver.core.table.clone(), CancellationToken::new());
        let later = Instant::now().into_std() + Duration::from_mins(1);
        let beaten = async {
            while pulse.stuck(later, BEAT_EVERY).is_empty() {
                tokio::task::yield_now().await;
            }
            table.active(&model).is_none()
        };
        tokio::select! {
            () = driver.run(&stop) => panic!("nobody has stopped it"),
            is_loading = beaten => assert!(is_loading, "it has beaten only after that"),
        }
    }

    #[tokio::test]
    async fn a_raised_budget_takes_up_what_the_fleet_still_asks_for_and_nothing_else() {
        let mut rig = Rig::new();
        let (model, refused) = (name("digits"), rig.held_as("f32").release);
        let task =
            |release| Task { release, mode: Mode::Replace, rollout: None, attempt: 0, revision: Revision(1) };
        let phase = Phase::Fetching { task: task(refused.clone()) };
        rig.core.config.memory_budget_bytes = INT8_BYTES - 1;
        rig.stands(&model, phase);
        let mut boot = rig.core.record().clone();
        boot.desired = vec![DesiredModel {
            model: model.clone(),
            release: refused,
            mode: Mode::Replace,
            rollout: None,
            attempt: 0,
        }];
        assert!(rig.core.persist(boot));
        let mut driver = driver(rig.core);
        let manifest = driver.core.shelf.manifest(rig.held.release.digest).unwrap();
        let variants: Vec<_> = manifest.variants.iter().collect();
        let choice = memory::choose(&variants, driver.core.room_for(&model, Mode::Replace));
        driver.worked(&model, super::refused(choice.unwrap_err())).await;
        let phase = |driver: &Driver| driver.core.model(&model).phase.word();
        for budget in [INT8_BYTES - 1, 1] {
            driver.core.config.memory_budget_bytes = budget;
            driver.core.follow_desired(Instant::now()).await;
            assert_eq!(phase(&driver), TaskPhase::Failed, "nothing has grown");
        }
        let asked = driver.core.record().clone();
        let mut withdrawn = asked.clone();
        withdrawn.desired.clear();
        assert!(driver.core.persist(withdrawn));
        driver.core.config.memory_budget_bytes = INT8_BYTES;
        driver.core.follow_desired(Instant::now()).await;
        assert_eq!(phase(&driver), TaskPhase::Failed, "nobody asks for it any more");
        assert!(driver.core.persist(asked));
        driver.core.follow_desired(Instant::now()).await;
        assert_eq!(phase(&driver), TaskPhase::Fetching);
        assert_eq!(driver.core.model(&model).lacked, None);
    }

    #[tokio::test]
    async fn a_candidate_under_way_is_put_off_where_the_budget_has_no_room_for_it_any_more() {
        for phase in [
            |task| Phase::SelfTest { task, variant: "f32".into(), tries_left: 2 },
            |task| Phase::Activating { task, variant: "f32".into(), tries_left: 2 },
        ] {
            let mut rig = Rig::new();
            let (model, release) = (name("digits"), rig.held.release.clone());
            let wanted = DesiredModel {
                model: model.clone(),
                release,
                mode: Mode::Replace,
                rollout: None,
                attempt: 0,
            };
            rig.stands(&model, phase(Task::of(&wanted, Revision(0))));
            let mut boot = rig.core.record().clone();
            boot.desired = vec![wanted];
            assert!(rig.core.persist(boot));
            rig.core.config.memory_budget_bytes = F32_BYTES - 1;
            rig.core.start().await;
            let mut driver = driver(rig.core);
            let Some(Doing::Now(_, outcome)) = driver.next_doing(Instant::now()) else {
                panic!("it is loaded")
            };
            driver.worked(&model, outcome).await;
            let record = driver.core.model(&model);
            assert_eq!(record.phase.cause().map(|cause| cause.kind), Some(CauseKind::TooBig));
            assert!(driver.core.table.active(&model).is_some(), "what was committed answers");
            driver.core.follow_desired(Instant::now()).await;
            assert_eq!(driver.core.model(&model).phase.word(), TaskPhase::Failed, "nothing has grown");
            driver.core.config.memory_budget_bytes = F32_BYTES;
            driver.core.follow_desired(Instant::now()).await;
            assert_eq!(driver.core.model(&model).phase.word(), TaskPhase::Fetching);
        }
    }

    #[tokio::test]
    async fn an_update_begins_once_the_measurement_that_it_ended_holds_no_memory() {
        let mut rig = Rig::new();
        let (release, model) = (rig.held.release.clone(), name("digits"));
        let action =
            CommandAction::Measure { model: model.clone(), release, variant: "int8".into(), max_s: 60 };
        let task = Task {
            release: rig.held.release.clone(),
            mode: Mode::Replace,
            rollout: None,
            attempt: 0,
            revision: Revision(1),
        };
        let staging = Phase::Verified { task, variant: "int8".into() };
        rig.stands(&model, staging);
        let mut driver = driver(rig.core);
        let now = Instant::now();
        driver.jobs.ask(Command { id: "a".into(), at: UnixMillis(0), action }, now, UnixMillis(0));
        let hanging = driver.jobs.hang(&driver.core);
        assert!(driver.next_doing(now).is_none() && !driver.steps.is_running(), "it waits");
        drop(hanging);
        driver.jobs.over().await;
        assert!(driver.next_doing(now).is_none() && driver.steps.is_running(), "it has begun");
        assert_eq!(driver.core.used_by_all(), INT8_BYTES, "the candidate alone");
    }
}
