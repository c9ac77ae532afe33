//! A plan: what goes where, in which order, under which conditions. Checked once; then [`ValidPlan`].

use std::ops::Deref;

use protocol::{DeviceId, ModelName, ReleaseRef, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Percent};
use crate::filter::Filter;
use crate::gate::{Gate, Limit};
use crate::mode::Mode;
#[cfg(feature = "openapi")]
use crate::schema::ReleaseSchema;
use crate::window::Window;

/// Most stages of a plan.
pub const MAX_STAGES: usize = 100;
/// Most gates of a plan or stage.
pub const MAX_GATES: usize = 50;
/// Longest seed, in bytes.
pub const MAX_SEED_BYTES: usize = 128;
/// Longest duration anywhere in a plan: 90 days, in seconds.
pub const MAX_DURATION_S: u64 = 90 * 24 * 3600;

/// A rollout's plan as written. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutPlan))]
pub struct Plan {
    /// Which model.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub model: ModelName,
    /// The release to bring to the fleet.
    #[cfg_attr(feature = "openapi", schema(value_type = ReleaseSchema))]
    pub release: ReleaseRef,
    /// Releases to which the signed metadata permits going back.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<ReleaseSchema>))]
    pub fallbacks: Vec<ReleaseRef>,
    /// Which devices; empty = all.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String, max_length = 4096))]
    pub target: Filter,
    /// One after the other.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 100))]
    pub stages: Vec<StagePlan>,
    /// Gates of each stage that names none of its own.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub gates: Vec<Gate>,
    /// What happens when a gate fails, unless the stage says otherwise.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Devices held back on the old release until the last stage has passed.
    #[serde(default = "none")]
    pub control_reserve: Amount,
    /// How the release runs on the device.
    #[serde(default)]
    pub mode: Mode,
    /// Fills stages; the rollout's id when absent. The same seed gives the same order of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Failed devices over the whole rollout; more pause it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_budget: Option<Amount>,
    /// Unreachable devices over the whole rollout; more pause it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_budget: Option<Amount>,
    /// From a device's first answer to its end.
    #[serde(default = "Plan::default_task_timeout_s")]
    #[cfg_attr(feature = "openapi", schema(default = 3600, minimum = 1, maximum = 7_776_000))]
    pub task_timeout_s: u64,
    /// From the offer to the device's first answer.
    #[serde(default = "Plan::default_unreachable_after_s")]
    #[cfg_attr(feature = "openapi", schema(default = 86400, minimum = 1, maximum = 7_776_000))]
    pub unreachable_after_s: u64,
    /// After the soak time, how long a gate may wait for evidence before it counts as failed.
    #[serde(default = "Plan::default_evidence_timeout_s")]
    #[cfg_attr(feature = "openapi", schema(default = 86400, maximum = 7_776_000))]
    pub evidence_timeout_s: u64,
    /// Least time between two measurements.
    #[serde(default = "Plan::default_measure_every_s")]
    #[cfg_attr(feature = "openapi", schema(default = 60, minimum = 1, maximum = 7_776_000))]
    pub measure_every_s: u64,
    /// Second chances for one device.
    #[serde(default)]
    pub retries: Retries,
    /// How fast devices are offered the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// When devices may be offered the release, in their own time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub start_at: Option<UnixMillis>,
    /// Whether another person than the author must approve.
    #[serde(default)]
    pub needs_approval: bool,
    /// Whether devices that join the target later take part in the last stage.
    #[serde(default)]
    pub is_dynamic: bool,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StagePlan {
    /// For people; `stage 1` and so on when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which devices.
    pub fill: Fill,
    /// Least time between the last device's end and the verdict.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = 0, maximum = 7_776_000))]
    pub soak_s: u64,
    /// Least number of devices that must hold the release.
    #[serde(default = "StagePlan::default_min_devices")]
    #[cfg_attr(feature = "openapi", schema(default = 1, minimum = 1))]
    pub min_devices: u64,
    /// Gates of this stage; the plan's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub gates: Option<Vec<Gate>>,
    /// What happens when a gate fails; the plan's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// Which devices a stage takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = StageFill))]
pub enum Fill {
    /// So many more devices; or as many as bring the rollout to this share of its targets.
    Amount(Amount),
    /// These.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    Devices(Vec<DeviceId>),
    /// Those of the targets that match.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    Filter(Filter),
}

/// What a failed gate leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnFailure {
    /// Stop offering and wait for a person.
    #[default]
    Pause,
    /// End the rollout; devices that have the release keep it.
    Abort,
    /// Bring this stage's devices back to their old release and end.
    RollBackStage,
    /// Bring every device of the rollout back and end.
    RollBackAll,
}

/// Second chances for one device, for failures that can pass by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retries {
    /// Attempts after the first.
    #[cfg_attr(feature = "openapi", schema(maximum = 10))]
    pub max: u32,
    /// Wait before the first of them; doubles each time.
    #[cfg_attr(feature = "openapi", schema(maximum = 7_776_000))]
    pub backoff_s: u64,
}

