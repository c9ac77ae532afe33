//! The forms of a comparison's result; stored and shown as they are.

use serde::{Deserialize, Serialize};

use crate::stats::Interval;

/// When a difference counts as drift.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// False discovery rate over all questions of one comparison.
    pub alpha: f64,
    /// Smallest Jensen-Shannon distance (natural logarithm) that matters, however certain it is.
    pub min_distance: f64,
    /// Fewest values on each side for a verdict.
    pub min_values: u64,
    /// Smallest rise of the share of bad values that matters.
    pub min_bad_share: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { alpha: 0.01, min_distance: 0.1, min_values: 30, min_bad_share: 0.02 }
    }
}

/// What a distribution is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the model was given.
    Input,
    /// What the model said.
    Output,
}

/// The answer for one distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Too few values to say.
    Insufficient,
    /// No difference that is both certain and large enough.
    Stable,
    /// Different.
    Drifted,
}

/// Name of a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasureKind {
    /// Jensen-Shannon distance, natural logarithm.
    JsNatural,
    /// Jensen-Shannon distance, base 2.
    JsBase2,
    /// Jensen-Shannon divergence, base 2.
    JsDivergenceBase2,
    /// Hellinger distance.
    Hellinger,
    /// Population stability index.
    Psi,
    /// Largest difference of a bin's share.
    LInfinity,
    /// Two-sample chi-square statistic.
    ChiSquare,
    /// Kolmogorov-Smirnov D: the lower end of its interval.
    Ks,
    /// Wasserstein distance divided by the reference's standard deviation.
    WassersteinPerSigma,
    /// Welch's t-test on means: the difference of the means.
    MeanDifference,
    /// Difference of the share of missing, malformed and non-finite values.
    BadShare,
}

/// One number with all that is needed to judge it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Which measure.
    pub kind: MeasureKind,
    /// Its value.
    pub value: f64,
    /// How it was computed, in words.
    pub convention: String,
    /// Bins that it stands on; 0 if it needs none.
    pub bins: usize,
    /// Values on the reference's or control's side.
    pub n: u64,
    /// Values on the side under test.
    pub m: u64,
    /// Where the value lies, if it is known only so far.
    pub interval: Option<Interval>,
    /// The value from which one would call it a difference, by the measure's own rule.
    pub critical: Option<f64>,
    /// p-value, where the measure is a test.
    pub p: Option<f64>,
    /// The tool whose number is the same, if any.
    pub comparable: Option<String>,
}

/// Name or limits of a bin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Category, or a name such as `outside`.
    pub name: Option<String>,
    /// Lower edge.
    pub low: Option<f64>,
    /// Upper edge.
    pub high: Option<f64>,
}

/// A bin's share on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BinShare {
    /// Which bin.
    #[serde(flatten)]
    pub bin: Bin,
    /// Share in the reference or control.
    pub reference: f64,
    /// Share in the sample under test.
    pub current: f64,
    /// Its part of the whole difference, 0 to 1.
    pub contribution: f64,
}

/// The comparison of one distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureDrift {
    /// The feature, or `predicted_class`, `confidence`, `entropy`, `margin`, `value`.
    pub feature: String,
    /// Input or output.
    pub role: Role,
    /// `numeric` or `categorical`.
    pub kind: String,
    /// The answer.
    pub status: Status,
    /// The measure that a table shows: Jensen-Shannon distance, natural logarithm.
    pub distance: f64,
    /// p-value of the test that decides, before correction.
    pub p: Option<f64>,
    /// The same after Benjamini-Hochberg over all questions of this comparison.
    pub adjusted_p: Option<f64>,
    /// Every measure.
    pub measures: Vec<Measure>,
    /// Bins that contribute most, largest first.
    pub top_bins: Vec<BinShare>,
    /// Share of bad values on the reference's side.
    pub bad_share_reference: f64,
    /// Share of bad values on the side under test.
    pub bad_share_current: f64,
    /// Mean on the reference's side, if numeric.
    pub mean_reference: Option<f64>,
    /// Mean on the side under test, if numeric.
    pub mean_current: Option<f64>,
    /// Values on the reference's side.
    pub n: u64,
    /// Values on the side under test.
    pub m: u64,
}

/// Requests, errors and latency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Share of requests that failed.
    pub error_rate: Option<f64>,
    /// Median latency in microseconds.
    pub p50_us: Option<f64>,
    /// 95th percentile of the latency in microseconds.
    pub p95_us: Option<f64>,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: Option<f64>,
}

/// How often the model is right.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Predictions counted.
    pub predictions: u64,
    /// Labels that came.
    pub labelled: u64,
    /// Right ones among the labelled.
    pub correct: u64,
    /// Realized accuracy.
    pub accuracy: Option<f64>,
    /// Its 95 % interval (Wilson).
    pub accuracy_interval: Option<Interval>,
    /// Accuracy estimated from the scores alone (CBPE).
    pub estimated_accuracy: Option<f64>,
    /// `[actual][predicted]`; empty above 32 classes.
    pub confusion: Vec<Vec<u64>>,
}

/// The short answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Distributions with enough values.
    pub judged: usize,
    /// Of these, how many drifted.
    pub drifted: usize,
    /// At least half of the inputs drifted: what Evidently calls drift of the data set.
    pub is_dataset_drifted: bool,
}

/// A whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftReport {
    /// The short answer.
    pub verdict: Verdict,
    /// Inputs first, then outputs.
    pub features: Vec<FeatureDrift>,
    /// Requests, errors and latency of the side under test.
    pub service: Service,
    /// How often the model is right on the side under test.
    pub quality: Quality,
    /// The thresholds that were applied.
    pub thresholds: Thresholds,
}
