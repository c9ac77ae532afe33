//! Kolmogorov-Smirnov: exact on samples, an interval on bins.

use serde::{Deserialize, Serialize};

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Where the statistic D of the values lies, from counts on the same rising bins; `None` if a side is empty.
pub fn ks_interval(reference: &[u64], current: &[u64]) -> Option<Interval> {
    let sums = |counts: &[u64]| -> Option<Vec<f64>> {
        let whole: f64 = counts.iter().map(|n| *n as f64).sum();
        let below = counts.iter().scan(0.0, |sum, n| {
            *sum += *n as f64 / whole;
            Some(*sum)
        });
        (whole > 0.0).then(|| std::iter::once(0.0).chain(below).collect())
    };
    let (first, second) = (sums(reference)?, sums(current)?);
    let low = first.iter().zip(&second).map(|(f, g)| (f - g).abs()).fold(0.0, f64::max);
    let widest = first.windows(2).zip(second.windows(2)).map(|(f, g)| (f[1] - g[0]).max(g[1] - f[0]));
    Some(Interval { low, high: widest.fold(low, f64::max).min(1.0) })
}

/// Statistic D of two samples in rising order; `None` if one is empty.
pub fn ks_statistic(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let (mut i, mut j, mut widest) = (0, 0, 0.0f64);
    while i < first.len() && j < second.len() {
        let value = first[i].min(second[j]);
        i += first[i..].iter().take_while(|v| **v <= value).count();
        j += second[j..].iter().take_while(|v| **v <= value).count();
        widest = widest.max((i as f64 / first.len() as f64 - j as f64 / second.len() as f64).abs());
    }
    Some(widest)
}

/// Two-sided p-value of D by the limiting distribution with Stephens' correction for finite samples.
pub fn ks_asymptotic_p(d: f64, n: u64, m: u64) -> f64 {
    if n == 0 || m == 0 {
        return 1.0;
    }
    let root = ((n as f64 * m as f64) / (n as f64 + m as f64)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * d;
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |k: f64| (-2.0 * k * k * lambda * lambda).exp();
    let series: f64 =
        (1..=100).map(|k| if k % 2 == 1 { term(f64::from(k)) } else { -term(f64::from(k)) }).sum();
    (2.0 * series).clamp(0.0, 1.0)
}

/// Two-sided p-value of D exactly: the share of orders of n + m values whose D is at least this large.
/// Work grows with `n * m`: for samples of some thousands.
pub fn ks_exact_p(d: f64, n: usize, m: usize) -> f64 {
    let reaches = |i: usize, j: usize| (i as f64 / n as f64 - j as f64 / m as f64).abs() >= d - 1e-12;
    // inside[j]: probability of having drawn i of the first and j of the second sample, never that far apart.
    let mut inside = vec![0.0f64; m + 1];
    let mut outside = 0.0f64;
    for i in 0..=n {
        for j in 0..=m {
            let left = (n + m - i - j + 1) as f64;
            let from_first = if i > 0 { inside[j] * (n - i + 1) as f64 / left } else { 0.0 };
            let from_second = if j > 0 { inside[j - 1] * (m - j + 1) as f64 / left } else { 0.0 };
            let here = if i == 0 && j == 0 { 1.0 } else { from_first + from_second };
            if reaches(i, j) {
                outside += here;
                inside[j] = 0.0;
            } else {
                inside[j] = here;
            }
        }
    }
    outside.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_p_of_tiny_samples_is_what_one_counts_by_hand() {
        // Two against two: of 6 orders, 2 have D = 1.
        assert!((ks_exact_p(1.0, 2, 2) - 1.0 / 3.0).abs() < 1e-12);
        assert!((ks_exact_p(0.5, 2, 2) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn asymptotic_p_is_close_to_the_exact_one() {
        for d in [0.05, 0.1, 0.15] {
            let (exact, limit) = (ks_exact_p(d, 400, 300), ks_asymptotic_p(d, 400, 300));
            assert!((exact - limit).abs() < 0.02 + 0.1 * exact, "{d}: {exact} {limit}");
        }
    }

    #[test]
    fn one_bin_says_nothing() {
        assert_eq!(ks_interval(&[5], &[7]), Some(Interval { low: 0.0, high: 1.0 }));
        assert_eq!(ks_interval(&[0], &[7]), None);
    }
}
