//! A sketch of real values with relative error [`ALPHA`]: counts on logarithmic buckets (the DDSketch mapping).
//! Integers only, so that merging is exact in any order; every bucket lies in a fixed range, so that a hostile
//! sketch cannot ask for memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Relative error of a value read back from the sketch.
pub(crate) const ALPHA: f64 = 0.01;
/// Magnitudes below this count as zero.
const SMALLEST: f64 = 1e-9;
/// Magnitudes above this count as this.
const LARGEST: f64 = 1e12;
/// Bucket of [`LARGEST`], rounded outwards.
const MAX_BUCKET: i32 = 1400;
/// Bucket of [`SMALLEST`], rounded outwards.
const MIN_BUCKET: i32 = -1100;

/// Counts of values by logarithmic bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// Bucket -> count, values above zero.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    positive: BTreeMap<i32, u64>,
    /// Bucket of the magnitude -> count, values below zero.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    negative: BTreeMap<i32, u64>,
    /// Values of almost no magnitude.
    #[serde(default)]
    zero: u64,
}

fn gamma() -> f64 {
    (1.0 + ALPHA) / (1.0 - ALPHA)
}

fn bucket_of(magnitude: f64) -> i32 {
    let exact = (magnitude.min(LARGEST).ln() / gamma().ln()).ceil();
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of buckets first")]
    let bucket = exact.clamp(f64::from(MIN_BUCKET), f64::from(MAX_BUCKET)) as i32;
    bucket
}

fn value_of(bucket: i32) -> f64 {
    2.0 * gamma().powi(bucket) / (gamma() + 1.0)
}

impl Sketch {
    /// Counts one value; NaN and infinities are the caller's to count elsewhere.
    pub fn observe(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let magnitude = value.abs();
        let count = if magnitude < SMALLEST {
            &mut self.zero
        } else if value > 0.0 {
            self.positive.entry(bucket_of(magnitude)).or_default()
        } else {
            self.negative.entry(bucket_of(magnitude)).or_default()
        };
        *count = count.saturating_add(1);
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        add_sparse(&mut self.positive, &other.positive);
        add_sparse(&mut self.negative, &other.negative);
        self.zero = self.zero.saturating_add(other.zero);
    }

    /// How many values were counted.
    pub fn n(&self) -> u64 {
        let stored = self.positive.values().chain(self.negative.values());
        stored.fold(self.zero, |sum, count| sum.saturating_add(*count))
    }

    /// `(value, count)` in rising order of value.
    pub fn points(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let negative = self.negative.iter().rev().map(|(bucket, n)| (-value_of(*bucket), *n));
        let zero = (self.zero > 0).then_some((0.0, self.zero));
        negative.chain(zero).chain(self.positive.iter().map(|(bucket, n)| (value_of(*bucket), *n)))
    }

    /// The value below which a share `q` (0 to 1) of the values lies; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q.clamp(0.0, 1.0) * (self.n().checked_sub(1)?) as f64;
        let mut below = 0u64;
        let mut last = None;
        for (value, count) in self.points() {
            below = below.saturating_add(count);
            last = Some(value);
            if below as f64 > rank {
                break;
            }
        }
        last
    }

    /// Mean magnitude: what the error of a Wasserstein distance is proportional to.
    pub fn mean_magnitude(&self) -> f64 {
        let n = self.n();
        if n == 0 {
            return 0.0;
        }
        self.points().map(|(value, count)| value.abs() * count as f64).sum::<f64>() / n as f64
    }

    /// True if every bucket lies in the fixed range.
    pub(crate) fn is_sound(&self) -> bool {
        self.positive.keys().chain(self.negative.keys()).all(|b| (MIN_BUCKET..=MAX_BUCKET).contains(b))
    }
}

/// Adds sparse counts, saturating.
pub(crate) fn add_sparse<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        let sum = to.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_the_relative_error() {
        let mut sketch = Sketch::default();
        for i in 1..=10_000 {
            sketch.observe(f64::from(i));
        }
        for q in [0.01, 0.5, 0.95, 0.999] {
            let exact = 1.0 + q * 9999.0;
            let got = sketch.quantile(q).unwrap();
            assert!((got - exact).abs() <= ALPHA * exact * 1.01, "{q}: {got} against {exact}");
        }
    }

    #[test]
    fn negative_zero_and_extreme_values_have_buckets_in_range() {
        let mut sketch = Sketch::default();
        for value in [-1e300, -2.0, -1e-300, 0.0, 1e-12, 3.0, f64::MAX, f64::NAN, f64::INFINITY] {
            sketch.observe(value);
        }
        assert_eq!(sketch.n(), 7);
        assert!(sketch.is_sound());
        let values: Vec<f64> = sketch.points().map(|p| p.0).collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
        assert_eq!(Sketch::default().quantile(0.5), None);
    }
}
