//! The director's keys: a signed target of the top-level targets role, so that they rotate through it.

use serde::{Deserialize, Serialize};

use crate::envelope::KeySet;
use crate::error::{Cause, TrustError};
use crate::json::check_document;
use crate::key::PublicKey;
use crate::repository::TargetBytes;
use crate::verified::Verified;

/// The path of the target.
pub const TARGET: &str = "director.json";

/// Who may sign Desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorKeys(KeySet);

#[derive(Serialize, Deserialize)]
struct Wire {
    keys: Vec<PublicKey>,
    threshold: usize,
}

impl DirectorKeys {
    /// Reads the verified target. Only the top-level targets role may name the director.
    ///
    /// # Errors
    /// [`TrustError`] when it is another target, came from a delegated role, or is malformed.
    pub fn parse(target: &Verified<TargetBytes>) -> Result<Self, TrustError> {
        Self::read(target).map_err(|cause| cause.at(TARGET, "director keys"))
    }

    fn read(target: &TargetBytes) -> Result<Self, Cause> {
        if target.path() != TARGET || target.role() != "targets" {
            return Err(Cause::Field(format!(
                "{} of role {} names no director",
                target.path(),
                target.role()
            )));
        }
        check_document(target.bytes(), 8).map_err(Cause::Json)?;
        let wire: Wire = serde_json::from_slice(target.bytes()).map_err(Cause::Format)?;
        if wire.threshold == 0 || wire.keys.is_empty() {
            return Err(Cause::Field("no key or threshold 0".into()));
        }
        Ok(Self(KeySet::new(wire.keys, wire.threshold)))
    }

    pub(crate) fn key_set(&self) -> &KeySet {
        &self.0
    }
}

/// The target's bytes for these keys.
#[cfg(feature = "sign")]
pub fn target_bytes(keys: &[PublicKey], threshold: usize) -> Vec<u8> {
    serde_json::to_vec_pretty(&Wire { keys: keys.to_vec(), threshold }).unwrap_or_default()
}
