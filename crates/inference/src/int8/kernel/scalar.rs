//! The reference: convolution as ONNX defines it, from the weights in ONNX's own order.

use super::layout::Act;
use super::spec::ConvSpec;

/// Weights less their zero points, `[out, in / groups, kh, kw]`.
#[derive(Debug)]
pub(super) struct Plain {
    weights: Vec<i16>,
}

impl Plain {
    pub(super) const fn new(weights: Vec<i16>) -> Self {
        Self { weights }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.weights.len() * 2
    }

    /// Calls `put(image, y, x, channel, sum of (value - zero point) * weight)` for each output.
    pub(super) fn sums(
        &self,
        spec: &ConvSpec,
        input: &Act<'_>,
        [height, width]: [usize; 2],
        mut put: impl FnMut([usize; 3], usize, i32),
    ) {
        for n in 0..input.layout().batch {
            for y in 0..height {
                for x in 0..width {
                    for channel in 0..spec.out_channels {
                        put([n, y, x], channel, self.sum(spec, input, [n, y, x], channel));
                    }
                }
            }
        }
    }

    fn sum(&self, spec: &ConvSpec, input: &Act<'_>, [n, y, x]: [usize; 3], channel: usize) -> i32 {
        let layout = input.layout();
        let [kernel_h, kernel_w] = spec.kernel;
        let group_in = spec.group_in();
        let first = channel / spec.group_out() * group_in;
        let corner = layout.pixel(n, y * spec.stride[0], x * spec.stride[1])
            - spec.pads.top * layout.row_bytes()
            - spec.pads.left * layout.pixel_bytes();
        let zero = i32::from(layout.zero_point);
        let mut sum = 0_i32;
        for c in 0..group_in {
            for ky in 0..kernel_h {
                for kx in 0..kernel_w {
                    let place = corner
                        + ky * spec.dilation[0] * layout.row_bytes()
                        + kx * spec.dilation[1] * layout.pixel_bytes();
                    let value = i32::from(input.data()[place + first + c]) - zero;
                    let index = ((channel * group_in + c) * kernel_h + ky) * kernel_w + kx;
                    sum = sum.wrapping_add(value * i32::from(self.weights[index]));
                }
            }
        }
        sum
    }
}
