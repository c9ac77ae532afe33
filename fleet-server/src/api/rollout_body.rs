//! How rollouts look in JSON.

use std::collections::BTreeMap;

use rollout::{
    Change, Entry, Evidence, Gate, Metric, PauseReason, Phase, Plan, Rollout, StagePlan, StageState, Status,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::device_body::ReleaseName;
use super::types::Timestamp;
use crate::store::rollouts::Row;

/// A rollout in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolloutSummary {
    /// Its id.
    pub rollout: String,
    /// Which model.
    pub model: String,
    /// The release's version.
    pub version: String,
    /// Which release.
    pub release: ReleaseName,
    /// `draft`, `awaiting_approval`, `denied`, `scheduled`, `running`, `paused`, `completed`, `aborted`,
    /// `rolling_back`, `rolled_back`, `superseded`, `invalidated`.
    pub state: String,
    /// Why it is in that state: a pause's, abort's or rollback's reason.
    #[schema(required)]
    pub reason: Option<String>,
    /// The stage that it works on or stopped at, counted from 0.
    #[schema(required)]
    pub stage: Option<u16>,
    /// Tasks by phase: `queued`, `offered`, `accepted`, `downloading`, `verified`, `staged`, `self_test`, `shadow`,
    /// `activating`, `probation`, `committed`, `rolled_back`, `failed`, `rejected`, `timed_out`, `skipped`,
    /// `unreachable`, `canceled`.
    pub tasks: BTreeMap<String, u64>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
    /// When it ended.
    #[schema(required)]
    pub finished_at: Option<Timestamp>,
}

/// One rollout.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolloutDetail {
    /// What lists show too.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// The plan with everything filled in.
    pub plan: Plan,
    /// What keeps a running rollout in its stage, in one sentence.
    #[schema(required)]
    pub waits_for: Option<String>,
    /// Its stages in order; the devices held for comparison come last.
    pub stages: Vec<RolloutStage>,
    /// Verbs that are possible now: `approve`, `deny`, `pause`, `resume`, `retry` (`resume` with `retry_failed`), `abort`,
    /// `rollback`.
    pub verbs: Vec<String>,
}

/// A stage.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolloutStage {
    /// Counted from 0.
    pub stage: u16,
    /// Its name.
    pub name: String,
    /// `pending`, `offering`, `soaking`, `gate_passed`, `gate_failed`.
    pub state: String,
    /// Its devices.
    pub devices: u64,
    /// Tasks by phase.
    pub tasks: BTreeMap<String, u64>,
    /// Its part of the plan; null for the devices held for comparison.
    #[schema(required)]
    pub plan: Option<StagePlan>,
    /// How long it soaks.
    pub soak_s: u64,
    /// When its first offer went out.
    #[schema(required)]
    pub opened_at: Option<Timestamp>,
    /// When its soak time began.
    #[schema(required)]
    pub soaking_since: Option<Timestamp>,
    /// When behaviour was last measured.
    #[schema(required)]
    pub measured_at: Option<Timestamp>,
    /// When it was decided.
    #[schema(required)]
    pub decided_at: Option<Timestamp>,
    /// Its gates with their evidence.
    pub gates: Vec<RolloutGate>,
    /// Gates of the plan that compare with a control group and don't hold here, e.g. because the stage leaves no
    /// device to compare with.
    pub not_judged: Vec<String>,
}

/// A gate with its evidence.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolloutGate {
    /// What is measured.
    pub metric: Metric,
    /// The gate as the plan has it.
    pub gate: Gate,
    /// `passed`, `failed`, `open`.
    pub verdict: String,
    /// Why, in one sentence with the numbers.
    pub because: String,
    /// What was measured; null for counted metrics and before the first measurement.
    #[schema(required)]
    pub evidence: Option<GateEvidence>,
}

/// What was measured.
#[derive(Debug, Serialize, ToSchema)]
pub struct GateEvidence {
    /// Devices with the new release.
    pub candidate: GateSample,
    /// Devices still on the old one, in the same time.
    #[schema(required)]
    pub control: Option<GateSample>,
    /// How much worse the candidate is, as an interval.
    #[schema(required)]
    pub worse: Option<GateInterval>,
    /// The arithmetic in words.
    pub arithmetic: String,
    /// Devices of either side that were not counted, because their inputs alone drift.
    pub left_out: Vec<String>,
    /// Begin of the measured time.
    pub from: Timestamp,
    /// End of the measured time.
    pub to: Timestamp,
}

