//! A repository in memory that tests publish to and then attack.

use std::collections::BTreeMap;

use protocol::{ModelName, UnixMillis};
use serde_json::Value;
use trust::client::{self, Stored};
use trust::json::Json;
use trust::repo::{RootBuilder, TargetsBuilder, snapshot, timestamp};
use trust::{Ed25519Signer, Limits, PublicKey, Repository, Signer, TrustError};

/// 2026-11-21T00:00:00Z.
pub(crate) const NOW: UnixMillis = UnixMillis(1_795_219_200_000);
pub(crate) const DAY: i64 = 86_400_000;
pub(crate) const MANIFEST: &str = "models/digits/1.0.0/manifest.json";
pub(crate) const CONTENT: &[u8] = b"{\"the\":\"manifest\"}";

pub(crate) fn key(n: u8) -> Ed25519Signer {
    Ed25519Signer::from_seed(&[n; 32])
}

pub(crate) fn publics(keys: &[&Ed25519Signer]) -> Vec<PublicKey> {
    keys.iter().map(|key| key.public_key()).collect()
}

pub(crate) fn later(days: i64) -> UnixMillis {
    NOW.plus_millis(days * DAY)
}

/// Keys of all roles and every file that the server offers.
pub(crate) struct Repo {
    pub(crate) root: [Ed25519Signer; 2],
    pub(crate) targets: Ed25519Signer,
    pub(crate) model: Ed25519Signer,
    pub(crate) snapshot: Ed25519Signer,
    pub(crate) timestamp: Ed25519Signer,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) version: u64,
}

impl Repo {
    /// Root (2 of 2), targets, one delegated model with one release, snapshot and timestamp, all at version 1.
    pub(crate) fn new() -> Self {
        let mut repo = Self {
            root: [key(1), key(2)],
            targets: key(3),
            model: key(4),
            snapshot: key(5),
            timestamp: key(6),
            files: BTreeMap::new(),
            version: 0,
        };
        repo.files.insert("1.root.json".into(), repo.root_v1());
        let digits = TargetsBuilder::new(later(30)).target(MANIFEST, CONTENT, None);
        repo.put_role("digits", 1, &digits.sign(&[&repo.model]).unwrap());
        let name = ModelName::new("digits").unwrap();
        let targets = TargetsBuilder::new(later(30)).delegate_model(&name, &publics(&[&repo.model]), 1);
        repo.put_role("targets", 1, &targets.sign(&[&repo.targets]).unwrap());
        repo.publish(&["targets", "digits"]);
        repo
    }

    pub(crate) fn root_builder(&self) -> RootBuilder {
        RootBuilder::new(later(365))
            .role("root", &publics(&[&self.root[0], &self.root[1]]), 2)
            .role("targets", &publics(&[&self.targets]), 1)
            .role("snapshot", &publics(&[&self.snapshot]), 1)
            .role("timestamp", &publics(&[&self.timestamp]), 1)
    }

    pub(crate) fn root_v1(&self) -> Vec<u8> {
        self.root_builder().sign(&[&self.root[0], &self.root[1]]).unwrap()
    }

    pub(crate) fn next_root(&self) -> RootBuilder {
        RootBuilder::resume(&self.files["1.root.json"], later(365)).unwrap()
    }

    pub(crate) fn put_role(&mut self, role: &str, version: u64, bytes: &[u8]) {
        self.files.insert(format!("{version}.{role}.json"), bytes.to_vec());
        self.files.insert(format!("{role}.json"), bytes.to_vec());
    }

    /// A new snapshot and timestamp over the newest files of these roles.
    pub(crate) fn publish(&mut self, roles: &[&str]) {
        self.version += 1;
        self.publish_as(self.version, roles, later(7), later(1));
    }

    pub(crate) fn publish_as(
        &mut self,
        version: u64,
        roles: &[&str],
        snapshot_until: UnixMillis,
        timestamp_until: UnixMillis,
    ) {
        let newest = |role: &&str| self.files[&format!("{role}.json")].clone();
        let bytes: Vec<(&str, Vec<u8>)> = roles.iter().map(|role| (*role, newest(role))).collect();
        let listed = bytes.iter().map(|(role, bytes)| (*role, bytes.as_slice()));
        let snap = snapshot(version, snapshot_until, listed, &[&self.snapshot]).unwrap();
        let time = timestamp(version, timestamp_until, &snap, NOW, &[&self.timestamp]).unwrap();
        self.files.insert(format!("{version}.snapshot.json"), snap);
        self.files.insert("timestamp.json".into(), time);
    }

    /// A device that was just enrolled.
    pub(crate) fn device(&self) -> Stored {
        Stored::new(self.files["1.root.json"].clone())
    }

    pub(crate) fn refresh(&self, device: &mut Stored) -> Result<Repository, TrustError> {
        self.refresh_at(device, NOW)
    }

    pub(crate) fn refresh_at(&self, device: &mut Stored, now: UnixMillis) -> Result<Repository, TrustError> {
        client::run(device, &[MANIFEST], now, &Limits::default(), |path| self.files.get(path).cloned())
    }

    /// Changes a file's signed part and signs it again with these keys.
    pub(crate) fn tamper(&mut self, path: &str, signers: &[&Ed25519Signer], change: impl FnOnce(&mut Value)) {
        let bytes = tampered(&self.files[path], signers, change);
        self.files.insert(path.into(), bytes);
    }
}

/// Changes the signed part; without signers the old signatures stay.
pub(crate) fn tampered(bytes: &[u8], signers: &[&Ed25519Signer], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut envelope: Value = serde_json::from_slice(bytes).unwrap();
    change(&mut envelope["signed"]);
    if !signers.is_empty() {
        let message = Json::from_value(&envelope["signed"]).unwrap().canonical();
        let sign = |signer: &&Ed25519Signer| {
            let sig = hex::encode(signer.sign(&message).unwrap());
            serde_json::json!({"keyid": signer.public_key().id(), "sig": sig})
        };
        envelope["signatures"] = signers.iter().map(sign).collect();
    }
    serde_json::to_vec(&envelope).unwrap()
}

/// The id of the attack that a refusal names.
pub(crate) fn attack<T: std::fmt::Debug>(result: Result<T, TrustError>) -> &'static str {
    result.unwrap_err().attack()
}
