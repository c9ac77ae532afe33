//! The roles' content. Private to the crate: what was not verified has no public type.

use std::collections::BTreeMap;

use protocol::UnixMillis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, KeySet};
use crate::error::Cause;
use crate::key::{KeyId, PublicKey};
use crate::timestamp_text::{format_rfc3339, parse_rfc3339};

/// The specification that is written; any 1.x is read.
#[cfg(feature = "sign")]
pub(crate) const SPEC_VERSION: &str = "1.0.34";

/// The highest version of a file, 2^53 as with counters and revisions (FF3). Signed numbers, a database and JSON readers
/// of every language hold it exactly.
pub const MAX_VERSION: u64 = 1 << 53;

/// What every role's file begins with.
#[derive(Debug, Clone)]
pub(crate) struct Signed<T> {
    pub(crate) version: u64,
    pub(crate) expires: UnixMillis,
    pub(crate) content: T,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
}

/// A role's file of one type.
pub(crate) trait Role: DeserializeOwned {
    const TYPE: &'static str;
    fn check(&self) -> Result<(), Cause> {
        Ok(())
    }
}

impl<T: Role> Signed<T> {
    /// Reads the content of an envelope; the caller verifies signatures before it believes any of it.
    pub(crate) fn read(envelope: &Envelope) -> Result<Self, Cause> {
        let value = envelope.signed().to_value();
        let header: Header = serde_json::from_value(value.clone()).map_err(Cause::Format)?;
        if header.kind != T::TYPE {
            return Err(Cause::WrongType { expected: T::TYPE.into(), got: header.kind });
        }
        if !is_known_spec(&header.spec_version) {
            return Err(Cause::Field(format!("spec_version {:?} is not 1.x", header.spec_version)));
        }
        check_version("version", header.version)?;
        let expires = parse_rfc3339(&header.expires).ok_or_else(|| {
            Cause::Field(format!("expires {:?} is not YYYY-MM-DDTHH:MM:SSZ", header.expires))
        })?;
        let content: T = serde_json::from_value(value).map_err(Cause::Format)?;
        content.check()?;
        Ok(Self { version: header.version, expires, content })
    }

    pub(crate) fn check_expiry(&self, now: UnixMillis) -> Result<(), Cause> {
        if self.expires > now {
            return Ok(());
        }
        Err(Cause::Expired { expires: format_rfc3339(self.expires), now: format_rfc3339(now) })
    }
}

/// 4.3: above 0. FF3: nothing could rise above a version beyond the bound.
fn check_version(what: &str, version: u64) -> Result<(), Cause> {
    match version {
        0 => Err(Cause::Field(format!("{what} is 0"))),
        1..=MAX_VERSION => Ok(()),
        _ => Err(Cause::Field(format!("{what} {version} is over {MAX_VERSION}"))),
    }
}

/// 4.3: any minor and patch version of 1, such as `1.0` in old repositories and `1.0.34`.
fn is_known_spec(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts.len(), 2 | 3) && parts[0] == "1" && parts.iter().all(is_number)
}

/// Key ids and threshold of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoleKeys {
    pub(crate) keyids: Vec<KeyId>,
    pub(crate) threshold: usize,
}

impl RoleKeys {
    fn check(&self, role: &str) -> Result<(), Cause> {
        if self.threshold == 0 {
            return Err(Cause::Field(format!("{role}: threshold is 0")));
        }
        let distinct: std::collections::BTreeSet<_> = self.keyids.iter().collect();
        if distinct.len() != self.keyids.len() {
            return Err(Cause::Field(format!("{role}: a key id is listed twice")));
        }
        Ok(())
    }

    fn resolve(&self, keys: &BTreeMap<KeyId, PublicKey>) -> KeySet {
        let listed = self.keyids.iter().filter_map(|id| Some((id.clone(), keys.get(id)?.clone()))).collect();
        KeySet::from_listed(listed, self.threshold)
    }
}

/// The keys and thresholds of all top-level roles.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Root {
    #[serde(default)]
    pub(crate) consistent_snapshot: bool,
    pub(crate) keys: BTreeMap<KeyId, PublicKey>,
    pub(crate) roles: BTreeMap<String, RoleKeys>,
}

/// The roles that root must name.
pub(crate) const TOP_LEVEL: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

impl Role for Root {
    const TYPE: &'static str = "root";
    fn check(&self) -> Result<(), Cause> {
        for name in TOP_LEVEL {
            self.roles
                .get(name)
                .ok_or_else(|| Cause::Field(format!("role {name} is missing")))?
                .check(name)?;
        }
        Ok(())
    }
}

impl Root {
    /// Keys of a top-level role; a role that is not there has no key and an impossible threshold.
    pub(crate) fn key_set(&self, role: &str) -> KeySet {
        self.roles
            .get(role)
            .map_or_else(|| KeySet::from_listed(BTreeMap::new(), usize::MAX), |r| r.resolve(&self.keys))
    }
}

/// Version, length and hashes of another metadata file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetaFile {
    pub(crate) version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hashes: Option<BTreeMap<String, String>>,
}

/// One file must be listed, and what is listed has a version within the bounds (4.3, 4.4).
fn check_meta(meta: &BTreeMap<String, MetaFile>, must: &str) -> Result<(), Cause> {
    if !meta.contains_key(must) {
        return Err(Cause::Field(format!("{must} is not listed")));
    }
    let mut listed = meta.iter();
    listed.try_for_each(|(name, file)| check_version(&format!("the listed version of {name}"), file.version))
}

