//! From a signed Desired to a committed release: the pure machine, and the driver that performs its actions.

pub mod import;
pub mod machine;
pub mod metadata;
pub mod trusted_files;

mod account;
mod beside;
mod core;
mod driver;
#[cfg(test)]
mod faults;
mod fence;
mod fetch;
mod jobs;
#[cfg(test)]
mod kills;
mod measure;
mod memory;
mod observe;
mod report;
#[cfg(test)]
mod rig;
mod selftest;
mod steps;
mod storage;
mod transport;

pub use self::core::{Core, CoreParts};
pub use driver::Driver;
pub use jobs::{Jobs, Measuring, MeasuringState};
pub use metadata::Freshness;
pub use observe::{Observer, Vitals};
pub use report::Reported;
pub use steps::Steps;
