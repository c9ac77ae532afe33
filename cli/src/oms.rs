//! OpenSSF model signatures, v1.0, made with a P-256 key: who vouches for a model that somebody else made.
//!
//! The signature is checked first, over the exact bytes, and only then read. Every file in the model's folder must be
//! listed with its hash and every listed file must be there; the signature itself and what git keeps are all that may
//! be unlisted, and only if the signer said so. Tests: below, with a signature that `model-signing` made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Digest;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use trust::PublicKey;

const MAX_BUNDLE_BYTES: u64 = 16 * 1024 * 1024;
const MAX_FILES: usize = 100_000;
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// What may lie unlisted in a model's folder when the signer left it out.
const MAY_BE_IGNORED: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// `[signed_model]` of a release spec; paths are relative to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedModel {
    /// The folder as it was signed.
    pub(crate) folder: PathBuf,
    /// The signature; usually `model.sig` in the folder.
    pub(crate) signature: PathBuf,
    /// The signer's public key as PEM.
    pub(crate) public_key: PathBuf,
}

/// What was checked.
#[derive(Debug, Clone)]
pub(crate) struct Vouched {
    name: String,
    digest: Digest,
    key_digest: Digest,
    files: BTreeSet<Digest>,
}

/// What keys of a manifest's lineage begin with that only this check writes.
pub(crate) const LINEAGE: &str = "oms_";

