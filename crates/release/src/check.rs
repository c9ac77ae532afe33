//! Every bound on a manifest, in one place.

use std::collections::BTreeSet;

use protocol::{Digest, ReleaseRef};
use trust::json::JsonError;

use crate::blob::BlobRef;
use crate::flow;
use crate::manifest::{Hardware, Manifest, TensorSpec};
use crate::monitor::Monitor;
use crate::steps::{PostStep, PreStep, Words};

/// Why bytes are not an acceptable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than the bound.
    #[error("the manifest is longer than {max_bytes} bytes")]
    TooLong {
        /// The bound.
        max_bytes: usize,
    },
    /// Not bounded, duplicate-free JSON.
    #[error("the manifest is not acceptable JSON")]
    Json(#[source] JsonError),
    /// A field is missing or of another type.
    #[error("the manifest does not have the right form")]
    Format(#[source] serde_json::Error),
    /// Another format version.
    #[error("the manifest has format {format}, this build knows {known}", known = crate::FORMAT)]
    UnknownFormat {
        /// What it says.
        format: u32,
    },
    /// A value outside its bound.
    #[error("{field} must be {expected}, got {got}")]
    Bound {
        /// Which field.
        field: String,
        /// What is allowed.
        expected: String,
        /// What was given, cut.
        got: String,
    },
    /// Signed under another path than its own.
    #[error("the manifest of {path} was signed as {got}")]
    WrongPlace {
        /// Where it belongs.
        path: String,
        /// Where it was signed.
        got: String,
    },
    /// Desired and the manifest differ.
    #[error("the manifest has another {what} than the desired release {version} with counter {counter}",
        version = release.version, counter = release.counter)]
    Disagrees {
        /// What differs.
        what: &'static str,
        /// The desired release.
        release: ReleaseRef,
    },
    /// Other bytes than those recorded.
    #[error("the stored manifest has digest {got}, recorded is {expected}")]
    Digest {
        /// Recorded.
        expected: Digest,
        /// Found.
        got: Digest,
    },
}

impl ManifestError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over numbers and short texts as they are"
    )]
    pub(crate) fn bound(field: &str, expected: &str, got: impl ToString) -> Self {
        let got = got.to_string().chars().take(80).collect();
        Self::Bound { field: field.into(), expected: expected.into(), got }
    }
}

/// Bounds of a manifest: value and unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the manifest.
    pub manifest_bytes: usize,
    /// Nesting of its JSON.
    pub json_depth: usize,
    /// Bytes of one blob.
    pub blob_bytes: u64,
    /// Bytes of a name or label.
    pub name_bytes: usize,
    /// Entries of a list of names.
    pub names: usize,
    /// Class labels.
    pub labels: usize,
    /// Inputs or outputs.
    pub tensors: usize,
    /// Dimensions of a tensor.
    pub rank: usize,
    /// Elements of one row of a tensor.
    pub elements: i64,
    /// Steps before or after the model.
    pub steps: usize,
    /// Variants.
    pub variants: usize,
    /// Releases named as fallback.
    pub fallback: usize,
    /// Seconds of probation.
    pub probation_s: u64,
}

/// Nobody counts so far; every reader of JSON still gives the number exactly. A model whose counter or fence stood at
/// the end of all numbers could have no later release.
const MAX_COUNTER: u64 = 1 << 53;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            manifest_bytes: 1_000_000,
            json_depth: 12,
            blob_bytes: 4 << 30,
            name_bytes: 128,
            names: 256,
            labels: 20_000,
            tensors: 32,
            rank: 8,
            elements: 1 << 28,
            steps: 16,
            variants: 16,
            fallback: 32,
            probation_s: 30 * 86_400,
        }
    }
}

type Checked = Result<(), ManifestError>;

impl Bounds {
    /// Checks all of a manifest.
    pub(crate) fn check(&self, m: &Manifest) -> Checked {
        at_least_one("counter", m.counter.0)?;
        if m.counter.0 > MAX_COUNTER {
            return Err(ManifestError::bound("counter", "at most 2^53", m.counter));
        }
        if m.min_counter > m.counter {
            return Err(ManifestError::bound(
                "min_counter",
                "at most the release's own counter",
                m.min_counter,
            ));
        }
        self.hardware("hardware", &m.hardware)?;
        self.name("runtime.tract", &m.runtime.tract)?;
        self.tensors("inputs", &m.inputs)?;
        self.tensors("outputs", &m.outputs)?;
        self.pre(&m.pre)?;
        flow::check(&m.pre, &m.inputs, self.elements)?;
        self.post(&m.post)?;
        self.variants(m)?;
        count("labels", m.labels.len(), 0, self.labels)?;
        m.labels.iter().try_for_each(|label| self.name("labels", label))?;
        for (field, blob) in [("reference", &m.reference), ("golden", &m.golden), ("card", &m.card)] {
            self.blob(field, blob)?;
        }
        self.monitor(m)?;
        self.policy(m)?;
        self.fallback(m)?;
        self.lineage(m)
    }

