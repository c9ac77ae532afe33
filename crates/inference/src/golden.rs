//! Golden samples: inputs with the answers that the publisher measured, tried on the very device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::InferError;
use crate::model::Model;
use crate::tensor::Tensor;

/// Largest golden file in bytes.
const MAX_GOLDEN_BYTES: usize = 32 * 1024 * 1024;
/// Most samples in a golden file.
const MAX_SAMPLES: usize = 1000;
/// Fewest timed runs, so that a few samples still give percentiles.
const MIN_RUNS: usize = 50;

/// Samples and how far an answer may be off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoldenSet {
    /// Largest allowed difference.
    pub tolerance: Tolerance,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// How far an answer may be off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Tolerance {
    /// In the output's own unit.
    pub abs: f64,
}

/// One request and its right answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// What is sent.
    pub inputs: Vec<Tensor>,
    /// What must come back, within the tolerance; outputs that aren't listed are not compared.
    pub outputs: Vec<Tensor>,
}

/// Why bytes are not a golden set.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Over a bound, or empty.
    #[error("golden samples break a bound: {0}")]
    Bound(String),
    /// Not JSON of the right form.
    #[error("golden samples are not valid JSON for their type")]
    Json(#[source] serde_json::Error),
}

impl GoldenSet {
    /// Parses a release's golden blob.
    ///
    /// # Errors
    /// [`GoldenError`] when it is too large, empty or malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, GoldenError> {
        if bytes.len() > MAX_GOLDEN_BYTES {
            return Err(GoldenError::Bound(format!("{} bytes, at most {MAX_GOLDEN_BYTES}", bytes.len())));
        }
        let set: Self = serde_json::from_slice(bytes).map_err(GoldenError::Json)?;
        let samples = set.samples.len();
        if samples == 0 || samples > MAX_SAMPLES {
            return Err(GoldenError::Bound(format!("{samples} samples, 1 to {MAX_SAMPLES} are allowed")));
        }
        if !(set.tolerance.abs >= 0.0 && set.tolerance.abs.is_finite()) {
            return Err(GoldenError::Bound(format!("tolerance {}", set.tolerance.abs)));
        }
        Ok(set)
    }
}

/// What trying the samples showed.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenReport {
    /// Samples that were run.
    pub samples: u32,
    /// Samples whose every answer was within the tolerance.
    pub passed: u32,
    /// Median latency of one sample, pre- and post-processing included.
    pub p50: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// The largest difference and where it was; none when no numbers could be compared.
    pub worst: Option<Worst>,
    /// What failed first, in one sentence.
    pub first_failure: Option<String>,
}

impl GoldenReport {
    /// Whether every sample passed.
    pub fn is_passed(&self) -> bool {
        self.passed == self.samples
    }
}

/// The largest difference found.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// Which sample, from 0.
    pub sample: usize,
    /// Which output.
    pub output: String,
    /// By how much it was off.
    pub difference: f64,
}

/// Runs every sample, compares, and measures latency with the caller's clock.
///
/// # Errors
/// The clock's word to end.
pub fn check<C: Clock>(model: &Model, golden: &GoldenSet, clock: &mut C) -> Result<GoldenReport, C::Stop> {
    let mut run = Run { worst: None, first_failure: None, times: Vec::new() };
    let mut passed = 0;
    for place in 0..golden.samples.len() {
        passed += usize::from(run.try_sample(model, golden, place, clock)?);
    }
    for sample in golden.samples.iter().cycle().take(MIN_RUNS.saturating_sub(run.times.len())) {
        if run.first_failure.is_none() {
            let _ = run.timed(model, sample, clock)?;
        }
    }
    run.times.sort_unstable();
    Ok(GoldenReport {
        samples: count(golden.samples.len()),
        passed: count(passed),
        p50: percentile(&run.times, 50),
        p95: percentile(&run.times, 95),
        worst: run.worst,
        first_failure: run.first_failure,
    })
}

struct Run {
    worst: Option<Worst>,
    first_failure: Option<String>,
    times: Vec<Duration>,
}

impl Run {
    fn timed<C: Clock>(
        &mut self,
        model: &Model,
        sample: &Sample,
        clock: &mut C,
    ) -> Result<Result<Vec<Tensor>, InferError>, C::Stop> {
        let start = clock.now()?;
        let outputs = model.infer(&sample.inputs);
        self.times.push(clock.now()?.saturating_sub(start));
        Ok(outputs)
    }

    fn try_sample<C: Clock>(
        &mut self,
        model: &Model,
        golden: &GoldenSet,
        place: usize,
        clock: &mut C,
    ) -> Result<bool, C::Stop> {
        let sample = &golden.samples[place];
        let failure = match self.timed(model, sample, clock)? {
            Ok(outputs) => sample.outputs.iter().find_map(|expected| {
                let got = outputs.iter().find(|output| output.name() == expected.name());
                self.compare(place, expected, got, golden.tolerance)
            }),
            Err(error) => Some(error.to_string()),
        };
        let is_passed = failure.is_none();
        if let Some(failure) = failure {
            self.first_failure.get_or_insert_with(|| format!("sample {place}: {failure}"));
        }
        Ok(is_passed)
    }

    fn compare(
        &mut self,
        sample: usize,
        expected: &Tensor,
        got: Option<&Tensor>,
        tolerance: Tolerance,
    ) -> Option<String> {
        let name = expected.name();
        let Some(got) = got else { return Some(format!("there is no output {name:?}")) };
        if (got.shape(), got.datatype()) != (expected.shape(), expected.datatype()) {
            return Some(format!(
                "output {name:?} should be {} {:?}, got {} {:?}",
                expected.datatype(),
                expected.shape(),
                got.datatype(),
                got.shape()
            ));
        }
        if expected.data() == got.data() {
            return None;
        }
        let pairs = expected.data().to_f64().into_iter().zip(got.data().to_f64());
        let difference = pairs.map(|(a, b)| if a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() });
        let difference =
            difference.fold(0.0, |all: f64, one| if one.is_nan() { f64::INFINITY } else { all.max(one) });
        if self.worst.as_ref().is_none_or(|worst| difference > worst.difference) {
            self.worst = Some(Worst { sample, output: name.to_owned(), difference });
        }
        if expected.datatype() == crate::Datatype::Bytes {
            return Some(format!("output {name:?} should be {:?}, got {:?}", expected.data(), got.data()));
        }
        (difference > tolerance.abs)
            .then(|| format!("output {name:?} is off by {difference}, {} is allowed", tolerance.abs))
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A percentile of sorted times; zero of none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}
