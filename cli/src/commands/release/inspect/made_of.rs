//! What the variants of a published release are made of: parameters and multiply-adds. It is the same on every device,
//! so it is worked out here, from the very files.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use inference::{Model, Spec};
use release::{BlobRef, DraftManifest};
use serde_json::{Value, json};

use super::super::within;
use crate::client::Client;
use crate::metadata::get;
use crate::output::text;

/// Parameters, multiply-adds and FLOPs by variant.
///
/// # Errors
/// When the release's manifest or a model can't be had, isn't what its digest says, or is no model.
pub(super) async fn count(
    client: &Client,
    release: &Value,
    time_limit: u64,
) -> Result<BTreeMap<String, Value>> {
    let digest = text(release, "/digest");
    let bytes = fetch(client, &format!("/targets/{digest}"), trust::Limits::default().targets_bytes).await?;
    let is_it = BlobRef::of(&bytes, "").digest.to_string() == digest;
    ensure!(is_it, "the server's manifest isn't the one that its digest says");
    let manifest = DraftManifest::parse_unsigned(&bytes).context("the manifest is not acceptable")?;
    let mut found = BTreeMap::new();
    for variant in &manifest.variants {
        let blob = &variant.model;
        let onnx = fetch(client, &format!("/blobs/{}", blob.digest), blob.size_bytes).await?;
        blob.verify(&onnx)?;
        let (spec, limit) = (Spec::of(&manifest)?, Duration::from_secs(time_limit));
        let counting = move || Model::makeup(&onnx, &spec);
        let makeup = within::limit("counting what it is made of", limit, counting)?
            .with_context(|| format!("variant {}", variant.name))?;
        let flops = makeup.macs.map(|macs| macs.saturating_mul(2));
        let counted = json!({ "parameters": makeup.parameters, "macs": makeup.macs, "flops": flops });
        found.insert(variant.name.clone(), counted);
    }
    Ok(found)
}

async fn fetch(client: &Client, path: &str, max: u64) -> Result<Vec<u8>> {
    get(client, path, max).await?.with_context(|| format!("the server doesn't have {path}"))
}
