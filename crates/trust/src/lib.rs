//! Signed metadata: bytes in, verified content out, by the TUF client workflow (specification 1.0, section 5).
//!
//! No IO and no clock: the caller fetches, stores and says what time it is. Content that was not verified has no
//! type here that could be staged; what was verified comes as [`Verified`]. There is one function that counts
//! signatures ([`envelope::Envelope::verify`]) for every role and every path. Making metadata stands behind
//! the feature `sign`, which the device build leaves out; keys and reports are for both sides.
//! Tests named after the attacks of the threat model stand in `tests/`.

pub mod client;
pub mod clock;
pub mod desired;
pub mod director;
pub mod envelope;
pub mod json;
pub mod key;
pub mod limits;
pub mod report;
pub mod repository;

#[cfg(feature = "sign")]
pub mod repo;

mod delegation;
mod error;
mod metadata;
mod timestamp_text;
mod verified;

pub use client::{Accepted, Fetch, File, Reply, Session, Step, Stored, Storing};
pub use error::{Cause, TrustError};
#[cfg(feature = "sign")]
pub use key::EcdsaSigner;
pub use key::{Ed25519Signer, KeyError, KeyId, PublicKey, SignError, Signer};
pub use limits::Limits;
pub use metadata::{MAX_VERSION, percent_encode as file_name_of};
pub use repository::{Repository, TargetBytes, TargetCheck, TargetInfo};
pub use timestamp_text::{format_rfc3339, parse_rfc3339};
pub use verified::Verified;
