//! Making metadata: the publisher's half (root, targets, one role per model) and the server's (snapshot, timestamp).
//!
//! Builders that resume from bytes read them without verifying: they are for whoever holds the keys, and every
//! reader verifies what they make. Signing is behind [`Signer`].

mod keys;

use std::collections::BTreeMap;

use protocol::UnixMillis;
use sha2::{Digest as _, Sha256};

use crate::envelope::Envelope;
use crate::error::Cause;
use crate::key::{KeyId, PublicKey, SignError, Signer};
use crate::limits::Limits;
use crate::metadata::{
    DelegatedRole, Delegations, MAX_VERSION, MetaFile, Role, RoleKeys, Root, Signed, Snapshot, TargetEntry,
    Targets, Timestamp, to_signed,
};
use crate::timestamp_text::format_rfc3339;

pub use keys::{Merged, merge_signatures, signed_by};

/// Why metadata could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The bytes to resume from are no such metadata.
    #[error("the existing {role} metadata can't be read")]
    Resume {
        /// Which role.
        role: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The result would not be valid.
    #[error("the new {role} metadata would not be valid")]
    Invalid {
        /// Which role.
        role: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No version can follow.
    #[error(
        "{role} metadata has version {version}, the highest there is, so no other can follow; only a thief signs such a \
         one, see \"A version at its bound\" in docs/TRUST.md"
    )]
    LastVersion {
        /// Which role.
        role: &'static str,
        /// Its version.
        version: u64,
    },
    /// A value holds a fraction, which metadata can't.
    #[error("{role}: custom data may hold whole numbers only")]
    Fraction {
        /// Which role.
        role: &'static str,
    },
    /// A key that isn't one of the role's can't be replaced.
    #[error("key {key} is no key of role {role}")]
    NotListed {
        /// Which role.
        role: String,
        /// Which key.
        key: KeyId,
    },
    /// What two files sign is not the same.
    #[error("what is signed differs")]
    OtherContent,
    /// A key could not sign.
    #[error("signing failed")]
    Sign(#[from] SignError),
}

/// Makes or changes root.
#[derive(Debug, Clone)]
pub struct RootBuilder(Signed<Root>);

impl RootBuilder {
    /// Root version 1 with consistent snapshots and no keys yet.
    pub fn new(expires: UnixMillis) -> Self {
        let content = Root { consistent_snapshot: true, keys: BTreeMap::new(), roles: BTreeMap::new() };
        Self(Signed { version: 1, expires, content })
    }

    /// The next version of an existing root.
    ///
    /// # Errors
    /// When the bytes are no root, or no version can follow.
    pub fn resume(root: &[u8], expires: UnixMillis) -> Result<Self, BuildError> {
        Ok(Self(next(resume(root)?, expires)?))
    }

    /// Sets keys and threshold of `root`, `targets`, `snapshot` or `timestamp`, in place of earlier ones.
    #[must_use]
    pub fn role(mut self, role: &str, keys: &[PublicKey], threshold: usize) -> Self {
        let root = &mut self.0.content;
        let keyids: Vec<KeyId> = keys.iter().map(PublicKey::id).collect();
        root.keys.extend(keyids.iter().cloned().zip(keys.iter().cloned()));
        root.roles.insert(role.into(), RoleKeys { keyids, threshold });
        let used: std::collections::BTreeSet<_> =
            root.roles.values().flat_map(|r| r.keyids.clone()).collect();
        root.keys.retain(|id, _| used.contains(id));
        self
    }

    /// Without consistent snapshots; only for repositories made elsewhere and tests.
    #[must_use]
    pub fn without_consistent_snapshots(mut self) -> Self {
        self.0.content.consistent_snapshot = false;
        self
    }

    /// The version that will be signed.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Signs; a new root needs the signatures of the old root's keys too.
    ///
    /// # Errors
    /// [`BuildError`] when a role is missing or a key can't sign.
    pub fn sign(&self, signers: &[&dyn Signer]) -> Result<Vec<u8>, BuildError> {
        build(&self.0, signers)
    }
}

/// Makes or changes a targets role: the top-level one or a model's.
#[derive(Debug, Clone)]
pub struct TargetsBuilder(Signed<Targets>);

impl TargetsBuilder {
    /// Version 1, empty.
    pub fn new(expires: UnixMillis) -> Self {
        Self(Signed { version: 1, expires, content: Targets::default() })
    }

    /// The next version of an existing file.
    ///
    /// # Errors
    /// When the bytes are no targets role, or no version can follow.
    pub fn resume(bytes: &[u8], expires: UnixMillis) -> Result<Self, BuildError> {
        Ok(Self(next(resume(bytes)?, expires)?))
    }

