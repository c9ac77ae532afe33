//! Ways out: aborting, and bringing devices back to the release that served before.

use protocol::ReleaseRef;

use super::Run;
use crate::event::{Action, Scope};
use crate::journal::Change;
use crate::phase::{CancelReason, Phase, RollbackReason};
use crate::state::Status;

impl Run<'_> {
    /// Ends without going back: what waits is taken out, what is before the swap keeps the old release, what is past
    /// it finishes.
    pub(super) fn abandon(&mut self, reason: CancelReason, cause: &str) {
        for at in self.rollout.tasks.places() {
            let task = self.rollout.tasks.get(at);
            let (was_offered, is_past_return) = (task.phase.is_active(), task.phase.is_past_return());
            if task.is_restoring || task.phase.is_terminal() || is_past_return {
                continue;
            }
            self.set_phase(at, Phase::Canceled(reason), cause, |_| {});
            if was_offered {
                self.send_back(at);
            }
        }
    }

    /// Starts bringing devices back.
    pub(super) fn roll_back(&mut self, stage: u16, scope: Scope, by: RollbackReason, reason: &str) {
        let status = Status::RollingBack { stage, scope, by, reason: reason.to_owned() };
        self.set_status(status, reason);
        let due = self.after(self.rollout.core.plan.unreachable_after_s);
        for at in self.rollout.tasks.places() {
            let task = self.rollout.tasks.get(at);
            let is_meant = scope == Scope::All || task.stage == Some(stage);
            match task.phase {
                Phase::Queued => {
                    let was_offered = task.was_offered();
                    self.set_phase(at, Phase::Canceled(CancelReason::RolledBack), reason, |_| {});
                    if was_offered {
                        self.send_back(at);
                    }
                }
                Phase::Skipped(_) | Phase::Canceled(_) => {}
                _ if !is_meant => {}
                Phase::Committed if !self.may_go_back(at) => {
                    self.rollout.core.unconfirmed += 1;
                    let (device, reported) = (self.device(at), Phase::Committed);
                    let cause = "the signed metadata names no permitted way back; it keeps the release";
                    self.record(cause, Change::Late { device, reported });
                }
                // It runs the old release already, or may wake up later: only its Desired changes.
                phase if phase.is_terminal() && phase != Phase::Committed => self.send_back(at),
                _ => {
                    let device = self.device(at);
                    self.rollout.tasks.update(at, |task| {
                        task.is_restoring = true;
                        task.due = Some(due);
                    });
                    self.record(reason, Change::Restore { device });
                    self.send_back(at);
                }
            }
        }
    }

    /// Only a committed release has raised the device's counter; before that the old one never stopped being valid.
    fn may_go_back(&self, at: usize) -> bool {
        let fallbacks = &self.rollout.core.plan.fallbacks;
        let previous = self.rollout.tasks.get(at).previous.as_ref();
        previous.is_some_and(|p| fallbacks.iter().any(|f| f.digest == p.digest))
    }

    fn send_back(&mut self, at: usize) {
        let task = self.rollout.tasks.get(at);
        let action = Action::Restore { device: task.device.clone(), to: task.previous.clone() };
        self.actions.push(action);
    }

    pub(super) fn report_while_restoring(&mut self, at: usize, release: &ReleaseRef, to: Phase) {
        let is_ours = release.digest == self.rollout.core.plan.release.digest;
        let task = self.rollout.tasks.get(at);
        let is_back = if is_ours {
            to.is_terminal() && to != Phase::Committed
        } else {
            to == Phase::Committed && task.previous.as_ref().is_some_and(|p| p.digest == release.digest)
        };
        if is_back {
            let by = match self.rollout.core.status {
                Status::RollingBack { by, .. } => by,
                _ => RollbackReason::Operator,
            };
            let cause = "the device serves its earlier release again";
            self.set_phase(at, Phase::RolledBack(by), cause, |task| task.is_restoring = false);
        }
    }
}
