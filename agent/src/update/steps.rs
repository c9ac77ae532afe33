//! Steps that take a thread of their own: checking, testing and loading a release. Nothing can interrupt such a thread,
//! so one step runs at a time, whatever is heard meanwhile, and its end is waited for: each holds a copy of the model.

use std::sync::Arc;
use std::time::Duration;

use protocol::ModelName;
use protocol::message::{Cause, CauseKind};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::account::Reserved;
use super::core::Core;
use super::driver::{Outcome, failed};
use super::memory::{self, Refusal, Room};
use super::selftest::{self, cause, load_cause, shelf_cause};
use crate::machine::{Event, Held, Work};
use crate::slots::{self, Loaded, Shelf};

/// Steps that took too long and may still run; beyond them none is begun.
const MAX_LATE: usize = 2;

type Thread = Box<dyn FnOnce() -> Outcome + Send>;

/// The step that runs, and those that were given up.
#[derive(Default)]
pub struct Steps {
    running: Option<Running>,
    /// Handles that don't keep what the threads return: it is a model.
    late: Vec<AbortHandle>,
}

struct Running {
    step: Step,
    until: Instant,
    bound: Duration,
    thread: JoinHandle<Outcome>,
}

/// Which step, of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) model: ModelName,
    pub(super) work: Work,
    held: Held,
}

impl Step {
    /// The step that a model's record asks for.
    pub(super) fn of(core: &Core, model: &ModelName, work: Work) -> Option<Self> {
        let record = core.model(model);
        let task = record.phase.task()?;
        let variant = record.phase.variant().unwrap_or_default().to_owned();
        Some(Self { model: model.clone(), work, held: Held { release: task.release.clone(), variant } })
    }

    /// Whether its result still counts: meanwhile another release may have been asked for.
    pub(super) fn is_wanted(&self, core: &Core) -> bool {
        let work = core.model(&self.model).phase.work();
        work.and_then(|work| Self::of(core, &self.model, work)).as_ref() == Some(self)
    }

    /// What the self-test or shadow mode has loaded for it.
    pub(super) fn loaded_already(&self, core: &Core) -> Option<Arc<Loaded>> {
        (self.work == Work::Activate).then(|| core.loaded_already(&self.model, &self.held)).flatten()
    }

    /// Whether the budget, which may have been lowered since it was chosen, still has room for what it loads.
    pub(super) fn finds_room(&self, core: &Core) -> Result<(), Refusal> {
        if !matches!(self.work, Work::SelfTest | Work::Activate) {
            return Ok(());
        }
        let record = core.model(&self.model);
        let Some(task) = record.phase.task() else { return Ok(()) };
        // A manifest that can't be read is found out by the step itself.
        let manifest = core.shelf.manifest(self.held.release.digest).ok();
        let variant = manifest.as_ref().and_then(|manifest| manifest.variant(&self.held.variant));
        let room = Room { soft: None, ..core.room_of(&self.model, task) };
        variant.map_or(Ok(()), |variant| memory::choose(&[variant], room).map(drop))
    }

    /// What its thread does.
    fn thread(&self, core: &Core) -> Thread {
        let (shelf, model, held) = (core.shelf.clone(), self.model.clone(), self.held.clone());
        let memory = || core.reserve(&self.held);
        match self.work {
            Work::Stage => Box::new(move || stage(&shelf, &held)),
            Work::SelfTest => within(memory(), move || self_test(&shelf, &model, &held)),
            Work::Activate => within(memory(), move || load(&shelf, &model, &held)),
            Work::Fetch | Work::BeginTest => {
                Box::new(|| failed(cause(CauseKind::Internal, "a step without a thread".into())))
            }
        }
    }
}

fn within(memory: Reserved, work: impl FnOnce() -> Outcome + Send + 'static) -> Thread {
    Box::new(move || {
        let outcome = work();
        drop(memory);
        outcome
    })
}

impl Steps {
    /// Whether one runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins a step on a thread of its own. One that can't be begun ends at once.
    pub(super) fn begin(&mut self, core: &Core, step: Step) {
        let mut thread = step.thread(core);
        self.late.retain(|thread| !thread.is_finished());
        if self.late.len() >= MAX_LATE {
            let why = format!("{MAX_LATE} earlier steps took too long and have not ended yet");
            thread = Box::new(move || failed(cause(CauseKind::Timeout, why)));
        }
        let (bound, thread) = (core.config.step_timeout, tokio::task::spawn_blocking(thread));
        self.running = Some(Running { step, until: Instant::now() + bound, bound, thread });
    }

