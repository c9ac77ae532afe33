//! A TUF repository in memory, made from the specification and not with our own builders: every field can be bent.
//!
//! [`Sim`] holds the signed part of each role as plain JSON; [`Sim::publish`] signs and puts the files where clients
//! look. [`Device`] runs the client workflow over it and remembers what it asked for and stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use trust::json::Json;
use trust::{
    EcdsaSigner, Ed25519Signer, Limits, Reply, Repository, Session, Signer, Step, Stored, Storing, TrustError,
};

mod device;
mod serve;

pub use device::Device;
pub use serve::Served;

/// 2026-11-21T00:00:00Z, when everything happens.
pub const NOW: protocol::UnixMillis = protocol::UnixMillis(1_795_219_200_000);
const FAR: &str = "2027-01-01T00:00:00Z";
/// Before [`NOW`].
pub const PAST: &str = "2026-11-20T00:00:00Z";
/// The roles that root names.
pub const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// A private key of any type.
pub type Key = Arc<dyn Signer>;

/// The ed25519 key of this number.
pub fn key(n: u8) -> Key {
    Arc::new(Ed25519Signer::from_seed(&[n; 32]))
}

/// A new ECDSA P-256 key.
///
/// # Panics
/// When the system gives no randomness.
pub fn ecdsa_key() -> Key {
    let der = EcdsaSigner::generate().expect("randomness");
    Arc::new(EcdsaSigner::from_pkcs8(&der).expect("a key that was just made"))
}

/// A repository.
pub struct Sim {
    /// Signed part of root.
    pub root: Value,
    /// Signed part of timestamp.
    pub timestamp: Value,
    /// Signed part of snapshot.
    pub snapshot: Value,
    /// Signed parts of `targets` and of every delegated role.
    pub roles: BTreeMap<String, Value>,
    /// Who signs each role, top-level ones and delegated ones.
    pub signers: BTreeMap<String, Vec<Key>>,
    /// Metadata as it is served, by name before any percent-encoding.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Targets as they are served, by path before any percent-encoding and with any hash prefix.
    pub targets: BTreeMap<String, Vec<u8>>,
    /// Hash algorithms that metadata and targets are listed with.
    pub hashes: Vec<&'static str>,
    /// Whether timestamp and snapshot list lengths and hashes beside versions.
    pub lists_hashes: bool,
}

impl Default for Sim {
    fn default() -> Self {
        Self::new()
    }
}

impl Sim {
    /// Root, empty targets, snapshot and timestamp, each at version 1 with one key; nothing delegated.
    pub fn new() -> Self {
        let mut sim = Self {
            root: header("root"),
            timestamp: header("timestamp"),
            snapshot: header("snapshot"),
            roles: BTreeMap::from([("targets".to_owned(), empty_targets())]),
            signers: BTreeMap::new(),
            files: BTreeMap::new(),
            targets: BTreeMap::new(),
            hashes: vec!["sha256"],
            lists_hashes: true,
        };
        sim.root["consistent_snapshot"] = json!(true);
        sim.root["keys"] = json!({});
        for (role, n) in TOP_LEVEL.iter().zip(1..) {
            sim.root["roles"][role] = json!({"keyids": [], "threshold": 1});
            sim.add_key(role, key(n));
        }
        sim.put_root(&[]);
        sim.timestamp["version"] = json!(0);
        sim.snapshot["version"] = json!(0);
        sim.publish();
        sim
    }

    /// One more key for a top-level role, in root's signed part and among its signers.
    pub fn add_key(&mut self, role: &str, key: Key) {
        let id = id_of(&key);
        self.root["keys"][&id] = public(&key);
        push(&mut self.root["roles"][role]["keyids"], json!(id));
        self.signers.entry(role.into()).or_default().push(key);
    }

    /// New keys in place of all of a top-level role's.
    pub fn replace_keys(&mut self, role: &str, keys: &[Key]) {
        self.root["roles"][role]["keyids"] = json!([]);
        self.signers.remove(role);
        for key in keys {
            self.add_key(role, key.clone());
        }
    }

