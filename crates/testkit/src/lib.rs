//! What tests and the demo need beyond the product: the rig that runs the real binaries as processes, and
//! the feeder that plays the integrator's application. Fakes for what can't run here live here too and say so
//! in their names. Never a dependency of a shipped binary.

pub mod feeder;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod rig;
#[cfg(feature = "tuf")]
pub mod tuf;
