//! The engine: [`step`]. Pure; no IO, no clock, no randomness.
//!
//! Every change goes through [`Run`], which writes the journal; nothing else may change a rollout. Property tests
//! of the ten rules of the design stand in `tests/rules.rs`.

use protocol::{DeviceId, UnixMillis};

use crate::event::{Action, Actor, Event, Input, Verb};
use crate::journal::{Change, Entry, Judged};
use crate::phase::Phase;
use crate::state::{Rollout, Stage, StageState, Status};
use crate::tasks::Task;

mod advance;
mod join;
mod report;
mod restore;
mod verb;

/// One step: the new state, and what to do once it is stored.
pub fn step(mut rollout: Rollout, input: Input, now: UnixMillis) -> (Rollout, Vec<Action>) {
    let Input { actor, event } = input;
    let was_paused = matches!(rollout.core.status, Status::Paused { .. });
    let mut run = Run { rollout: &mut rollout, now, actor, actions: Vec::new() };
    match &event {
        Event::Devices(facts) => run.join(facts),
        Event::Removed(device) => run.remove(device),
        Event::Verb(verb) => run.decide(verb),
        Event::Report { device, release, phase, cause, attempt } => {
            run.report(device, release, *phase, *cause, *attempt);
        }
        Event::Measured { stage, evidence } => run.measured(*stage, evidence),
        Event::Tick => run.tick(),
    }
    run.advance();
    match event {
        Event::Tick => run.ask_for_measurement(),
        Event::Verb(Verb::Resume { .. }) if was_paused => run.renew_offers(),
        _ => {}
    }
    let mut actions = run.actions;
    let first = actions.iter_mut().find_map(|a| if let Action::Record(e) = a { Some(e) } else { None });
    if let Some(entry) = first {
        entry.event = Some(event);
    }
    (rollout, actions)
}

/// One step under way.
struct Run<'a> {
    rollout: &'a mut Rollout,
    now: UnixMillis,
    actor: Actor,
    actions: Vec<Action>,
}

impl Run<'_> {
    fn record(&mut self, cause: impl Into<String>, change: Change) {
        self.rollout.core.seq += 1;
        let entry = Entry {
            seq: self.rollout.core.seq,
            at: self.now,
            actor: self.actor.clone(),
            cause: cause.into(),
            change,
            event: None,
        };
        self.actions.push(Action::Record(Box::new(entry)));
    }

    fn refuse(&mut self, why: impl Into<String>) {
        self.actions.push(Action::Refuse { why: why.into() });
    }

    fn set_status(&mut self, to: Status, cause: impl Into<String>) {
        let from = std::mem::replace(&mut self.rollout.core.status, to.clone());
        let is_pause = matches!(to, Status::Paused { .. });
        self.record(cause, Change::Status { from, to });
        if is_pause {
            self.recall_offers();
        }
    }

    fn stage(&self, stage: u16) -> &Stage {
        &self.rollout.core.stages[usize::from(stage)]
    }

    fn stage_mut(&mut self, stage: u16) -> &mut Stage {
        &mut self.rollout.core.stages[usize::from(stage)]
    }

    fn set_stage(&mut self, stage: u16, to: StageState, cause: impl Into<String>, gates: Vec<Judged>) {
        let now = self.now;
        let state = self.stage_mut(stage);
        let from = std::mem::replace(&mut state.state, to);
        match to {
            StageState::Offering => state.opened_at = state.opened_at.or(Some(now)),
            StageState::Soaking => state.soaking_since = Some(now),
            StageState::GatePassed | StageState::GateFailed => state.decided_at = Some(now),
            StageState::Pending => {}
        }
        self.record(cause, Change::Stage { stage, from, to, gates });
    }

    /// Moves a task; `change` sets what else belongs to the move.
    fn set_phase(&mut self, at: usize, to: Phase, cause: impl Into<String>, change: impl FnOnce(&mut Task)) {
        let (now, task) = (self.now, self.rollout.tasks.get(at));
        let (from, device) = (task.phase, task.device.clone());
        self.rollout.tasks.update(at, |task| {
            task.phase = to;
            task.since = now;
            task.due = None;
            change(task);
        });
        self.count_bad(from, to);
        self.record(cause, Change::Task { device, from, to });
    }

    fn count_bad(&mut self, from: Phase, to: Phase) {
        let (failed, unreachable) = &mut self.rollout.core.bad;
        *failed = *failed + u64::from(to.is_failure()) - u64::from(from.is_failure());
        *unreachable =
            *unreachable + u64::from(to == Phase::Unreachable) - u64::from(from == Phase::Unreachable);
    }

    fn device(&self, at: usize) -> DeviceId {
        self.rollout.tasks.get(at).device.clone()
    }

    fn after(&self, seconds: u64) -> UnixMillis {
        self.now.plus_millis(millis(seconds))
    }
}

/// Seconds of a checked plan in milliseconds.
pub(crate) fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}