    /// Signs root as it stands and by `also`, and serves it under its version.
    pub fn put_root(&mut self, also: &[Key]) {
        let signers = [&self.signers["root"][..], also].concat();
        let bytes = sign(&self.root, &signers);
        self.files.insert(format!("{}.root.json", self.root["version"]), bytes);
    }

    /// The next version of root, changed, signed by its new and its old keys.
    pub fn next_root(&mut self, change: impl FnOnce(&mut Self)) {
        let old = self.signers["root"].clone();
        bump(&mut self.root);
        change(self);
        let also: Vec<_> = old.into_iter().filter(|key| !self.signs("root", key)).collect();
        self.put_root(&also);
    }

    fn signs(&self, role: &str, key: &Key) -> bool {
        self.signers[role].iter().any(|other| id_of(other) == id_of(key))
    }

    /// Delegates `patterns` from `parent` to a new role with one key.
    pub fn delegate(&mut self, parent: &str, name: &str, key: &Key, patterns: &[&str]) {
        self.delegate_as(parent, name, key, &json!({"paths": patterns, "terminating": false}));
    }

    /// As [`delegate`](Self::delegate), with these fields of the delegation.
    pub fn delegate_as(&mut self, parent: &str, name: &str, key: &Key, fields: &Value) {
        let id = id_of(key);
        let mut role = json!({"name": name, "keyids": [id], "threshold": 1});
        for (field, value) in fields.as_object().into_iter().flatten() {
            role[field] = value.clone();
        }
        let parent = self.role(parent);
        parent["delegations"]["keys"][&id] = public(key);
        push(&mut parent["delegations"]["roles"], role);
        self.signers.insert(name.into(), vec![key.clone()]);
        self.roles.entry(name.into()).or_insert_with(empty_targets);
    }

    /// Delegates everything to 2 to the power of `bits` bins (TAP 15).
    pub fn delegate_bins(&mut self, bits: u8, prefix: &str, key: &Key) {
        let id = id_of(key);
        let bins = json!({"keyids": [id], "threshold": 1, "bit_length": bits, "name_prefix": prefix});
        self.role("targets")["delegations"] = json!({"keys": {&id: public(key)}, "succinct_roles": bins});
        let last = (1_u64 << bits) - 1;
        let digits = format!("{last:x}").len();
        for bin in 0..=last {
            let name = format!("{prefix}-{bin:0digits$x}");
            self.signers.insert(name.clone(), vec![key.clone()]);
            self.roles.insert(name, empty_targets());
        }
    }

    /// Lists a target in a role and serves it.
    pub fn add_target(&mut self, role: &str, path: &str, content: &[u8]) {
        let hashes = self.hashes_of(content);
        for hash in hashes.as_object().into_iter().flatten().filter_map(|(_, hash)| hash.as_str()) {
            let served = match (self.is_consistent(), path.rsplit_once('/')) {
                (true, Some((folder, name))) => format!("{folder}/{hash}.{name}"),
                (true, None) => format!("{hash}.{path}"),
                (false, _) => path.to_owned(),
            };
            self.targets.insert(served, content.to_vec());
        }
        self.role(role)["targets"][path] = json!({"length": content.len(), "hashes": hashes});
    }

    /// The signed part of a targets role.
    ///
    /// # Panics
    /// When there is no such role.
    pub fn role(&mut self, name: &str) -> &mut Value {
        self.roles.get_mut(name).expect("a role of this repository")
    }

    /// The next version of a targets role.
    pub fn bump_role(&mut self, name: &str) {
        bump(self.role(name));
    }

    /// Signs all targets roles as they stand, then the next snapshot and timestamp.
    pub fn publish(&mut self) {
        for name in self.roles.keys().cloned().collect::<Vec<_>>() {
            self.put(&name);
        }
        self.publish_snapshot(|_| {});
    }

