//! The one answer to "why is this device not on the release?".

use protocol::{DeviceId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::phase::{Phase, RollbackReason, SkipReason};
use crate::state::{PauseReason, Rollout, StageState, Status};
use crate::tasks::Task;

/// Class of the answer, for translations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyCode {
    /// It is on the release.
    OnRelease,
    /// The rollout isn't about it.
    NotATarget,
    /// The rollout hasn't begun.
    NotStarted,
    /// Its stage comes later.
    LaterStage,
    /// The rollout is paused.
    Paused,
    /// Waits for the rate, its window or a retry.
    Waiting,
    /// Is at work.
    AtWork,
    /// Never answered.
    Unreachable,
    /// It failed on the device.
    Failed,
    /// Left out on purpose.
    Skipped,
    /// It was brought back.
    BroughtBack,
    /// The rollout ended before its turn.
    Ended,
}

impl WhyCode {
    /// As written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnRelease => "on_release",
            Self::NotATarget => "not_a_target",
            Self::NotStarted => "not_started",
            Self::LaterStage => "later_stage",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::AtWork => "at_work",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::BroughtBack => "brought_back",
            Self::Ended => "ended",
        }
    }
}

/// The answer for one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Its class.
    pub code: WhyCode,
    /// One or two sentences for people.
    pub text: String,
    /// Since when.
    pub since: Option<UnixMillis>,
}

impl Rollout {
    /// Why this device is not on the release, or that it is.
    pub fn why(&self, device: &DeviceId) -> Why {
        let Some(task) = self.task(device) else {
            let text = "the target filter of the rollout doesn't select this device".to_owned();
            return Why { code: WhyCode::NotATarget, text, since: None };
        };
        let (code, mut text) = self.why_task(task);
        if let Some(late) = task.late {
            text = format!("{text}; it has since reported {late}");
        }
        Why { code, text, since: Some(task.since) }
    }

    fn why_task(&self, task: &Task) -> (WhyCode, String) {
        let version = &self.core.plan.release.version;
        match task.phase {
            _ if task.is_restoring => {
                (WhyCode::BroughtBack, "it is being brought back to its earlier release".into())
            }
            Phase::Committed => (WhyCode::OnRelease, format!("it runs {version}")),
            Phase::Queued => self.why_queued(task),
            Phase::Offered => {
                (WhyCode::AtWork, format!("{version} was offered; the device hasn't answered yet"))
            }
            Phase::Unreachable => {
                let hours = self.core.plan.unreachable_after_s;
                (
                    WhyCode::Unreachable,
                    format!("it didn't answer within {hours} s; its Desired still waits for it"),
                )
            }
            Phase::TimedOut => {
                let seconds = self.core.plan.task_timeout_s;
                (WhyCode::Failed, format!("it took longer than {seconds} s in attempt {}", task.tries()))
            }
            Phase::Failed(kind) => (WhyCode::Failed, format!("it failed before it served: {kind}")),
            Phase::Rejected(kind) => (WhyCode::Failed, format!("the device refused the release: {kind}")),
            Phase::RolledBack(RollbackReason::Device(kind)) => {
                (WhyCode::Failed, format!("the device fell back to its earlier release in probation: {kind}"))
            }
            Phase::RolledBack(RollbackReason::Gate) => {
                (WhyCode::BroughtBack, "a gate failed and the device was brought back".into())
            }
            Phase::RolledBack(RollbackReason::Operator) => {
                (WhyCode::BroughtBack, "a person had the device brought back".into())
            }
            Phase::Skipped(SkipReason::AlreadyThere) => {
                (WhyCode::OnRelease, format!("it ran {version} before"))
            }
            Phase::Skipped(reason) => (WhyCode::Skipped, reason.text().into()),
            Phase::Canceled(_) => (WhyCode::Ended, "the rollout ended before the device was done".into()),
            _ => (WhyCode::AtWork, format!("the device is at work: {}", task.phase.name())),
        }
    }

    fn why_queued(&self, task: &Task) -> (WhyCode, String) {
        let stage_text = |stage: u16| {
            let name = self.core.stages.get(usize::from(stage)).map_or("its stage", |s| s.name.as_str());
            format!("it belongs to {name} ({} of {})", stage + 1, self.core.stages.len())
        };
        let (current, own) = (self.core.status.stage(), task.stage);
        match &self.core.status {
            Status::Paused { reason, .. } => {
                (WhyCode::Paused, format!("the rollout is paused: {}", pause_text(reason)))
            }
            Status::Running { stage } if own.is_some_and(|own| own > *stage) => {
                let state =
                    self.core.stages.get(usize::from(*stage)).map_or(StageState::Pending, |s| s.state);
                let own = stage_text(own.unwrap_or_default());
                (WhyCode::LaterStage, format!("{own}; stage {} is {}", stage + 1, state_text(state)))
            }
            Status::Running { .. } if task.due.is_some() => match task.last_failure {
                Some(cause) => {
                    let attempt = task.tries();
                    (WhyCode::Waiting, format!("attempt {attempt} failed ({cause}); it is tried again"))
                }
                None => (WhyCode::Waiting, "it waits for its maintenance window".into()),
            },
            Status::Running { .. } => {
                (WhyCode::Waiting, "it is its stage's turn; the rate limit holds it back".into())
            }
            other if current.is_none() && !other.is_terminal() => {
                (WhyCode::NotStarted, format!("the rollout is {}", other.name()))
            }
            other => (WhyCode::Ended, format!("the rollout is {}", other.name())),
        }
    }
}

impl SkipReason {
    /// One clause about a device.
    pub fn text(self) -> &'static str {
        match self {
            Self::AlreadyThere => "it runs the release already",
            Self::Newer => "it runs a newer release",
            Self::Incompatible => "the release isn't for its hardware or agent",
            Self::TooBig => "the release is too big for it",
            Self::NotSelected => "no stage of the plan selects it",
            Self::Control => "it stays on the old release for comparison",
        }
    }
}

fn state_text(state: StageState) -> &'static str {
    match state {
        StageState::Pending => "not begun",
        StageState::Offering => "being offered the release",
        StageState::Soaking => "soaking",
        StageState::GatePassed => "passed",
        StageState::GateFailed => "failed",
    }
}

fn pause_text(reason: &PauseReason) -> String {
    match reason {
        PauseReason::Operator(why) => format!("by a person: {why}"),
        PauseReason::Gate(why) => format!("a gate failed: {why}"),
        PauseReason::ErrorBudget(why) => why.clone(),
        PauseReason::MaintenanceWindow => "outside the maintenance window".into(),
        PauseReason::Dependency(why) => format!("another rollout comes first: {why}"),
    }
}