/// A measured value.
#[derive(Debug, Serialize, ToSchema)]
pub struct GateSample {
    /// The value.
    pub value: f64,
    /// From so many observations.
    pub n: u64,
    /// On so many devices.
    pub devices: u32,
}

/// An interval.
#[derive(Debug, Serialize, ToSchema)]
pub struct GateInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence, 0 to 1.
    pub confidence: f64,
}

/// One device's part.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolloutTask {
    /// Which device.
    pub device: String,
    /// Its stage, counted from 0; null outside of any stage.
    #[schema(required)]
    pub stage: Option<u16>,
    /// Where it stands.
    pub phase: String,
    /// Class of the reason, for phases that have one, e.g. `download`, `already_there`, `gate`; of the attempt that
    /// failed for a task that waits for its retry.
    #[schema(required)]
    pub cause: Option<String>,
    /// Tries so far.
    pub attempt: u32,
    /// When it entered the phase.
    pub since: Timestamp,
    /// Whether it is being brought back to its earlier release.
    pub is_restoring: bool,
    /// Why it is not on the release, or that it is, in one sentence.
    pub why: String,
}

/// One transition.
#[derive(Debug, Serialize, ToSchema)]
pub struct JournalEntry {
    /// Counts up from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Why.
    pub cause: String,
    /// What changed, in words.
    pub message: String,
    /// What changed, for programs; `change` names the kind.
    #[schema(value_type = Object)]
    pub change: Value,
}

/// "Which devices, when, what would block."
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Devices that would get the release.
    pub targets: u64,
    /// Stages with their devices.
    pub stages: Vec<DryRunStage>,
    /// Devices that are left out, with the reason.
    pub skipped: Vec<DryRunSkip>,
    /// What would block or weaken it.
    pub problems: Vec<DryRunProblem>,
}

/// A stage of a dry run.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRunStage {
    /// Its name.
    pub name: String,
    /// Its devices in their order.
    pub devices: Vec<String>,
    /// Those of them that are connected now.
    pub online: u64,
    /// Seconds after the start before which it can't begin.
    pub not_before_s: u64,
    /// Devices that it could be compared with.
    pub controls: u64,
}

/// A device that is left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRunSkip {
    /// Which device.
    pub device: String,
    /// `already_there`, `newer`, `incompatible`, `too_big`, `not_selected`, `control`.
    pub reason: String,
}

/// Something to know before the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRunProblem {
    /// The stage, counted from 0; null for the whole plan.
    #[schema(required)]
    pub stage: Option<u16>,
    /// Whether the rollout would stop because of it.
    pub is_blocking: bool,
    /// One sentence.
    pub why: String,
}

impl RolloutSummary {
    /// From a row and its counts.
    pub(super) fn new(row: &Row, tasks: BTreeMap<String, u64>) -> Self {
        let core = &row.core;
        Self {
            rollout: core.id.to_string(),
            model: core.plan.model.to_string(),
            version: core.plan.release.version.to_string(),
            release: ReleaseName::from(&core.plan.release),
            state: core.status.name().into(),
            reason: reason(&core.status),
            stage: core.status.stage(),
            tasks,
            created_by: match &core.author {
                rollout::Actor::User(name) => name.clone(),
                other => other.to_string(),
            },
            created_at: core.created_at.into(),
            updated_at: row.updated_at.into(),
            finished_at: row.finished_at.map(Timestamp),
        }
    }
}

impl RolloutDetail {
    /// From a row and the rollout with its tasks.
    pub(super) fn new(
        row: &Row,
        rollout: &Rollout,
        tasks: BTreeMap<String, u64>,
        waits_for: Option<String>,
    ) -> Self {
        let stages = (0..).zip(&row.core.stages).map(|(i, stage)| stage_body(rollout, i, stage));
        Self {
            summary: RolloutSummary::new(row, tasks),
            plan: Plan::clone(&row.core.plan),
            waits_for,
            stages: stages.collect(),
            verbs: verbs(rollout).into_iter().map(str::to_owned).collect(),
        }
    }
}