    /// Adds or replaces a target.
    #[must_use]
    pub fn target(mut self, path: &str, bytes: &[u8], custom: Option<serde_json::Value>) -> Self {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let hashes = hashes_of(bytes);
        self.0.content.targets.insert(path.into(), TargetEntry { length, hashes, custom });
        self
    }

    /// Takes a target away.
    #[must_use]
    pub fn without_target(mut self, path: &str) -> Self {
        self.0.content.targets.remove(path);
        self
    }

    /// Whether a target is listed.
    pub fn has_target(&self, path: &str) -> bool {
        self.0.content.targets.contains_key(path)
    }

    /// What is said beside each listed target, by its path.
    pub fn customs(&self) -> impl Iterator<Item = (&str, &serde_json::Value)> {
        self.0
            .content
            .targets
            .iter()
            .filter_map(|(path, entry)| Some((path.as_str(), entry.custom.as_ref()?)))
    }

    /// Whether a target is listed with exactly this content.
    pub fn lists(&self, path: &str, bytes: &[u8]) -> bool {
        let listed = self.0.content.targets.get(path);
        listed.is_some_and(|entry| entry.hashes == hashes_of(bytes))
    }

    /// Delegates paths to a terminating role, in place of an earlier delegation of that name.
    #[must_use]
    pub fn delegate(self, role: &str, keys: &[PublicKey], threshold: usize, paths: &[String]) -> Self {
        self.delegate_as(role, keys, threshold, paths, Terminating::Yes)
    }

    /// Delegates one model's manifests: role name = model name.
    #[must_use]
    pub fn delegate_model(self, model: &protocol::ModelName, keys: &[PublicKey], threshold: usize) -> Self {
        self.delegate(model.as_str(), keys, threshold, &[format!("models/{model}/*/manifest.json")])
    }

    /// As [`TargetsBuilder::delegate`], and says whether the search ends there.
    #[must_use]
    pub fn delegate_as(
        mut self,
        role: &str,
        keys: &[PublicKey],
        threshold: usize,
        paths: &[String],
        terminating: Terminating,
    ) -> Self {
        let delegations = self.0.content.delegations.get_or_insert_default();
        let keyids: Vec<KeyId> = keys.iter().map(PublicKey::id).collect();
        delegations.keys.extend(keyids.iter().cloned().zip(keys.iter().cloned()));
        let new = DelegatedRole {
            name: role.into(),
            keys: RoleKeys { keyids, threshold },
            terminating: terminating == Terminating::Yes,
            paths: Some(paths.to_vec()),
            path_hash_prefixes: None,
        };
        let roles = delegations.roles.get_or_insert_default();
        match roles.iter_mut().find(|r| r.name == role) {
            Some(old) => *old = new,
            None => roles.push(new),
        }
        let used: std::collections::BTreeSet<_> = roles.iter().flat_map(|r| r.keys.keyids.clone()).collect();
        delegations.keys.retain(|id, _| used.contains(id));
        self
    }

    /// The version that will be signed.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Signs.
    ///
    /// # Errors
    /// [`BuildError`] when the result would be invalid or a key can't sign.
    pub fn sign(&self, signers: &[&dyn Signer]) -> Result<Vec<u8>, BuildError> {
        build(&self.0, signers)
    }
}

/// Whether a delegation ends the search for its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminating {
    /// Roles after it are not asked.
    Yes,
    /// Roles after it are asked too.
    No,
}

/// Makes the snapshot of these targets files: role name and bytes.
///
/// # Errors
/// [`BuildError`] when one is no targets role or the key can't sign.
pub fn snapshot<'a>(
    version: u64,
    expires: UnixMillis,
    roles: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, BuildError> {
    let mut meta = BTreeMap::new();
    for (role, bytes) in roles {
        let signed: Signed<Targets> = resume(bytes)?;
        meta.insert(format!("{role}.json"), meta_file(signed.version, bytes));
    }
    build(&Signed { version, expires, content: Snapshot { meta } }, signers)
}

