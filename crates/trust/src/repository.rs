//! What a session has accepted: the trusted view of a repository.

use std::collections::BTreeMap;
use std::str::FromStr;

use protocol::{Digest, UnixMillis};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Cause, TrustError};
use crate::metadata::{Root, Signed, Snapshot, TargetEntry, Targets, Timestamp, percent_encode};
use crate::timestamp_text::parse_rfc3339;
use crate::verified::Verified;

/// Length and hashes that a trusted role states for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    path: String,
    role: String,
    entry: TargetEntry,
    is_consistent: bool,
}

impl TargetInfo {
    pub(crate) fn new(path: &str, role: &str, entry: TargetEntry, is_consistent: bool) -> Self {
        Self { path: path.into(), role: role.into(), entry, is_consistent }
    }

    /// The target's path as wanted.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The role that speaks for it.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.entry.length
    }

    /// Its SHA-256, if the role lists one that is well formed.
    pub fn sha256(&self) -> Option<Digest> {
        self.entry.hashes.get("sha256").and_then(|hex| Digest::from_str(hex).ok())
    }

    /// The role's own data about it.
    pub fn custom(&self) -> Option<&serde_json::Value> {
        self.entry.custom.as_ref()
    }

    /// Path to fetch it at, relative to the base of targets, percent-encoded; with consistent snapshots
    /// the hash stands before the last segment (specification, step 5.7.3).
    pub fn fetch_path(&self) -> String {
        let encoded = percent_encode(&self.path, true);
        let hash = self.entry.hashes.get("sha256").or_else(|| self.entry.hashes.values().next());
        match (self.is_consistent, hash, encoded.rsplit_once('/')) {
            (true, Some(hash), Some((folder, name))) => {
                format!("{folder}/{}.{name}", percent_encode(hash, false))
            }
            (true, Some(hash), None) => format!("{}.{encoded}", percent_encode(hash, false)),
            _ => encoded,
        }
    }

    /// Checks a target's bytes: length first, then every listed hash (step 5.7.3).
    ///
    /// # Errors
    /// [`TrustError`] when any differs.
    pub fn verify(&self, bytes: Vec<u8>) -> Result<Verified<TargetBytes>, TrustError> {
        check_length_and_hashes(&bytes, Some(self.entry.length), Some(&self.entry.hashes))
            .map_err(|cause| cause.at(&self.path, "5.7.3 target"))?;
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        Ok(Verified::new(TargetBytes { path: self.path.clone(), role: self.role.clone(), digest, bytes }))
    }
}

/// A target's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetBytes {
    path: String,
    role: String,
    digest: Digest,
    bytes: Vec<u8>,
}

impl TargetBytes {
    /// The path that it was signed under.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The role that signed for it.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// SHA-256 of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Trusted root, timestamp, snapshot and targets, and where each wanted target was found.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) root: Signed<Root>,
    pub(crate) timestamp: Signed<Timestamp>,
    pub(crate) snapshot: Signed<Snapshot>,
    pub(crate) targets: BTreeMap<String, Signed<Targets>>,
    pub(crate) found: BTreeMap<String, Option<TargetInfo>>,
}

impl Repository {
    /// The target that was wanted when the session began.
    ///
    /// # Errors
    /// [`Cause::TargetAbsent`] when no trusted role lists it, [`Cause::TargetNotWanted`] when it was not asked for.
    pub fn find_target(&self, path: &str) -> Result<&TargetInfo, TrustError> {
        let cause = match self.found.get(path) {
            Some(Some(info)) => return Ok(info),
            Some(None) => Cause::TargetAbsent,
            None => Cause::TargetNotWanted,
        };
        Err(cause.at(path, "5.7.1 target search"))
    }

    /// Checks a target's bytes against what is signed.
    ///
    /// # Errors
    /// As [`TargetInfo::verify`].
    pub fn verify_target(
        &self,
        info: &TargetInfo,
        bytes: Vec<u8>,
    ) -> Result<Verified<TargetBytes>, TrustError> {
        info.verify(bytes)
    }

    /// Version of root.
    pub fn root_version(&self) -> u64 {
        self.root.version
    }

    /// Version of the timestamp.
    pub fn timestamp_version(&self) -> u64 {
        self.timestamp.version
    }

    /// When the timestamp expires.
    pub fn timestamp_expires(&self) -> UnixMillis {
        self.timestamp.expires
    }

    /// When the server signed the timestamp, if it says so: a lower bound of time.
    pub fn signed_at(&self) -> Option<UnixMillis> {
        self.timestamp.content.signed_at.as_deref().and_then(parse_rfc3339)
    }

    /// Version of the snapshot.
    pub fn snapshot_version(&self) -> u64 {
        self.snapshot.version
    }

    /// Version and expiry of each targets role that was needed.
    pub fn targets_roles(&self) -> impl Iterator<Item = (&str, u64, UnixMillis)> {
        self.targets.iter().map(|(name, role)| (name.as_str(), role.version, role.expires))
    }

    /// Paths that a loaded role lists itself, without its delegations.
    pub fn listed_by(&self, role: &str) -> impl Iterator<Item = &str> {
        self.targets.get(role).into_iter().flat_map(|r| r.content.targets.keys().map(String::as_str))
    }
}

/// Length first, then every listed hash of a known algorithm; unknown algorithms alone are refused.
pub(crate) fn check_length_and_hashes(
    bytes: &[u8],
    length: Option<u64>,
    hashes: Option<&BTreeMap<String, String>>,
) -> Result<(), Cause> {
    let got = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if let Some(expected) = length.filter(|expected| *expected != got) {
        return Err(Cause::Length { expected, got });
    }
    let Some(hashes) = hashes else { return Ok(()) };
    let mut known = 0;
    for (name, expected) in hashes {
        let (algorithm, got) = match name.as_str() {
            "sha256" => ("sha256", hex::encode(Sha256::digest(bytes))),
            "sha512" => ("sha512", hex::encode(Sha512::digest(bytes))),
            _ => continue,
        };
        known += 1;
        if *expected != got {
            return Err(Cause::Hash { algorithm, expected: expected.clone(), got });
        }
    }
    if known == 0 { Err(Cause::NoKnownHash) } else { Ok(()) }
}
