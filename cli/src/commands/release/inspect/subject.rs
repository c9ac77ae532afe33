//! What is inspected: a spec with its files, or a built release folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use inference::Spec;
use protocol::Digest;
use release::{BlobRef, Budgets, PostStep, PreStep, Precision, TensorSpec};
use serde_json::{Value, json};

use crate::folder::ReleaseFolder;
use crate::spec::ReleaseSpec;

/// A release before it is published.
pub(crate) struct Subject {
    /// Signature, steps and labels.
    pub(crate) spec: Spec,
    /// What it may cost on a device.
    pub(crate) budgets: Budgets,
    /// Digest of signature, steps and labels: with others, a model answers otherwise.
    signature: Digest,
    /// Its golden samples.
    golden: PathBuf,
    /// Its builds.
    pub(crate) variants: Vec<Candidate>,
}

/// One build of it.
pub(crate) struct Candidate {
    /// Its name, e.g. `int8`.
    pub(crate) name: String,
    /// How its numbers are kept.
    pub(crate) precision: Precision,
    /// The ONNX file.
    file: PathBuf,
    /// Memory that its publisher says it takes.
    pub(crate) peak_memory_bytes: u64,
    /// Accuracy as its publisher wrote it down.
    pub(crate) accuracy: Option<f64>,
}

impl Subject {
    /// A spec is a file, a built release a folder.
    ///
    /// # Errors
    /// When it is neither, or a blob was changed.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        if path.is_file() { Self::of_spec(path) } else { Self::of_folder(path) }
    }

    fn of_spec(path: &Path) -> Result<Self> {
        let spec = ReleaseSpec::read(path)?;
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        let variants = spec.variants.iter().map(|variant| Candidate {
            name: variant.name.clone(),
            precision: variant.precision,
            file: base.join(&variant.file),
            peak_memory_bytes: variant.peak_memory_bytes,
            accuracy: variant.accuracy,
        });
        Ok(Self {
            spec: Spec::from_parts(&spec.inputs, &spec.outputs, &spec.pre, &spec.post, &spec.labels)?,
            signature: signature((&spec.inputs, &spec.outputs), (&spec.pre, &spec.post), &spec.labels)?,
            budgets: spec.budgets,
            golden: base.join(&spec.golden),
            variants: variants.collect(),
        })
    }

    fn of_folder(path: &Path) -> Result<Self> {
        let folder = ReleaseFolder::at(path);
        let manifest = folder.manifest()?;
        for blob in manifest.all_blobs() {
            folder.blob(blob)?;
        }
        let variants = manifest.variants.iter().map(|variant| Candidate {
            name: variant.name.clone(),
            precision: variant.precision,
            file: folder.blob_path(&variant.model),
            peak_memory_bytes: variant.peak_memory_bytes,
            accuracy: variant.accuracy,
        });
        Ok(Self {
            spec: Spec::of(&manifest)?,
            signature: signature(
                (&manifest.inputs, &manifest.outputs),
                (&manifest.pre, &manifest.post),
                &manifest.labels,
            )?,
            budgets: manifest.budgets,
            golden: folder.blob_path(&manifest.golden),
            variants: variants.collect(),
        })
    }

    /// The golden samples' file.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn golden(&self) -> Result<Vec<u8>> {
        fs::read(&self.golden).with_context(|| format!("cannot read {}", self.golden.display()))
    }

    /// What a measurement depends on: it holds only where all of this is still the same.
    pub(crate) fn fingerprint(&self, onnx: &[u8], golden: &[u8]) -> Value {
        let sha256 = |bytes| BlobRef::of(bytes, "").digest;
        json!({ "model": sha256(onnx), "golden": sha256(golden), "signature": self.signature })
    }

    /// A variant by name, with its file.
    ///
    /// # Errors
    /// When there is none, or its file can't be read.
    pub(crate) fn variant(&self, name: &str) -> Result<(&Candidate, Vec<u8>)> {
        let Some(found) = self.variants.iter().find(|variant| variant.name == name) else {
            let known: Vec<&str> = self.variants.iter().map(|variant| variant.name.as_str()).collect();
            bail!("there is no variant {name:?}; there are: {}", known.join(", "));
        };
        let bytes = fs::read(&found.file).with_context(|| format!("cannot read {}", found.file.display()))?;
        Ok((found, bytes))
    }
}

fn signature(
    (inputs, outputs): (&[TensorSpec], &[TensorSpec]),
    (pre, post): (&[PreStep], &[PostStep]),
    labels: &[String],
) -> Result<Digest> {
    let said = serde_json::to_vec(&(inputs, outputs, pre, post, labels))?;
    Ok(BlobRef::of(&said, "").digest)
}
