//! All counters of one model over some events: the body of a pane and of a reference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::numeric::{NumericCounts, add, total};
use crate::output::{ClassCounts, Labelled, OutputCounts};
use crate::reference::{FeatureKind, OutputSpec, Schema};
use crate::sketch::{Sketch, add_sparse};

/// Most kinds of errors in one set of counters.
const MAX_ERROR_KINDS: usize = 16;
/// Longest name of an error kind in bytes.
const MAX_ERROR_NAME_BYTES: usize = 40;

/// One feature's value as a device saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observed<'a> {
    /// A number; NaN and infinities are counted apart.
    Number(f64),
    /// A category.
    Text(&'a str),
    /// Absent.
    Missing,
    /// Present, but neither a number nor a text.
    WrongType,
}

/// Counters of one categorical feature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoricalCounts {
    /// Per category of the reference.
    pub counts: Vec<u64>,
    /// Categories that the reference does not know.
    pub other: u64,
    /// Absent.
    pub missing: u64,
    /// Present, but no text.
    pub wrong_type: u64,
}

impl CategoricalCounts {
    fn observe(&mut self, categories: &[String], text: &str) {
        match categories.binary_search_by(|category| category.as_str().cmp(text)) {
            Ok(index) => self.counts[index] += 1,
            Err(_) => self.other += 1,
        }
    }

    /// Adds the counts of `other`, which has the same categories.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts);
        self.other = self.other.saturating_add(other.other);
        self.missing = self.missing.saturating_add(other.missing);
        self.wrong_type = self.wrong_type.saturating_add(other.wrong_type);
    }

    /// Counts with `other` at the end.
    pub fn with_other(&self) -> Vec<u64> {
        let mut counts = self.counts.clone();
        counts.push(self.other);
        counts
    }

    /// Texts seen, known or not.
    pub fn n(&self) -> u64 {
        self.counts.iter().fold(self.other, |sum, n| sum.saturating_add(*n))
    }
}

/// Counters of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureCounts {
    /// A number.
    Numeric(NumericCounts),
    /// A category.
    Categorical(CategoricalCounts),
}

impl FeatureCounts {
    fn new(kind: &FeatureKind) -> Self {
        match kind {
            FeatureKind::Numeric(spec) => Self::Numeric(NumericCounts::new(spec)),
            FeatureKind::Categorical { categories } => Self::Categorical(CategoricalCounts {
                counts: vec![0; categories.len()],
                ..Default::default()
            }),
        }
    }

    fn observe(&mut self, kind: &FeatureKind, value: Observed<'_>) {
        match (self, kind, value) {
            (Self::Numeric(counts), FeatureKind::Numeric(spec), Observed::Number(value)) => {
                counts.observe(spec, value);
            }
            (Self::Numeric(counts), _, Observed::Missing) => counts.missing += 1,
            (Self::Numeric(counts), _, _) => counts.wrong_type += 1,
            (Self::Categorical(counts), FeatureKind::Categorical { categories }, Observed::Text(text)) => {
                counts.observe(categories, text);
            }
            (Self::Categorical(counts), _, Observed::Missing) => counts.missing += 1,
            (Self::Categorical(counts), _, _) => counts.wrong_type += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Numeric(to), Self::Numeric(from)) => to.merge(from),
            (Self::Categorical(to), Self::Categorical(from)) => to.merge(from),
            (Self::Numeric(_) | Self::Categorical(_), _) => {}
        }
    }

    fn fault(&self, kind: &FeatureKind) -> Option<&'static str> {
        match (self, kind) {
            (Self::Numeric(counts), FeatureKind::Numeric(spec)) => counts.fault(spec),
            (Self::Categorical(counts), FeatureKind::Categorical { categories }) => (counts.counts.len()
                != categories.len())
            .then_some("another number of categories than the reference"),
            _ => Some("another kind of feature than the reference"),
        }
    }

    /// Values that were usable, and values that were to be there.
    pub fn n_good_and_total(&self) -> (u64, u64) {
        match self {
            Self::Numeric(counts) => (counts.moments.n, counts.n_total()),
            Self::Categorical(counts) => {
                let good = counts.n();
                (good, good.saturating_add(counts.missing).saturating_add(counts.wrong_type))
            }
        }
    }
}

/// Everything that is counted about one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// In the order of the schema.
    pub features: Vec<FeatureCounts>,
    /// What the model said.
    pub output: OutputCounts,
    /// Time to answer in microseconds.
    pub latency_us: Sketch,
    /// Labels that came later.
    pub labelled: Labelled,
}

