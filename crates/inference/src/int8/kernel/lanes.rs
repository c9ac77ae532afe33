//! Depthwise convolution for what the vector kernels don't take: sums, and weights that need nine bits. Plain loops
//! over the channels, which compilers turn into vector code.

use super::layout::{Act, ActMut};
use super::requant::{Requant, round};
use super::spec::ConvSpec;
use super::wide::wide;

/// Packed weights.
#[derive(Debug)]
pub(super) struct Lanes {
    /// `[taps][channels]`, channels as the pixels have them.
    weights: Vec<i16>,
    lanes: usize,
}

impl Lanes {
    /// From weights less their zero points, `[channels, 1, kh, kw]`.
    pub(super) fn pack(spec: &ConvSpec, weights: &[i16]) -> Self {
        let (taps, lanes) = (spec.taps(), spec.out_channels.next_multiple_of(16));
        let mut packed = vec![0; taps * lanes];
        for (channel, own) in weights.chunks_exact(taps).enumerate() {
            for (tap, weight) in own.iter().enumerate() {
                packed[tap * lanes + channel] = *weight;
            }
        }
        Self { weights: packed, lanes }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.weights.len() * 2
    }

    /// Calls `put(image, y, x, sums of (value - zero point) * weight of all lanes)` for each output pixel.
    pub(super) fn sums(
        &self,
        spec: &ConvSpec,
        input: &Act<'_>,
        [height, width]: [usize; 2],
        mut put: impl FnMut([usize; 3], &[i32]),
    ) {
        let layout = input.layout();
        let zero = i32::from(layout.zero_point);
        let taps: Vec<usize> = (0..spec.taps())
            .map(|tap| {
                let (ky, kx) = (tap / spec.kernel[1], tap % spec.kernel[1]);
                ky * spec.dilation[0] * layout.row_bytes() + kx * spec.dilation[1] * layout.pixel_bytes()
            })
            .collect();
        let mut sums = vec![0; self.lanes];
        for n in 0..layout.batch {
            for y in 0..height {
                for x in 0..width {
                    let corner = layout.pixel(n, y * spec.stride[0], x * spec.stride[1])
                        - spec.pads.top * layout.row_bytes()
                        - spec.pads.left * layout.pixel_bytes();
                    sum_taps(&mut sums, &input.data()[corner..], &taps, &self.weights, zero);
                    put([n, y, x], &sums);
                }
            }
        }
    }

    /// The whole convolution, requantized.
    pub(super) fn run(
        &self,
        spec: &ConvSpec,
        requant: &Requant,
        input: &Act<'_>,
        size: [usize; 2],
        output: &mut ActMut<'_>,
    ) {
        let to = *output.layout();
        self.sums(spec, input, size, |[n, y, x], sums| {
            let pixel = &mut output.data_mut()[to.pixel(n, y, x)..][..to.channels];
            requantize(pixel, sums, requant);
        });
    }
}

wide! {
    fn sum_taps(sums: &mut [i32], data: &[u8], taps: &[usize], weights: &[i16], zero: i32) {
        sums.fill(0);
        let lanes = sums.len();
        for (tap, weights) in taps.iter().zip(weights.chunks_exact(lanes)) {
            for ((sum, value), weight) in sums.iter_mut().zip(&data[*tap..][..lanes]).zip(weights) {
                *sum = sum.wrapping_add((i32::from(*value) - zero) * i32::from(*weight));
            }
        }
    }

    fn requantize(pixel: &mut [u8], sums: &[i32], requant: &Requant) {
        let channels = sums.iter().zip(&requant.bias).zip(&requant.multiplier);
        for (to, ((sum, bias), multiplier)) in pixel.iter_mut().zip(channels) {
            let value = round(sum.wrapping_add(*bias) as f32 * multiplier, requant.zero_point);
            *to = value.max(requant.lo).min(requant.hi);
        }
    }
}
