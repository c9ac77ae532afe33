//! A rollout's state.
//!
//! ```text
//! Draft -> (AwaitingApproval -> Denied) -> Scheduled -> Running(stage) <-> Paused(stage, reason)
//!   Running | Paused -> Completed | Aborted | RollingBack -> RolledBack;  not ended -> Superseded | Invalidated
//!   Completed | Aborted | Invalidated -> RollingBack, on a person's word
//! Stage: Pending -> Offering -> Soaking -> GatePassed | GateFailed
//! ```

use protocol::{DeviceId, RolloutId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::event::{Actor, Scope};
use crate::gate::{Evidence, Gate};
use crate::journal::Judged;
use crate::mode::Mode;
use crate::phase::{Phase, RollbackReason};
use crate::plan::{OnFailure, StagePlan, ValidPlan};
use crate::tasks::{Tally, Task, TaskTable};

/// Where the rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// Being written.
    Draft,
    /// Waits for another person than the author.
    AwaitingApproval,
    /// Refused.
    Denied {
        /// Why.
        reason: String,
    },
    /// Waits for its start.
    Scheduled,
    /// Works on a stage.
    Running {
        /// From 0.
        stage: u16,
    },
    /// Offers nothing new.
    Paused {
        /// The stage that it stopped at, from 0.
        stage: u16,
        /// Why.
        reason: PauseReason,
    },
    /// Every stage passed.
    Completed,
    /// Ended early; devices that have the release keep it.
    Aborted {
        /// Why.
        reason: String,
    },
    /// Brings devices back.
    RollingBack {
        /// The stage that it stopped at, from 0.
        stage: u16,
        /// How far.
        scope: Scope,
        /// On whose word.
        by: RollbackReason,
        /// Why.
        reason: String,
    },
    /// Devices were brought back.
    RolledBack {
        /// Why.
        reason: String,
        /// Devices that never confirmed it, or for which the signed metadata permits no way back.
        unconfirmed: u64,
    },
    /// Another rollout took over.
    Superseded {
        /// Which.
        by: RolloutId,
    },
    /// It can't do what it was made for.
    Invalidated {
        /// Why.
        reason: String,
    },
}

/// Why a rollout is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because", content = "detail")]
pub enum PauseReason {
    /// A person said so.
    Operator(String),
    /// A gate failed or never got its evidence.
    Gate(String),
    /// Too many failed or unreachable devices.
    ErrorBudget(String),
    /// Outside the maintenance window.
    MaintenanceWindow,
    /// Another rollout comes first.
    Dependency(String),
}

impl Status {
    /// As written in columns and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Denied { .. } => "denied",
            Self::Scheduled => "scheduled",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Completed => "completed",
            Self::Aborted { .. } => "aborted",
            Self::RollingBack { .. } => "rolling_back",
            Self::RolledBack { .. } => "rolled_back",
            Self::Superseded { .. } => "superseded",
            Self::Invalidated { .. } => "invalidated",
        }
    }

    /// Whether it is over: nothing follows but, of one that devices have taken, a person's order to go back.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Denied { .. }
            | Self::Completed
            | Self::Aborted { .. }
            | Self::RolledBack { .. }
            | Self::Superseded { .. }
            | Self::Invalidated { .. } => true,
            Self::Draft
            | Self::AwaitingApproval
            | Self::Scheduled
            | Self::Running { .. }
            | Self::Paused { .. }
            | Self::RollingBack { .. } => false,
        }
    }

    /// Whether devices may still be offered the release, now or after a resume.
    pub fn is_offering(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. })
    }

    /// The stage that it works on or stopped at.
    pub fn stage(&self) -> Option<u16> {
        match self {
            Self::Running { stage } | Self::Paused { stage, .. } | Self::RollingBack { stage, .. } => {
                Some(*stage)
            }
            _ => None,
        }
    }
}

/// Where a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// Not begun; also a stage that no device was left for.
    Pending,
    /// Devices are offered the release and work on it.
    Offering,
    /// Every device came to its end; the soak time runs and the gates are watched.
    Soaking,
    /// Every gate passed.
    GatePassed,
    /// A gate failed, or had no evidence in time.
    GateFailed,
}

/// A stage's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// For people.
    pub name: String,
    /// Where it stands.
    pub state: StageState,
    /// When the first offer was allowed; begin of the time window for behaviour.
    pub opened_at: Option<UnixMillis>,
    /// When every device had come to its end.
    pub soaking_since: Option<UnixMillis>,
    /// When it was last resumed after a failed gate; waiting for evidence counts from there.
    pub resumed_at: Option<UnixMillis>,
    /// When it passed or failed.
    pub decided_at: Option<UnixMillis>,
    /// The newest measurement.
    pub evidence: Vec<Evidence>,
    /// When that was made.
    pub measured_at: Option<UnixMillis>,
    /// What each gate said when it was last judged.
    pub gates: Vec<Judged>,
    /// The devices held for comparison, released at the end.
    pub is_control: bool,
}

