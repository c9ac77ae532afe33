//! `release.toml`: what a publisher writes down about a release. Paths are relative to the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use protocol::{Counter, ModelName, ReleaseRef, Version};
use release::{
    AgentVersion, Budgets, Hardware, Monitor, PostStep, PreStep, Precision, Privacy, Probation, Runtime,
    TensorSpec,
};
use serde::Deserialize;

use crate::oms::SignedModel;

/// A release as its publisher describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseSpec {
    /// Which model.
    pub(crate) model: ModelName,
    /// Its version as people write it.
    pub(crate) version: Version,
    /// Its counter within the model.
    pub(crate) counter: Counter,
    /// Oldest agent that can run it.
    pub(crate) min_agent_version: AgentVersion,
    /// Fence: lower counters are never accepted again.
    #[serde(default)]
    pub(crate) min_counter: Counter,
    /// Hardware that all variants need.
    #[serde(default)]
    pub(crate) hardware: Hardware,
    /// The runtime that it was tried with.
    pub(crate) runtime: Runtime,
    /// What applications send.
    pub(crate) inputs: Vec<TensorSpec>,
    /// What they get.
    pub(crate) outputs: Vec<TensorSpec>,
    /// Steps before the model.
    #[serde(default)]
    pub(crate) pre: Vec<PreStep>,
    /// Steps after the model.
    #[serde(default)]
    pub(crate) post: Vec<PostStep>,
    /// Builds of the release, the preferred one first.
    pub(crate) variants: Vec<VariantSpec>,
    /// Class names.
    #[serde(default)]
    pub(crate) labels: Vec<String>,
    /// Profile of the training data.
    pub(crate) reference: PathBuf,
    /// Samples with their right answers.
    pub(crate) golden: PathBuf,
    /// The model card.
    pub(crate) card: PathBuf,
    /// What the device profiles.
    #[serde(default)]
    pub(crate) monitor: Option<Monitor>,
    /// What it may cost on the device.
    pub(crate) budgets: Budgets,
    /// How it is watched after activation.
    pub(crate) probation: Probation,
    /// Releases to which a device may go back.
    #[serde(default)]
    pub(crate) fallback: Vec<Fallback>,
    /// What may leave the device.
    #[serde(default)]
    pub(crate) privacy: Privacy,
    /// Where it comes from.
    #[serde(default)]
    pub(crate) lineage: BTreeMap<String, String>,
    /// A third party's model that this release comes from, with its OpenSSF model signature.
    #[serde(default)]
    pub(crate) signed_model: Option<SignedModel>,
}

/// One build of the release.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VariantSpec {
    /// Its name.
    pub(crate) name: String,
    /// How its numbers are kept.
    pub(crate) precision: Precision,
    /// The ONNX file.
    pub(crate) file: PathBuf,
    /// What it needs beyond what the release needs.
    #[serde(default)]
    pub(crate) hardware: Hardware,
    /// Memory that loading and running it takes at most.
    pub(crate) peak_memory_bytes: u64,
    /// Accuracy on held-out data.
    #[serde(default)]
    pub(crate) accuracy: Option<f64>,
}

/// A release to which a device may go back.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Fallback {
    /// By version: found among the releases built beside this one, else on the server.
    Version(Version),
    /// Exactly.
    Exact(ReleaseRef),
}

impl ReleaseSpec {
    /// Reads a spec.
    ///
    /// # Errors
    /// When it can't be read or a field is wrong; the message names line and field.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a release spec", path.display()))
    }
}
