//! `flotilla export`: one file that brings a release to devices without a network.
//!
//! The signed chain is walked here as a device walks it, so that an archive that was written would be accepted by a
//! device that trusts this project's first root, as long as its metadata is fresh. It holds no secret.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use protocol::{ModelName, Version};
use release::archive::{Name, Writer};
use release::{BlobRef, Manifest};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use trust::{Limits, Reply, Repository, Session, Step, Stored, TargetBytes, TargetInfo, Verified};

use super::Context;
use crate::client::{Client, ClientError};
use crate::metadata::{bounded, now};
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
}

/// Writes the archive; a file that stands there is replaced only when all went well.
///
/// # Errors
/// When the server lacks something, or what it has is not rightly signed.
pub(crate) async fn run(context: &Context, args: &Args) -> Result<()> {
    let client = &context.client;
    is_published(client, args).await?;
    let path = release::target_path(&args.model, &args.version);
    let (metadata, repository) = walk(client, &path).await?;
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
    let content = get(client, &format!("/targets/{digest}")).await?;
    let content = content.with_context(|| format!("the server doesn't have {}", info.path()))?;
    Ok(info.verify(content)?)
}

/// Everything that a device with the first root needs to see, and what it would then trust.
async fn walk(client: &Client, target: &str) -> Result<(BTreeMap<String, Vec<u8>>, Repository)> {
    let root = fetch(client, "1.root.json").await?.context("the project has no root of trust yet")?;
    let mut files = BTreeMap::from([("1.root.json".to_owned(), root.clone())]);
    let mut session = Session::new(Stored::new(root), [target], now()?, &Limits::default())?;
    loop {
        match session.next()? {
            Step::Need(need) => match fetch(client, &need.path).await? {
                Some(content) => {
                    files.insert(need.path, content.clone());
                    session.feed(Reply::Bytes(content))?;
                }
                None => session.feed(Reply::NotFound)?,
            },
            Step::Persist(_) | Step::Forget(_) => {}
            Step::Done(accepted) => return Ok((files, accepted.repository)),
        }
    }
}

async fn fetch(client: &Client, file: &str) -> Result<Option<Vec<u8>>> {
    get(client, &format!("/metadata/{file}")).await
}

async fn get(client: &Client, path: &str) -> Result<Option<Vec<u8>>> {
    let path = client.in_project(path);
    match client.send(client.request(Method::GET, &path)).await {
        Ok(response) => Ok(Some(bounded(response, trust::Limits::default().targets_bytes).await?)),
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn write(
    client: &Client,
    path: &Path,
    metadata: &BTreeMap<String, Vec<u8>>,
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
