//! A lowered model: steps over activations in u8, plain f32 tensors and islands that tract runs.
//!
//! A program is made by `lower`, immutable afterwards and shared between threads; what changes while it runs is in
//! a [`State`](state::State), taken from a pool and given back. The places of all values in the state's memory are
//! planned once per batch size.

mod floats;
mod memory;
mod profile;
mod run;
mod state;
mod step;
mod values;

pub(crate) use floats::FloatOp;
pub(crate) use profile::Profile;
pub use profile::StepTime;
pub(crate) use run::Program;
pub(crate) use state::Pool;
pub(crate) use step::{Bounds, Shuffle, Step};
pub(crate) use values::{ActId, ActInfo, FloatId, Values};