/// Which snapshot is current.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Timestamp {
    pub(crate) meta: BTreeMap<String, MetaFile>,
    /// Ours: when the server signed it, a lower bound of time for devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signed_at: Option<String>,
}

impl Role for Timestamp {
    const TYPE: &'static str = "timestamp";
    fn check(&self) -> Result<(), Cause> {
        check_meta(&self.meta, "snapshot.json")
    }
}

impl Timestamp {
    pub(crate) fn snapshot(&self) -> MetaFile {
        let none = MetaFile { version: 0, length: None, hashes: None };
        self.meta.get("snapshot.json").cloned().unwrap_or(none)
    }
}

/// The versions of all targets files.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) meta: BTreeMap<String, MetaFile>,
}

impl Role for Snapshot {
    const TYPE: &'static str = "snapshot";
    fn check(&self) -> Result<(), Cause> {
        check_meta(&self.meta, "targets.json")
    }
}

/// Length and hashes of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetEntry {
    pub(crate) length: u64,
    pub(crate) hashes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) custom: Option<serde_json::Value>,
}

/// Targets and delegations of one role.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Targets {
    pub(crate) targets: BTreeMap<String, TargetEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delegations: Option<Delegations>,
}

impl Role for Targets {
    const TYPE: &'static str = "targets";
    fn check(&self) -> Result<(), Cause> {
        self.delegations.as_ref().map_or(Ok(()), Delegations::check)
    }
}

/// Whom a role trusts with which paths.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Delegations {
    pub(crate) keys: BTreeMap<KeyId, PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<DelegatedRole>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) succinct_roles: Option<SuccinctRoles>,
}

impl Delegations {
    fn check(&self) -> Result<(), Cause> {
        if self.roles.is_some() == self.succinct_roles.is_some() {
            return Err(Cause::Field("delegations: exactly one of roles and succinct_roles".into()));
        }
        let mut names = std::collections::BTreeSet::new();
        for role in self.roles() {
            role.check()?;
            if !names.insert(&role.name) {
                return Err(Cause::Field(format!("role {} is delegated twice", role.name)));
            }
        }
        self.succinct_roles.as_ref().map_or(Ok(()), SuccinctRoles::check)
    }

    /// The roles that are listed one by one.
    pub(crate) fn roles(&self) -> &[DelegatedRole] {
        self.roles.as_deref().unwrap_or_default()
    }

    pub(crate) fn key_set(&self, role: &RoleKeys) -> KeySet {
        role.resolve(&self.keys)
    }
}

/// One delegated role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DelegatedRole {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) keys: RoleKeys,
    #[serde(default)]
    pub(crate) terminating: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path_hash_prefixes: Option<Vec<String>>,
}

impl DelegatedRole {
    fn check(&self) -> Result<(), Cause> {
        if self.name.is_empty() || TOP_LEVEL.contains(&self.name.as_str()) {
            return Err(Cause::Field(format!("a delegated role may not be called {:?}", self.name)));
        }
        if self.paths.is_some() == self.path_hash_prefixes.is_some() {
            return Err(Cause::Field(format!(
                "role {}: exactly one of paths and path_hash_prefixes",
                self.name
            )));
        }
        self.keys.check(&self.name)
    }
}

/// Many delegated roles in one: each speaks for the paths whose SHA-256 begins with its number (TAP 15).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SuccinctRoles {
    #[serde(flatten)]
    pub(crate) keys: RoleKeys,
    /// 2 to the power of this many roles.
    pub(crate) bit_length: u8,
    pub(crate) name_prefix: String,
}

impl SuccinctRoles {
    fn check(&self) -> Result<(), Cause> {
        if !(1..=32).contains(&self.bit_length) {
            return Err(Cause::Field(format!(
                "succinct_roles: bit_length {} is not 1 to 32",
                self.bit_length
            )));
        }
        if self.name_prefix.is_empty() {
            return Err(Cause::Field("succinct_roles: name_prefix is empty".into()));
        }
        self.keys.check(&self.name_prefix)
    }
}

/// Writes a role's content with its header.
#[cfg(feature = "sign")]
pub(crate) fn to_signed<T: Role + Serialize>(
    version: u64,
    expires: UnixMillis,
    content: &T,
) -> Option<crate::json::Json> {
    let mut value = serde_json::to_value(content).ok()?;
    let map = value.as_object_mut()?;
    map.insert("_type".into(), T::TYPE.into());
    map.insert("spec_version".into(), SPEC_VERSION.into());
    map.insert("version".into(), version.into());
    map.insert("expires".into(), format_rfc3339(expires).into());
    crate::json::Json::from_value(&value)
}

/// The name of a role's file: characters that could leave the folder are percent-encoded.
pub(crate) fn file_name(role: &str) -> String {
    format!("{}.json", percent_encode(role))
}

/// A role's name or a target's path as the name of a file, which can't leave its folder: all but unreserved
/// characters (RFC 3986, section 2.3) are percent-encoded.
pub fn percent_encode(text: &str) -> String {
    encode_but(text, b"")
}

/// Percent-encodes what may not stand in the path of an address (RFC 3986, section 3.3).
pub(crate) fn percent_encode_path(text: &str) -> String {
    encode_but(text, b"/!$&'()*+,;=:@")
}

fn encode_but(text: &str, kept: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
