//! The manifest: everything that a device may believe about a release.

use std::collections::BTreeMap;

use protocol::{Counter, Digest, ModelName, ReleaseRef, UnixMillis, Version};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use trust::{TargetBytes, Verified};

use crate::agent_version::AgentVersion;
use crate::agreement;
use crate::blob::BlobRef;
use crate::check::ManifestError;
use crate::monitor::Monitor;
use crate::steps::{PostStep, PreStep};
use crate::wire;

/// One release. It has no `Deserialize`: a device gets one by [`Manifest::parse`] or [`Manifest::reopen`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Version of the format, [`FORMAT`](crate::FORMAT).
    pub format: u32,
    /// Which model.
    pub model: ModelName,
    /// Its version as people write it.
    pub version: Version,
    /// Its counter within the model; what is committed never falls.
    pub counter: Counter,
    /// When it was built; whole seconds.
    #[serde(serialize_with = "as_rfc3339")]
    pub created: UnixMillis,
    /// Oldest agent that can run it.
    pub min_agent_version: AgentVersion,
    /// Fence: once committed, no release of the model with a lower counter is ever accepted again.
    pub min_counter: Counter,
    /// Hardware that all variants need.
    pub hardware: Hardware,
    /// The runtime that it was tried with.
    pub runtime: Runtime,
    /// What applications send.
    pub inputs: Vec<TensorSpec>,
    /// What they get.
    pub outputs: Vec<TensorSpec>,
    /// Steps before the model.
    pub pre: Vec<PreStep>,
    /// Steps after the model.
    pub post: Vec<PostStep>,
    /// Builds of the release, the preferred one first.
    pub variants: Vec<Variant>,
    /// Class names, by class number.
    pub labels: Vec<String>,
    /// The model's profile on its training data.
    pub reference: BlobRef,
    /// Samples with their right answers, tried on the device.
    pub golden: BlobRef,
    /// The model card.
    pub card: BlobRef,
    /// What the device profiles; nothing of the input without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Monitor>,
    /// What it may cost on the device.
    pub budgets: Budgets,
    /// How it is watched after activation.
    pub probation: Probation,
    /// Releases that a device may go back to from this one.
    pub fallback: Vec<ReleaseRef>,
    /// What may leave the device.
    pub privacy: Privacy,
    /// Where it comes from, for people.
    pub lineage: BTreeMap<String, String>,
}

/// Hardware that is needed; an empty list asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hardware {
    /// One of these architectures.
    pub arch: Vec<String>,
    /// All of these CPU features.
    pub cpu_features: Vec<String>,
    /// One of these hardware classes.
    pub class: Vec<String>,
}

/// The runtime that a release was tried with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// `major.minor` of tract.
    pub tract: String,
    /// ONNX opset.
    pub opset: u32,
}

/// Element types, by their Open Inference Protocol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// Boolean.
    Bool,
    /// Unsigned 8 bit.
    Uint8,
    /// Unsigned 16 bit.
    Uint16,
    /// Unsigned 32 bit.
    Uint32,
    /// Unsigned 64 bit.
    Uint64,
    /// Signed 8 bit.
    Int8,
    /// Signed 16 bit.
    Int16,
    /// Signed 32 bit.
    Int32,
    /// Signed 64 bit.
    Int64,
    /// Half precision.
    Fp16,
    /// Single precision.
    Fp32,
    /// Double precision.
    Fp64,
    /// Text.
    Bytes,
}

impl Datatype {
    /// Its Open Inference Protocol name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

/// One input or output as applications see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its dimensions; -1 in first place is the batch.
    pub shape: Vec<i64>,
}

/// How numbers are kept in a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 8-bit integers.
    Int8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

/// One build of the release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name, e.g. `int8`.
    pub name: String,
    /// How its numbers are kept.
    pub precision: Precision,
    /// The ONNX file.
    pub model: BlobRef,
    /// What it needs beyond what the release needs.
    #[serde(default)]
    pub hardware: Hardware,
    /// Memory that loading and running it takes at most.
    pub peak_memory_bytes: u64,
    /// Accuracy on held-out data as the publisher measured it, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// What a release may cost on the device; checked by the self-test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// 95th percentile of one inference, in microseconds.
    pub latency_p95_us: u64,
    /// Memory that loading adds, in bytes.
    pub memory_bytes: u64,
}

