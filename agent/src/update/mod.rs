//! From a signed Desired to a committed release: the pure machine, and the driver that performs its actions.

pub mod import;
pub mod machine;
pub mod metadata;
pub mod trusted_files;

mod core;
mod driver;
mod fence;
mod fetch;
mod jobs;
mod measure;
mod memory;
mod observe;
mod report;
mod selftest;
mod steps;
mod transport;

pub use self::core::{Core, CoreParts};
pub use driver::Driver;
pub use jobs::Jobs;
pub use metadata::Freshness;
pub use observe::{Observer, Vitals};
pub use report::Reported;
pub use steps::Steps;
