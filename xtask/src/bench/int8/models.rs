//! The models, made into the user's cache folder by `examples/bench-models/make.py`; made again when it changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::{prepare, program, root};
use crate::tools;

/// The nets, as the script names them.
pub(super) const NETS: [&str; 5] = ["mobilenet_v1", "mobilenet_v2", "resnet18", "mlp", "conv1d"];

/// What the script is made of.
const SCRIPTS: [&str; 5] = ["make.py", "nets.py", "variants.py", "data.py", "requirements.txt"];

/// The engine that making the models doesn't need.
const OPTIONAL: &str = "openvino";

/// Folder of the scripts.
pub(super) fn scripts() -> PathBuf {
    root().join("examples/bench-models")
}

/// A Python with the packages that `requirements.txt` pins; without [`OPTIONAL`] where there is none of it.
///
/// # Errors
/// When one can't be installed.
pub(in crate::bench) fn python() -> Result<PathBuf> {
    let packages = requirements()?;
    let all: Vec<&str> = packages.iter().map(String::as_str).collect();
    let needed: Vec<&str> = all.iter().filter(|line| !line.starts_with(OPTIONAL)).copied().collect();
    let env = tools::python_env("bench-int8", &all).or_else(|e| {
        eprintln!("going on without {OPTIONAL}: {e:#}");
        tools::python_env("bench-int8-needed", &needed)
    });
    Ok(env?.join("python3"))
}

/// The packages and their versions.
///
/// # Errors
/// When the file can't be read.
pub(super) fn requirements() -> Result<Vec<String>> {
    let file = scripts().join("requirements.txt");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The folder that the script filled.
pub(in crate::bench) struct Models {
    pub(in crate::bench) folder: PathBuf,
    index: Value,
}

impl Models {
    /// Makes the models, unless they were made by this very script.
    ///
    /// # Errors
    /// When the script fails.
    pub(in crate::bench) fn ensure(python: &Path) -> Result<Self> {
        let folder = tools::cache_folder()?.join("bench-models");
        let stamp = folder.join("made-by.txt");
        let wanted = script_text()?;
        if !std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            eprintln!("making the models in {}", folder.display());
            let mut command = program(&python.to_string_lossy());
            // Results go to standard output: talk of others belongs on standard error.
            command.arg(scripts().join("make.py")).arg(&folder).stdout(std::io::stderr());
            prepare(&mut command)?;
            std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        let file = folder.join("models.json");
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let index = serde_json::from_slice(&bytes).with_context(|| format!("no JSON: {}", file.display()))?;
        Ok(Self { folder, index })
    }

    /// Multiply-accumulates of one inference.
    pub(super) fn macs(&self, net: &str) -> Result<f64> {
        self.index[net]["macs"].as_f64().with_context(|| format!("models.json knows no macs of {net}"))
    }

    /// The variants of a net that were made.
    ///
    /// # Errors
    /// When the script knows no such net.
    pub(super) fn variants(&self, net: &str) -> Result<Vec<&str>> {
        let variants = self.index[net]["variants"].as_object();
        let variants = variants.with_context(|| format!("models.json knows no variants of {net}"))?;
        Ok(variants.keys().map(String::as_str).collect())
    }

    /// What ONNX Runtime answers to the rows, and how far an answer may be from it.
    ///
    /// # Errors
    /// When the script left nothing of it.
    pub(super) fn answers(&self, net: &str, variant: &str) -> Result<(Vec<f32>, f32)> {
        let file = self.folder.join(format!("{net}.{variant}.f32"));
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let values = bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let allowed = self.index[net]["variants"][variant]["allowed"].as_f64();
        let allowed = allowed.with_context(|| format!("models.json says no bound of {net} {variant}"))?;
        #[expect(clippy::cast_possible_truncation, reason = "a bound of f32 values")]
        Ok((values, allowed as f32))
    }

    /// Size of a variant's file in MiB.
    pub(super) fn file_mib(&self, net: &str, variant: &str) -> Result<f64> {
        let bytes = self.index[net]["variants"][variant]["bytes"].as_f64();
        Ok(bytes.with_context(|| format!("models.json knows no size of {net} {variant}"))?
            / f64::from(1 << 20))
    }
}

fn script_text() -> Result<String> {
    let mut all = String::new();
    for name in SCRIPTS {
        let file = scripts().join(name);
        all += &std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(all)
}
