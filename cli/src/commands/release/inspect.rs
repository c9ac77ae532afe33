//! Showing a release, from a folder or from the server.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::Context;
use crate::folder::ReleaseFolder;
use crate::metadata::claims;
use crate::output::{Format, bytes, facts, items, table, text};

/// A folder, with who signed it until when.
///
/// # Errors
/// When it is no release folder or a blob was changed.
pub(crate) fn folder(path: &Path, format: Format) -> Result<()> {
    let folder = ReleaseFolder::at(path);
    let manifest = folder.manifest()?;
    for blob in manifest.all_blobs() {
        folder.blob(blob)?;
    }
    let mut signatures = Vec::new();
    for (role, content) in folder.metadata()? {
        let claims = claims(&content)?;
        for key in claims.signers {
            let until = trust::format_rfc3339(claims.expires);
            signatures
                .push(json!({ "role": role, "version": claims.version, "key_id": key, "expires_at": until }));
        }
    }
    let said = json!({
        "model": manifest.model, "version": manifest.version, "counter": manifest.counter,
        "digest": manifest.digest(), "manifest": manifest_json(&manifest), "signatures": signatures,
    });
    format.print(&said, show)
}

fn manifest_json(manifest: &release::DraftManifest) -> Value {
    serde_json::from_slice(manifest.bytes()).unwrap_or_default()
}

/// A release that is published.
///
/// # Errors
/// What the server refused.
pub(crate) async fn server(context: &Context, model: &str, version: &str) -> Result<()> {
    let found = context.client.get(&format!("/models/{model}/releases/{version}")).await?;
    context.format.print(&found, show)
}

fn show(said: &Value) -> String {
    let manifest = &said["manifest"];
    let fallback: Vec<String> = items(&manifest["fallback"]).iter().map(|f| text(f, "/version")).collect();
    let head = facts(&[
        ("model", text(said, "/model")),
        ("version", text(said, "/version")),
        ("counter", text(said, "/counter")),
        ("digest", text(said, "/digest")),
        ("created", text(manifest, "/created")),
        ("needs agent", text(manifest, "/min_agent_version")),
        (
            "runtime",
            format!("tract {}, opset {}", text(manifest, "/runtime/tract"), text(manifest, "/runtime/opset")),
        ),
        ("fence", text(manifest, "/min_counter")),
        ("may go back to", fallback.join(", ")),
    ]);
    let variant = |v: &Value| {
        let size = v.pointer("/model/size_bytes").and_then(Value::as_u64).unwrap_or_default();
        vec![
            text(v, "/name"),
            text(v, "/precision"),
            bytes(size),
            bytes(v["peak_memory_bytes"].as_u64().unwrap_or_default()),
            text(v, "/accuracy"),
        ]
    };
    let variants = items(&manifest["variants"]).iter().map(variant).collect();
    let signature = |s: &Value| {
        let until = s.get("expires_at").unwrap_or(&said["metadata_expires_at"]);
        vec![text(s, "/role"), crate::metadata::short(&text(s, "/key_id")), text(until, "")]
    };
    let signatures = items(&said["signatures"]).iter().map(signature).collect();
    format!(
        "{head}\n{}\n\n{}",
        table(&["variant", "precision", "size", "peak memory", "accuracy"], variants, "no variant"),
        table(&["signed by role", "key", "until"], signatures, "not signed"),
    )
}
