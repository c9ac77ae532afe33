//! What somebody can do who has a server's data folder: open its keys, sign with them, and change every row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use protocol::{DeviceId, ModelName, ProjectId, ReleaseRef, Revision, UnixMillis};
use release::DraftManifest;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Value, json};
use trust::desired::{self, Desired, DesiredModel, Mode};
use trust::repo::{self, RootBuilder, TargetsBuilder};
use trust::{Ed25519Signer, PublicKey, Signer as _};

/// One statement; rows and parameters are JSON, bytes are `{"hex": ...}`. SQLite comes with Python.
const SQL: &str = "\
import json, sqlite3, sys
path, statement, parameters = sys.argv[1:]
read = lambda v: bytes.fromhex(v['hex']) if isinstance(v, dict) else v
tell = lambda v: {'hex': v.hex()} if isinstance(v, bytes) else v
with sqlite3.connect(path) as db:
    rows = db.execute(statement, [read(v) for v in json.loads(parameters)]).fetchall()
db.close()
print(json.dumps([[tell(v) for v in row] for row in rows]))
";
const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// What the attacked device is told to run.
pub(super) enum Wish {
    /// This, signed by the true director.
    Director(ReleaseRef),
    /// This, signed by a key that nobody authorised.
    OwnKey(ReleaseRef),
    /// What this other device was told.
    OfOtherDevice(String),
    /// What it was told before.
    Replayed(Vec<u8>),
}

/// Holds everything that the server holds.
pub(super) struct Thief {
    database: PathBuf,
    project: ProjectId,
    keys: BTreeMap<String, Ed25519Signer>,
}

/// Digests of the targets that publishers signed.
pub(super) struct Kept(Vec<Value>);

