//! From a signed Desired to a committed release: the driver that performs what the update machine decides.

pub mod import;
pub mod metadata;

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
mod refit;
mod report;
#[cfg(test)]
mod rig;
mod selftest;
mod shares;
mod steps;
mod storage;
mod transport;

pub use self::core::{Core, CoreParts};
pub use driver::Driver;
pub use jobs::{Jobs, Measuring, MeasuringState};
pub use metadata::Freshness;
pub use observe::Observer;
pub use report::Reported;
pub use steps::Steps;