    /// Waits until the step that runs is over or its time is up; for ever where none does. May be dropped.
    pub(super) async fn over(&mut self) -> (Step, Outcome) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let ended = tokio::time::timeout_at(running.until, &mut running.thread).await;
        let outcome = if let Ok(ended) = ended {
            ended.unwrap_or_else(|panic| failed(cause(CauseKind::Internal, panic.to_string())))
        } else {
            let why = format!("a step took longer than {} s", running.bound.as_secs());
            failed(cause(CauseKind::Timeout, why))
        };
        let step = running.step.clone();
        if let Some(Running { thread, .. }) =
            self.running.take().filter(|running| !running.thread.is_finished())
        {
            self.late.push(thread.abort_handle());
        }
        (step, outcome)
    }
}

fn stage(shelf: &Shelf, held: &Held) -> Outcome {
    let check = || -> Result<(), Cause> {
        let manifest = shelf.manifest(held.release.digest).map_err(|error| shelf_cause(&error))?;
        let no_variant =
            || cause(CauseKind::Storage, format!("the manifest has no variant {}", held.variant));
        let variant = manifest.variant(&held.variant).ok_or_else(no_variant)?;
        shelf.check(&manifest, variant).map_err(|error| shelf_cause(&error))
    };
    check().map_or_else(failed, |()| Outcome::Event(Event::Staged))
}

fn self_test(shelf: &Shelf, model: &ModelName, held: &Held) -> Outcome {
    let tested = selftest::run(shelf, model, held);
    // Golden samples are several times a model's size as text.
    inference::trim_heap();
    tested.map_or_else(failed, |(loaded, result)| Outcome::Tested(Box::new((loaded, Event::Tested(result)))))
}

fn load(shelf: &Shelf, model: &ModelName, held: &Held) -> Outcome {
    let loaded = slots::load(shelf, model, held);
    loaded.map_or_else(|error| failed(load_cause(&error)), |loaded| Outcome::Warm(loaded.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use protocol::{Counter, Digest, ReleaseRef, Version};

    use super::super::rig::{Rig, name};
    use super::*;

    fn step() -> Step {
        let release = ReleaseRef {
            version: Version::new("1.0.0").unwrap(),
            digest: Digest::from_bytes([1; 32]),
            counter: Counter(1),
        };
        let held = Held { release, variant: "int8".into() };
        Step { model: ModelName::new("digits").unwrap(), work: Work::SelfTest, held }
    }

    fn running(bound: Duration, thread: impl FnOnce() -> Outcome + Send + 'static) -> Steps {
        let thread = tokio::task::spawn_blocking(thread);
        let running = Running { step: step(), until: Instant::now() + bound, bound, thread };
        Steps { running: Some(running), late: Vec::new() }
    }

    #[tokio::test]
    async fn what_is_heard_meanwhile_neither_ends_nor_repeats_a_step() {
        let (go_on, wait) = mpsc::channel::<()>();
        let mut steps = running(Duration::from_mins(1), move || {
            wait.recv().unwrap();
            Outcome::Event(Event::Staged)
        });
        for _ in 0..25 {
            // As when something is heard: the wait is dropped.
            tokio::select! {
                biased;
                _ = steps.over() => panic!("it has not ended"),
                () = std::future::ready(()) => {}
            }
        }
        assert!(steps.is_running() && steps.late.is_empty());
        go_on.send(()).unwrap();
        let (ended, outcome) = steps.over().await;
        assert_eq!(ended, step());
        assert!(matches!(outcome, Outcome::Event(Event::Staged)));
        assert!(!steps.is_running() && steps.late.is_empty());
    }

    #[tokio::test]
    async fn a_step_that_hangs_is_given_up_and_counted() {
        let (go_on, wait) = mpsc::channel::<()>();
        let mut steps = running(Duration::ZERO, move || {
            wait.recv().unwrap();
            Outcome::Event(Event::Staged)
        });
        let (_, outcome) = steps.over().await;
        assert!(matches!(outcome, Outcome::Event(Event::Failed(why)) if why.kind == CauseKind::Timeout));
        assert_eq!(steps.late.len(), 1);
        go_on.send(()).unwrap();
    }

    #[tokio::test]
    async fn what_a_late_step_loads_is_freed_when_it_ends() {
        let rig = Rig::new();
        let loaded = rig.load(&name("digits"), &rig.held);
        let there = Arc::downgrade(&loaded);
        let (go_on, wait) = mpsc::channel::<()>();
        let mut steps = running(Duration::ZERO, move || {
            wait.recv().unwrap();
            Outcome::Warm(loaded)
        });
        let (_, outcome) = steps.over().await;
        assert!(matches!(outcome, Outcome::Event(Event::Failed(_))) && there.upgrade().is_some());
        go_on.send(()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while there.upgrade().is_some() {
            assert!(Instant::now() < until, "it is kept");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
