//! The manifest as JSON. Private: only checked manifests leave this crate. Unknown fields are ignored, unknown
//! formats are refused by name.

use std::collections::BTreeMap;

use protocol::{Counter, ModelName, ReleaseRef, Version};
use serde::Deserialize;

use crate::agent_version::AgentVersion;
use crate::blob::BlobRef;
use crate::check::{Bounds, ManifestError};
use crate::manifest::{Budgets, Hardware, Manifest, Privacy, Probation, Runtime, TensorSpec, Variant};
use crate::monitor::Monitor;
use crate::steps::{PostStep, PreStep};

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Wire {
    model: ModelName,
    version: Version,
    counter: Counter,
    created: String,
    min_agent_version: AgentVersion,
    #[serde(default)]
    min_counter: Counter,
    #[serde(default)]
    hardware: Hardware,
    runtime: Runtime,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    #[serde(default)]
    pre: Vec<PreStep>,
    #[serde(default)]
    post: Vec<PostStep>,
    variants: Vec<Variant>,
    #[serde(default)]
    labels: Vec<String>,
    reference: BlobRef,
    golden: BlobRef,
    card: BlobRef,
    #[serde(default)]
    monitor: Option<Monitor>,
    budgets: Budgets,
    probation: Probation,
    #[serde(default)]
    fallback: Vec<ReleaseRef>,
    #[serde(default)]
    privacy: Privacy,
    #[serde(default)]
    lineage: BTreeMap<String, String>,
}

/// Parses and checks every bound.
pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let bounds = Bounds::default();
    if bytes.len() > bounds.manifest_bytes {
        return Err(ManifestError::TooLong { max_bytes: bounds.manifest_bytes });
    }
    trust::json::check_document(bytes, bounds.json_depth).map_err(ManifestError::Json)?;
    let Format { format } = serde_json::from_slice(bytes).map_err(ManifestError::Format)?;
    if format != crate::FORMAT {
        return Err(ManifestError::UnknownFormat { format });
    }
    let wire: Wire = serde_json::from_slice(bytes).map_err(ManifestError::Format)?;
    let manifest = from_wire(wire)?;
    bounds.check(&manifest)?;
    Ok(manifest)
}

fn from_wire(wire: Wire) -> Result<Manifest, ManifestError> {
    let created = trust::parse_rfc3339(&wire.created).ok_or_else(|| {
        ManifestError::bound("created", "a time such as 2026-01-31T12:00:00Z", &wire.created)
    })?;
    Ok(Manifest {
        format: crate::FORMAT,
        model: wire.model,
        version: wire.version,
        counter: wire.counter,
        created,
        min_agent_version: wire.min_agent_version,
        min_counter: wire.min_counter,
        hardware: wire.hardware,
        runtime: wire.runtime,
        inputs: wire.inputs,
        outputs: wire.outputs,
        pre: wire.pre,
        post: wire.post,
        variants: wire.variants,
        labels: wire.labels,
        reference: wire.reference,
        golden: wire.golden,
        card: wire.card,
        monitor: wire.monitor,
        budgets: wire.budgets,
        probation: wire.probation,
        fallback: wire.fallback,
        privacy: wire.privacy,
        lineage: wire.lineage,
    })
}
