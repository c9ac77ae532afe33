//! Ways out: aborting, and bringing devices back to the release that served before.

use protocol::ReleaseRef;

use super::Run;
use crate::event::{Action, Scope};
use crate::journal::Change;
use crate::phase::{CancelReason, Phase, RollbackReason};
use crate::state::Status;

/// Why a device that has committed stays where it is.
const KEEPS: &str = "the signed metadata names no permitted way back; it keeps the release";

impl Run<'_> {
    /// Ends without going back: what waits is taken out, what is before the swap keeps the old release, what is past
    /// it finishes. Nobody takes the release afterwards: not one that failed and could try again, nor one that was
    /// away and wakes up.
    pub(super) fn abandon(&mut self, reason: CancelReason, cause: &str) {
        for at in self.rollout.tasks.places() {
            let task = self.rollout.tasks.get(at);
            let was_offered = task.was_offered();
            match task.phase {
                _ if task.is_restoring => {}
                phase if phase.may_wake_up() => self.send_back(at),
                phase if phase.is_terminal() || phase.is_past_return() => {}
                _ => {
                    self.set_phase(at, Phase::Canceled(reason), cause, |_| {});
                    if was_offered {
                        self.send_back(at);
                    }
                }
            }
        }
    }

    /// Takes back what no device has answered: those that are away would find the offer when they come, however long
    /// the rollout has been paused by then. Those that are at work finish.
    pub(super) fn recall_offers(&mut self) {
        for at in self.rollout.tasks.places() {
            match self.rollout.tasks.get(at).phase {
                Phase::Offered => {
                    let cause = "paused before the device answered";
                    self.set_phase(at, Phase::Queued, cause, |task| task.attempt -= 1);
                    self.send_back(at);
                }
                Phase::Unreachable => self.send_back(at),
                _ => {}
            }
        }
    }

    /// What [`Self::recall_offers`] took from devices that nobody waits for any more: they may take the release when
    /// they come.
    pub(super) fn renew_offers(&mut self) {
        if !matches!(self.rollout.core.status, Status::Running { .. }) {
            return;
        }
        for at in self.rollout.tasks.places() {
            if self.rollout.tasks.get(at).phase == Phase::Unreachable {
                self.push_offer(at);
            }
        }
    }

    /// A device that ended without the release after the rollout was given up, or began anew, must not go on.
    pub(super) fn send_back_if_given_up(&mut self, at: usize) {
        let is_given_up = matches!(
            self.rollout.core.status,
            Status::Aborted { .. }
                | Status::Superseded { .. }
                | Status::Invalidated { .. }
                | Status::RollingBack { .. }
                | Status::RolledBack { .. }
        );
        let phase = self.rollout.tasks.get(at).phase;
        let is_before_swap = phase.is_active() && !phase.is_past_return();
        if is_given_up && (phase.may_wake_up() || is_before_swap) {
            self.send_back(at);
        }
    }

    /// Stops waiting for the devices that haven't confirmed their earlier release; it stays what they are asked for.
    pub(super) fn stop_waiting(&mut self, cause: &str) {
        for at in self.rollout.tasks.places() {
            if self.rollout.tasks.get(at).is_restoring {
                self.give_up_on(at, cause);
            }
        }
    }

    /// A device never confirmed its earlier release.
    pub(super) fn give_up_on(&mut self, at: usize, cause: &str) {
        self.rollout.core.unconfirmed += 1;
        self.set_phase(at, Phase::Unreachable, cause, |task| task.is_restoring = false);
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
                    self.record(KEEPS, Change::Late { device, reported });
                }
                // It runs the old release already, or may wake up later: only its Desired changes.
                phase if phase.may_wake_up() => self.send_back(at),
                // It has nothing to go back to, and ends without a word what nobody asks for any more.
                phase if task.previous.is_none() && phase != Phase::Probation => {
                    self.set_phase(at, Phase::Canceled(CancelReason::RolledBack), reason, |_| {});
                    self.send_back(at);
                }
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
        if is_ours && to == Phase::Committed && !self.may_go_back(at) {
            self.rollout.core.unconfirmed += 1;
            return self.set_phase(at, to, KEEPS, |task| task.is_restoring = false);
        }
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
