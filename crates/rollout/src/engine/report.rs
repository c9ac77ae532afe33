//! A device's report moves its task.

use protocol::message::{CauseKind, TaskPhase};
use protocol::{DeviceId, ReleaseRef};

use super::Run;
use crate::journal::Change;
use crate::mode::Mode;
use crate::phase::Phase;

impl Run<'_> {
    pub(super) fn report(
        &mut self,
        device: &DeviceId,
        release: &ReleaseRef,
        phase: TaskPhase,
        cause: Option<CauseKind>,
        attempt: Option<u32>,
    ) {
        let (Some(at), Some(to)) = (self.rollout.tasks.find(device), Phase::from_report(phase, cause)) else {
            return;
        };
        let is_ours = release.digest == self.rollout.core.plan.release.digest;
        let task = self.rollout.tasks.get(at);
        // How an earlier attempt went says nothing about the one that a person asked for since; the release itself does.
        let is_earlier = attempt.is_some_and(|attempt| attempt < task.chances);
        if is_ours && is_earlier && to != Phase::Committed {
        } else if task.is_restoring {
            self.report_while_restoring(at, release, to);
        } else if !is_ours || to == task.phase {
        } else if task.phase.is_active() || task.waits_for_retry() {
            // A device tries again by itself too: what it does while it waits for a new offer is its attempt.
            self.move_on(at, to);
        } else if task.late != Some(to.name()) {
            let device = device.clone();
            self.rollout.tasks.update(at, |task| task.late = Some(to.name()));
            self.record("the task had ended or not begun", Change::Late { device, reported: to });
        }
    }

    fn move_on(&mut self, at: usize, to: Phase) {
        let (timeout, is_shadow) =
            (self.after(self.rollout.core.plan.task_timeout_s), self.rollout.core.plan.mode == Mode::Shadow);
        let task = self.rollout.tasks.get(at);
        // The clock of a task runs from its first answer and isn't wound up again by progress.
        let due = match task.phase {
            Phase::Offered | Phase::Queued => Some(timeout),
            _ => task.due.or(Some(timeout)),
        };
        let is_settled = to.is_terminal() || (is_shadow && to == Phase::Shadow);
        self.set_phase(at, to, "the device reported it", |task| task.due = due.filter(|_| !is_settled));
        self.retry_if_allowed(at);
        self.send_back_if_given_up(at);
    }

    /// Queues a failed task again where its kind can pass and attempts are left.
    pub(super) fn retry_if_allowed(&mut self, at: usize) {
        let (plan, task) = (&self.rollout.core.plan, self.rollout.tasks.get(at));
        let can_pass = task.phase.is_failure() && task.phase.cause().is_some_and(CauseKind::is_retryable);
        if !can_pass || task.tries() > plan.retries.max || !self.rollout.core.status.is_offering() {
            return;
        }
        let doublings = task.tries().saturating_sub(1).min(16);
        let due = self.after(plan.retries.backoff_s << doublings);
        let cause = format!("attempt {} of {} may succeed", task.tries() + 1, plan.retries.max + 1);
        let failure = task.phase.cause();
        self.set_phase(at, Phase::Queued, cause, |task| {
            task.due = Some(due);
            task.last_failure = failure;
        });
    }
}