/// Everything of a rollout but its tasks: one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Core {
    /// Its id.
    pub id: RolloutId,
    /// What it was made for.
    pub plan: ValidPlan,
    /// Who made it.
    pub author: Actor,
    /// When.
    pub created_at: UnixMillis,
    /// Where it stands.
    pub status: Status,
    /// Its stages; one more than planned when a control group is released at the end.
    pub stages: Vec<Stage>,
    /// Sequence number of the last transition.
    pub seq: u64,
    /// Begin of the current minute and the offers in it, for the rate.
    pub offered: (UnixMillis, u32),
    /// Failures and unreachable devices that a person accepted by resuming.
    pub accepted: (u64, u64),
    /// Whether devices were put into stages.
    pub is_filled: bool,
    /// Failed and unreachable devices now, over all stages.
    pub bad: (u64, u64),
    /// Devices that could not be brought back, or never confirmed it.
    pub unconfirmed: u64,
}

/// A rollout: its row and its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub(crate) core: Core,
    pub(crate) tasks: TaskTable,
}

impl Rollout {
    /// A draft without devices.
    pub fn new(id: RolloutId, plan: ValidPlan, author: Actor, created_at: UnixMillis) -> Self {
        let stages = plan.stages.iter().enumerate().map(|(i, stage)| Stage::new(stage_name(i, stage), false));
        let core = Core {
            id,
            author,
            created_at,
            status: Status::Draft,
            stages: stages.collect(),
            seq: 0,
            offered: (UnixMillis(0), 0),
            accepted: (0, 0),
            is_filled: false,
            bad: (0, 0),
            unconfirmed: 0,
            plan,
        };
        let tasks = TaskTable::build(Vec::new(), core.plan.mode == Mode::Shadow);
        Self { core, tasks }
    }

    /// From storage.
    pub fn assemble(core: Core, tasks: Vec<Task>) -> Self {
        let tasks = TaskTable::build(tasks, core.plan.mode == Mode::Shadow);
        Self { core, tasks }
    }

    /// What is stored in one row.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Where it stands.
    pub fn status(&self) -> &Status {
        &self.core.status
    }

    /// The plan.
    pub fn plan(&self) -> &ValidPlan {
        &self.core.plan
    }

    /// A device's task.
    pub fn task(&self, device: &DeviceId) -> Option<&Task> {
        self.tasks.find(device).map(|at| self.tasks.get(at))
    }

    /// Every task.
    pub fn tasks(&self) -> &[Task] {
        self.tasks.all()
    }

    /// Counts of a stage.
    pub fn tally(&self, stage: u16) -> Tally {
        self.tasks.tally(stage)
    }

    /// Devices of a stage that hold the new release.
    pub fn candidates(&self, stage: u16) -> impl Iterator<Item = &DeviceId> {
        let holds = |t: &&Task| matches!(t.phase, Phase::Committed | Phase::Probation | Phase::Shadow);
        self.tasks.all().iter().filter(move |t| t.stage == Some(stage)).filter(holds).map(|t| &t.device)
    }

    /// Targets that still run an old release and were never offered the new one: the control group.
    pub fn controls(&self) -> impl Iterator<Item = &DeviceId> {
        self.tasks
            .all()
            .iter()
            .filter(|t| !t.was_offered() && t.previous.is_some() && is_comparable(t.phase))
            .map(|t| &t.device)
    }

    /// Whether a device of the current stage may be given another chance.
    pub fn may_retry(&self) -> bool {
        let stage = self.core.status.stage().filter(|_| self.core.status.is_offering());
        stage.is_some() && self.tasks().iter().any(|task| task.stage == stage && task.is_lost())
    }

    /// Whether devices are still at work or being brought back.
    pub fn has_work_left(&self) -> bool {
        let stages = 0..u16::try_from(self.core.stages.len()).unwrap_or(u16::MAX);
        self.tasks.restoring() > 0 || stages.filter_map(|s| self.tasks.tally_ref(s)).any(|t| t.active() > 0)
    }

    /// When a tick next has something to do by itself, as far as deadlines tell.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.tasks.next_due()
    }

    /// The gates of a stage.
    pub fn gates(&self, stage: u16) -> Vec<Gate> {
        let plan = &self.core.plan;
        match plan.stages.get(usize::from(stage)) {
            Some(planned) => planned.gates.clone().unwrap_or_else(|| plan.gates.clone()),
            None => plan.gates.iter().filter(|g| !g.needs_control()).cloned().collect(),
        }
    }

    pub(crate) fn stage_plan(&self, stage: u16) -> Option<&StagePlan> {
        self.core.plan.stages.get(usize::from(stage))
    }

    pub(crate) fn on_failure(&self, stage: u16) -> OnFailure {
        self.stage_plan(stage).and_then(|s| s.on_failure).unwrap_or(self.core.plan.on_failure)
    }
}

fn is_comparable(phase: Phase) -> bool {
    use crate::phase::SkipReason::{Control, NotSelected};
    matches!(phase, Phase::Queued | Phase::Skipped(Control | NotSelected))
}

pub(crate) fn stage_name(i: usize, plan: &StagePlan) -> String {
    plan.name.clone().unwrap_or_else(|| format!("stage {}", i + 1))
}

impl Stage {
    pub(crate) fn new(name: String, is_control: bool) -> Self {
        Self {
            name,
            state: StageState::Pending,
            opened_at: None,
            soaking_since: None,
            resumed_at: None,
            decided_at: None,
            evidence: Vec::new(),
            measured_at: None,
            gates: Vec::new(),
            is_control,
        }
    }
}
