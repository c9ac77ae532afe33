//! What follows from the state and the time: deadlines, offers, verdicts, the next stage.

use protocol::UnixMillis;

use super::{Run, millis};
use crate::event::{Action, Scope};
use crate::gate::{Evidence, Verdict};
use crate::journal::{Change, Judged};
use crate::phase::{Phase, RollbackReason};
use crate::plan::OnFailure;
use crate::state::{PauseReason, StageState, Status};
use crate::tasks::Tally;

const MINUTE_MS: i64 = 60_000;

/// What the gates of a stage say together.
enum Judgement {
    Passed,
    Failed(String),
    NoEvidence(String),
}

impl Run<'_> {
    pub(super) fn tick(&mut self) {
        while let Some(at) = self.rollout.tasks.first_due(self.now) {
            self.expire(at);
        }
        let is_time = self.rollout.core.plan.start_at.is_none_or(|start| start <= self.now);
        if self.rollout.core.status == Status::Scheduled && is_time {
            self.begin();
        }
    }

    fn expire(&mut self, at: usize) {
        let task = self.rollout.tasks.get(at);
        match task.phase {
            _ if task.is_restoring => self.give_up_on(at, "it never confirmed its earlier release"),
            Phase::Queued => {
                let device = task.device.clone();
                self.rollout.tasks.update(at, |task| task.due = None);
                self.record("its wait is over", Change::Waiting { device, until: None });
            }
            Phase::Offered => self.set_phase(at, Phase::Unreachable, "it never answered the offer", |_| {}),
            _ => {
                self.set_phase(at, Phase::TimedOut, "it took longer than the plan allows", |_| {});
                self.retry_if_allowed(at);
                self.send_back_if_given_up(at);
            }
        }
    }

    /// Goes on until nothing follows at this moment.
    pub(super) fn advance(&mut self) {
        loop {
            let moved = match self.rollout.core.status.clone() {
                Status::Running { stage } => self.run_stage(stage),
                Status::RollingBack { reason, .. } if self.rollout.tasks.restoring() == 0 => {
                    let unconfirmed = self.rollout.core.unconfirmed;
                    self.set_status(
                        Status::RolledBack { reason, unconfirmed },
                        "every device came to its end",
                    );
                    false
                }
                _ => false,
            };
            if !moved {
                return;
            }
        }
    }

    fn run_stage(&mut self, stage: u16) -> bool {
        if let Some(overrun) = self.budget_overrun() {
            let status = Status::Paused { stage, reason: PauseReason::ErrorBudget(overrun.clone()) };
            self.set_status(status, overrun);
            return false;
        }
        match self.stage(stage).state {
            StageState::Pending => {
                self.set_stage(stage, StageState::Offering, "its turn has come", Vec::new());
                true
            }
            StageState::Offering => self.watch_offering(stage),
            StageState::Soaking => self.watch_soaking(stage),
            StageState::GatePassed => self.next(stage),
            StageState::GateFailed => false,
        }
    }

    fn next(&mut self, stage: u16) -> bool {
        match self.next_stage(stage + 1) {
            Some(next) => self.set_status(Status::Running { stage: next }, "the stage before has passed"),
            None => self.set_status(Status::Completed, "every stage has passed"),
        }
        true
    }

    fn watch_offering(&mut self, stage: u16) -> bool {
        let tally = self.rollout.tasks.tally(stage);
        if tally.settled() == tally.total() {
            self.set_stage(stage, StageState::Soaking, "every device came to its end", Vec::new());
            return true;
        }
        // Nobody is asked to take what has failed already.
        if let Some(Judgement::Failed(why)) = self.judge(stage, &tally, false) {
            self.fail_stage(stage, why, self.rollout.on_failure(stage));
        } else {
            self.offer(stage);
        }
        false
    }

    fn watch_soaking(&mut self, stage: u16) -> bool {
        let tally = self.rollout.tasks.tally(stage);
        if tally.settled() < tally.total() {
            self.set_stage(stage, StageState::Offering, "devices of the stage are at work again", Vec::new());
            return true;
        }
        match self.judge(stage, &tally, true) {
            Some(Judgement::Passed) => {
                let gates = self.stage(stage).gates.clone();
                self.set_stage(stage, StageState::GatePassed, "every gate passed", gates);
                true
            }
            Some(Judgement::Failed(why)) => {
                self.fail_stage(stage, why, self.rollout.on_failure(stage));
                false
            }
            // Missing evidence is no proof of harm: a person decides.
            Some(Judgement::NoEvidence(why)) => {
                self.fail_stage(stage, why, OnFailure::Pause);
                false
            }
            None => false,
        }
    }

    fn soak_until(&self, stage: u16) -> Option<UnixMillis> {
        let soak_s = self.rollout.stage_plan(stage).map_or(0, |s| s.soak_s);
        self.stage(stage).soaking_since.map(|since| since.plus_millis(millis(soak_s)))
    }

    /// Judges every gate; `None` while the verdict is open.
    fn judge(&mut self, stage: u16, tally: &Tally, is_settled: bool) -> Option<Judgement> {
        let gates = self.rollout.gates(stage);
        let evidence = &self.stage(stage).evidence;
        let judged: Vec<Judged> =
            gates.iter().map(|g| Judged { gate: g.label(), verdict: g.judge(tally, evidence) }).collect();
        let says = |is_meant: fn(&Verdict) -> bool| {
            judged.iter().find(|j| is_meant(&j.verdict)).map(|j| match &j.verdict {
                Verdict::Passed(why) | Verdict::Failed(why) | Verdict::Open(why) => {
                    format!("{}: {why}", j.gate)
                }
            })
        };
        let (failed, open) = (says(Verdict::is_failed), says(|v| !v.is_passed()));
        self.stage_mut(stage).gates = judged;
        if let Some(why) = failed {
            return Some(Judgement::Failed(why));
        }
        let soak_until = self.soak_until(stage).filter(|_| is_settled)?;
        if let Some(judgement) = self.too_few_devices(stage, tally) {
            return Some(judgement);
        }
        if soak_until > self.now {
            return None;
        }
        let is_measured = gates.iter().any(|g| !g.metric.is_counted());
        let is_fresh = !is_measured || self.stage(stage).measured_at.is_some_and(|at| at >= soak_until);
        if open.is_none() && is_fresh {
            return Some(Judgement::Passed);
        }
        let waits_from = self.stage(stage).resumed_at.map_or(soak_until, |at| at.max(soak_until));
        let timeout = waits_from.plus_millis(millis(self.rollout.core.plan.evidence_timeout_s));
        let missing = open.unwrap_or_else(|| "nothing was measured after the soak time".into());
        (timeout <= self.now).then(|| Judgement::NoEvidence(format!("no evidence in time: {missing}")))
    }

    fn too_few_devices(&self, stage: u16, tally: &Tally) -> Option<Judgement> {
        let least = self.rollout.stage_plan(stage).map_or(1, |s| s.min_devices).min(tally.total()).max(1);
        if tally.in_place() >= least {
            return None;
        }
        let why =
            format!("{} of {} devices took the release, {least} needed", tally.in_place(), tally.total());
        Some(if tally.all_failures() > 0 { Judgement::Failed(why) } else { Judgement::NoEvidence(why) })
    }

    fn fail_stage(&mut self, stage: u16, why: String, then: OnFailure) {
        let gates = self.stage(stage).gates.clone();
        self.set_stage(stage, StageState::GateFailed, why.clone(), gates);
        match then {
            OnFailure::Pause => {
                let reason = PauseReason::Gate(why.clone());
                self.set_status(Status::Paused { stage, reason }, why);
            }
            OnFailure::Abort => {
                self.set_status(Status::Aborted { reason: why.clone() }, why.clone());
                self.abandon(crate::phase::CancelReason::Aborted, &why);
            }
            OnFailure::RollBackStage => self.roll_back(stage, Scope::Stage, RollbackReason::Gate, &why),
            OnFailure::RollBackAll => self.roll_back(stage, Scope::All, RollbackReason::Gate, &why),
        }
    }

    fn budget_overrun(&self) -> Option<String> {
        let core = &self.rollout.core;
        let total = u64::try_from(self.rollout.tasks.all().len()).unwrap_or(u64::MAX);
        let over = |budget: Option<crate::amount::Amount>, bad: u64, accepted: u64, what: &str| {
            let budget = budget.filter(|b| bad > accepted && b.is_exceeded_by(bad, total))?;
            Some(format!("{bad} of {total} devices {what}, the budget is {budget}"))
        };
        over(core.plan.failure_budget, core.bad.0, core.accepted.0, "failed")
            .or_else(|| over(core.plan.unreachable_budget, core.bad.1, core.accepted.1, "are unreachable"))
    }

    /// Offers the release to as many devices as rate and windows allow, in the order of the seed.
    fn offer(&mut self, stage: u16) {
        let mut left = self.allowance(stage);
        while left > 0 {
            let Some(at) = self.rollout.tasks.first_ready(stage) else { return };
            let (plan, task) = (&self.rollout.core.plan, self.rollout.tasks.get(at));
            if let Some(until) = plan.window.and_then(|w| w.opens_at(self.now, task.utc_offset_s)) {
                let device = task.device.clone();
                self.rollout.tasks.update(at, |task| task.due = Some(until));
                self.record(
                    "its maintenance window is closed",
                    Change::Waiting { device, until: Some(until) },
                );
                continue;
            }
            let due = self.after(plan.unreachable_after_s);
            self.set_phase(at, Phase::Offered, "its turn in the stage has come", |task| {
                task.attempt += 1;
                task.last_failure = None;
                task.due = Some(due);
            });
            self.push_offer(at);
            self.rollout.core.offered.1 += 1;
            left -= 1;
        }
    }

    pub(super) fn push_offer(&mut self, at: usize) {
        let (mode, task) = (self.rollout.core.plan.mode, self.rollout.tasks.get(at));
        let (device, attempt, chances) = (task.device.clone(), task.attempt, task.chances);
        self.actions.push(Action::Offer { device, mode, attempt, chances });
    }

    /// Offers that the rate allows now.
    fn allowance(&mut self, stage: u16) -> u32 {
        let Some(rate) = self.rollout.core.plan.rate else { return u32::MAX };
        let (began, made) = self.rollout.core.offered;
        // A minute that begins far in the future was begun by a clock that was ahead.
        let is_new_minute = self.now.millis_since(began).abs() >= MINUTE_MS;
        let made = if is_new_minute { 0 } else { made };
        let per_minute = self.rate_now(rate);
        let tally = self.rollout.tasks.tally_ref(stage);
        let at_work = tally.map_or(0, |t| u32::try_from(t.active()).unwrap_or(u32::MAX));
        let room = rate.max_in_flight.map_or(u32::MAX, |max| max.saturating_sub(at_work));
        let allowed = per_minute.saturating_sub(made).min(room);
        // The minute begins with an offer, so that a step without one changes nothing.
        if is_new_minute && allowed > 0 && self.rollout.tasks.first_ready(stage).is_some() {
            self.rollout.core.offered = (self.now, 0);
        }
        allowed
    }

    fn rate_now(&self, rate: crate::plan::Rate) -> u32 {
        let Some(growth) = rate.growth else { return rate.per_minute };
        let stages = 0..u16::try_from(self.rollout.core.stages.len()).unwrap_or(u16::MAX);
        let successes: u64 =
            stages.filter_map(|s| self.rollout.tasks.tally_ref(s)).map(Tally::in_place).sum();
        let steps = u32::try_from(successes / u64::from(growth.every)).unwrap_or(u32::MAX).min(32);
        rate.per_minute.saturating_mul(growth.factor.saturating_pow(steps)).min(growth.max_per_minute)
    }

    pub(super) fn measured(&mut self, stage: u16, evidence: &[Evidence]) {
        let is_current = self.rollout.core.status == Status::Running { stage };
        if !is_current || !matches!(self.stage(stage).state, StageState::Offering | StageState::Soaking) {
            return;
        }
        let now = self.now;
        let state = self.stage_mut(stage);
        state.evidence = evidence.to_vec();
        state.measured_at = Some(now);
        self.record("behaviour was measured", Change::Measured { stage, evidence: evidence.to_vec() });
    }

    /// Asks for numbers when a gate of the current stage needs them and the last ones are old.
    pub(super) fn ask_for_measurement(&mut self) {
        let Status::Running { stage } = self.rollout.core.status else { return };
        let state = self.stage(stage);
        let is_open = matches!(state.state, StageState::Offering | StageState::Soaking);
        let has_device = self.rollout.tasks.tally_ref(stage).is_some_and(|t| t.in_place() > 0);
        let is_measured = self.rollout.gates(stage).iter().any(|g| !g.metric.is_counted());
        let (Some(from), true, true, true) = (state.opened_at, is_open, has_device, is_measured) else {
            return;
        };
        let every = millis(self.rollout.core.plan.measure_every_s);
        let soak_is_over = self.soak_until(stage).filter(|until| *until <= self.now);
        let is_old = state.measured_at.is_none_or(|at| {
            // Nor is a number of the future new.
            self.now.millis_since(at).abs() >= every || soak_is_over.is_some_and(|until| at < until)
        });
        if is_old {
            self.actions.push(Action::Measure { stage, from });
        }
    }
}
