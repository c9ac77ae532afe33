//! A person's decisions. Each is idempotent; one that doesn't apply is refused with a reason.

use super::Run;
use crate::event::{Scope, Verb};
use crate::journal::Change;
use crate::phase::{CancelReason, Phase, RollbackReason};
use crate::state::{PauseReason, StageState, Status};

impl Run<'_> {
    pub(super) fn decide(&mut self, verb: &Verb) {
        match verb {
            Verb::Submit => self.submit(),
            Verb::Approve => self.approve(),
            Verb::Deny { reason } => self.deny(reason),
            Verb::Pause { reason } => self.pause(reason),
            Verb::Resume { retry_failed } => self.resume(*retry_failed),
            Verb::Abort { reason } => {
                let done = matches!(self.rollout.core.status, Status::Aborted { .. });
                let end = Status::Aborted { reason: reason.clone() };
                self.end(done, end, CancelReason::Aborted, reason);
            }
            Verb::Supersede { by } => {
                let done = matches!(self.rollout.core.status, Status::Superseded { .. });
                let end = Status::Superseded { by: by.clone() };
                self.end(done, end, CancelReason::Superseded, &format!("rollout {by} takes over"));
            }
            Verb::Invalidate { reason } => {
                let done = matches!(self.rollout.core.status, Status::Invalidated { .. });
                let end = Status::Invalidated { reason: reason.clone() };
                self.end(done, end, CancelReason::Aborted, reason);
            }
            Verb::RollBack { scope, reason } => self.order_rollback(*scope, reason),
        }
    }

    fn submit(&mut self) {
        match self.rollout.core.status {
            Status::Draft if self.rollout.core.plan.needs_approval => {
                self.set_status(Status::AwaitingApproval, "the plan asks for approval");
            }
            Status::Draft => self.set_status(Status::Scheduled, "the draft is complete"),
            Status::AwaitingApproval | Status::Scheduled | Status::Running { .. } => {}
            _ => self.refuse_in_state("submitted"),
        }
    }

    fn approve(&mut self) {
        match self.rollout.core.status {
            Status::AwaitingApproval if self.actor == self.rollout.core.author => {
                self.refuse("the author can't approve their own rollout: another person must");
            }
            Status::AwaitingApproval => self.set_status(Status::Scheduled, "approved"),
            Status::Scheduled | Status::Running { .. } => {}
            _ => self.refuse_in_state("approved"),
        }
    }

    fn deny(&mut self, reason: &str) {
        match self.rollout.core.status {
            Status::AwaitingApproval => {
                self.set_status(Status::Denied { reason: reason.to_owned() }, reason);
            }
            Status::Denied { .. } => {}
            _ => self.refuse_in_state("denied"),
        }
    }

    fn pause(&mut self, reason: &str) {
        match self.rollout.core.status {
            Status::Running { stage } => {
                let why = PauseReason::Operator(reason.to_owned());
                self.set_status(Status::Paused { stage, reason: why }, reason);
            }
            Status::Paused { .. } => {}
            _ => self.refuse_in_state("paused"),
        }
    }

    fn resume(&mut self, retry_failed: bool) {
        let (stage, pause) = match &self.rollout.core.status {
            Status::Paused { stage, reason } => (*stage, Some(reason.clone())),
            Status::Running { stage } if retry_failed => (*stage, None),
            Status::Running { .. } => return,
            ended if retry_failed && ended.is_terminal() => {
                let name = ended.name();
                let why = "is over and gives no device another chance: create another rollout";
                return self.refuse(format!("a rollout that is {name} {why}"));
            }
            _ => return self.refuse_in_state("resumed"),
        };
        if retry_failed && !self.rollout.may_retry() {
            let name = &self.stage(stage).name;
            return self
                .refuse(format!("no device of {name} has failed: there is none to give another chance"));
        }
        if retry_failed {
            self.requeue_failed(stage);
        }
        let Some(reason) = pause else { return };
        self.set_status(Status::Running { stage }, "resumed");
        if matches!(reason, PauseReason::ErrorBudget(_)) {
            let (failures, unreachable) = self.rollout.core.bad;
            self.rollout.core.accepted = (failures, unreachable);
            self.record("resumed over the budget", Change::BudgetAccepted { failures, unreachable });
        }
        if self.stage(stage).state == StageState::GateFailed {
            self.judge_again(stage);
        }
    }

    /// A failed stage is never skipped: it goes back before its verdict and needs new evidence.
    fn judge_again(&mut self, stage: u16) {
        let (now, since) = (self.now, self.stage(stage).soaking_since);
        let state = self.stage_mut(stage);
        state.evidence.clear();
        state.gates.clear();
        state.measured_at = None;
        state.decided_at = None;
        state.resumed_at = Some(now);
        let to = if since.is_some() { StageState::Soaking } else { StageState::Offering };
        self.set_stage(stage, to, "resumed: the stage is judged again", Vec::new());
        self.stage_mut(stage).soaking_since = since;
    }

    fn requeue_failed(&mut self, stage: u16) {
        for at in self.rollout.tasks.places() {
            let task = self.rollout.tasks.get(at);
            if task.stage == Some(stage) && task.is_lost() {
                self.set_phase(at, Phase::Queued, "resumed with another chance", |task| {
                    task.late = None;
                    task.chances = task.chances.saturating_add(1);
                    task.offered_before = task.attempt;
                });
            }
        }
    }

    fn end(&mut self, is_done: bool, end: Status, reason: CancelReason, cause: &str) {
        if is_done {
            return;
        }
        match self.rollout.core.status {
            Status::RollingBack { .. } if reason == CancelReason::Aborted => return self.stop_waiting(cause),
            Status::RollingBack { .. } => return self.refuse_in_state("ended"),
            _ if self.rollout.core.status.is_terminal() => return self.refuse_in_state("ended"),
            _ => {}
        }
        self.set_status(end, cause);
        self.abandon(reason, cause);
    }

    fn order_rollback(&mut self, scope: Scope, reason: &str) {
        match self.rollout.core.status {
            Status::Running { stage } | Status::Paused { stage, .. } => {
                self.roll_back(stage, scope, RollbackReason::Operator, reason);
            }
            Status::RollingBack { .. } | Status::RolledBack { .. } => {}
            // What shows its fault late must have a way back too; no stage is the current one any more.
            Status::Completed | Status::Aborted { .. } | Status::Invalidated { .. }
                if self.rollout.core.is_filled =>
            {
                let last = u16::try_from(self.rollout.core.stages.len() - 1).unwrap_or(u16::MAX);
                self.roll_back(last, Scope::All, RollbackReason::Operator, reason);
            }
            _ => self.refuse_in_state("rolled back"),
        }
    }

    fn refuse_in_state(&mut self, what: &str) {
        let name = self.rollout.core.status.name();
        self.refuse(format!("a rollout that is {name} can't be {what}"));
    }
}