/// Makes the timestamp of a snapshot, with the time of signing, a lower bound of time for devices.
///
/// # Errors
/// [`BuildError`] when the bytes are no snapshot or the key can't sign.
pub fn timestamp(
    version: u64,
    expires: UnixMillis,
    snapshot: &[u8],
    signed_at: UnixMillis,
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, BuildError> {
    let signed: Signed<Snapshot> = resume(snapshot)?;
    let meta = BTreeMap::from([("snapshot.json".to_owned(), meta_file(signed.version, snapshot))]);
    let content = Timestamp { meta, signed_at: Some(format_rfc3339(signed_at)) };
    build(&Signed { version, expires, content }, signers)
}

/// Adds one more signature to existing metadata: threshold signing by several people.
///
/// # Errors
/// [`BuildError`] when the bytes are no envelope or the key can't sign.
pub fn add_signature(bytes: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, BuildError> {
    let mut envelope = parsed(bytes)?;
    envelope.add_signature(signer)?;
    Ok(envelope.to_bytes())
}

fn parsed(bytes: &[u8]) -> Result<Envelope, BuildError> {
    Envelope::parse(bytes, &Limits::default()).map_err(|source| BuildError::Resume { role: "signed", source })
}

/// What a metadata file says of itself, unverified: for tools that list, order and store files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `root`, `targets`, ...
    pub kind: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: UnixMillis,
    /// Ids of the keys that claim to have signed.
    pub signers: Vec<KeyId>,
    /// Paths of its targets, if it is a targets role.
    pub targets: Vec<String>,
    /// Delegated roles with their key ids and thresholds, if it is a targets role.
    pub delegations: Vec<(String, Vec<KeyId>, usize)>,
    /// Roles with their key ids and thresholds, if it is root.
    pub roles: Vec<(String, Vec<KeyId>, usize)>,
}

/// Reads what a file says of itself without believing it.
///
/// # Errors
/// [`BuildError`] when it is no metadata.
pub fn claims(bytes: &[u8]) -> Result<Claims, BuildError> {
    let wrap = |source| BuildError::Resume { role: "signed", source };
    let envelope = Envelope::parse(bytes, &Limits::default()).map_err(wrap)?;
    let kind = envelope.signed().get("_type").and_then(|t| t.as_text()).unwrap_or_default().to_owned();
    let signers = envelope.signers().cloned().collect();
    let mut claims = Claims {
        kind: kind.clone(),
        version: 0,
        expires: UnixMillis(0),
        signers,
        targets: Vec::new(),
        delegations: Vec::new(),
        roles: Vec::new(),
    };
    let list = |name: &str, keys: &RoleKeys| (name.to_owned(), keys.keyids.clone(), keys.threshold);
    (claims.version, claims.expires) = match kind.as_str() {
        Root::TYPE => {
            let root = Signed::<Root>::read(&envelope).map_err(wrap)?;
            claims.roles = root.content.roles.iter().map(|(name, keys)| list(name, keys)).collect();
            (root.version, root.expires)
        }
        Targets::TYPE => {
            let targets = Signed::<Targets>::read(&envelope).map_err(wrap)?;
            claims.targets = targets.content.targets.keys().cloned().collect();
            let roles = targets.content.delegations.iter().flat_map(Delegations::roles);
            claims.delegations = roles.map(|role| list(&role.name, &role.keys)).collect();
            (targets.version, targets.expires)
        }
        Snapshot::TYPE => {
            Signed::<Snapshot>::read(&envelope).map(|s| (s.version, s.expires)).map_err(wrap)?
        }
        Timestamp::TYPE => {
            Signed::<Timestamp>::read(&envelope).map(|s| (s.version, s.expires)).map_err(wrap)?
        }
        other => return Err(wrap(Cause::Field(format!("{other:?} is no role's type")))),
    };
    Ok(claims)
}

fn hashes_of(bytes: &[u8]) -> BTreeMap<String, String> {
    BTreeMap::from([("sha256".to_owned(), hex::encode(Sha256::digest(bytes)))])
}

fn meta_file(version: u64, bytes: &[u8]) -> MetaFile {
    MetaFile { version, length: u64::try_from(bytes.len()).ok(), hashes: Some(hashes_of(bytes)) }
}

fn resume<T: Role>(bytes: &[u8]) -> Result<Signed<T>, BuildError> {
    let envelope = Envelope::parse(bytes, &Limits::default());
    envelope.and_then(|e| Signed::read(&e)).map_err(|source| BuildError::Resume { role: T::TYPE, source })
}

fn next<T: Role>(signed: Signed<T>, expires: UnixMillis) -> Result<Signed<T>, BuildError> {
    if signed.version >= MAX_VERSION {
        return Err(BuildError::LastVersion { role: T::TYPE, version: signed.version });
    }
    Ok(Signed { version: signed.version + 1, expires, content: signed.content })
}

fn build<T: Role + serde::Serialize>(
    signed: &Signed<T>,
    signers: &[&dyn Signer],
) -> Result<Vec<u8>, BuildError> {
    let json = to_signed(signed.version, signed.expires, &signed.content)
        .ok_or(BuildError::Fraction { role: T::TYPE })?;
    let mut envelope = Envelope::unsigned(json);
    Signed::<T>::read(&envelope).map_err(|source| BuildError::Invalid { role: T::TYPE, source })?;
    for signer in signers {
        envelope.add_signature(*signer)?;
    }
    Ok(envelope.to_bytes())
}