/// How fast devices are offered the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = OfferRate))]
pub struct Rate {
    /// Offers per minute at the start.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub per_minute: u32,
    /// Growth: after each `every` successes the rate is multiplied by `factor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Most devices at work at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_in_flight: Option<u32>,
}

/// How a rate grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RateGrowth))]
pub struct Growth {
    /// 2 doubles.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub factor: u32,
    /// Successes per step.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub every: u32,
    /// Upper bound per minute.
    pub max_per_minute: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 2, backoff_s: 60 }
    }
}

fn none() -> Amount {
    Amount::Count(0)
}

impl StagePlan {
    /// A stage of so many devices with everything else by default.
    pub fn of(amount: Amount) -> Self {
        let fill = Fill::Amount(amount);
        Self {
            name: None,
            fill,
            soak_s: 0,
            min_devices: Self::default_min_devices(),
            gates: None,
            on_failure: None,
        }
    }

    fn default_min_devices() -> u64 {
        1
    }
}

impl Plan {
    /// The plan's gates that compare with a control group and that this stage (from 0) has left out.
    pub fn not_judged(&self, stage: u16) -> Vec<&Gate> {
        let own = self.stages.get(usize::from(stage)).and_then(|stage| stage.gates.as_ref());
        let is_left_out = |gate: &&Gate| own.is_some_and(|own| !own.contains(gate));
        self.gates.iter().filter(|gate| gate.needs_control()).filter(is_left_out).collect()
    }

    /// A plan with everything by default but the stages.
    pub fn new(model: ModelName, release: ReleaseRef, stages: Vec<StagePlan>) -> Self {
        Self {
            model,
            release,
            fallbacks: Vec::new(),
            target: Filter::all(),
            stages,
            gates: Vec::new(),
            on_failure: OnFailure::default(),
            control_reserve: none(),
            mode: Mode::default(),
            seed: None,
            failure_budget: None,
            unreachable_budget: None,
            task_timeout_s: Self::default_task_timeout_s(),
            unreachable_after_s: Self::default_unreachable_after_s(),
            evidence_timeout_s: Self::default_evidence_timeout_s(),
            measure_every_s: Self::default_measure_every_s(),
            retries: Retries::default(),
            rate: None,
            window: None,
            start_at: None,
            needs_approval: false,
            is_dynamic: false,
        }
    }

    fn default_task_timeout_s() -> u64 {
        3600
    }

    fn default_unreachable_after_s() -> u64 {
        24 * 3600
    }

    fn default_evidence_timeout_s() -> u64 {
        24 * 3600
    }

    fn default_measure_every_s() -> u64 {
        60
    }

    /// Checks every bound and reports all errors together.
    ///
    /// # Errors
    /// One [`PlanError`] per fault.
    pub fn check(self) -> Result<ValidPlan, PlanErrors> {
        let mut errors = Vec::new();
        let mut fault = |field: String, why: &str| errors.push(PlanError { field, why: why.to_owned() });
        if self.stages.is_empty() || self.stages.len() > MAX_STAGES {
            fault("stages".into(), "a plan has 1 to 100 stages");
        }
        for (name, seconds) in [
            ("task_timeout_s", self.task_timeout_s),
            ("unreachable_after_s", self.unreachable_after_s),
            ("measure_every_s", self.measure_every_s),
        ] {
            if seconds == 0 || seconds > MAX_DURATION_S {
                fault(name.into(), "must be between one second and 90 days");
            }
        }
        for (name, seconds) in
            [("evidence_timeout_s", self.evidence_timeout_s), ("retries.backoff_s", self.retries.backoff_s)]
        {
            if seconds > MAX_DURATION_S {
                fault(name.into(), "must be at most 90 days");
            }
        }
        if self.retries.max > 10 {
            fault("retries.max".into(), "must be at most 10");
        }
        check_rate(self.rate, &mut fault);
        if self.window.is_some_and(|w| !w.is_valid()) {
            fault(
                "window".into(),
                "needs a weekday, a start within the day and a length of 1 minute to 24 hours",
            );
        }
        if self.seed.as_ref().is_some_and(|seed| seed.is_empty() || seed.len() > MAX_SEED_BYTES) {
            fault("seed".into(), "must have 1 to 128 bytes, or be left out");
        }
        if self.mode == Mode::Ab(Percent::whole(0)) {
            fault("mode".into(), "an A/B share of 0% reaches no device");
        }
        check_gates("gates", &self.gates, &mut fault);
        for (i, stage) in self.stages.iter().enumerate() {
            check_stage(i, stage, &mut fault);
        }
        if errors.is_empty() { Ok(ValidPlan(self)) } else { Err(PlanErrors(errors)) }
    }
}

