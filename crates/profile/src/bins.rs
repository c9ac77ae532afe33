//! Bin edges as NumPy makes them, and the way from a value to its bin.
//! Edges are 64-bit floats in rising order; every bin is half-open, the last one closed.

/// Most bins that an edge rule makes; stops a far outlier from asking for millions.
const MAX_BINS: usize = 1000;

/// `numpy.histogram_bin_edges(values, 'doane')`. `sorted` must rise and hold no NaN or infinity.
pub fn doane_edges(sorted: &[f64]) -> Vec<f64> {
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return vec![0.0, 1.0] };
    equal_edges(min, max, doane_width(sorted, max - min))
}

/// `numpy.histogram_bin_edges(values, 'sturges')` for `n` values from `min` to `max`.
pub fn sturges_edges(min: f64, max: f64, n: u64) -> Vec<f64> {
    equal_edges(min, max, (max - min) / ((n as f64).log2() + 1.0))
}

fn doane_width(sorted: &[f64], range: f64) -> f64 {
    let n = sorted.len() as f64;
    if sorted.len() <= 2 {
        return 0.0;
    }
    let sg1 = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
    let mean = sorted.iter().sum::<f64>() / n;
    let sigma = (sorted.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    if sigma <= 0.0 {
        return 0.0;
    }
    let g1 = sorted.iter().map(|x| ((x - mean) / sigma).powi(3)).sum::<f64>() / n;
    range / (1.0 + n.log2() + (1.0 + g1.abs() / sg1).log2())
}

fn equal_edges(min: f64, max: f64, width: f64) -> Vec<f64> {
    let (min, max) = if min < max { (min, max) } else { (min - 0.5, max + 0.5) };
    let wanted = if width > 0.0 { ((max - min) / width).ceil() } else { 1.0 };
    let bins = (1..=MAX_BINS).find(|bins| *bins as f64 >= wanted).unwrap_or(MAX_BINS);
    let step = (max - min) / bins as f64;
    let mut edges: Vec<f64> = (0..=bins).map(|i| min + i as f64 * step).collect();
    edges[bins] = max;
    edges
}

/// `count` + 1 quantile edges of rising values, without repeats: fewer where many values are equal.
pub(crate) fn quantile_edges(sorted: &[f64], count: usize) -> Vec<f64> {
    let last = sorted.len().saturating_sub(1);
    let mut edges: Vec<f64> = (0..=count).map(|i| sorted[i * last / count]).collect();
    edges.dedup();
    edges
}

/// The bin of `value` on `edges`; `None` outside.
pub(crate) fn bin_of(edges: &[f64], value: f64) -> Option<usize> {
    let (first, last) = (*edges.first()?, *edges.last()?);
    if value < first || value > last {
        return None;
    }
    let above = edges.partition_point(|edge| *edge <= value);
    Some(above.saturating_sub(1).min(edges.len().saturating_sub(2)))
}

/// True if `edges` can serve: finite, rising, at least two, at most a bound.
pub(crate) fn are_edges(edges: &[f64]) -> bool {
    (2..=MAX_BINS + 1).contains(&edges.len())
        && edges.iter().all(|e| e.is_finite())
        && edges.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bin_is_closed_and_the_others_are_half_open() {
        let edges = [0.0, 1.0, 2.0];
        assert_eq!(bin_of(&edges, 0.0), Some(0));
        assert_eq!(bin_of(&edges, 1.0), Some(1));
        assert_eq!(bin_of(&edges, 2.0), Some(1));
        assert_eq!(bin_of(&edges, 2.1), None);
        assert_eq!(bin_of(&edges, -0.1), None);
    }

    #[test]
    fn constant_and_tiny_samples_get_one_bin() {
        assert_eq!(doane_edges(&[3.0, 3.0, 3.0]), [2.5, 3.5]);
        assert_eq!(doane_edges(&[1.0, 2.0]), [1.0, 2.0]);
        assert_eq!(doane_edges(&[]), [0.0, 1.0]);
    }

    #[test]
    fn repeated_quantiles_collapse() {
        let sorted: Vec<f64> = (0..100).map(|i| f64::from(i / 50)).collect();
        assert_eq!(quantile_edges(&sorted, 4), [0.0, 1.0]);
    }
}
