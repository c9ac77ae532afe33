//! Where one device's task stands.
//!
//! ```text
//! Queued -> Offered -> Accepted -> Downloading -> Verified -> Staged -> SelfTest -> (Shadow) -> Activating -> Probation
//!   -> Committed | RolledBack | Failed | Rejected | TimedOut | Skipped | Unreachable | Canceled
//! ```

use std::fmt;

use protocol::message::{CauseKind, TaskPhase};
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};

/// One device's part in a rollout. Only `Committed` counts as success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", content = "why", rename_all = "snake_case")]
pub enum Phase {
    /// Waits for its stage, its turn, its window or its retry.
    Queued,
    /// Its Desired names the release; the device hasn't answered.
    Offered,
    /// The device took it on.
    Accepted,
    /// Metadata and blobs are being fetched.
    Downloading,
    /// Everything fetched was verified.
    Verified,
    /// Durable in the candidate slot.
    Staged,
    /// Golden samples and budgets are tried.
    SelfTest,
    /// Runs beside the active release.
    Shadow,
    /// The swap is being made.
    Activating,
    /// Serves under watch.
    Probation,
    /// Serves for good: the one success.
    Committed,
    /// An earlier release serves again.
    RolledBack(RollbackReason),
    /// Ended before it served.
    Failed(CauseKind),
    /// Refused before anything was fetched.
    Rejected(CauseKind),
    /// Took longer than the plan allows.
    TimedOut,
    /// Never offered.
    Skipped(SkipReason),
    /// Never answered within the plan's bound.
    Unreachable,
    /// Taken out.
    Canceled(CancelReason),
}

/// Who sent a device back to its earlier release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "kind")]
pub enum RollbackReason {
    /// The device itself, in probation.
    Device(CauseKind),
    /// The rollout: a gate failed.
    Gate,
    /// A person.
    Operator,
}

/// Why a device is not offered the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It runs the release already.
    AlreadyThere,
    /// It runs a release with a higher counter.
    Newer,
    /// The release isn't for its hardware or agent.
    Incompatible,
    /// The release is larger than its memory or disk.
    TooBig,
    /// No stage of the plan selects it.
    NotSelected,
    /// It stays on the old release for comparison.
    Control,
}

/// Why a task was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The rollout was aborted.
    Aborted,
    /// The rollout was rolled back before the device's turn.
    RolledBack,
    /// The device left the fleet.
    DeviceRemoved,
    /// Another rollout took over.
    Superseded,
}

/// [`Phase`] without its reasons: what is counted, stored in a column and translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is documented at the variant of Phase with the same name")]
pub enum PhaseName {
    Queued,
    Offered,
    Accepted,
    Downloading,
    Verified,
    Staged,
    SelfTest,
    Shadow,
    Activating,
    Probation,
    Committed,
    RolledBack,
    Failed,
    Rejected,
    TimedOut,
    Skipped,
    Unreachable,
    Canceled,
}

impl PhaseName {
    /// As written in JSON and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Downloading => "downloading",
            Self::Verified => "verified",
            Self::Staged => "staged",
            Self::SelfTest => "self_test",
            Self::Shadow => "shadow",
            Self::Activating => "activating",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::Unreachable => "unreachable",
            Self::Canceled => "canceled",
        }
    }
}

impl PhaseName {
    /// The phase that is written like this, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::deserialize(StrDeserializer::<serde::de::value::Error>::new(name)).ok()
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Phase {
    /// The name without the reason.
    pub fn name(self) -> PhaseName {
        match self {
            Self::Queued => PhaseName::Queued,
            Self::Offered => PhaseName::Offered,
            Self::Accepted => PhaseName::Accepted,
            Self::Downloading => PhaseName::Downloading,
            Self::Verified => PhaseName::Verified,
            Self::Staged => PhaseName::Staged,
            Self::SelfTest => PhaseName::SelfTest,
            Self::Shadow => PhaseName::Shadow,
            Self::Activating => PhaseName::Activating,
            Self::Probation => PhaseName::Probation,
            Self::Committed => PhaseName::Committed,
            Self::RolledBack(_) => PhaseName::RolledBack,
            Self::Failed(_) => PhaseName::Failed,
            Self::Rejected(_) => PhaseName::Rejected,
            Self::TimedOut => PhaseName::TimedOut,
            Self::Skipped(_) => PhaseName::Skipped,
            Self::Unreachable => PhaseName::Unreachable,
            Self::Canceled(_) => PhaseName::Canceled,
        }
    }

    /// Whether nothing more is expected from the device.
    pub fn is_terminal(self) -> bool {
        self.name() >= PhaseName::Committed
    }

    /// Whether the device has been asked and hasn't finished.
    pub fn is_active(self) -> bool {
        !self.is_terminal() && self != Self::Queued
    }

    /// Whether the swap has begun: such a task finishes even when the rollout stops.
    pub fn is_past_return(self) -> bool {
        matches!(self, Self::Activating | Self::Probation)
    }

    /// Whether the device was asked, ended without the release and may still take it: when it is back, or by trying
    /// again.
    pub fn may_wake_up(self) -> bool {
        matches!(
            self,
            Self::RolledBack(_) | Self::Failed(_) | Self::Rejected(_) | Self::TimedOut | Self::Unreachable
        )
    }

    /// Whether it counts against the failure budget.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Failed(_)
                | Self::Rejected(_)
                | Self::TimedOut
                | Self::RolledBack(RollbackReason::Device(_))
        )
    }

    /// The class of a failure, where there is one.
    pub fn cause(self) -> Option<CauseKind> {
        match self {
            Self::Failed(kind) | Self::Rejected(kind) | Self::RolledBack(RollbackReason::Device(kind)) => {
                Some(kind)
            }
            Self::TimedOut => Some(CauseKind::Timeout),
            _ => None,
        }
    }

    /// What a device's report means. `Idle` says nothing about a task.
    pub fn from_report(phase: TaskPhase, kind: Option<CauseKind>) -> Option<Self> {
        let kind = kind.unwrap_or(CauseKind::Internal);
        Some(match phase {
            TaskPhase::Idle => return None,
            TaskPhase::Accepted => Self::Accepted,
            TaskPhase::Fetching => Self::Downloading,
            TaskPhase::Verified => Self::Verified,
            TaskPhase::Staged => Self::Staged,
            TaskPhase::SelfTest => Self::SelfTest,
            TaskPhase::Shadow => Self::Shadow,
            TaskPhase::Activating => Self::Activating,
            TaskPhase::Probation => Self::Probation,
            TaskPhase::Committed => Self::Committed,
            TaskPhase::RolledBack => Self::RolledBack(RollbackReason::Device(kind)),
            TaskPhase::Failed => Self::Failed(kind),
            TaskPhase::Rejected => Self::Rejected(kind),
        })
    }
}
