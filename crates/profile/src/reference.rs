//! A release's reference: the edges, and what the training data counted on them. Part of the signed release.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use protocol::Digest;

use crate::bins::{are_edges, bin_of, doane_edges, quantile_edges};
use crate::counters::{Counters, Observed};
use crate::features::Extractor;

/// Largest reference in bytes; what a device and a server are willing to parse.
pub const MAX_REFERENCE_BYTES: usize = 4 * 1024 * 1024;
pub(crate) const FORMAT_VERSION: u16 = 1;
const FINE_BINS: usize = 64;
pub(crate) const MAX_CATEGORIES: usize = 64;
const MAX_FEATURES: usize = 512;
const MAX_CLASSES: usize = 10_000;
const MAX_NAME_BYTES: usize = 120;

/// Why a reference cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Larger than [`MAX_REFERENCE_BYTES`].
    #[error("the reference has {got} bytes, at most {MAX_REFERENCE_BYTES} are allowed")]
    TooLarge {
        /// Size in bytes.
        got: usize,
    },
    /// Not JSON, or not a reference.
    #[error("the reference is not valid JSON for its type")]
    Json {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A version of the format that this build does not know.
    #[error("the reference has format version {got}, this build knows {FORMAT_VERSION}")]
    Version {
        /// The version that it names.
        got: u16,
    },
    /// Well-formed, but it cannot be right.
    #[error("the reference breaks a bound: {why}")]
    Bound {
        /// Which bound.
        why: String,
    },
    /// The builder got no rows.
    #[error("there are no rows to build a reference from")]
    Empty,
}

/// Fine bins of a numeric feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FineBins {
    /// One bin per distinct value of the reference.
    Values {
        /// In rising order.
        values: Vec<f64>,
    },
    /// Bins that hold about equally many values of the reference.
    Quantiles {
        /// In rising order.
        edges: Vec<f64>,
    },
}

impl FineBins {
    /// How many bins there are.
    pub fn bins(&self) -> usize {
        match self {
            Self::Values { values } => values.len(),
            Self::Quantiles { edges } => edges.len().saturating_sub(1),
        }
    }

    pub(crate) fn index(&self, value: f64) -> Option<usize> {
        match self {
            Self::Values { values } => values
                .binary_search_by(|known| known.partial_cmp(&value).unwrap_or(std::cmp::Ordering::Less))
                .ok(),
            Self::Quantiles { edges } => bin_of(edges, value),
        }
    }
}

/// Edges of a numeric feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumericSpec {
    /// NumPy's `doane` edges of the reference.
    pub doane: Vec<f64>,
    /// 64 quantile bins, or one bin per value where there are few.
    pub fine: FineBins,
    /// Minima and maxima, which are raw values, may leave the device.
    #[serde(default)]
    pub exports_extremes: bool,
}

impl NumericSpec {
    pub(crate) fn of(values: &[f64], exports_extremes: bool) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let doane = doane_edges(&sorted);
        let mut distinct = sorted.clone();
        distinct.dedup();
        let fine = if distinct.len() <= FINE_BINS {
            FineBins::Values { values: distinct }
        } else {
            FineBins::Quantiles { edges: quantile_edges(&sorted, FINE_BINS) }
        };
        Self { doane, fine, exports_extremes }
    }

    /// Whether a number lies between the reference's least and greatest.
    fn holds(&self, number: f64) -> bool {
        let ends = self.doane.first().zip(self.doane.last());
        ends.is_some_and(|(least, greatest)| (*least..=*greatest).contains(&number))
    }

    fn fault(&self) -> Option<&'static str> {
        let is_fine = match &self.fine {
            FineBins::Values { values } => {
                values.len() <= FINE_BINS
                    && values.iter().all(|v| v.is_finite())
                    && values.windows(2).all(|pair| pair[0] < pair[1])
            }
            FineBins::Quantiles { edges } => {
                are_edges(edges) && edges.first() == self.doane.first() && edges.last() == self.doane.last()
            }
        };
        (!are_edges(&self.doane) || !is_fine).then_some("edges are not finite and rising")
    }
}

/// What kind of feature, and its bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// A number.
    Numeric(NumericSpec),
    /// A category.
    Categorical {
        /// Known categories, sorted.
        categories: Vec<String>,
    },
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Its name, unique in the schema.
    pub name: String,
    /// Its bins.
    pub kind: FeatureKind,
}

/// What the model says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputSpec {
    /// A probability per class.
    Classes {
        /// Names of the classes in the order of the output.
        labels: Vec<String>,
    },
    /// One number.
    Value {
        /// Its bins.
        spec: NumericSpec,
    },
    /// An output that nobody profiles.
    Nothing,
}

/// What is counted: panes and references with the same schema can be merged and compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Features in the order of the rows.
    pub features: Vec<FeatureSpec>,
    /// What the model says.
    pub output: OutputSpec,
}

impl Schema {
    /// SHA-256 of the schema's JSON: equal exactly where counters can be merged.
    pub fn digest(&self) -> Digest {
        let json = serde_json::to_vec(self).expect("a schema holds only finite numbers and text");
        Digest::from_bytes(Sha256::digest(&json).into())
    }

    /// Number of classes; 0 if the model is no classifier.
    pub fn classes(&self) -> usize {
        match &self.output {
            OutputSpec::Classes { labels } => labels.len(),
            OutputSpec::Value { .. } | OutputSpec::Nothing => 0,
        }
    }