/// How a release is watched after activation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probation {
    /// At least so long, in seconds.
    pub duration_s: u64,
    /// More failed requests than this and it is rolled back; 0 to 100.
    pub max_error_percent: f64,
    /// A slower 95th percentile than this and it is rolled back, in microseconds.
    pub max_p95_us: u64,
    /// Requests that must have been answered before it may be committed; 0 asks none.
    #[serde(default)]
    pub min_requests: u64,
}

/// What may leave the device beside counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Privacy {
    /// Whether inputs themselves may be sent, when an operator asks.
    pub may_send_samples: bool,
    /// Panes with fewer rows than this stay on the device and merge into later ones.
    pub min_pane_rows: u32,
    /// Days after which the server deletes samples; it may be set to keep them shorter, never longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_days: Option<u16>,
}

impl Default for Privacy {
    fn default() -> Self {
        Self { may_send_samples: false, min_pane_rows: 1, sample_days: None }
    }
}

impl Manifest {
    /// Reads a verified target: parses, checks every bound, that it agrees with itself, and that it lies at its own path.
    ///
    /// # Errors
    /// [`ManifestError`] by cause.
    pub fn parse(target: &Verified<TargetBytes>) -> Result<Verified<Self>, ManifestError> {
        target.read(|target| {
            let manifest = wire::parse(target.bytes())?;
            agreement::check(&manifest)?;
            let path = manifest.target_path();
            if path == target.path() {
                return Ok(manifest);
            }
            Err(ManifestError::WrongPlace { path, got: target.path().to_owned() })
        })
    }

    /// Reads a manifest again that was verified when it was staged; `recorded` comes from the boot record.
    /// The result can serve but not be staged; what it says twice is not compared again.
    ///
    /// # Errors
    /// [`ManifestError::Digest`] when the bytes are others.
    pub fn reopen(bytes: &[u8], recorded: Digest) -> Result<Self, ManifestError> {
        let got = Digest::from_bytes(Sha256::digest(bytes).into());
        if got != recorded {
            return Err(ManifestError::Digest { expected: recorded, got });
        }
        wire::parse(bytes)
    }

    /// The path of its target: `models/<model>/<version>/manifest.json`.
    pub fn target_path(&self) -> String {
        target_path(&self.model, &self.version)
    }

    /// Checks that Desired and the manifest speak of the same release (attack M2).
    ///
    /// # Errors
    /// [`ManifestError::Disagrees`] names what differs.
    pub fn agrees_with(
        &self,
        model: &ModelName,
        release: &ReleaseRef,
        digest: Digest,
    ) -> Result<(), ManifestError> {
        let differs = [
            (self.model != *model, "model"),
            (self.version != release.version, "version"),
            (self.counter != release.counter, "counter"),
            (digest != release.digest, "digest"),
        ];
        match differs.iter().find(|(differs, _)| *differs) {
            Some((_, what)) => Err(ManifestError::Disagrees { what, release: release.clone() }),
            None => Ok(()),
        }
    }

    /// What a device that runs `variant` must hold, nothing else.
    pub fn blobs_for<'a>(&'a self, variant: &'a Variant) -> impl Iterator<Item = &'a BlobRef> {
        [&variant.model, &self.reference, &self.golden, &self.card].into_iter()
    }

    /// Every blob that the release names.
    pub fn all_blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.variants.iter().map(|v| &v.model).chain([&self.reference, &self.golden, &self.card])
    }

    /// A variant by name.
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|v| v.name == name)
    }
}

/// The path of a release's target.
pub fn target_path(model: &ModelName, version: &Version) -> String {
    format!("models/{model}/{version}/manifest.json")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn as_rfc3339<S: Serializer>(at: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&trust::format_rfc3339(*at))
}
