//! Distances between two distributions on the same bins, and between two sketches.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use crate::sketch::{ALPHA, Sketch};

/// Counts -> shares; all zero where nothing was counted.
pub fn normalise(counts: &[u64]) -> Vec<f64> {
    let sum: f64 = counts.iter().map(|n| *n as f64).sum();
    counts.iter().map(|n| if sum > 0.0 { *n as f64 / sum } else { 0.0 }).collect()
}

fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let half = |a: f64, m: f64| if a > 0.0 { a * (a / m).ln() } else { 0.0 };
    let terms = p.iter().zip(q).map(|(p, q)| {
        let m = f64::midpoint(*p, *q);
        half(*p, m) + half(*q, m)
    });
    (terms.sum::<f64>() / 2.0).max(0.0)
}

/// Jensen-Shannon distance, natural logarithm (Evidently, SciPy's default).
pub fn jensen_shannon_natural(p: &[f64], q: &[f64]) -> f64 {
    divergence(p, q).sqrt()
}

/// Jensen-Shannon distance, base 2 (NannyML): 0 to 1.
pub fn jensen_shannon_base2(p: &[f64], q: &[f64]) -> f64 {
    jensen_shannon_divergence_base2(p, q).sqrt()
}

/// Jensen-Shannon divergence, base 2, no root (TFDV): 0 to 1.
pub fn jensen_shannon_divergence_base2(p: &[f64], q: &[f64]) -> f64 {
    (divergence(p, q) / std::f64::consts::LN_2).min(1.0)
}

/// Hellinger distance: 0 to 1.
pub fn hellinger(p: &[f64], q: &[f64]) -> f64 {
    let overlap: f64 = p.iter().zip(q).map(|(p, q)| (p * q).sqrt()).sum();
    (1.0 - overlap).max(0.0).sqrt()
}

/// Largest difference of a bin's share.
pub fn l_infinity(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max)
}

/// Population stability index on counts; half an event is added to every bin of both sides, so that an empty
/// bin weighs as much as the sample sizes say and no more.
pub fn psi(reference: &[u64], current: &[u64]) -> f64 {
    let smooth = |counts: &[u64]| -> Vec<f64> {
        let sum: f64 = counts.iter().map(|n| *n as f64 + 0.5).sum();
        counts.iter().map(|n| (*n as f64 + 0.5) / sum).collect()
    };
    psi_of(&smooth(reference), &smooth(current))
}

/// Population stability index with Evidently's filling of empty bins: 1e-4, or a millionth of the smallest share.
pub fn psi_floored(p: &[f64], q: &[f64]) -> f64 {
    psi_of(&floored(p), &floored(q))
}

fn psi_of(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| (p - q) * (p / q).ln()).sum()
}

fn floored(shares: &[f64]) -> Vec<f64> {
    let smallest = shares.iter().copied().filter(|s| *s > 0.0).fold(f64::INFINITY, f64::min);
    let floor = if smallest <= 1e-4 { smallest / 1e6 } else { 1e-4 };
    shares.iter().map(|s| if *s > 0.0 { *s } else { floor }).collect()
}

/// PSI that `bins` bins reach with probability `alpha` without any drift, both samples being samples.
pub fn psi_critical(alpha: f64, bins: usize, n: u64, m: u64) -> Option<f64> {
    let freedom = bins.checked_sub(1).filter(|f| *f > 0)?;
    let chi = ChiSquared::new(freedom as f64).ok()?;
    (n > 0 && m > 0).then(|| chi.inverse_cdf(1.0 - alpha) * (1.0 / n as f64 + 1.0 / m as f64))
}

/// Each bin's part of the symmetrised divergence, largest first: `(bin, share of the whole)`.
pub fn contributions(p: &[f64], q: &[f64]) -> Vec<(usize, f64)> {
    let parts: Vec<f64> = p.iter().zip(q).map(|(p, q)| divergence(&[*p], &[*q])).collect();
    let whole: f64 = parts.iter().sum();
    let mut ranked: Vec<(usize, f64)> = parts
        .into_iter()
        .enumerate()
        .map(|(bin, part)| (bin, if whole > 0.0 { part / whole } else { 0.0 }))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

/// Wasserstein-1 distance between two sketches; `None` if one is empty.
pub fn wasserstein(a: &Sketch, b: &Sketch) -> Option<f64> {
    let (n, m) = (a.n() as f64, b.n() as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let signed =
        a.points().map(|(v, c)| (v, c as f64 / n)).chain(b.points().map(|(v, c)| (v, -(c as f64) / m)));
    let mut points: Vec<(f64, f64)> = signed.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut gap = 0.0;
    let mut sum = 0.0;
    for pair in points.windows(2) {
        gap += pair[0].1;
        sum += f64::abs(gap) * (pair[1].0 - pair[0].0);
    }
    Some(sum)
}

/// How far [`wasserstein`] of two sketches can be from that of the values.
pub fn wasserstein_error(a: &Sketch, b: &Sketch) -> f64 {
    ALPHA * (a.mean_magnitude() + b.mean_magnitude()) / (1.0 - ALPHA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_conventions_of_jensen_shannon_convert() {
        let (p, q) = ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]);
        let natural = jensen_shannon_natural(&p, &q);
        assert!((natural - jensen_shannon_base2(&p, &q) * std::f64::consts::LN_2.sqrt()).abs() < 1e-15);
        assert!((jensen_shannon_base2(&[1.0, 0.0], &[0.0, 1.0]) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn equal_distributions_are_at_distance_zero() {
        let p = normalise(&[5, 0, 7]);
        assert!(jensen_shannon_natural(&p, &p) < 1e-12);
        assert!(l_infinity(&p, &p) < 1e-12);
        assert!(hellinger(&p, &p) < 1e-7);
        assert!(psi(&[5, 0, 7], &[5, 0, 7]).abs() < 1e-12);
    }

    #[test]
    fn the_bin_that_moved_contributes_most() {
        let ranked = contributions(&[0.5, 0.3, 0.2], &[0.5, 0.1, 0.4]);
        assert_eq!(ranked[2].0, 0);
        assert!((ranked.iter().map(|r| r.1).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
