//! First convolutions for tiles: a window's row of 4-byte pixels is one wide pixel, whose bytes lie side by side.
//!
//! A tile takes 64 bytes of a row at once. The seven pixels of a 7x7 window have 28 in each of its rows, so that its rows
//! would have to be copied into one. Instead each of them is taken as 64 bytes where it lies, and the pixels behind the
//! window meet weights of zero: more to multiply, but nothing to copy.

use super::level::Level;
use super::spec::ConvSpec;
use super::tile;

/// Channels of a wide pixel.
const WIDE: usize = 64;

/// Channels of a packed pixel.
const PIXEL: usize = 4;

/// Whether a level's kernel is faster on wide pixels, where they are packed.
pub(super) fn folds(spec: &ConvSpec, level: Level) -> bool {
    let [height, width] = spec.kernel;
    let has_row = spec.groups == 1 && spec.in_channels <= PIXEL && spec.dilation[1] == 1;
    let is_row = (2..=WIDE / PIXEL).contains(&width);
    has_row && is_row && tile::takes_images(level) && !tile::takes_parts(level, height * width * PIXEL)
}

/// The convolution of wide pixels by a column of taps, and its weights; both as [`ConvSpec`] and ONNX have them.
pub(super) fn fold(spec: &ConvSpec, weights: &[i16]) -> (ConvSpec, Vec<i16>) {
    let [height, width] = spec.kernel;
    let each = spec.in_channels * height * width;
    let mut wide = vec![0; spec.out_channels * WIDE * height];
    for (wide, own) in wide.chunks_exact_mut(WIDE * height).zip(weights.chunks_exact(each)) {
        for (at, weight) in own.iter().enumerate() {
            let (channel, y, x) = (at / (height * width), at / width % height, at % width);
            wide[(x * PIXEL + channel) * height + y] = *weight;
        }
    }
    (ConvSpec { in_channels: WIDE, kernel: [height, 1], ..*spec }, wide)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "x86_64")]
    use super::super::level::Level;
    use super::super::spec::ConvSpec;
    #[cfg(target_arch = "x86_64")]
    use super::folds;
    use super::{PIXEL, WIDE, fold};

    fn first(in_channels: usize, kernel: [usize; 2]) -> ConvSpec {
        ConvSpec { kernel, stride: [2, 2], ..ConvSpec::pointwise(in_channels, 3) }
    }

    #[test]
    fn each_weight_stands_at_its_byte_of_the_wide_pixel_and_nothing_else_does() {
        let spec = first(3, [2, 5]);
        let weights: Vec<i16> = (1..=3 * 3 * 2 * 5).collect();
        let (wide, folded) = fold(&spec, &weights);
        assert_eq!((wide.in_channels, wide.kernel, wide.stride), (WIDE, [2, 1], [2, 2]));
        let mut got = Vec::new();
        for (out, channel, y, x) in places(3, 3, 2, 5) {
            got.push(folded[(out * WIDE + x * PIXEL + channel) * 2 + y]);
        }
        assert_eq!(got, weights);
        assert_eq!(folded.iter().filter(|weight| **weight != 0).count(), weights.len());
    }

    fn places(a: usize, b: usize, c: usize, d: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let each = move |at: usize| (at / (b * c * d), at / (c * d) % b, at / d % c, at % d);
        (0..a * b * c * d).map(each)
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_tiles_take_faster_is_folded() {
        assert!(folds(&first(3, [7, 7]), Level::Amx) && folds(&first(1, [5, 5]), Level::Amx));
        assert!(folds(&first(4, [1, 16]), Level::Amx));
        assert!(!folds(&first(3, [3, 3]), Level::Amx), "shorter rows are multiplied without tiles");
        assert!(!folds(&first(4, [1, 17]), Level::Amx) && !folds(&first(5, [7, 7]), Level::Amx));
        assert!(!folds(&ConvSpec { dilation: [1, 2], ..first(3, [7, 7]) }, Level::Amx));
        assert!(!folds(&first(3, [7, 7]), Level::Avx512Vnni));
    }
}