    fn hardware(&self, field: &str, hardware: &Hardware) -> Checked {
        for list in [&hardware.arch, &hardware.cpu_features, &hardware.class] {
            self.names(field, list)?;
        }
        Ok(())
    }

    fn tensors(&self, field: &str, tensors: &[TensorSpec]) -> Checked {
        count(field, tensors.len(), 1, self.tensors)?;
        distinct(field, tensors.iter().map(|t| &t.name))?;
        for tensor in tensors {
            self.name(field, &tensor.name)?;
            count(&format!("{field}.{}.shape", tensor.name), tensor.shape.len(), 1, self.rank)?;
            let mut elements: i64 = 1;
            for (place, dim) in tensor.shape.iter().enumerate() {
                let is_allowed = *dim >= 1 || (*dim == -1 && place == 0);
                elements = elements.saturating_mul((*dim).max(1));
                if !is_allowed || elements > self.elements {
                    let expected = format!("positive, at most {} elements, -1 only first", self.elements);
                    return Err(ManifestError::bound(
                        &format!("{field}.{}.shape", tensor.name),
                        &expected,
                        dim,
                    ));
                }
            }
        }
        Ok(())
    }

    fn pre(&self, steps: &[PreStep]) -> Checked {
        count("pre", steps.len(), 0, self.steps)?;
        for step in steps {
            match step {
                PreStep::Scale { factor } => finite("pre.scale.factor", *factor)?,
                PreStep::Standardise { mean, std } => {
                    count("pre.standardise.mean", mean.len(), 1, self.labels)?;
                    count("pre.standardise.std", std.len(), mean.len(), mean.len())?;
                    mean.iter().try_for_each(|m| finite("pre.standardise.mean", *m))?;
                    std.iter().try_for_each(|s| positive("pre.standardise.std", *s))?;
                }
                PreStep::Clip { min, max } => ordered("pre.clip", *min, *max)?,
                PreStep::Resize { height, width, .. } => {
                    side("pre.resize.height", *height)?;
                    side("pre.resize.width", *width)?;
                }
                PreStep::Crop { height, width, .. } => {
                    side("pre.crop.height", *height)?;
                    side("pre.crop.width", *width)?;
                }
                PreStep::Channels { order, .. } => count("pre.channels.order", order.len(), 1, 16)?,
                PreStep::Impute { values } => {
                    count("pre.impute.values", values.len(), 1, self.labels)?;
                    values.iter().try_for_each(|value| finite("pre.impute.values", *value))?;
                }
                PreStep::Vocabulary { columns } => self.vocabulary(columns)?,
                PreStep::OneHot { size, .. } => {
                    count("pre.one_hot.size", usize::try_from(*size).unwrap_or(usize::MAX), 1, self.labels)?;
                }
                PreStep::Layout { .. } | PreStep::Cast { .. } => {}
            }
        }
        Ok(())
    }

    fn vocabulary(&self, columns: &[Words]) -> Checked {
        count("pre.vocabulary.columns", columns.len(), 0, self.names)?;
        distinct("pre.vocabulary.columns", columns.iter().map(|words| words.column))?;
        for Words { words, .. } in columns {
            count("pre.vocabulary.words", words.len(), 1, self.labels)?;
            distinct("pre.vocabulary.words", words)?;
            words.iter().try_for_each(|word| self.name("pre.vocabulary.words", word))?;
        }
        Ok(())
    }

    fn post(&self, steps: &[PostStep]) -> Checked {
        count("post", steps.len(), 0, self.steps)?;
        for step in steps {
            match step {
                PostStep::TopK { k } => at_least_one("post.top_k.k", u64::from(*k))?,
                PostStep::Threshold { min } => finite("post.threshold.min", *min)?,
                PostStep::Softmax | PostStep::Sigmoid | PostStep::Argmax | PostStep::Labels => {}
            }
        }
        Ok(())
    }

    fn variants(&self, m: &Manifest) -> Checked {
        count("variants", m.variants.len(), 1, self.variants)?;
        distinct("variants", m.variants.iter().map(|v| &v.name))?;
        for variant in &m.variants {
            self.file_name("variants.name", &variant.name)?;
            self.blob("variants.model", &variant.model)?;
            self.hardware("variants.hardware", &variant.hardware)?;
            at_least_one("variants.peak_memory_bytes", variant.peak_memory_bytes)?;
            if let Some(accuracy) = variant.accuracy.filter(|a| !(0.0..=1.0).contains(a)) {
                return Err(ManifestError::bound("variants.accuracy", "between 0 and 1", accuracy));
            }
        }
        Ok(())
    }

    fn monitor(&self, m: &Manifest) -> Checked {
        let Some(monitor) = &m.monitor else { return Ok(()) };
        if !m.inputs.iter().any(|input| input.name == monitor.input()) {
            return Err(ManifestError::bound("monitor.input", "one of the inputs", monitor.input()));
        }
        match monitor {
            Monitor::Image { height, width, channels, range, .. } => {
                side("monitor.height", *height)?;
                side("monitor.width", *width)?;
                if !matches!(channels, 1 | 3) {
                    return Err(ManifestError::bound("monitor.channels", "1 or 3", channels));
                }
                ordered("monitor.range", range[0], range[1])
            }
            Monitor::Tabular { columns, .. } => {
                count("monitor.columns", columns.len(), 1, self.labels)?;
                distinct("monitor.columns", columns)?;
                columns.iter().try_for_each(|column| self.name("monitor.columns", column))
            }
        }
    }