impl Counters {
    /// Zeroes for `schema`.
    pub fn new(schema: &Schema) -> Self {
        Self {
            answered: 0,
            errors: BTreeMap::new(),
            features: schema.features.iter().map(|feature| FeatureCounts::new(&feature.kind)).collect(),
            output: OutputCounts::new(&schema.output),
            latency_us: Sketch::default(),
            labelled: Labelled::default(),
        }
    }

    /// Counts one row of features, in the order of the schema; those that the row lacks count as missing.
    pub fn observe_row(&mut self, schema: &Schema, row: &[Observed<'_>]) {
        for (i, (counts, feature)) in self.features.iter_mut().zip(&schema.features).enumerate() {
            counts.observe(&feature.kind, row.get(i).copied().unwrap_or(Observed::Missing));
        }
    }

    /// Counts one answer of a classifier: a probability per class.
    pub fn observe_probabilities(&mut self, schema: &Schema, probabilities: &[f64]) {
        if let (OutputCounts::Classes(counts), OutputSpec::Classes { labels }) =
            (&mut self.output, &schema.output)
        {
            counts.observe(labels.len(), probabilities);
        }
    }

    /// Counts one answer of a regression.
    pub fn observe_value(&mut self, schema: &Schema, value: f64) {
        if let (OutputCounts::Value(counts), OutputSpec::Value { spec }) = (&mut self.output, &schema.output)
        {
            counts.observe(spec, value);
        }
    }

    /// Counts one answered request and the microseconds it took.
    pub fn observe_answer(&mut self, latency_us: f64) {
        self.answered += 1;
        self.latency_us.observe(if latency_us.is_finite() { latency_us.max(0.0) } else { f64::MAX });
    }

    /// Counts one failed request. `kind` is a fixed name of the caller's, never text from outside.
    pub fn observe_error(&mut self, kind: &'static str) {
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// Counts a true label of an earlier prediction.
    pub fn observe_label(&mut self, schema: &Schema, predicted: usize, actual: Option<usize>, delay_s: f64) {
        self.labelled.observe(schema.classes(), predicted, actual, delay_s);
    }

    /// Adds the counts of `other`, which has the same schema.
    pub fn merge(&mut self, other: &Self) {
        self.answered = self.answered.saturating_add(other.answered);
        add_sparse(&mut self.errors, &other.errors);
        for (to, from) in self.features.iter_mut().zip(&other.features) {
            to.merge(from);
        }
        self.output.merge(&other.output);
        self.latency_us.merge(&other.latency_us);
        self.labelled.merge(&other.labelled);
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The classifier's counters, if it is one.
    pub fn classes(&self) -> Option<&ClassCounts> {
        match &self.output {
            OutputCounts::Classes(counts) => Some(counts),
            OutputCounts::Value(_) | OutputCounts::Nothing => None,
        }
    }

    /// Why these counters cannot have come from counting with `schema`; `None` if they can.
    pub(crate) fn fault(&self, schema: &Schema) -> Option<String> {
        if self.features.len() != schema.features.len() {
            return Some("another number of features than the reference".into());
        }
        for (counts, feature) in self.features.iter().zip(&schema.features) {
            if let Some(why) = counts.fault(&feature.kind) {
                return Some(format!("feature {:?}: {why}", feature.name));
            }
        }
        let is_name =
            |name: &String| name.len() <= MAX_ERROR_NAME_BYTES && name.bytes().all(|b| b.is_ascii_graphic());
        if self.errors.len() > MAX_ERROR_KINDS || !self.errors.keys().all(is_name) {
            return Some("too many or malformed kinds of errors".into());
        }
        if !self.latency_us.is_sound() || self.latency_us.n() != self.answered {
            return Some("latencies do not add up to the number of answers".into());
        }
        let output = self.output.fault(&schema.output).or_else(|| self.labelled.fault(schema.classes()));
        if output.is_some() {
            return output.map(Into::into);
        }
        let largest = self.features.iter().map(|f| f.n_good_and_total().1).max().unwrap_or(0);
        if total([&self.answered, &self.failed(), &largest]).is_none_or(|n| n > MAX_EVENTS) {
            return Some("more events than any window holds".into());
        }
        None
    }
}

/// Most events in one set of counters; far above what a device counts, far below overflow of sums over a fleet.
const MAX_EVENTS: u64 = 1 << 40;
