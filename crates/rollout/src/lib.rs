//! The rollout engine: a pure `step(state, event, now) -> (state, actions)`.
//!
//! It never does IO, reads no clock and draws no random number: order comes from a stable hash of seed and device.
//! The driver (the server) stores the new state, then performs the actions, each of which is safe to repeat.
//! Semantics: `docs/ARCHITECTURE.md`, "Rollouts"; the ten rules are property tests in `tests/rules.rs`.

pub mod amount;
pub mod event;
pub mod facts;
pub mod filter;
pub mod gate;
pub mod journal;
pub mod phase;
pub mod plan;
#[cfg(feature = "openapi")]
pub mod schema;
pub mod state;
pub mod tasks;
pub mod window;

mod dry_run;
mod engine;
mod fill;
mod mode;
mod waits;
mod why;

pub use amount::{Amount, Percent};
pub use dry_run::{DryRun, DryStage, Problem, dry_run};
pub use engine::step;
pub use event::{Action, Actor, Event, Input, Scope, Verb};
pub use facts::Facts;
pub use fill::rank;
pub use filter::Filter;
pub use gate::{Evidence, Gate, Interval, JudgedBy, Limit, Metric, Sample, Verdict};
pub use journal::{Change, Entry, Judged, ReplayError, replay};
pub use mode::Mode;
pub use phase::{CancelReason, Phase, PhaseName, RollbackReason, SkipReason};
pub use plan::{Fill, OnFailure, Plan, PlanError, PlanErrors, Rate, Retries, StagePlan, ValidPlan};
pub use state::{Core, PauseReason, Rollout, Stage, StageState, Status};
pub use tasks::{Tally, Task};
pub use why::{Why, WhyCode};
pub use window::Window;
