//! Devices come, change and go; stages are filled.

use protocol::DeviceId;

use super::Run;
use crate::facts::Facts;
use crate::fill::{self, Member, rank};
use crate::journal::Change;
use crate::phase::{CancelReason, Phase, SkipReason};
use crate::state::{Stage, StageState, Status};
use crate::tasks::Task;

impl Run<'_> {
    pub(super) fn join(&mut self, facts: &[Facts]) {
        if self.rollout.core.status.is_terminal()
            || matches!(self.rollout.core.status, Status::RollingBack { .. })
        {
            return;
        }
        let mut joined = Vec::new();
        for facts in facts {
            match self.rollout.tasks.find(&facts.device) {
                Some(at) => self.refresh(at, facts),
                None => joined.extend(self.admit(facts)),
            }
        }
        if !joined.is_empty() {
            self.record("the target filter selects them", Change::Joined { devices: joined });
        }
    }

    /// Makes a task for a device that the plan is about.
    fn admit(&mut self, facts: &Facts) -> Option<DeviceId> {
        let core = &self.rollout.core;
        let is_late = core.is_filled;
        if !core.plan.target.matches(facts) || (is_late && !core.plan.is_dynamic) {
            return None;
        }
        let seed = core.plan.seed.as_deref().unwrap_or(core.id.as_str());
        let phase = skip_reason(&core.plan, facts).map_or(Phase::Queued, Phase::Skipped);
        // The stage that runs may be behind the last one of the plan already: the control group's.
        let last = u16::try_from(core.plan.stages.len() - 1).ok().max(core.status.stage());
        let task = Task {
            device: facts.device.clone(),
            stage: if is_late && phase == Phase::Queued { last } else { None },
            rank: rank(seed, &facts.device),
            pinned: fill::pinned(&core.plan, facts),
            phase,
            since: self.now,
            attempt: 0,
            chances: 0,
            offered_before: 0,
            due: None,
            previous: facts.current.clone(),
            utc_offset_s: facts.utc_offset_s,
            last_failure: None,
            is_restoring: false,
            late: None,
        };
        self.rollout.tasks.insert(task);
        Some(facts.device.clone())
    }

    /// A device that waits may have changed in the meantime; one that was offered the release keeps what it was.
    fn refresh(&mut self, at: usize, facts: &Facts) {
        let task = self.rollout.tasks.get(at);
        if task.phase != Phase::Queued || task.attempt > 0 {
            return;
        }
        if let Some(reason) = skip_reason(&self.rollout.core.plan, facts) {
            self.set_phase(at, Phase::Skipped(reason), "the device changed while it waited", |_| {});
        } else if task.previous != facts.current || task.utc_offset_s != facts.utc_offset_s {
            let device = facts.device.clone();
            self.rollout.tasks.update(at, |task| {
                task.previous.clone_from(&facts.current);
                task.utc_offset_s = facts.utc_offset_s;
            });
            self.record("the device changed while it waited", Change::Joined { devices: vec![device] });
        }
    }

    pub(super) fn remove(&mut self, device: &DeviceId) {
        let Some(at) = self.rollout.tasks.find(device) else { return };
        let task = self.rollout.tasks.get(at);
        if task.is_restoring {
            self.rollout.core.unconfirmed += 1;
        } else if task.phase.is_terminal() {
            return;
        }
        let gone = Phase::Canceled(CancelReason::DeviceRemoved);
        self.set_phase(at, gone, "the device left the fleet", |task| task.is_restoring = false);
    }

    /// Puts every waiting device into its stage and starts the first stage that has one.
    pub(super) fn begin(&mut self) {
        let tasks = &self.rollout.tasks;
        let waiting = tasks
            .places()
            .into_iter()
            .map(|at| (at, tasks.get(at)))
            .filter(|(_, t)| t.phase == Phase::Queued);
        let members: Vec<Member<'_>> =
            waiting.map(|(at, t)| Member { at, rank: t.rank, device: &t.device, pinned: t.pinned }).collect();
        let filled = fill::fill(&self.rollout.core.plan, &members);
        self.rollout.core.is_filled = true;
        for (stage, members) in (0_u16..).zip(&filled.stages) {
            self.put(Some(stage), members);
        }
        self.put_control(&filled.control);
        for at in &filled.rest {
            self.set_phase(*at, Phase::Skipped(SkipReason::NotSelected), "no stage selects it", |_| {});
        }
        if let Some(stage) = self.next_stage(0) {
            return self.set_status(Status::Running { stage }, "its time has come");
        }
        let reason = if self.rollout.tasks.all().is_empty() {
            "no device matches the target"
        } else {
            "no device needs the release or can take it"
        };
        self.set_status(Status::Invalidated { reason: reason.into() }, reason);
    }

    fn put_control(&mut self, members: &[usize]) {
        if matches!(self.rollout.core.plan.mode, crate::mode::Mode::Ab(_)) {
            for at in members {
                self.set_phase(*at, Phase::Skipped(SkipReason::Control), "it stays for comparison", |_| {});
            }
        } else if !members.is_empty() {
            let stage = u16::try_from(self.rollout.core.stages.len()).ok();
            self.rollout.core.stages.push(Stage::new("control group".into(), true));
            self.put(stage, members);
        }
    }

    fn put(&mut self, stage: Option<u16>, members: &[usize]) {
        if members.is_empty() {
            return;
        }
        for at in members {
            self.rollout.tasks.update(*at, |task| task.stage = stage);
        }
        let devices = members.iter().map(|at| self.device(*at)).collect();
        self.record("filled in the order of the seed", Change::Filled { stage, devices });
    }

    /// The first stage from `from` on that has a device and hasn't passed.
    pub(super) fn next_stage(&self, from: u16) -> Option<u16> {
        let stages = (0_u16..).zip(&self.rollout.core.stages).skip(usize::from(from));
        let has_device = |stage: u16| self.rollout.tasks.tally_ref(stage).is_some_and(|t| t.total() > 0);
        stages.filter(|(_, s)| s.state != StageState::GatePassed).map(|(i, _)| i).find(|i| has_device(*i))
    }
}

pub(crate) fn skip_reason(plan: &crate::plan::Plan, facts: &Facts) -> Option<SkipReason> {
    match &facts.current {
        Some(current) if current.digest == plan.release.digest => Some(SkipReason::AlreadyThere),
        Some(current) if current.counter > plan.release.counter => Some(SkipReason::Newer),
        Some(_) | None => facts.skip,
    }
}
