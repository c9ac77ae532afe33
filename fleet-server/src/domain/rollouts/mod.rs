//! Rollouts: the driver of the pure engine in `crates/rollout`.
//!
//! It loads the state, feeds the engine, and writes state, tasks, journal and every device's Desired in one
//! transaction; only then it tells others. Reports are taken in from the table of stored reports by a cursor for
//! each device, so that a server that dies between storing and driving loses none and takes none in twice.
//! Tests: `tests/rollouts.rs` on a real database.

use protocol::{ModelName, RolloutId, Version};
use rollout::PlanErrors;

use crate::domain::drift::DriftError;
use crate::store::StoreError;
use crate::tuf::director::DirectorError;
use crate::tuf::keys::KeyStoreError;

mod create;
mod drive;
mod facts;
mod file;
mod measure;
mod waiting;

pub use create::{NewRollout, NewStage, create, dry_run};
pub use drive::{Order, on_task_report, order, task_hook, tick_all, tick_one};
pub use file::evidence_file;
pub use waiting::waits_for;

/// Why a rollout can't be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// No such rollout.
    #[error("there is no such rollout")]
    NotFound,
    /// No such release, or it was withdrawn.
    #[error("release {version} of {model} can't be rolled out: {why}")]
    Release {
        /// Which model.
        model: ModelName,
        /// Which release.
        version: Version,
        /// Why.
        why: &'static str,
    },
    /// The plan's shape is wrong.
    #[error("the plan can't be read")]
    Shape(#[source] serde_json::Error),
    /// The plan's content is wrong.
    #[error("the plan is wrong")]
    Plan(#[from] PlanErrors),
    /// No device would get the release.
    #[error("no device can take {model} {version}: {why}")]
    NoTarget {
        /// Which model.
        model: ModelName,
        /// Which release.
        version: Version,
        /// What stands in the way, by number of devices.
        why: String,
    },
    /// At most one rollout of a model at a time.
    #[error("rollout {rollout} of this model is still {state}; end it first")]
    Open {
        /// Which.
        rollout: RolloutId,
        /// Its state.
        state: String,
    },
    /// The engine refuses the verb.
    #[error("{0}")]
    Refused(String),
    /// Someone else changed the rollout each time.
    #[error("the rollout is being changed by others; try again")]
    Busy,
    /// A device's Desired can't be changed.
    #[error("the devices' Desired can't be changed")]
    Director(#[from] DirectorError),
    /// The director's key can't be used.
    #[error("the director's key can't be used")]
    Keys(#[from] KeyStoreError),
    /// The evidence can't be signed.
    #[error("the evidence can't be signed")]
    Sign(#[from] trust::SignError),
    /// Behaviour can't be measured.
    #[error("behaviour can't be measured")]
    Measure(#[source] Box<DriftError>),
    /// The database failed.
    #[error("the rollout can't be stored")]
    Store(#[from] StoreError),
}

impl From<DriftError> for RolloutError {
    fn from(e: DriftError) -> Self {
        Self::Measure(Box::new(e))
    }
}