impl Vouched {
    /// What the manifest's lineage says about it; `models` are the release's own variants.
    pub(crate) fn lineage(&self, models: &[(String, Digest)]) -> BTreeMap<String, String> {
        let unchanged: Vec<&str> = models
            .iter()
            .filter(|(_, digest)| self.files.contains(digest))
            .map(|(name, _)| name.as_str())
            .collect();
        let taken = if unchanged.is_empty() { "none".to_owned() } else { unchanged.join(",") };
        [
            ("oms_model", self.name.clone()),
            ("oms_digest", self.digest.to_string()),
            ("oms_public_key", self.key_digest.to_string()),
            ("oms_files", self.files.len().to_string()),
            ("oms_unchanged_variants", taken),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Value,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    resources: Vec<Resource>,
    serialization: Serialization,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

/// Checks a model's folder against its signature.
///
/// # Errors
/// When anything is missing, more, different, or not signed by this key; the message names what.
pub(crate) fn check(base: &Path, signed: &SignedModel) -> Result<Vouched> {
    let (folder, signature) = (base.join(&signed.folder), base.join(&signed.signature));
    let key_path = base.join(&signed.public_key);
    let pem = String::from_utf8(read(&key_path)?).context("the public key is no text")?;
    let payload = verify(&read(&signature)?, &pem)
        .with_context(|| format!("the model signature {}", signature.display()))?;
    let statement: Statement =
        serde_json::from_slice(&payload).context("the signed statement can't be read")?;
    let (subject, listed) = listed(&statement)?;
    let ignored = &statement.predicate.serialization.ignore_paths;
    let is_left_out = |path: &Path, name: &str| {
        let is_signature = fs::canonicalize(path).ok() == fs::canonicalize(&signature).ok();
        is_signature || (MAY_BE_IGNORED.contains(&name) && ignored.iter().any(|path| path == name))
    };
    let mut found = BTreeMap::new();
    walk(&folder, "", &is_left_out, &mut found)?;
    for (name, path) in &found {
        let expected =
            listed.get(name).with_context(|| format!("{name} is not listed in the model signature"))?;
        let got = hash(path)?;
        ensure!(
            got == *expected,
            "{name} is not the file that was signed: its digest is {got}, signed is {expected}"
        );
    }
    if let Some(missing) = listed.keys().find(|name| !found.contains_key(*name)) {
        bail!("{missing} was signed, but is not in {}", folder.display());
    }
    let key_digest = Digest::from_bytes(Sha256::digest(pem.as_bytes()).into());
    Ok(Vouched { name: subject.0, digest: subject.1, key_digest, files: listed.into_values().collect() })
}

/// The payload, once its signature is the key's.
fn verify(bundle: &[u8], pem: &str) -> Result<Vec<u8>> {
    let bundle: Bundle = serde_json::from_slice(bundle).context("is no signature bundle")?;
    ensure!(
        bundle.media_type.starts_with("application/vnd.dev.sigstore.bundle"),
        "has the unknown type {:?}",
        bundle.media_type
    );
    ensure!(
        bundle.verification_material.get("publicKey").is_some(),
        "was not made with a plain key; only the P-256 key method is supported"
    );
    let envelope = bundle.dsse_envelope;
    ensure!(envelope.payload_type == PAYLOAD_TYPE, "signs the unknown type {:?}", envelope.payload_type);
    let [signature] = &envelope.signatures[..] else {
        bail!("has {} signatures, not one", envelope.signatures.len())
    };
    let payload = STANDARD.decode(&envelope.payload).context("has a payload that is no base64")?;
    let signature = STANDARD.decode(&signature.sig).context("is no base64")?;
    let key: PublicKey = serde_json::from_value(
        json!({ "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": { "public": pem } }),
    )?;
    key.check().context("the public key is no P-256 key in PEM")?;
    // DSSE 1.0.0, "PAE": lengths stand before type and payload.
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    ensure!(key.verifies(&[head.as_bytes(), &payload].concat(), &signature), "is not by this public key");
    Ok(payload)
}

type Listed = ((String, Digest), BTreeMap<String, Digest>);

fn listed(statement: &Statement) -> Result<Listed> {
    ensure!(
        statement.kind == STATEMENT_TYPE,
        "the signed statement is of the unknown type {:?}",
        statement.kind
    );
    ensure!(
        statement.predicate_type == PREDICATE_TYPE,
        "the signed statement says {:?}, not {PREDICATE_TYPE}",
        statement.predicate_type
    );
    let serialization = &statement.predicate.serialization;
    ensure!(
        serialization.method == "files" && serialization.hash_type == "sha256",
        "the model was hashed by {} with {}; only whole files with sha256 are supported",
        serialization.method,
        serialization.hash_type
    );
    let resources = &statement.predicate.resources;
    ensure!(resources.len() <= MAX_FILES, "the signature lists more than {MAX_FILES} files");
    let (mut files, mut all) = (BTreeMap::new(), Sha256::new());
    for resource in resources {
        ensure!(resource.algorithm == "sha256", "{} has no sha256", resource.name);
        ensure!(is_plain(&resource.name), "{:?} is no name of a file in a folder", resource.name);
        let digest: Digest =
            resource.digest.parse().with_context(|| format!("the digest of {}", resource.name))?;
        all.update(digest.as_bytes());
        ensure!(files.insert(resource.name.clone(), digest).is_none(), "{} is listed twice", resource.name);
    }
    ensure!(!files.is_empty(), "the signature lists no file");
    let [subject] = &statement.subject[..] else { bail!("the signed statement has not one subject") };
    let digest = Digest::from_bytes(all.finalize().into());
    ensure!(
        subject.digest.get("sha256").is_some_and(|hex| *hex == digest.to_hex()),
        "the signed statement contradicts itself: its digest is not that of its files"
    );
    Ok(((subject.name.clone(), digest), files))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn walk(
    folder: &Path,
    prefix: &str,
    is_left_out: &dyn Fn(&Path, &str) -> bool,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} is no text", entry.path().display()))?;
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().with_context(cannot)?;
        if is_left_out(&entry.path(), &name) {
            continue;
        }
        ensure!(found.len() < MAX_FILES, "{} holds more than {MAX_FILES} files", folder.display());
        if kind.is_dir() {
            walk(&entry.path(), &name, is_left_out, found)?;
        } else if kind.is_file() {
            found.insert(name, entry.path());
        } else {
            bail!("{name} is neither a file nor a folder; links are not followed");
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_BUNDLE_BYTES + 1).read_to_end(&mut bytes).with_context(cannot)?;
    let is_small = u64::try_from(bytes.len()).is_ok_and(|got| got <= MAX_BUNDLE_BYTES);
    ensure!(is_small, "{} is larger than {MAX_BUNDLE_BYTES} bytes", path.display());
    Ok(bytes)
}

fn hash(path: &Path) -> Result<Digest> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).with_context(cannot)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let got = file.read(&mut buffer).with_context(cannot)?;
        if got == 0 {
            break;
        }
        hash.update(&buffer[..got]);
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `model_signing sign key`.
    fn example() -> (tempfile::TempDir, SignedModel) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oms");
        let dir = tempfile::tempdir().unwrap();
        for file in ["model/weights.bin", "model/sub/labels.txt", "model/model.sig", "key.pub"] {
            let to = dir.path().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from.join(file), to).unwrap();
        }
        let signed = SignedModel {
            folder: "model".into(),
            signature: "model/model.sig".into(),
            public_key: "key.pub".into(),
        };
        (dir, signed)
    }

    fn refusal(dir: &Path, signed: &SignedModel) -> String {
        format!("{:#}", check(dir, signed).unwrap_err())
    }

    #[test]
    fn a_model_as_it_was_signed_is_vouched_for() {
        let (dir, signed) = example();
        let vouched = check(dir.path(), &signed).unwrap();
        let weights = hash(&dir.path().join("model/weights.bin")).unwrap();
        let other = Digest::from_bytes([0; 32]);
        let lineage = vouched.lineage(&[("f32".into(), weights), ("int8".into(), other)]);
        assert_eq!(
            (lineage["oms_model"].as_str(), lineage["oms_unchanged_variants"].as_str()),
            ("model", "f32")
        );
        assert_eq!(vouched.lineage(&[("int8".into(), other)])["oms_unchanged_variants"], "none");
    }

    #[test]
    fn unlisted_changed_and_missing_files_and_links_are_refused() {
        let (dir, signed) = example();
        let file = |name: &str| dir.path().join("model").join(name);
        fs::write(file("sub/more.txt"), "x").unwrap();
        assert!(refusal(dir.path(), &signed).contains("sub/more.txt is not listed"));
        fs::remove_file(file("sub/more.txt")).unwrap();
        fs::write(file(".gitignore"), "x").unwrap();
        check(dir.path(), &signed).unwrap();
        fs::write(file("sub/.gitignore"), "x").unwrap();
        assert!(refusal(dir.path(), &signed).contains("sub/.gitignore is not listed"));
        fs::remove_file(file("sub/.gitignore")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", file("sub/link")).unwrap();
        assert!(refusal(dir.path(), &signed).contains("links are not followed"));
        fs::remove_file(file("sub/link")).unwrap();
        let weights = fs::read(file("weights.bin")).unwrap();
        fs::write(file("weights.bin"), "other").unwrap();
        assert!(refusal(dir.path(), &signed).contains("weights.bin is not the file that was signed"));
        fs::remove_file(file("weights.bin")).unwrap();
        assert!(refusal(dir.path(), &signed).contains("weights.bin was signed, but is not in"));
        fs::write(file("weights.bin"), weights).unwrap();
        check(dir.path(), &signed).unwrap();
    }

    #[test]
    fn another_key_and_another_statement_are_refused() {
        let (dir, signed) = example();
        let path = dir.path().join("model/model.sig");
        let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let key = fs::read(dir.path().join("key.pub")).unwrap();
        let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oms/other.pub");
        fs::copy(other, dir.path().join("key.pub")).unwrap();
        assert!(refusal(dir.path(), &signed).contains("is not by this public key"));
        fs::write(dir.path().join("key.pub"), key).unwrap();
        let payload = good["dsseEnvelope"]["payload"].as_str().unwrap();
        let text = String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap();
        let mut forged = good.clone();
        forged["dsseEnvelope"]["payload"] = STANDARD.encode(text.replace("weights", "Weights")).into();
        let mut twice = good.clone();
        let signature = twice["dsseEnvelope"]["signatures"][0].clone();
        twice["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(signature);
        let mut certificate = good.clone();
        certificate["verificationMaterial"] = json!({ "certificate": {} });
        for (bundle, why) in [
            (forged, "is not by this public key"),
            (twice, "has 2 signatures"),
            (certificate, "was not made with a plain key"),
        ] {
            fs::write(&path, bundle.to_string()).unwrap();
            assert!(refusal(dir.path(), &signed).contains(why), "{}", refusal(dir.path(), &signed));
        }
    }
}
