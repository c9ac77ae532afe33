//! Publishing: missing blobs first, then metadata and manifest in one step.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use release::{BlobRef, DraftManifest};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::super::Context;
use crate::client::{Client, ClientError};
use crate::expired;
use crate::folder::ReleaseFolder;
use crate::keyring::Keyring;
use crate::metadata::kept_name;
use crate::output::{bytes, facts, text};

/// Publishes a signed release folder. May be repeated: what the server has is not sent again.
///
/// # Errors
/// When the folder isn't signed, or the server refuses.
pub(crate) async fn run(context: &Context, path: &Path) -> Result<()> {
    let client = &context.client;
    let folder = ReleaseFolder::at(path);
    let manifest = folder.manifest()?;
    let metadata = folder.metadata()?;
    if !metadata.iter().any(|(role, _)| role == manifest.model.as_str()) {
        bail!("{} is not signed yet; sign it with: flotilla release sign {0}", path.display());
    }
    let sent_bytes = upload_missing(client, &folder, &manifest).await?;
    let file = |name: &str, content: &[u8]| json!({ "name": name, "content": STANDARD.encode(content) });
    let body = json!({
        "metadata": metadata.iter().map(|(role, content)| file(role, content)).collect::<Vec<_>>(),
        "targets": [file(&manifest.target_path(), manifest.bytes())],
    });
    let published = client.post("/publications", &body).await.map_err(|error| advise(error, path))?;
    let keyring = Keyring::of(client.project())?;
    for (role, content) in &metadata {
        keyring.keep(&kept_name(role), content)?;
    }
    let said = json!({
        "model": manifest.model, "version": manifest.version, "digest": manifest.digest(),
        "counter": manifest.counter, "uploaded_bytes": sent_bytes,
        "snapshot_version": published["snapshot_version"], "timestamp_version": published["timestamp_version"],
        "is_new": published["is_new"],
    });
    context.format.print(&said, |said: &Value| {
        let word = if said["is_new"] == false { "published before" } else { "published" };
        facts(&[
            (word, format!("{} {}", text(said, "/model"), text(said, "/version"))),
            ("digest", text(said, "/digest")),
            ("uploaded", bytes(sent_bytes)),
            ("snapshot", text(said, "/snapshot_version")),
        ])
    })
}

fn advise(error: ClientError, path: &Path) -> anyhow::Error {
    if let Some(advice) = expired::of_refusal(&error) {
        return anyhow::Error::from(error).context(format!("not published: {advice}"));
    }
    let is_untrusted = matches!(&error, ClientError::Refused { code, .. } if code == "untrusted");
    let is_conflict = matches!(
        &error,
        ClientError::Refused { code, .. } if matches!(code.as_str(), "version_exists" | "stale_metadata")
    );
    let error = anyhow::Error::from(error);
    if is_untrusted {
        let files = path.join("metadata");
        return error.context(format!(
            "not published; where others must sign too, they run: flotilla sign --add FILE for the files in {}",
            files.display()
        ));
    }
    if is_conflict {
        return error
            .context("something else was published since this was signed; sign it again, then publish");
    }
    error
}

/// Returns how many bytes were sent.
async fn upload_missing(client: &Client, folder: &ReleaseFolder, manifest: &DraftManifest) -> Result<u64> {
    let mut missing: Vec<&BlobRef> = Vec::new();
    for blob in manifest.all_blobs() {
        folder.blob(blob)?;
        if !missing.contains(&blob) && !has(client, blob).await? {
            missing.push(blob);
        }
    }
    let total = missing.iter().map(|blob| blob.size_bytes).sum();
    let bar = progress(total);
    for blob in missing {
        upload(client, folder, blob, &bar).await?;
    }
    bar.finish_and_clear();
    Ok(total)
}

async fn has(client: &Client, blob: &BlobRef) -> Result<bool> {
    match client.send(client.request(Method::HEAD, &blob_path(client, blob))).await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { status: 404, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn upload(client: &Client, folder: &ReleaseFolder, blob: &BlobRef, bar: &ProgressBar) -> Result<()> {
    let path = folder.blob_path(blob);
    let file =
        tokio::fs::File::open(&path).await.with_context(|| format!("cannot read {}", path.display()))?;
    let body = Body::wrap_stream(ReaderStream::new(bar.wrap_async_read(file)));
    let request = client
        .request(Method::PUT, &blob_path(client, blob))
        .header("content-length", blob.size_bytes)
        .header("content-type", "application/octet-stream")
        .body(body);
    client.send(request).await.with_context(|| format!("blob {} was not taken", blob.digest))?;
    Ok(())
}

fn blob_path(client: &Client, blob: &BlobRef) -> String {
    client.in_project(&format!("/blobs/{}", blob.digest))
}

fn progress(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
