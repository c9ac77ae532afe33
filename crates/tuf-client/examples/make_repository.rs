//! Writes repositories made by our own builders into a folder, for other clients to read: with and without consistent
//! snapshots, ed25519 and ECDSA keys, thresholds, delegated models, a rotated root.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use protocol::{ModelName, UnixMillis};
use sha2::{Digest as _, Sha256};
use trust::repo::{RootBuilder, TargetsBuilder, snapshot, timestamp};
use trust::{EcdsaSigner, Ed25519Signer, PublicKey, Signer, format_rfc3339};

const TARGETS: [&str; 3] =
    ["director.json", "models/digits/1.0.0/manifest.json", "models/digits/1.1.0/manifest.json"];

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("name a folder")?;
    write(&Path::new(&folder).join("consistent"), Snapshots::Consistent)?;
    write(&Path::new(&folder).join("plain"), Snapshots::Plain)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Snapshots {
    Consistent,
    Plain,
}

fn write(folder: &Path, snapshots: Snapshots) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let now = UnixMillis(i64::try_from(since)? * 1000);
    let until = now.plus_millis(86_400_000);
    let ed25519: [Ed25519Signer; 3] = [1, 2, 3].map(|n| Ed25519Signer::from_seed(&[n; 32]));
    let ecdsa = EcdsaSigner::from_pkcs8(&EcdsaSigner::generate()?)?;
    let publics =
        |signers: &[&dyn Signer]| signers.iter().map(|s| s.public_key()).collect::<Vec<PublicKey>>();
    let both: [&dyn Signer; 2] = [&ed25519[0], &ecdsa];

    let name = |version: u64, role: &str| match snapshots {
        Snapshots::Consistent => format!("metadata/{version}.{role}.json"),
        Snapshots::Plain => format!("metadata/{role}.json"),
    };
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };

    let root = RootBuilder::new(until)
        .role("root", &publics(&both), 2)
        .role("targets", &publics(&[&ed25519[1]]), 1)
        .role("snapshot", &publics(&[&ecdsa]), 1)
        .role("timestamp", &publics(&[&ed25519[2]]), 1);
    let root = if snapshots == Snapshots::Plain { root.without_consistent_snapshots() } else { root };
    let first = root.sign(&both)?;
    put("metadata/1.root.json", &first)?;
    let second = RootBuilder::resume(&first, until)?.role("targets", &publics(&both), 2);
    put("metadata/2.root.json", &second.sign(&both)?)?;

    let model = ModelName::new("digits").context("a model's name")?;
    let targets = TargetsBuilder::new(until).delegate_model(&model, &publics(&both), 2);
    let targets = targets.target(TARGETS[0], TARGETS[0].as_bytes(), None).sign(&both)?;
    put(&name(1, "targets"), &targets)?;
    let custom = serde_json::json!({"counter": 7, "note": "ö \"quoted\" \\ and\nbroken"});
    let digits = TARGETS[1..].iter().fold(TargetsBuilder::new(until), |digits, path| {
        digits.target(path, path.as_bytes(), Some(custom.clone()))
    });
    let digits = digits.sign(&both)?;
    put(&name(1, "digits"), &digits)?;
    let listed = [("targets", targets.as_slice()), ("digits", digits.as_slice())];
    let snapshot = snapshot(1, until, listed, &[&ecdsa])?;
    put(&name(1, "snapshot"), &snapshot)?;
    put("metadata/timestamp.json", &timestamp(1, until, &snapshot, now, &[&ed25519[2]])?)?;

    for path in TARGETS {
        let (parent, last) =
            path.rsplit_once('/').map_or((String::new(), path), |(p, l)| (format!("{p}/"), l));
        let hash = hex::encode(Sha256::digest(path));
        let served = match snapshots {
            Snapshots::Consistent => format!("targets/{parent}{hash}.{last}"),
            Snapshots::Plain => format!("targets/{path}"),
        };
        put(&served, path.as_bytes())?;
    }
    put("wanted", TARGETS.join("\n").as_bytes())?;
    eprintln!("{}: valid until {}", folder.display(), format_rfc3339(until));
    Ok(())
}