impl Thief {
    /// Opens a stopped server's data folder.
    pub(super) fn open(data: &Path) -> Result<Self> {
        let seal = std::fs::read(data.join("online-keys.seal")).context("no key file to steal")?;
        let seal = UnboundKey::new(&AES_256_GCM, &seal).ok().context("the key file is no key")?;
        let seal = LessSafeKey::new(seal);
        let database = data.join("flotilla.db");
        let mut thief = Self { database, project: ProjectId::new("default")?, keys: BTreeMap::new() };
        for row in thief.sql("SELECT project, role, sealed_seed FROM online_keys", &[])? {
            let (project, role) = (text(&row[0])?, text(&row[1])?);
            let sealed = bytes(&row[2])?;
            let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).context("a seed is too short")?;
            let about = Aad::from(format!("flotilla-online-key-v1\0{project}\0{role}").into_bytes());
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok().context("no nonce")?;
            let mut rest = rest.to_vec();
            let seed = seal.open_in_place(nonce, about, &mut rest).ok().context("a seed does not open")?;
            let seed: [u8; 32] = (&*seed).try_into().context("a seed has 32 bytes")?;
            thief.keys.insert(role.to_owned(), Ed25519Signer::from_seed(&seed));
            thief.project = ProjectId::new(project)?;
        }
        ensure!(thief.keys.len() == 3, "not all of the server's keys could be stolen");
        Ok(thief)
    }

    /// A key that the attacker may use for anything.
    pub(super) fn key(&self) -> PublicKey {
        self.keys["snapshot"].public_key()
    }

    /// A new version of a publisher's role as the attacker likes it, in a chain that is otherwise right.
    pub(super) fn forge_role(
        &self,
        role: &str,
        change: impl FnOnce(TargetsBuilder) -> TargetsBuilder,
    ) -> Result<()> {
        let (version, newest) = self.newest(role)?;
        let forged = change(TargetsBuilder::resume(&newest, later()?)?);
        self.insert(role, version + 1, &forged.sign(&[&self.keys["snapshot"]])?)?;
        self.sign_chain(&BTreeMap::new())
    }

    /// The next root, which names the attacker for every role.
    pub(super) fn forge_root(&self) -> Result<()> {
        let (version, root) = self.newest("root")?;
        let all = ["root", "targets", "snapshot", "timestamp"];
        let forged = RootBuilder::resume(&root, later()?)?;
        let forged = all.into_iter().fold(forged, |root, role| root.role(role, &[self.key()], 1));
        self.insert("root", version + 1, &forged.sign(&[&self.keys["snapshot"]])?)
    }

    /// A rightly signed chain in which one role is an older version.
    pub(super) fn mix_snapshot(&self, role: &str) -> Result<()> {
        let (version, _) = self.newest(role)?;
        ensure!(version > 1, "{role} has no older version");
        let older = self.metadata(role, version - 1)?;
        self.sign_chain(&BTreeMap::from([(role.to_owned(), older)]))
    }

    /// The chain as it is, in new versions that these keys signed.
    pub(super) fn sign_anew(&self) -> Result<()> {
        self.sign_chain(&BTreeMap::new())
    }

    /// Puts a manifest where devices fetch it.
    pub(super) fn store_target(&self, manifest: &DraftManifest) -> Result<()> {
        let parameters = [
            json!(self.project),
            json!(manifest.target_path()),
            json!(manifest.digest()),
            blob(manifest.bytes()),
            json!(0),
        ];
        self.sql("INSERT INTO targets VALUES (?, ?, ?, ?, ?)", &parameters).map(drop)
    }

    /// Gives a device another Desired, which the server will send as soon as it runs.
    pub(super) fn desire(&self, device: &str, wish: Wish) -> Result<()> {
        let own = Ed25519Signer::from_seed(&[66; 32]);
        let revision = self.revision(device)?;
        let sign = |release, signer: &Ed25519Signer| {
            let model = ModelName::new("digits")?;
            let model = DesiredModel { model, release, mode: Mode::Replace, rollout: None, attempt: 0 };
            self.sign_desired(device, revision + 1, vec![model], signer)
        };
        match wish {
            Wish::Director(release) => {
                let envelope = sign(release, &self.keys["director"])?;
                self.tell(device, revision + 1, &envelope)
            }
            Wish::OwnKey(release) => {
                let envelope = sign(release, &own)?;
                self.tell(device, revision + 1, &envelope)
            }
            Wish::OfOtherDevice(other) => self.tell(device, revision, &self.envelope(&other)?),
            Wish::Replayed(envelope) => self.tell(device, revision, &envelope),
        }
    }

    /// As the true director, at a revision of the thief's choice.
    pub(super) fn desire_at(&self, device: &str, revision: Revision, release: ReleaseRef) -> Result<()> {
        let model = ModelName::new("digits")?;
        let model = DesiredModel { model, release, mode: Mode::Replace, rollout: None, attempt: 0 };
        let envelope = self.sign_desired(device, revision.0, vec![model], &self.keys["director"])?;
        self.tell(device, revision.0, &envelope)
    }

    /// Has the server send this.
    pub(super) fn tell(&self, device: &str, revision: u64, envelope: &[u8]) -> Result<()> {
        let statement = "UPDATE devices SET desired_revision = ?, desired_envelope = ? WHERE device = ?";
        self.sql(statement, &[json!(revision), blob(envelope), json!(device)]).map(drop)
    }

    /// What a device is told now.
    pub(super) fn envelope(&self, device: &str) -> Result<Vec<u8>> {
        let statement = "SELECT desired_envelope FROM devices WHERE device = ?";
        let rows = self.sql(statement, &[json!(device)])?;
        bytes(&rows.first().with_context(|| format!("{device} has no Desired"))?[0])
    }

    /// What a device is told now, and its revision.
    pub(super) fn told(&self, device: &str) -> Result<(u64, Vec<u8>)> {
        let rows = self.sql("SELECT desired_revision FROM devices WHERE device = ?", &[json!(device)])?;
        let revision = rows.first().and_then(|row| row[0].as_u64()).context("no such device")?;
        Ok((revision, self.envelope(device)?))
    }

    fn sign_desired(
        &self,
        device: &str,
        revision: u64,
        models: Vec<DesiredModel>,
        signer: &Ed25519Signer,
    ) -> Result<Vec<u8>> {
        let desired = Desired {
            project: self.project.clone(),
            device: DeviceId::new(device)?,
            revision: Revision(revision),
            issued_at: now()?,
            expires: later()?,
            models,
        };
        Ok(desired::sign(&desired, signer)?)
    }

    /// Above everything that the device has accepted so far.
    fn revision(&self, device: &str) -> Result<u64> {
        Ok(self.told(device)?.0 + 1000)
    }

    /// Snapshot and timestamp of all newest roles but those in `instead`.
    fn sign_chain(&self, instead: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let statement = "SELECT name, max(version) FROM metadata WHERE name NOT IN ('root', 'snapshot', 'timestamp') GROUP BY name";
        let mut roles = BTreeMap::new();
        for row in self.sql(statement, &[])? {
            let name = text(&row[0])?;
            let version = row[1].as_u64().context("no version")?;
            roles.insert(name.to_owned(), self.metadata(name, version)?);
        }
        roles.extend(instead.iter().map(|(name, bytes)| (name.clone(), bytes.clone())));
        let version = self.newest("snapshot")?.0 + 1;
        let listed = roles.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let snapshot = repo::snapshot(version, later()?, listed, &[&self.keys["snapshot"]])?;
        self.insert("snapshot", version, &snapshot)?;
        let version = self.newest("timestamp")?.0 + 1;
        let timestamp = repo::timestamp(version, later()?, &snapshot, now()?, &[&self.keys["timestamp"]])?;
        self.insert("timestamp", version, &timestamp)
    }

    fn newest(&self, name: &str) -> Result<(u64, Vec<u8>)> {
        let rows = self.sql("SELECT max(version) FROM metadata WHERE name = ?", &[json!(name)])?;
        let version = rows.first().and_then(|row| row[0].as_u64()).with_context(|| format!("no {name}"))?;
        Ok((version, self.metadata(name, version)?))
    }

    fn metadata(&self, name: &str, version: u64) -> Result<Vec<u8>> {
        let statement = "SELECT bytes FROM metadata WHERE name = ? AND version = ?";
        let rows = self.sql(statement, &[json!(name), json!(version)])?;
        bytes(&rows.first().with_context(|| format!("no {name} {version}"))?[0])
    }

    fn insert(&self, name: &str, version: u64, bytes: &[u8]) -> Result<()> {
        let expires = later()?.0;
        let parameters = [
            json!(self.project),
            json!(name),
            json!(version),
            blob(bytes),
            json!(expires),
            json!(0),
            json!("thief"),
        ];
        self.sql("INSERT INTO metadata VALUES (?, ?, ?, ?, ?, ?, ?)", &parameters).map(drop)
    }

    /// Remembers which targets are the publishers'.
    pub(super) fn keep(&self) -> Result<Kept> {
        let rows = self.sql("SELECT digest FROM targets", &[])?;
        Ok(Kept(rows.into_iter().map(|row| row[0].clone()).collect()))
    }

    /// Undoes an attack, but for what devices have heard since.
    pub(super) fn put_back(&self, kept: &Kept) -> Result<()> {
        self.sql("DELETE FROM metadata WHERE stored_by = 'thief'", &[])?;
        for row in self.sql("SELECT digest FROM targets", &[])? {
            if !kept.0.contains(&row[0]) {
                self.sql("DELETE FROM targets WHERE digest = ?", &[row[0].clone()])?;
            }
        }
        self.put_back_desired()
    }

    fn put_back_desired(&self) -> Result<()> {
        // The owner signs each device's last true Desired again, above what the device has heard.
        for row in
            self.sql("SELECT device, desired, desired_revision FROM devices WHERE desired IS NOT NULL", &[])?
        {
            let (device, desired) = (text(&row[0])?, text(&row[1])?);
            let desired: Value = serde_json::from_str(desired)?;
            let models: Vec<DesiredModel> = serde_json::from_value(desired["models"].clone())?;
            let revision = row[2].as_u64().context("no revision")? + 1;
            let envelope = self.sign_desired(device, revision, models, &self.keys["director"])?;
            self.tell(device, revision, &envelope)?;
        }
        Ok(())
    }

    fn sql(&self, statement: &str, parameters: &[Value]) -> Result<Vec<Value>> {
        let output = Command::new("python3")
            .args(["-c", SQL])
            .arg(&self.database)
            .arg(statement)
            .arg(serde_json::to_string(parameters)?)
            .output()
            .context("python3 is needed to change the stolen database")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{statement}: {said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("no text")
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    let hex = value["hex"].as_str().context("no bytes")?;
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(pair).collect::<Option<_>>().context("no hex")
}

fn blob(bytes: &[u8]) -> Value {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    json!({ "hex": hex })
}

/// This machine's time, in whole seconds as metadata has it.
fn now() -> Result<UnixMillis> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(since.as_secs())?.saturating_mul(1000)))
}

fn later() -> Result<UnixMillis> {
    Ok(now()?.plus_millis(YEAR_MS))
}