fn stage_body(rollout: &Rollout, i: u16, stage: &rollout::Stage) -> RolloutStage {
    let (tally, planned) = (rollout.tally(i), rollout.plan().stages.get(usize::from(i)));
    let gates = rollout.gates(i).into_iter().map(|gate| {
        let judged = stage.gates.iter().find(|judged| judged.gate == gate.label());
        let (verdict, because) = match judged.map(|j| &j.verdict) {
            Some(rollout::Verdict::Passed(why)) => ("passed", why.clone()),
            Some(rollout::Verdict::Failed(why)) => ("failed", why.clone()),
            Some(rollout::Verdict::Open(why)) => ("open", why.clone()),
            None => ("open", "the stage hasn't begun".into()),
        };
        let found = stage.evidence.iter().find(|e| e.metric == gate.metric && e.slice == gate.slice);
        RolloutGate {
            metric: gate.metric,
            evidence: found.map(GateEvidence::from),
            gate,
            verdict: verdict.into(),
            because,
        }
    });
    RolloutStage {
        stage: i,
        name: stage.name.clone(),
        state: stage_state(stage.state).into(),
        devices: tally.total(),
        tasks: tally.counts().map(|(phase, n)| (phase.to_string(), n)).collect(),
        plan: planned.cloned(),
        soak_s: planned.map_or(0, |planned| planned.soak_s),
        opened_at: stage.opened_at.map(Timestamp),
        soaking_since: stage.soaking_since.map(Timestamp),
        measured_at: stage.measured_at.map(Timestamp),
        decided_at: stage.decided_at.map(Timestamp),
        gates: gates.collect(),
        not_judged: rollout.plan().not_judged(i).into_iter().map(rollout::Gate::label).collect(),
    }
}

impl From<&Evidence> for GateEvidence {
    fn from(evidence: &Evidence) -> Self {
        let sample = |s: rollout::Sample| GateSample { value: s.value, n: s.n, devices: s.devices };
        let interval =
            |i: rollout::Interval| GateInterval { low: i.low, high: i.high, confidence: i.confidence };
        Self {
            candidate: sample(evidence.candidate),
            control: evidence.control.map(sample),
            worse: evidence.worse.map(interval),
            arithmetic: evidence.arithmetic.clone(),
            left_out: evidence.left_out.iter().map(ToString::to_string).collect(),
            from: evidence.from.into(),
            to: evidence.to.into(),
        }
    }
}

impl RolloutTask {
    /// A task as its rollout sees it.
    pub(super) fn new(task: &rollout::Task, why: String) -> Self {
        Self {
            device: task.device.to_string(),
            stage: task.stage,
            phase: task.phase.name().to_string(),
            cause: cause(task.phase).or_else(|| task.last_failure.map(|kind| text(&kind))),
            attempt: task.attempt,
            since: task.since.into(),
            is_restoring: task.is_restoring,
            why,
        }
    }
}

impl From<Entry> for JournalEntry {
    fn from(entry: Entry) -> Self {
        Self {
            seq: entry.seq,
            at: entry.at.into(),
            actor: entry.actor.to_string(),
            message: message(&entry.change),
            change: value(&entry.change),
            cause: entry.cause,
        }
    }
}

impl From<rollout::DryRun> for DryRun {
    fn from(run: rollout::DryRun) -> Self {
        let stage = |stage: rollout::DryStage| DryRunStage {
            name: stage.name,
            devices: stage.devices.iter().map(ToString::to_string).collect(),
            online: stage.online,
            not_before_s: stage.not_before_s,
            controls: stage.controls,
        };
        let problem =
            |p: rollout::Problem| DryRunProblem { stage: p.stage, is_blocking: p.is_blocking, why: p.why };
        Self {
            targets: run.targets,
            stages: run.stages.into_iter().map(stage).collect(),
            skipped: run
                .skipped
                .into_iter()
                .map(|(device, reason)| DryRunSkip { device: device.to_string(), reason: text(&reason) })
                .collect(),
            problems: run.problems.into_iter().map(problem).collect(),
        }
    }
}

