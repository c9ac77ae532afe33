//! What a machine was asked for.

use protocol::{ReleaseRef, Revision, RolloutId};
use serde::{Deserialize, Serialize};
use trust::desired::{DesiredModel, Mode};

/// What is being worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Which release.
    pub release: ReleaseRef,
    /// How to bring it in.
    pub mode: Mode,
    /// Who asked.
    pub rollout: Option<RolloutId>,
    /// Rises when a person asks for another chance.
    #[serde(default)]
    pub attempt: u32,
    /// The Desired that said so.
    pub revision: Revision,
}

impl Task {
    /// What a Desired of this revision asks of one model.
    pub fn of(wanted: &DesiredModel, revision: Revision) -> Self {
        let DesiredModel { release, mode, rollout, attempt, .. } = wanted.clone();
        Self { release, mode, rollout, attempt, revision }
    }

    /// Whether this answers what `wanted` asks for: a later revision that repeats it changes nothing, a higher attempt
    /// does.
    pub(super) fn answers(&self, wanted: &Self) -> bool {
        let is_same = self.release == wanted.release && self.mode == wanted.mode;
        is_same && self.rollout == wanted.rollout && self.attempt >= wanted.attempt
    }
}
