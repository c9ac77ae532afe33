//! Matrix products with constant weights: a 1x1 convolution over rows instead of pixels.

use super::conv::{Conv, Scratch};
use super::layout::{Act, ActMut};
use super::level::Level;
use super::requant::Requant;
use super::spec::{ConvSpec, PackError, Weights, check_length};

/// `[rows, k] x [k, n]`; activations are [`Layout::matrix`](super::Layout::matrix), or any layout whose channels
/// are the `k` features.
#[derive(Debug)]
pub struct MatMul {
    conv: Conv,
}

impl MatMul {
    /// Packs `weights`, `[k, n]`, or `[n, k]` where `is_transposed`; else as [`Conv::pack`], a column being an
    /// output channel.
    ///
    /// # Errors
    /// As [`Conv::pack`].
    pub fn pack(
        [k, n]: [usize; 2],
        weights: Weights<'_>,
        is_transposed: bool,
        weight_zero_points: &[i32],
        requant: &Requant,
        in_zero_point: u8,
        level: Level,
    ) -> Result<Self, PackError> {
        let spec = ConvSpec::pointwise(k, n);
        with_rows([k, n], weights, is_transposed, |weights| {
            Conv::pack(&spec, weights, weight_zero_points, requant, in_zero_point, level)
        })
    }

    /// Packs `weights` for [`run_sums`](Self::run_sums) only.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pack_sums(
        [k, n]: [usize; 2],
        weights: Weights<'_>,
        is_transposed: bool,
        weight_zero_points: &[i32],
        level: Level,
    ) -> Result<Self, PackError> {
        let spec = ConvSpec::pointwise(k, n);
        with_rows([k, n], weights, is_transposed, |weights| {
            Conv::pack_sums(&spec, weights, weight_zero_points, level)
        })
    }

    /// The convolution that does the work.
    pub const fn conv(&self) -> &Conv {
        &self.conv
    }

    /// As [`Conv::run`].
    pub fn run(&self, input: &Act<'_>, output: &mut ActMut<'_>, scratch: &mut Scratch) {
        self.conv.run(input, output, scratch);
    }

    /// As [`Conv::run_sums`].
    pub fn run_sums(&self, input: &Act<'_>, sums: &mut [i32], scratch: &mut Scratch) {
        self.conv.run_sums(input, sums, scratch);
    }
}

fn with_rows(
    [k, n]: [usize; 2],
    weights: Weights<'_>,
    is_transposed: bool,
    pack: impl FnOnce(Weights<'_>) -> Result<Conv, PackError>,
) -> Result<MatMul, PackError> {
    let spec = ConvSpec::pointwise(k, n);
    check_length("weights", weights.len(), spec.check()?)?;
    let conv = match weights {
        _ if is_transposed => pack(weights),
        Weights::S8(values) => pack(Weights::S8(&turned(values, k, n))),
        Weights::U8(values) => pack(Weights::U8(&turned(values, k, n))),
    }?;
    Ok(MatMul { conv })
}

fn turned<T: Copy>(values: &[T], k: usize, n: usize) -> Vec<T> {
    (0..n).flat_map(|column| (0..k).map(move |row| values[row * n + column])).collect()
}
