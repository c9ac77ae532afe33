//! What a session has accepted: the trusted view of a repository.

use std::collections::BTreeMap;
use std::str::FromStr;

use protocol::{Digest, UnixMillis};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Cause, TrustError};
use crate::metadata::{
    Root, Signed, Snapshot, TargetEntry, Targets, Timestamp, percent_encode, percent_encode_path,
};
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
        self.fetch_paths().next().unwrap_or_default()
    }

    /// Every path that it may be had at: with consistent snapshots one for each listed hash, SHA-256 first. A
    /// repository should offer them all; those that offer only one can be used too.
    pub fn fetch_paths(&self) -> impl Iterator<Item = String> {
        let (folder, name) = match self.path.rsplit_once('/') {
            Some((folder, name)) => (format!("{}/", percent_encode_path(folder)), percent_encode_path(name)),
            None => (String::new(), percent_encode_path(&self.path)),
        };
        let mut hashes: Vec<(&String, &String)> = self.entry.hashes.iter().collect();
        hashes.sort_by_key(|(algorithm, _)| *algorithm != "sha256");
        let prefixes: Vec<String> = if self.is_consistent {
            hashes.into_iter().map(|(_, hash)| format!("{}.", percent_encode(hash))).collect()
        } else {
            vec![String::new()]
        };
        prefixes.into_iter().map(move |prefix| format!("{folder}{prefix}{name}"))
    }

    /// Begins to check content that comes in pieces and is too large for memory.
    pub fn check(&self) -> TargetCheck<'_> {
        TargetCheck { info: self, hashing: Hashing::new(Some(&self.entry.hashes)) }
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

    /// When root expires: the one end that no server can move.
    pub fn root_expires(&self) -> UnixMillis {
        self.root.expires
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

    /// What a loaded role says beside the targets that it lists itself.
    pub fn customs_of(&self, role: &str) -> impl Iterator<Item = &serde_json::Value> {
        let listed = self.targets.get(role).into_iter().flat_map(|r| r.content.targets.values());
        listed.filter_map(|entry| entry.custom.as_ref())
    }
}

/// The check of a target that comes in pieces (step 5.7.3).
pub struct TargetCheck<'a> {
    info: &'a TargetInfo,
    hashing: Hashing,
}

impl TargetCheck<'_> {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`TrustError`] as soon as there are more bytes than signed (D2).
    pub fn update(&mut self, piece: &[u8]) -> Result<(), TrustError> {
        self.hashing.update(piece);
        let max_bytes = self.info.entry.length;
        if self.hashing.length > max_bytes {
            return Err(Cause::TooLong { max_bytes }.at(&self.info.path, "5.7.3 target"));
        }
        Ok(())
    }

    /// All pieces have come.
    ///
    /// # Errors
    /// [`TrustError`] when length or a hash differs.
    pub fn finish(self) -> Result<(), TrustError> {
        let (entry, path) = (&self.info.entry, &self.info.path);
        self.hashing.finish(Some(entry.length), Some(&entry.hashes)).map_err(|c| c.at(path, "5.7.3 target"))
    }
}

/// Counts bytes and computes those hashes that are listed.
struct Hashing {
    length: u64,
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
}

impl Hashing {
    fn new(listed: Option<&BTreeMap<String, String>>) -> Self {
        let is_listed = |name| listed.is_some_and(|hashes| hashes.contains_key(name));
        Self {
            length: 0,
            sha256: is_listed("sha256").then(Sha256::new),
            sha512: is_listed("sha512").then(Sha512::new),
        }
    }

    fn update(&mut self, piece: &[u8]) {
        self.length = self.length.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(piece);
        }
    }

    /// Length first, then every listed hash of a known algorithm; unknown algorithms alone are refused.
    fn finish(self, length: Option<u64>, listed: Option<&BTreeMap<String, String>>) -> Result<(), Cause> {
        if let Some(expected) = length.filter(|expected| *expected != self.length) {
            return Err(Cause::Length { expected, got: self.length });
        }
        let Some(listed) = listed else { return Ok(()) };
        let computed = [
            ("sha256", self.sha256.map(|hash| hex::encode(hash.finalize()))),
            ("sha512", self.sha512.map(|hash| hex::encode(hash.finalize()))),
        ];
        let mut known = 0;
        for (algorithm, got) in computed {
            let (Some(expected), Some(got)) = (listed.get(algorithm), got) else { continue };
            known += 1;
            if *expected != got {
                return Err(Cause::Hash { algorithm, expected: expected.clone(), got });
            }
        }
        if known == 0 { Err(Cause::NoKnownHash) } else { Ok(()) }
    }
}

/// As [`Hashing::finish`], for bytes that are all there; a wrong length is found before anything is hashed.
pub(crate) fn check_length_and_hashes(
    bytes: &[u8],
    length: Option<u64>,
    hashes: Option<&BTreeMap<String, String>>,
) -> Result<(), Cause> {
    let got = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if let Some(expected) = length.filter(|expected| *expected != got) {
        return Err(Cause::Length { expected, got });
    }
    let mut hashing = Hashing::new(hashes);
    hashing.update(bytes);
    hashing.finish(length, hashes)
}
