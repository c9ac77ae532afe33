//! The driver: takes Desired and commands, and performs what the machine asks, one step at a time. A new Desired
//! interrupts a transfer; transfers resume, so nothing is lost by it.

use std::time::Duration;

use protocol::ModelName;
use protocol::message::{Cause, CauseKind, Command, CommandAction};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use trust::desired::{self, Desired};
use trust::{TrustError, Verified};

use super::core::Core;
use super::fetch::{Chosen, fetch};
use super::machine::{Event, Held, Task, Work};
use super::metadata::MetadataError;
use super::selftest::{self, cause, shelf_cause};
use crate::config;
use crate::health::{BEAT_EVERY, Pulse};
use crate::link::Downlink;

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
    /// Fed by this loop.
    pub pulse: Pulse,
}

enum Next {
    Stop,
    Heard(Downlink),
    Worked(Outcome),
    Look,
    Configured,
}

enum Outcome {
    Event(Event),
    Tested(Box<(std::sync::Arc<crate::slots::Loaded>, Event)>),
    Warm(std::sync::Arc<crate::slots::Loaded>),
    Fetched(Chosen),
}

impl Driver {
    /// Works until `stop`. What is under way goes on after the next start.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let mut refresh_at = Instant::now() + self.core.config.refresh_every;
        loop {
            let now = Instant::now();
            self.core.follow_desired(now).await;
            let work = self.core.next_work(now);
            let model = work.as_ref().map(|(model, _)| model.clone());
            let mut look_at = self.core.next_deadline(now).unwrap_or(refresh_at).min(refresh_at);
            if work.is_some() {
                // Looking elsewhere interrupts a transfer: not too often.
                look_at = look_at.max(now + LOOK_WHILE_WORKING);
            }
            match self.wait(stop, work, look_at).await {
                Next::Stop => {
                    self.core.clock.keep();
                    return self.pulse.retire("update");
                }
                Next::Heard(Downlink::Desired(bytes)) => self.desired(&bytes).await,
                Next::Heard(Downlink::Command(command)) => self.command(command).await,
                Next::Worked(outcome) => {
                    if let Some(model) = model {
                        self.worked(&model, outcome).await;
                    }
                }
                Next::Look => self.core.look(Instant::now()).await,
                Next::Configured => {
                    self.core.config = self.updates.borrow_and_update().clone();
                    refresh_at = refresh_at.min(Instant::now() + self.core.config.refresh_every);
                }
            }
            if Instant::now() >= refresh_at {
                self.core.clock.keep();
                self.refresh().await;
                refresh_at = Instant::now() + self.core.config.refresh_every;
            }
        }
    }

    async fn wait(
        &mut self,
        stop: &CancellationToken,
        work: Option<(ModelName, Work)>,
        look_at: Instant,
    ) -> Next {
        let core = &self.core;
        let mut working = std::pin::pin!(async move {
            match work {
                Some((model, work)) => perform(core, &model, work).await,
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
                () = tokio::time::sleep_until(look_at) => return Next::Look,
                _ = beat.tick() => self.pulse.beat("update"),
            }
        }
    }

    async fn worked(&mut self, model: &ModelName, outcome: Outcome) {
        match outcome {
            Outcome::Event(event) => self.core.apply(model, event).await,
            Outcome::Fetched(Chosen { variant, instead }) => {
                self.core.note_variant(model, instead);
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
        record.desired.clone_from(&desired.models);
        if !self.core.persist(record) {
            return;
        }
        tracing::info!(
            revision = desired.revision.0,
            models = desired.models.len(),
            "a new Desired was accepted"
        );
        for wanted in &desired.models {
            let task = Task::of(wanted, desired.revision);
            self.core.apply(&wanted.model, Event::Wanted(task)).await;
        }
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
        desired::verify(bytes, keys, project, device, self.core.clock.now(), self.core.record().revision)
    }

    async fn try_refresh(&mut self) -> Result<(), MetadataError> {
        let refreshed = self.core.trusted.refresh(&self.core.http(), None, &self.core.clock).await;
        let refreshed = refreshed.inspect_err(|error| self.core.refresh_failed(error))?;
        self.core.metadata_trouble = None;
        self.core.refreshed(&refreshed.repository);
        self.core.director = refreshed.director;
        self.core.announce();
        Ok(())
    }

    async fn refresh(&mut self) {
        if let Err(error) = self.try_refresh().await {
            tracing::warn!(error = crate::chain(&error), "signed metadata could not be refreshed");
        }
    }

    async fn command(&mut self, command: Command) {
        match command.action {
            CommandAction::Refresh => self.refresh().await,
            CommandAction::CollectLogs { .. }
            | CommandAction::FlushPanes { .. }
            | CommandAction::ReportFloor { .. }
            | CommandAction::WidenJitter { .. } => {
                (self.commands)(command);
            }
        }
    }
}

async fn perform(core: &Core, model: &ModelName, work: Work) -> Outcome {
    let record = core.model(model);
    let Some(task) = record.phase.task().cloned() else {
        return failed(cause(CauseKind::Internal, "no task".into()));
    };
    let variant = record.phase.variant().unwrap_or_default().to_owned();
    let held = Held { release: task.release.clone(), variant };
    match work {
        Work::Fetch => match fetch(core, model, &record, &task).await {
            Ok(chosen) => Outcome::Fetched(chosen),
            Err(cause) => failed(cause),
        },
        Work::Stage => in_time(core, stage(core, held)).await,
        Work::BeginTest => Outcome::Event(Event::TestBegins),
        Work::SelfTest => in_time(core, self_test(core, model, held)).await,
        Work::Activate => in_time(core, warm_up(core, model, held)).await,
    }
}

fn failed(cause: Cause) -> Outcome {
    Outcome::Event(Event::Failed(cause))
}

async fn in_time(core: &Core, work: impl Future<Output = Outcome>) -> Outcome {
    let bound = core.config.step_timeout;
    match tokio::time::timeout(bound, work).await {
        Ok(outcome) => outcome,
        Err(_) => failed(cause(CauseKind::Timeout, format!("a step took longer than {} s", bound.as_secs()))),
    }
}

async fn stage(core: &Core, held: Held) -> Outcome {
    let shelf = core.shelf.clone();
    let checking = tokio::task::spawn_blocking(move || {
        let manifest = shelf.manifest(held.release.digest).map_err(|error| shelf_cause(&error))?;
        let no_variant =
            || cause(CauseKind::Storage, format!("the manifest has no variant {}", held.variant));
        let variant = manifest.variant(&held.variant).ok_or_else(no_variant)?;
        shelf.check(&manifest, variant).map_err(|error| shelf_cause(&error))
    });
    match checking.await {
        Ok(Ok(())) => Outcome::Event(Event::Staged),
        Ok(Err(cause)) => failed(cause),
        Err(panic) => failed(cause(CauseKind::Internal, panic.to_string())),
    }
}

async fn self_test(core: &Core, model: &ModelName, held: Held) -> Outcome {
    let (shelf, model) = (core.shelf.clone(), model.clone());
    match tokio::task::spawn_blocking(move || selftest::run(&shelf, &model, &held)).await {
        Ok(Ok((loaded, result))) => Outcome::Tested(Box::new((loaded, Event::Tested(result)))),
        Ok(Err(cause)) => failed(cause),
        Err(panic) => failed(cause(CauseKind::Internal, panic.to_string())),
    }
}

async fn warm_up(core: &Core, model: &ModelName, held: Held) -> Outcome {
    if let Some(shadow) = core.table.shadow(model).filter(|shadow| shadow.release == held.release) {
        return Outcome::Warm(shadow);
    }
    if let Some(warm) = core.warm(model, &held) {
        return Outcome::Warm(warm);
    }
    match core.load(model, held).await {
        Ok(loaded) => Outcome::Warm(loaded),
        Err(cause) => failed(cause),
    }
}
