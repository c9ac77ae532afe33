//! Layer normalization in f32.

use super::wide::wide;

/// Values at a time.
const LANES: usize = 16;

/// LayerNormalization of rows: (value - mean) / sqrt(variance + epsilon) * scale + bias.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// One for each value of a row.
    pub scale: Vec<f32>,
    /// The same.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl LayerNorm {
    /// Normalizes rows as long as its scale.
    ///
    /// # Panics
    /// If the lengths differ, or there is a part of a row.
    pub fn run(&self, values: &[f32], to: &mut [f32]) {
        let length = self.scale.len();
        assert!(length > 0 && self.bias.len() == length && values.len().is_multiple_of(length));
        assert_eq!(values.len(), to.len(), "lengths of a normalization");
        rows(values, to, self);
    }
}

/// The mean of each run of `length` values.
///
/// # Panics
/// If there are fewer runs than results.
pub fn means(values: &[f32], length: usize, to: &mut [f32]) {
    assert!(values.len() >= to.len() * length, "values of the means");
    mean_rows(values, length, to);
}

wide! {
    fn rows(values: &[f32], to: &mut [f32], norm: &LayerNorm) {
        let length = norm.scale.len();
        for (to, values) in to.chunks_exact_mut(length).zip(values.chunks_exact(length)) {
            let mean = sum(values, |value| value) / length as f32;
            let variance = sum(values, |value| (value - mean) * (value - mean)) / length as f32;
            let factor = (variance + norm.epsilon).sqrt().recip();
            for (((to, value), scale), bias) in to.iter_mut().zip(values).zip(&norm.scale).zip(&norm.bias) {
                *to = (value - mean) * factor * scale + bias;
            }
        }
    }

    fn mean_rows(values: &[f32], length: usize, to: &mut [f32]) {
        for (to, values) in to.iter_mut().zip(values.chunks_exact(length.max(1))) {
            *to = sum(values, |value| value) / length as f32;
        }
    }
}

/// The sum of a function of each value, in so many lanes.
#[inline(always)]
fn sum(values: &[f32], each: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        (0..LANES).for_each(|lane| sums[lane] += each(chunk[lane]));
    }
    rest.iter().zip(&mut sums).for_each(|(value, sum)| *sum += each(*value));
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::wide::Width;
    use super::{LayerNorm, means};

    #[test]
    fn rows_are_normalized_as_in_64_bits() {
        for length in [1, 3, 16, 77, 768] {
            let values: Vec<f32> = (0..3 * length).map(|at| (at * 61 % 97) as f32 / 10.0 - 3.0).collect();
            let scale: Vec<f32> = (0..length).map(|at| 0.5 + (at % 7) as f32).collect();
            let bias: Vec<f32> = (0..length).map(|at| (at % 5) as f32 - 2.0).collect();
            let norm = LayerNorm { scale, bias, epsilon: 1e-5 };
            Width::for_each(|width| {
                let (mut got, mut mean_of) = (vec![0.0; 3 * length], [0.0; 3]);
                norm.run(&values, &mut got);
                means(&values, length, &mut mean_of);
                for (row, (values, got)) in values.chunks(length).zip(got.chunks(length)).enumerate() {
                    let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
                    let mean = wide.iter().sum::<f64>() / length as f64;
                    let variance =
                        wide.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / length as f64;
                    assert!((f64::from(mean_of[row]) - mean).abs() < 1e-5);
                    for (at, (value, got)) in wide.iter().zip(got).enumerate() {
                        let want = (value - mean) / (variance + 1e-5).sqrt() * f64::from(norm.scale[at])
                            + f64::from(norm.bias[at]);
                        assert!((want - f64::from(*got)).abs() < 1e-4, "{width:?} {length}: {got} {want}");
                    }
                }
            });
        }
    }
}