    /// The first feature of a row that the training data never had: beyond its least or greatest number, not a number
    /// at all, a category that it did not know. A value that is missing lies nowhere. None when all lie inside.
    pub fn outside(&self, row: &[Observed<'_>]) -> Option<&str> {
        let is_outside = |(feature, value): &(&FeatureSpec, &Observed<'_>)| match (&feature.kind, value) {
            (FeatureKind::Numeric(spec), Observed::Number(number)) => !spec.holds(*number),
            (FeatureKind::Categorical { categories }, Observed::Text(text)) => {
                categories.binary_search_by(|known| known.as_str().cmp(text)).is_err()
            }
            (FeatureKind::Numeric(_), Observed::Text(_))
            | (FeatureKind::Categorical { .. }, Observed::Number(_))
            | (_, Observed::WrongType) => true,
            (_, Observed::Missing) => false,
        };
        self.features.iter().zip(row).find(is_outside).map(|(feature, _)| feature.name.as_str())
    }

    pub(crate) fn fault(&self) -> Option<String> {
        if self.features.len() > MAX_FEATURES || self.classes() > MAX_CLASSES {
            return Some("too many features or classes".into());
        }
        for feature in &self.features {
            let why = match &feature.kind {
                FeatureKind::Numeric(spec) => spec.fault(),
                FeatureKind::Categorical { categories } => (categories.len() > MAX_CATEGORIES
                    || !categories.windows(2).all(|pair| pair[0] < pair[1]))
                .then_some("categories are too many or not sorted"),
            };
            if feature.name.is_empty() || feature.name.len() > MAX_NAME_BYTES {
                return Some("a feature's name is empty or too long".into());
            }
            if let Some(why) = why {
                return Some(format!("feature {:?}: {why}", feature.name));
            }
        }
        match &self.output {
            OutputSpec::Value { spec } => spec.fault().map(Into::into),
            OutputSpec::Classes { .. } | OutputSpec::Nothing => None,
        }
    }
}

/// How a feature's distance varies between windows of the training data itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Rows per window.
    pub window_rows: u64,
    /// Mean Jensen-Shannon distance (base 2, `doane` bins) of the windows to the whole.
    pub js_base2_mean: f64,
    /// Its standard deviation.
    pub js_base2_std: f64,
}

/// The model's profile on its training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Format version.
    pub v: u16,
    /// How the device gets features from a model's input.
    pub extractor: Extractor,
    /// What is counted.
    pub schema: Schema,
    /// What the training data counted.
    pub counters: Counters,
    /// Per feature: how much windows of the training data differ.
    #[serde(default)]
    pub noise: Vec<Noise>,
}

impl Reference {
    /// One of no data, for inputs that can't be profiled: it counts answers, errors, latency and, of a classifier,
    /// predictions and labels, and there is nothing that they could drift from. `labels` are the classes, empty if the
    /// model is no classifier.
    ///
    /// # Errors
    /// [`ReferenceError::Bound`] with too many classes.
    pub fn of_no_data(labels: Vec<String>) -> Result<Self, ReferenceError> {
        let output = if labels.is_empty() { OutputSpec::Nothing } else { OutputSpec::Classes { labels } };
        let schema = Schema { features: Vec::new(), output };
        if let Some(why) = schema.fault() {
            return Err(ReferenceError::Bound { why });
        }
        let counters = Counters::new(&schema);
        let noise = Vec::new();
        Ok(Self { v: FORMAT_VERSION, extractor: Extractor::Nothing, schema, counters, noise })
    }

    /// Parses and checks a reference. The bytes come from a verified release, but a publisher errs too.
    ///
    /// # Errors
    /// [`ReferenceError`] names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReferenceError> {
        if bytes.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::TooLarge { got: bytes.len() });
        }
        let reference: Self =
            serde_json::from_slice(bytes).map_err(|source| ReferenceError::Json { source })?;
        if reference.v != FORMAT_VERSION {
            return Err(ReferenceError::Version { got: reference.v });
        }
        let fault = reference.schema.fault().or_else(|| reference.counters.fault(&reference.schema));
        match fault {
            Some(why) => Err(ReferenceError::Bound { why }),
            None => Ok(reference),
        }
    }

    /// JSON bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a reference holds only finite numbers and text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lies_outside_by_its_first_feature_that_training_never_had() {
        let numeric = |name: &str| FeatureSpec {
            name: name.into(),
            kind: FeatureKind::Numeric(NumericSpec::of(&[1.0, 2.0, 4.0], false)),
        };
        let kind = FeatureKind::Categorical { categories: vec!["a".into(), "b".into()] };
        let features = vec![numeric("x"), numeric("y"), FeatureSpec { name: "c".into(), kind }];
        let schema = Schema { features, output: OutputSpec::Nothing };
        let (number, text) = (Observed::Number, Observed::Text);
        let cases = [
            ([number(1.0), number(4.0), text("b")], None),
            ([number(0.9), number(4.1), text("z")], Some("x")),
            ([number(2.0), number(f64::NAN), text("a")], Some("y")),
            ([number(2.0), number(f64::INFINITY), text("a")], Some("y")),
            ([number(2.0), Observed::Missing, text("z")], Some("c")),
            ([Observed::WrongType, number(2.0), text("a")], Some("x")),
            ([number(2.0), number(2.0), number(2.0)], Some("c")),
        ];
        for (row, outside) in cases {
            assert_eq!(schema.outside(&row), outside, "{row:?}");
        }
        assert_eq!(schema.outside(&[]), None, "nothing of the input is profiled");
    }
}
