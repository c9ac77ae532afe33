//! Counters of one numeric feature.

use serde::{Deserialize, Serialize};

use crate::bins::bin_of;
use crate::reference::{FineBins, NumericSpec};
use crate::sketch::Sketch;

/// Magnitudes above this count as infinite: their squares would overflow the moments.
const LARGEST_VALUE: f64 = 1e140;

/// Count, mean and spread, merged by Chan's formula; extremes where the policy allows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Finite values.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub m2: f64,
    /// Smallest value; `None` when nothing was seen or extremes may not leave the device.
    pub min: Option<f64>,
    /// Largest value; `None` as for `min`.
    pub max: Option<f64>,
}

impl Moments {
    /// Counts one finite value.
    pub fn observe(&mut self, value: f64) {
        let one = Self { n: 1, mean: value, m2: 0.0, min: Some(value), max: Some(value) };
        self.merge(&one);
    }

    /// Adds the values of `other`. Commutes exactly; associates up to rounding.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let n = a + b;
        let delta = other.mean - self.mean;
        self.mean = (a * self.mean + b * other.mean) / n;
        self.m2 = (self.m2 + other.m2) + delta * delta * (a * b / n);
        self.n = self.n.saturating_add(other.n);
        self.min = pick(self.min, other.min, f64::min);
        self.max = pick(self.max, other.max, f64::max);
    }

    /// Variance with divisor n; 0 without values.
    pub fn variance(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.m2 / self.n as f64).max(0.0) }
    }

    /// Standard deviation with divisor n.
    pub fn std(&self) -> f64 {
        self.variance().sqrt()
    }

    fn is_sound(&self) -> bool {
        let finite = [Some(self.mean), Some(self.m2), self.min, self.max];
        finite.iter().flatten().all(|v| v.is_finite()) && self.m2 >= 0.0
    }
}

fn pick(a: Option<f64>, b: Option<f64>, choose: fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (one, other) => one.or(other),
    }
}

/// Counters of one numeric feature on the reference's edges.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NumericCounts {
    /// Per bin between the reference's `doane` edges; what lies outside is in `under` and `over`.
    pub doane: Vec<u64>,
    /// Per quantile bin, or per distinct value of the reference.
    pub fine: Vec<u64>,
    /// Values that are none of the distinct values; 0 with quantile bins.
    pub other: u64,
    /// Below the lowest edge.
    pub under: u64,
    /// Above the highest edge.
    pub over: u64,
    /// Not a number.
    pub nan: u64,
    /// Infinite.
    pub infinite: u64,
    /// Absent.
    pub missing: u64,
    /// Present, but of another type.
    pub wrong_type: u64,
    /// Moments of the finite values.
    pub moments: Moments,
    /// Sketch of the finite values.
    pub sketch: Sketch,
}

impl NumericCounts {
    /// Zeroes on the edges of `spec`.
    pub fn new(spec: &NumericSpec) -> Self {
        Self {
            doane: vec![0; spec.doane.len().saturating_sub(1)],
            fine: vec![0; spec.fine.bins()],
            ..Self::default()
        }
    }

    /// Counts one value.
    pub fn observe(&mut self, spec: &NumericSpec, value: f64) {
        if value.is_nan() {
            self.nan += 1;
            return;
        }
        if value.abs() > LARGEST_VALUE {
            self.infinite += 1;
            return;
        }
        self.moments.observe(value);
        if !spec.exports_extremes {
            (self.moments.min, self.moments.max) = (None, None);
        }
        self.sketch.observe(value);
        match bin_of(&spec.doane, value) {
            Some(bin) => self.doane[bin] += 1,
            None if spec.doane.first().is_some_and(|first| value < *first) => self.under += 1,
            None => self.over += 1,
        }
        match (&spec.fine, spec.fine.index(value)) {
            (_, Some(bin)) => self.fine[bin] += 1,
            (FineBins::Values { .. }, None) => self.other += 1,
            (FineBins::Quantiles { .. }, None) => {}
        }
    }

    /// Adds the counts of `other`, which stands on the same edges.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.doane, &other.doane);
        add(&mut self.fine, &other.fine);
        for (to, from) in self.scalars_mut().into_iter().zip(other.scalars()) {
            *to = to.saturating_add(from);
        }
        self.moments.merge(&other.moments);
        self.sketch.merge(&other.sketch);
    }

    /// Everything that was to be a value: good, bad and absent.
    pub fn n_total(&self) -> u64 {
        let bad = [self.nan, self.infinite, self.missing, self.wrong_type];
        bad.iter().fold(self.moments.n, |sum, n| sum.saturating_add(*n))
    }

    /// Values that are no number of use.
    pub fn n_bad(&self) -> u64 {
        self.n_total().saturating_sub(self.moments.n)
    }

    /// `doane` counts with the outside bin at the end.
    pub fn with_outside(&self) -> Vec<u64> {
        let mut counts = self.doane.clone();
        counts.push(self.under.saturating_add(self.over));
        counts
    }

    /// Fine counts with what fell in no bin at the end.
    pub fn fine_with_rest(&self, spec: &NumericSpec) -> Vec<u64> {
        let mut counts = self.fine.clone();
        counts.push(match spec.fine {
            FineBins::Values { .. } => self.other,
            FineBins::Quantiles { .. } => self.under.saturating_add(self.over),
        });
        counts
    }

    /// Why these counts cannot have come from counting on `spec`; `None` if they can.
    pub(crate) fn fault(&self, spec: &NumericSpec) -> Option<&'static str> {
        if self.doane.len() + 1 != spec.doane.len() || self.fine.len() != spec.fine.bins() {
            return Some("another number of bins than the reference");
        }
        if !self.moments.is_sound() || !self.sketch.is_sound() {
            return Some("moments or sketch out of range");
        }
        let outside = [self.under, self.over];
        let is_doane_whole = total(self.doane.iter().chain(&outside)) == Some(self.moments.n);
        let rest = match spec.fine {
            FineBins::Values { .. } => vec![self.other],
            FineBins::Quantiles { .. } => vec![self.under, self.over, self.other],
        };
        let is_fine_whole = total(self.fine.iter().chain(&rest)) == Some(self.moments.n);
        if !is_doane_whole || !is_fine_whole || self.sketch.n() != self.moments.n {
            return Some("bins do not add up to the number of values");
        }
        None
    }

    fn scalars(&self) -> [u64; 7] {
        [self.other, self.under, self.over, self.nan, self.infinite, self.missing, self.wrong_type]
    }

    fn scalars_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.other,
            &mut self.under,
            &mut self.over,
            &mut self.nan,
            &mut self.infinite,
            &mut self.missing,
            &mut self.wrong_type,
        ]
    }
}

/// Adds counts of the same bins, saturating.
pub(crate) fn add(to: &mut [u64], from: &[u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.saturating_add(*from);
    }
}

/// Sum of counts; `None` on overflow.
pub(crate) fn total<'a>(counts: impl IntoIterator<Item = &'a u64>) -> Option<u64> {
    counts.into_iter().try_fold(0u64, |sum, n| sum.checked_add(*n))
}