    fn policy(&self, m: &Manifest) -> Checked {
        at_least_one("budgets.latency_p95_us", m.budgets.latency_p95_us)?;
        at_least_one("budgets.memory_bytes", m.budgets.memory_bytes)?;
        at_least_one("probation.max_p95_us", m.probation.max_p95_us)?;
        at_least_one("privacy.min_pane_rows", u64::from(m.privacy.min_pane_rows))?;
        at_least_one("privacy.sample_days", m.privacy.sample_days.map_or(1, u64::from))?;
        if m.probation.duration_s > self.probation_s {
            let expected = format!("at most {} s", self.probation_s);
            return Err(ManifestError::bound("probation.duration_s", &expected, m.probation.duration_s));
        }
        if !(0.0..=100.0).contains(&m.probation.max_error_percent) {
            let got = m.probation.max_error_percent;
            return Err(ManifestError::bound("probation.max_error_percent", "between 0 and 100", got));
        }
        Ok(())
    }

    fn fallback(&self, m: &Manifest) -> Checked {
        count("fallback", m.fallback.len(), 0, self.fallback)?;
        distinct("fallback", m.fallback.iter().map(|f| &f.digest))?;
        match m.fallback.iter().find(|f| f.counter >= m.counter || f.counter < m.min_counter) {
            Some(f) => Err(ManifestError::bound(
                "fallback.counter",
                "below the release's own counter and not below min_counter",
                f.counter,
            )),
            None => Ok(()),
        }
    }

    fn lineage(&self, m: &Manifest) -> Checked {
        count("lineage", m.lineage.len(), 0, self.names)?;
        for (key, value) in &m.lineage {
            self.name("lineage", key)?;
            count("lineage value, in bytes", value.len(), 0, 4096)?;
        }
        Ok(())
    }

    fn blob(&self, field: &str, blob: &BlobRef) -> Checked {
        self.name(&format!("{field}.media_type"), &blob.media_type)?;
        if (1..=self.blob_bytes).contains(&blob.size_bytes) {
            return Ok(());
        }
        let expected = format!("1 to {} bytes", self.blob_bytes);
        Err(ManifestError::bound(&format!("{field}.size_bytes"), &expected, blob.size_bytes))
    }

    fn names(&self, field: &str, list: &[String]) -> Checked {
        count(field, list.len(), 0, self.names)?;
        distinct(field, list)?;
        list.iter().try_for_each(|name| self.name(field, name))
    }

    fn name(&self, field: &str, name: &str) -> Checked {
        if !name.is_empty() && name.len() <= self.name_bytes && !name.chars().any(char::is_control) {
            return Ok(());
        }
        let expected = format!("1 to {} bytes without control characters", self.name_bytes);
        Err(ManifestError::bound(field, &expected, format!("{name:?}")))
    }

    /// A name that may become a file's (attack A8).
    fn file_name(&self, field: &str, name: &str) -> Checked {
        self.name(field, name)?;
        if protocol::ModelName::new(name).is_ok() {
            return Ok(());
        }
        Err(ManifestError::bound(field, "a-z, 0-9, '-', '_' and single '.'", format!("{name:?}")))
    }
}

fn count(field: &str, got: usize, min: usize, max: usize) -> Checked {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(ManifestError::bound(field, &format!("{min} to {max} entries"), got))
}

fn distinct<T: Ord + std::fmt::Debug>(field: &str, items: impl IntoIterator<Item = T>) -> Checked {
    let mut seen = BTreeSet::new();
    for item in items {
        let text = format!("{item:?}");
        if !seen.insert(item) {
            return Err(ManifestError::bound(field, "without duplicates", text));
        }
    }
    Ok(())
}

fn at_least_one(field: &str, got: u64) -> Checked {
    if got >= 1 { Ok(()) } else { Err(ManifestError::bound(field, "at least 1", got)) }
}

fn finite(field: &str, got: f64) -> Checked {
    if got.is_finite() { Ok(()) } else { Err(ManifestError::bound(field, "a finite number", got)) }
}

fn positive(field: &str, got: f64) -> Checked {
    if got.is_finite() && got > 0.0 { Ok(()) } else { Err(ManifestError::bound(field, "above 0", got)) }
}

fn ordered(field: &str, low: f64, high: f64) -> Checked {
    if low.is_finite() && high.is_finite() && low < high {
        return Ok(());
    }
    Err(ManifestError::bound(field, "two finite numbers, the lower one first", format!("{low} and {high}")))
}

fn side(field: &str, got: u32) -> Checked {
    if (1..=16_384).contains(&got) { Ok(()) } else { Err(ManifestError::bound(field, "1 to 16384", got)) }
}
