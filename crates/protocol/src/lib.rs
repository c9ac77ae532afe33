//! What device and server say to each other: ids, topics, messages, versions.
//!
//! Pure data: no IO, no clock, no randomness. Everything read from outside goes through a bounded
//! decoder here ([`decode_json`], [`telemetry::Batch::decode`]) or a checked id type ([`ids`]), so that no
//! other room meets an unchecked name. Tests stand in each module; `tests/asyncapi.rs` holds
//! `docs/PROTOCOL.yaml` against these types.

pub mod ids;
pub mod measurement;
pub mod message;
pub mod report;
pub mod sample;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod topic;

mod codec;

pub use codec::{DecodeError, MAX_CONTROL_BYTES, decode_json, encode_json};
pub use ids::{
    Counter, DeviceId, Digest, IdError, ModelName, ProjectId, ReleaseRef, Revision, RolloutId, StreamId,
    Version,
};
pub use time::UnixMillis;

/// The one version of the wire that this build speaks. A message of another version is refused by name.
pub const WIRE_VERSION: u16 = 1;
