//! What goes into a step and what comes out.

use std::fmt;

use protocol::message::{CauseKind, TaskPhase};
use protocol::{DeviceId, ReleaseRef, RolloutId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::gate::Evidence;
use crate::journal::Entry;
use crate::mode::Mode;

/// Who caused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Actor {
    /// A person, by user name.
    User(String),
    /// A device, by its report.
    Device(DeviceId),
    /// The server's clock and measurements.
    Engine,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Device(device) => write!(f, "device {device}"),
            Self::Engine => f.write_str("engine"),
        }
    }
}

/// An event with the one who caused it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Who.
    pub actor: Actor,
    /// What.
    pub event: Event,
}

/// Something that the engine reacts to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", content = "with")]
pub enum Event {
    /// What is known about some devices: the fleet in pieces before the rollout begins, joiners and changes later.
    Devices(Vec<Facts>),
    /// A device left the fleet.
    Removed(DeviceId),
    /// A person's decision.
    Verb(Verb),
    /// A device's update machine moved. The driver passes only verified reports about the rollout's model.
    Report {
        /// Which device.
        device: DeviceId,
        /// The release that the report is about.
        release: ReleaseRef,
        /// The phase that it entered.
        phase: TaskPhase,
        /// Class of a bad end.
        cause: Option<CauseKind>,
        /// The attempt that the device worked on; agents that don't know of attempts don't say.
        #[serde(default)]
        attempt: Option<u32>,
    },
    /// Behaviour was measured for a stage, as [`Action::Measure`] asked.
    Measured {
        /// Which stage.
        stage: u16,
        /// What was found; metrics without data are left out.
        evidence: Vec<Evidence>,
    },
    /// Time passed.
    Tick,
}

/// What a person can decide. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verb")]
pub enum Verb {
    /// The draft is complete.
    Submit,
    /// Four eyes: another person than the author agrees.
    Approve,
    /// Four eyes: refused.
    Deny {
        /// Why.
        reason: String,
    },
    /// No new offers; what is under way goes on.
    Pause {
        /// Why.
        reason: String,
    },
    /// Goes on; a failed stage is judged again.
    Resume {
        /// Whether the stage's failed and unreachable devices get another chance first; also in a rollout that runs.
        retry_failed: bool,
    },
    /// Ends; devices past the swap finish, the others keep their old release. One that goes back stops waiting for the
    /// devices that haven't confirmed it.
    Abort {
        /// Why.
        reason: String,
    },
    /// Brings devices back to their old release and ends; also one that had ended with devices on its release.
    RollBack {
        /// Every device, or only those of the current stage.
        scope: Scope,
        /// Why.
        reason: String,
    },
    /// Another rollout takes over.
    Supersede {
        /// Which.
        by: RolloutId,
    },
    /// The release was withdrawn.
    Invalidate {
        /// Why.
        reason: String,
    },
}

/// How far a rollback goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The current stage.
    Stage,
    /// Every device that was offered the release.
    All,
}

/// What the driver does after it has stored the new state. Each is safe to repeat.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Set the device's Desired for the model to the plan's release, under this rollout's id.
    Offer {
        /// Which device.
        device: DeviceId,
        /// How it runs there.
        mode: Mode,
        /// From 1; a later attempt needs a new revision of Desired, or the device is not asked.
        attempt: u32,
        /// What Desired names as the attempt: with a higher one a device that has ended begins anew.
        chances: u32,
    },
    /// Set the device's Desired for the model back; `None` takes the model out.
    Restore {
        /// Which device.
        device: DeviceId,
        /// The release that served before.
        to: Option<ReleaseRef>,
    },
    /// Measure the gates' metrics for this stage and hand them in as [`Event::Measured`].
    Measure {
        /// Which stage.
        stage: u16,
        /// Begin of the time window.
        from: UnixMillis,
    },
    /// Append to the journal.
    Record(Box<Entry>),
    /// The verb doesn't apply; nothing changed.
    Refuse {
        /// Why, as one sentence.
        why: String,
    },
}