fn verbs(rollout: &Rollout) -> Vec<&'static str> {
    let retry = rollout.may_retry().then_some("retry");
    verbs_in(rollout.status()).iter().copied().chain(retry).collect()
}

fn verbs_in(status: &Status) -> &'static [&'static str] {
    match status {
        Status::Draft | Status::Scheduled | Status::RollingBack { .. } => &["abort"],
        Status::AwaitingApproval => &["approve", "deny", "abort"],
        Status::Running { .. } => &["pause", "abort", "rollback"],
        Status::Paused { .. } => &["resume", "abort", "rollback"],
        Status::Completed | Status::Aborted { .. } | Status::Invalidated { .. } => &["rollback"],
        Status::Denied { .. } | Status::RolledBack { .. } | Status::Superseded { .. } => &[],
    }
}

fn reason(status: &Status) -> Option<String> {
    match status {
        Status::Denied { reason }
        | Status::Aborted { reason }
        | Status::RollingBack { reason, .. }
        | Status::Invalidated { reason }
        | Status::RolledBack { reason, unconfirmed: 0 } => Some(reason.clone()),
        Status::RolledBack { reason, unconfirmed } => {
            Some(format!("{reason}; {unconfirmed} devices unconfirmed"))
        }
        Status::Superseded { by } => Some(format!("rollout {by} took over")),
        Status::Paused { reason, .. } => Some(match reason {
            PauseReason::Operator(why)
            | PauseReason::Gate(why)
            | PauseReason::ErrorBudget(why)
            | PauseReason::Dependency(why) => why.clone(),
            PauseReason::MaintenanceWindow => "outside the maintenance window".into(),
        }),
        Status::Draft
        | Status::AwaitingApproval
        | Status::Scheduled
        | Status::Running { .. }
        | Status::Completed => None,
    }
}

fn stage_state(state: StageState) -> &'static str {
    match state {
        StageState::Pending => "pending",
        StageState::Offering => "offering",
        StageState::Soaking => "soaking",
        StageState::GatePassed => "gate_passed",
        StageState::GateFailed => "gate_failed",
    }
}

fn cause(phase: Phase) -> Option<String> {
    match phase {
        Phase::Failed(kind)
        | Phase::Rejected(kind)
        | Phase::RolledBack(rollout::RollbackReason::Device(kind)) => Some(text(&kind)),
        Phase::RolledBack(rollout::RollbackReason::Gate) => Some("gate".into()),
        Phase::RolledBack(rollout::RollbackReason::Operator) => Some("operator".into()),
        Phase::Skipped(reason) => Some(text(&reason)),
        Phase::Canceled(reason) => Some(text(&reason)),
        _ => None,
    }
}

fn message(change: &Change) -> String {
    match change {
        Change::Status { from, to } => format!("{} -> {}", from.name(), to.name()),
        Change::Stage { stage, from, to, .. } => {
            format!("stage {}: {} -> {}", stage + 1, stage_state(*from), stage_state(*to))
        }
        Change::Joined { devices } => format!("{} devices joined", devices.len()),
        Change::Filled { stage: Some(stage), devices } => {
            format!("stage {} was filled with {} devices", stage + 1, devices.len())
        }
        Change::Filled { stage: None, devices } => format!("{} devices are in no stage", devices.len()),
        Change::Task { device, from, to } => format!("{device}: {} -> {}", from.name(), to.name()),
        Change::Waiting { device, until: Some(_) } => format!("{device} waits"),
        Change::Waiting { device, until: None } => format!("{device} waits no longer"),
        Change::Restore { device } => format!("{device} is asked to go back"),
        Change::Late { device, reported } => format!("{device} reported {} late", reported.name()),
        Change::Measured { stage, evidence } => {
            format!("stage {}: {} metrics measured", stage + 1, evidence.len())
        }
        Change::BudgetAccepted { failures, unreachable } => {
            format!("{failures} failed and {unreachable} unreachable devices were accepted")
        }
    }
}

fn value<T: Serialize>(of: &T) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn text<T: Serialize>(of: &T) -> String {
    value(of).as_str().unwrap_or_default().to_owned()
}
