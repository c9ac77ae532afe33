//! Profiles: integer counters on edges that a model's reference fixes, and the statistics over them.
//!
//! A device counts into [`Pane`]s; a server merges panes by addition and compares them with the release's
//! [`Reference`] or with each other. Pure arithmetic: no clock, no IO, no model. Nothing that leaves a device in a
//! pane is a raw value, except minima and maxima where the reference's policy says so.
//! Tests: unit tests beside the code, golden values of other tools in `tests/`.

mod bins;
mod builder;
mod counters;
pub mod drift;
pub mod features;
mod numeric;
mod output;
mod pane;
mod reference;
mod sketch;
pub mod stats;

pub use bins::{doane_edges, sturges_edges};
pub use builder::ReferenceBuilder;
pub use counters::{CategoricalCounts, Counters, FeatureCounts, Observed};
pub use numeric::{Moments, NumericCounts};
pub use output::{ClassCounts, Labelled, OutputCounts, ScoreCell};
pub use pane::{MAX_PANE_BYTES, Pane, PaneError, PaneKey};
pub use reference::{
    FeatureKind, FeatureSpec, FineBins, MAX_REFERENCE_BYTES, NumericSpec, OutputSpec, Reference,
    ReferenceError, Schema,
};
pub use sketch::Sketch;
