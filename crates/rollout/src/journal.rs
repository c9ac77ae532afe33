//! The journal: every transition with actor, cause, time and sequence number; and the replay that proves it.

use protocol::{DeviceId, RolloutId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::event::{Action, Actor, Event, Input};
use crate::gate::{Evidence, Verdict};
use crate::phase::Phase;
use crate::plan::ValidPlan;
use crate::state::{Rollout, StageState, Status};

/// One transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises by one with each transition of the rollout.
    pub seq: u64,
    /// When.
    pub at: UnixMillis,
    /// Who.
    pub actor: Actor,
    /// Why, as one sentence.
    pub cause: String,
    /// What changed.
    pub change: Change,
    /// What came in, on the first transition that it led to: enough to replay the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// The rollout's status.
    Status {
        /// Before.
        from: Status,
        /// After.
        to: Status,
    },
    /// A stage's state.
    Stage {
        /// Which, from 0.
        stage: u16,
        /// Before.
        from: StageState,
        /// After.
        to: StageState,
        /// What each gate said, where gates were judged.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gates: Vec<Judged>,
    },
    /// Devices came into the rollout.
    Joined {
        /// Which.
        devices: Vec<DeviceId>,
    },
    /// A stage was filled.
    Filled {
        /// Which; none = the devices that are held for comparison or not selected.
        stage: Option<u16>,
        /// Its devices, in the order of the seed.
        devices: Vec<DeviceId>,
    },
    /// A device's task.
    Task {
        /// Which.
        device: DeviceId,
        /// Before.
        from: Phase,
        /// After.
        to: Phase,
    },
    /// A queued device waits for its window or retry; no longer when `until` is absent.
    Waiting {
        /// Which.
        device: DeviceId,
        /// Not before this.
        until: Option<UnixMillis>,
    },
    /// A device was asked to go back.
    Restore {
        /// Which.
        device: DeviceId,
    },
    /// A report after the task's end: recorded, without effect.
    Late {
        /// Which.
        device: DeviceId,
        /// What it reported.
        reported: Phase,
    },
    /// Behaviour was measured.
    Measured {
        /// Of which stage.
        stage: u16,
        /// The numbers.
        evidence: Vec<Evidence>,
    },
    /// A budget's overrun was accepted by resuming.
    BudgetAccepted {
        /// Failed devices at that time.
        failures: u64,
        /// Unreachable devices at that time.
        unreachable: u64,
    },
}

/// One gate's verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// See [`crate::Gate::label`].
    pub gate: String,
    /// What it said.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Where a journal doesn't follow from its own events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal leaves the engine's decisions at entry {seq}")]
pub struct ReplayError {
    /// First entry that differs.
    pub seq: u64,
}

/// Runs the journal's events again from the plan and compares every transition.
///
/// # Errors
/// [`ReplayError`] at the first entry that the engine would not have written.
pub fn replay(
    id: RolloutId,
    plan: ValidPlan,
    author: &Actor,
    created_at: UnixMillis,
    journal: &[Entry],
) -> Result<Rollout, ReplayError> {
    let mut rollout = Rollout::new(id, plan, author.clone(), created_at);
    let mut written = journal.iter();
    for entry in journal {
        let Some(event) = &entry.event else { continue };
        let input = Input { actor: entry.actor.clone(), event: event.clone() };
        let (next, actions) = crate::step(rollout, input, entry.at);
        rollout = next;
        for action in actions {
            let Action::Record(made) = action else { continue };
            if written.next() != Some(&*made) {
                return Err(ReplayError { seq: made.seq });
            }
        }
    }
    written.next().map_or(Ok(rollout), |entry| Err(ReplayError { seq: entry.seq }))
}