fn check_rate(rate: Option<Rate>, fault: &mut impl FnMut(String, &str)) {
    let Some(rate) = rate else { return };
    if rate.per_minute == 0 || rate.max_in_flight == Some(0) {
        fault("rate".into(), "a rate of 0 never offers anything");
    }
    if rate.growth.is_some_and(|g| g.factor < 1 || g.every == 0 || g.max_per_minute < rate.per_minute) {
        fault(
            "rate.growth".into(),
            "factor and every must be at least 1, max_per_minute at least per_minute",
        );
    }
}

fn check_stage(i: usize, stage: &StagePlan, fault: &mut impl FnMut(String, &str)) {
    let field = |name: &str| format!("stages[{i}].{name}");
    match &stage.fill {
        Fill::Amount(Amount::Count(0)) => fault(field("fill"), "a stage of 0 devices proves nothing"),
        Fill::Amount(Amount::Percent(p)) if *p == Percent::whole(0) => {
            fault(field("fill"), "a stage of 0% proves nothing");
        }
        Fill::Devices(devices) if devices.is_empty() => fault(field("fill"), "the list of devices is empty"),
        Fill::Amount(_) | Fill::Devices(_) | Fill::Filter(_) => {}
    }
    if stage.min_devices == 0 {
        fault(field("min_devices"), "must be at least 1: a stage can't complete without evidence");
    }
    if stage.soak_s > MAX_DURATION_S {
        fault(field("soak_s"), "must be at most 90 days");
    }
    check_gates(&field("gates"), stage.gates.as_deref().unwrap_or_default(), fault);
}

fn check_gates(field: &str, gates: &[Gate], fault: &mut impl FnMut(String, &str)) {
    if gates.len() > MAX_GATES {
        fault(field.into(), "at most 50 gates");
    }
    for (i, gate) in gates.iter().enumerate() {
        let limit = match gate.limit {
            Limit::Tasks { .. } => 0.0,
            Limit::Value { bound } => bound,
            Limit::WorseThanControl { by_at_most, .. } => by_at_most,
        };
        if !limit.is_finite() {
            fault(format!("{field}[{i}].limit"), "must be a finite number");
        }
        if gate.metric.is_share() && limit.abs() > 1.0 {
            fault(format!("{field}[{i}].limit"), "must be a share, e.g. 0.05 for five points");
        }
        if gate.metric.is_counted() != matches!(gate.limit, Limit::Tasks { .. }) {
            fault(
                format!("{field}[{i}].limit"),
                "counted metrics (failures, timeouts) take a limit in tasks, measured ones a value or a comparison",
            );
        }
        if gate.kind.is_some() && !gate.metric.is_counted() {
            fault(format!("{field}[{i}].kind"), "only failures have a kind");
        }
        if gate.slice.is_some() && gate.metric.is_counted() {
            fault(format!("{field}[{i}].slice"), "only measured metrics have slices");
        }
    }
}

/// A plan whose bounds were checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Plan", into = "Plan")]
pub struct ValidPlan(Plan);

impl ValidPlan {
    /// The same plan without approval and start time, for trying it.
    pub(crate) fn ready_to_start(mut self) -> Self {
        self.0.needs_approval = false;
        self.0.start_at = None;
        self
    }
}

impl Deref for ValidPlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

impl TryFrom<Plan> for ValidPlan {
    type Error = PlanErrors;

    fn try_from(plan: Plan) -> Result<Self, PlanErrors> {
        plan.check()
    }
}

impl From<ValidPlan> for Plan {
    fn from(plan: ValidPlan) -> Self {
        plan.0
    }
}

/// One fault of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct PlanError {
    /// Where, as a path into the JSON.
    pub field: String,
    /// What was expected.
    pub why: String,
}

/// All faults of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan has {} fault(s): {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PlanErrors(pub Vec<PlanError>);
