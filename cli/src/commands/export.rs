//! `flotilla export`: one file that brings a release to devices without a network.
//!
//! The signed chain is walked here as a device walks it, from the root that this publisher trusts and never from what
//! the server calls the first one: what a device would refuse is found before the journey. It holds no secret.

use std::fs::File;
use std::io::{BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use protocol::{ModelName, Version};
use release::archive::{Name, Writer};
use release::{BlobRef, Manifest};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use trust::{Repository, Stored, TargetBytes, TargetInfo, Verified};

use super::Context;
use crate::chain::{self, Chain, Files};
use crate::client::Client;
use crate::keyring::Keyring;
use crate::metadata::{claims, fetch_file, get, is_next_root, kept_name};
use crate::output::{bytes, facts, text};

/// What to export.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    model: ModelName,
    /// Its release.
    version: Version,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// A root that came by a trusted way; default: the first root in the key folder.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

/// Writes the archive; a file that stands there is replaced only when all went well.
///
/// # Errors
/// When the server lacks something, or what it has is not rightly signed.
pub(crate) async fn run(context: &Context, args: &Args) -> Result<()> {
    let client = &context.client;
    is_published(client, args).await?;
    let keyring = Keyring::of(client.project())?;
    let root = match &args.root {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => chain::first_root(&keyring)?,
    };
    let path = release::target_path(&args.model, &args.version);
    let fetch = async |name: &str| fetch_file(client, name).await;
    let kept = |role: &str| keyring.read(&kept_name(role));
    let (metadata, repository) = metadata(fetch, root, kept, &path).await?;
    let target = target(client, repository.find_target(&path)?).await?;
    let manifest = Manifest::parse(&target).context("devices would not accept this manifest")?;
    let part = args.out.with_extension("part");
    let written = write(client, &part, &metadata, &target, &manifest).await;
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    let size_bytes = written?;
    std::fs::rename(&part, &args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let fresh_until = trust::format_rfc3339(repository.timestamp_expires());
    let said = json!({
        "model": manifest.model, "version": manifest.version, "digest": target.digest(), "file": args.out,
        "size_bytes": size_bytes, "import_until": fresh_until,
    });
    context.format.print(&said, |said: &Value| {
        facts(&[
            ("exported", format!("{} {}", text(said, "/model"), text(said, "/version"))),
            ("digest", text(said, "/digest")),
            ("file", text(said, "/file")),
            ("size", bytes(size_bytes)),
            ("import it until", text(said, "/import_until")),
        ])
    })
}

/// Nothing in signed metadata says that a release was withdrawn; a device would refuse it later.
async fn is_published(client: &Client, args: &Args) -> Result<()> {
    let answer = client.get(&format!("/models/{}/releases/{}", args.model, args.version)).await?;
    if answer["state"] == "withdrawn" {
        bail!(
            "{} {} was withdrawn: it is fenced off or no longer signed, and devices refuse it; export a newer release",
            args.model,
            args.version
        );
    }
    Ok(())
}

/// The target's very bytes, as they were signed.
async fn target(client: &Client, info: &TargetInfo) -> Result<Verified<TargetBytes>> {
    let digest = info.sha256().with_context(|| format!("{} is signed without its SHA-256", info.path()))?;
    let max = trust::Limits::default().targets_bytes;
    let content = get(client, &format!("/targets/{digest}"), max).await?;
    let content = content.with_context(|| format!("the server doesn't have {}", info.path()))?;
    Ok(info.verify(content)?)
}

/// Everything that a device with this root, or one before it, needs to see, and what it would then trust.
async fn metadata(
    fetch: impl AsyncFn(&str) -> Result<Option<Vec<u8>>>,
    root: Vec<u8>,
    kept: impl Fn(&str) -> Result<Option<Vec<u8>>>,
    target: &str,
) -> Result<(Files, Repository)> {
    let version = claims(&root)?.version;
    let Chain { repository, files, mut fetched } =
        chain::walk(&fetch, &Stored::new(root.clone()), &[target.to_owned()])
            .await
            .context("devices that trust the root of this key folder would refuse what the server has")?;
    chain::ensure_not_older(&files, kept)?;
    fetched.insert(root_name(version), root.clone());
    // A device that was pinned before follows the whole chain: each root must vouch for the next one.
    let mut next = root;
    for version in (1..version).rev() {
        let name = root_name(version);
        let earlier = fetch(&name).await?.with_context(|| format!("the server doesn't have {name}"))?;
        ensure!(is_next_root(&earlier, &next)?, "{name} of the server does not vouch for the root after it");
        fetched.insert(name, earlier.clone());
        next = earlier;
    }
    Ok((fetched, repository))
}

fn root_name(version: u64) -> String {
    format!("{version}.root.json")
}

async fn write(
    client: &Client,
    path: &Path,
    metadata: &Files,
    target: &TargetBytes,
    manifest: &Manifest,
) -> Result<u64> {
    let cannot = || format!("cannot write {}", path.display());
    let file = File::create(path).with_context(cannot)?;
    let mut writer = Writer::new(BufWriter::new(file));
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    for (name, content) in metadata {
        let name = Name::parse(&format!("metadata/{name}"))
            .with_context(|| format!("{name:?} can't be put into an archive"))?;
        writer.add(&name, length(content), &content[..])?;
    }
    writer.add(&Name::Manifest(target.digest()), length(target.bytes()), target.bytes())?;
    let mut blobs: Vec<&BlobRef> = Vec::new();
    for blob in manifest.all_blobs() {
        if !blobs.contains(&blob) {
            blobs.push(blob);
        }
    }
    for blob in blobs {
        let content = download(client, blob).await.with_context(|| format!("blob {}", blob.digest))?;
        writer.add(&Name::Blob(blob.digest), blob.size_bytes, content)?;
    }
    let file = writer.finish()?.into_inner().with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    Ok(file.metadata().with_context(cannot)?.len())
}

/// A blob on this machine's disk, verified.
async fn download(client: &Client, blob: &BlobRef) -> Result<File> {
    let path = client.in_project(&format!("/blobs/{}", blob.digest));
    let mut response = client.send(client.request(Method::GET, &path)).await?;
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    let (mut hash, mut got) = (Sha256::new(), 0_u64);
    while let Some(chunk) = response.chunk().await.context("the blob broke off")? {
        got = got.saturating_add(u64::try_from(chunk.len())?);
        if got > blob.size_bytes {
            bail!("the server gave more than the signed {} bytes", blob.size_bytes);
        }
        hash.update(&chunk);
        file.write_all(&chunk).context("cannot write a temporary file")?;
    }
    blob.verify_digest(protocol::Digest::from_bytes(hash.finalize().into()))?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::repo::{self, RootBuilder, TargetsBuilder};
    use trust::{Ed25519Signer, Signer};

    use super::*;

    const NEVER: UnixMillis = UnixMillis(4_000_000_000_000);
    const TARGET: &str = "director.json";

    fn key(n: u8) -> Ed25519Signer {
        Ed25519Signer::from_seed(&[n; 32])
    }

    /// A server whose every role `holder` has signed, root as often as `roots` says.
    fn server(holder: u8, roots: u64) -> Files {
        let all = ["root", "targets", "snapshot", "timestamp"];
        let (holder, mut files) = (key(holder), Files::new());
        let signer: &[&dyn Signer] = &[&holder];
        let mut root = RootBuilder::new(NEVER);
        for version in 1..=roots {
            root = all.into_iter().fold(root, |root, role| root.role(role, &[holder.public_key()], 1));
            let bytes = root.sign(signer).unwrap();
            root = RootBuilder::resume(&bytes, NEVER).unwrap();
            files.insert(root_name(version), bytes);
        }
        let targets = TargetsBuilder::new(NEVER).target(TARGET, b"{}", None).sign(signer).unwrap();
        let snapshot = repo::snapshot(1, NEVER, [("targets", targets.as_slice())], signer).unwrap();
        let timestamp = repo::timestamp(1, NEVER, &snapshot, UnixMillis(0), signer).unwrap();
        files.insert("timestamp.json".into(), timestamp);
        files.extend([("1.snapshot.json".into(), snapshot), ("1.targets.json".into(), targets)]);
        files
    }

    async fn exported(server: &Files, root: &[u8], known: Option<&[u8]>) -> Result<Files> {
        let fetch = async |name: &str| -> Result<Option<Vec<u8>>> { Ok(server.get(name).cloned()) };
        let kept = |role: &str| -> Result<Option<Vec<u8>>> {
            Ok(known.filter(|_| role == "root").map(<[u8]>::to_vec))
        };
        Ok(metadata(fetch, root.to_vec(), kept, TARGET).await?.0)
    }

    #[tokio::test]
    async fn k2_an_archive_is_made_from_the_pinned_root_and_not_from_the_servers() {
        let (ours, theirs) = (server(1, 3), server(2, 3));
        let pinned = &ours["1.root.json"];
        assert_eq!(exported(&ours, pinned, None).await.unwrap(), ours);
        let error = format!("{:#}", exported(&theirs, pinned, None).await.unwrap_err());
        assert!(error.contains("root of this key folder") && error.contains("A1"), "{error}");
        // A server that went back behind what this folder knows.
        let mut older = server(1, 2);
        older.retain(|name, _| name != "3.root.json");
        let error = exported(&older, pinned, Some(&ours["3.root.json"])).await.unwrap_err().to_string();
        assert!(error.contains("root version 2") && error.contains("knows version 3"), "{error}");
    }

    #[tokio::test]
    async fn roots_before_the_pinned_one_come_along_for_devices_that_were_enrolled_with_them() {
        let mut ours = server(1, 4);
        let pinned = ours["3.root.json"].clone();
        assert_eq!(exported(&ours, &pinned, None).await.unwrap(), ours);
        ours.insert("1.root.json".into(), server(2, 1)["1.root.json"].clone());
        let error = exported(&ours, &pinned, None).await.unwrap_err().to_string();
        assert!(error.contains("1.root.json of the server does not vouch"), "{error}");
        ours.remove("1.root.json");
        let error = exported(&ours, &pinned, None).await.unwrap_err().to_string();
        assert!(error.contains("doesn't have 1.root.json"), "{error}");
    }
}
