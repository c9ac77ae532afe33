//! The director's keys: a signed target of the top-level targets role, so that they rotate through it.

use std::collections::BTreeSet;

use protocol::Revision;
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, KeySet};
use crate::error::{Cause, TrustError};
use crate::json::check_document;
use crate::key::{KeyId, PublicKey};
use crate::limits::Limits;
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

    /// Ids of all keys.
    pub fn ids(&self) -> BTreeSet<KeyId> {
        self.0.keys().keys().cloned().collect()
    }

    /// Ids of the keys that signed a Desired; to be kept beside its revision for [`Self::floor`].
    pub fn signers_of(&self, desired: &[u8]) -> BTreeSet<KeyId> {
        let envelope = Envelope::parse(desired, &Limits::default());
        envelope.map(|envelope| envelope.valid_signers(&self.0)).unwrap_or_default()
    }

    /// What the next Desired must rise above: the last accepted revision. It is 0 again when one of the keys that
    /// signed that one isn't named any more: whoever had it may have signed the highest number, to which no other
    /// could rise (FF2), and nothing that it signed is accepted again. `signers` are empty if they are not known.
    pub fn floor(&self, accepted: Revision, signers: &BTreeSet<KeyId>) -> Revision {
        let is_revoked = signers.iter().any(|id| !self.0.keys().contains_key(id));
        // Beyond the bound only a thief signs; it was accepted before there was a bound.
        if is_revoked || accepted > Revision::MAX { Revision::default() } else { accepted }
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
