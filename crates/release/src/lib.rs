//! Releases: the signed manifest, the blobs that it names, which variant fits a device, and which release may
//! follow which.
//!
//! Pure: no IO and no clock. A [`Manifest`] to stage comes only from a verified target ([`Manifest::parse`]);
//! a publisher's draft is another type. Every bound is checked while parsing, so that no other room checks again.
//! Tests stand in each module; attack tests in `tests/`.

mod agent_version;
mod agreement;
pub mod archive;
mod blob;
mod check;
mod compatibility;
pub mod delta;
mod draft;
mod fallback;
mod flow;
mod manifest;
mod monitor;
mod steps;
mod wire;

pub use agent_version::AgentVersion;
pub use blob::{BlobError, BlobRef};
pub use check::{Bounds, ManifestError};
pub use compatibility::{ARCHITECTURES, DeviceFacts, Incompatible};
pub use draft::DraftManifest;
pub use fallback::{Downgrade, HighWater, may_commit};
pub use manifest::{
    Budgets, Datatype, Hardware, Manifest, Precision, Privacy, Probation, Runtime, TensorSpec, Variant,
    target_path,
};
pub use monitor::Monitor;
pub use steps::{ImageLayout, PostStep, PreStep, Resampling, Words};

/// The version of the manifest's format that this build reads and writes.
pub const FORMAT: u32 = 1;