    /// The next snapshot over the targets roles as they are served, changed, and the next timestamp.
    pub fn publish_snapshot(&mut self, change: impl FnOnce(&mut Value)) {
        let listed = self.roles.keys().map(|name| {
            let version = self.roles[name]["version"].clone();
            (format!("{name}.json"), self.meta_of(&self.served_name(name, &version), &version))
        });
        self.snapshot["meta"] = listed.collect();
        bump(&mut self.snapshot);
        change(&mut self.snapshot);
        self.put("snapshot");
        self.publish_timestamp(|_| {});
    }

    /// The next timestamp over the snapshot as it is served, changed.
    pub fn publish_timestamp(&mut self, change: impl FnOnce(&mut Value)) {
        let version = self.snapshot["version"].clone();
        let meta = self.meta_of(&self.served_name("snapshot", &version), &version);
        self.timestamp["meta"] = json!({"snapshot.json": meta});
        bump(&mut self.timestamp);
        change(&mut self.timestamp);
        self.put("timestamp");
    }

    /// Signs one role as it stands and serves it.
    pub fn put(&mut self, role: &str) {
        let signed = match role {
            "timestamp" => &self.timestamp,
            "snapshot" => &self.snapshot,
            name => &self.roles[name],
        };
        let bytes = sign(signed, &self.signers[role]);
        let name = self.served_name(role, &signed["version"]);
        self.files.insert(name, bytes);
    }

    /// The name that a role's file of this version is served under.
    pub fn served_name(&self, role: &str, version: &Value) -> String {
        let is_versioned = self.is_consistent() && role != "timestamp";
        if is_versioned { format!("{version}.{role}.json") } else { format!("{role}.json") }
    }

    /// A device that was given root version 1.
    pub fn device(&self) -> Device {
        Device::new(self.files["1.root.json"].clone())
    }

    fn is_consistent(&self) -> bool {
        self.root["consistent_snapshot"] == json!(true)
    }

    fn meta_of(&self, served: &str, version: &Value) -> Value {
        let mut meta = json!({ "version": version });
        if self.lists_hashes {
            let bytes = &self.files[served];
            meta["length"] = json!(bytes.len());
            meta["hashes"] = self.hashes_of(bytes);
        }
        meta
    }

    fn hashes_of(&self, bytes: &[u8]) -> Value {
        use sha2::{Digest as _, Sha256, Sha512};
        let hash = |algorithm: &str| match algorithm {
            "sha256" => hex::encode(Sha256::digest(bytes)),
            "sha512" => hex::encode(Sha512::digest(bytes)),
            _ => "00".to_owned(),
        };
        self.hashes.iter().map(|algorithm| ((*algorithm).to_owned(), json!(hash(algorithm)))).collect()
    }
}

/// The id that this crate's keys go by: the hash of the key.
pub fn id_of(key: &Key) -> String {
    key.public_key().id().as_str().to_owned()
}

/// A key as metadata lists it.
///
/// # Panics
/// Never: a public key is text.
pub fn public(key: &Key) -> Value {
    serde_json::to_value(key.public_key()).expect("a public key is text")
}

/// Signs a role's content and puts it into its envelope.
///
/// # Panics
/// When the content holds a fraction.
pub fn sign(signed: &Value, signers: &[Key]) -> Vec<u8> {
    let message = Json::from_value(signed).expect("no fractions").canonical();
    let one = |key: &Key| {
        let sig = key.sign(&message).expect("a key in memory signs");
        json!({"keyid": id_of(key), "sig": hex::encode(sig)})
    };
    let signatures: Vec<Value> = signers.iter().map(one).collect();
    let envelope = json!({"signatures": signatures, "signed": signed});
    serde_json::to_vec_pretty(&envelope).expect("JSON is text")
}

/// The next version.
///
/// # Panics
/// When the version is no number.
pub fn bump(signed: &mut Value) {
    let version = signed["version"].as_u64().expect("a version is a number");
    signed["version"] = json!(version + 1);
}

fn header(kind: &str) -> Value {
    json!({"_type": kind, "spec_version": "1.0.31", "version": 1, "expires": FAR})
}

fn empty_targets() -> Value {
    let mut targets = header("targets");
    targets["targets"] = json!({});
    targets
}

fn push(list: &mut Value, item: Value) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}
