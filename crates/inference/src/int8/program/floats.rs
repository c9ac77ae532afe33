//! The few operators in f32 that stand between or after quantized layers.

use super::step::Bounds;
use crate::int8::kernel::Window;

/// An operator over plain f32 tensors.
#[derive(Debug, Clone)]
pub(crate) enum FloatOp {
    /// Within bounds.
    Clip(Bounds),
    /// The sum of two tensors of one shape, within bounds.
    Add(Bounds),
    /// The mean of each run of so many elements.
    Mean(usize),
    /// Softmax over each run of so many elements.
    Softmax(usize),
    /// Maximum pooling of planes of this size.
    MaxPool { window: Window, from: [usize; 2], to: [usize; 2] },
}

impl FloatOp {
    /// Runs it.
    pub(super) fn run(&self, inputs: &[&[f32]], output: &mut [f32]) {
        match (self, inputs) {
            (Self::Clip(bounds), [input]) => {
                for (to, value) in output.iter_mut().zip(*input) {
                    *to = bounds.apply(*value);
                }
            }
            (Self::Add(bounds), [a, b]) => {
                for ((to, a), b) in output.iter_mut().zip(*a).zip(*b) {
                    *to = bounds.apply(a + b);
                }
            }
            (Self::Mean(run), [input]) => {
                for (to, values) in output.iter_mut().zip(input.chunks_exact(*run)) {
                    *to = values.iter().sum::<f32>() / *run as f32;
                }
            }
            (Self::Softmax(run), [input]) => {
                for (to, values) in output.chunks_exact_mut(*run).zip(input.chunks_exact(*run)) {
                    softmax(values, to);
                }
            }
            (Self::MaxPool { window, from, to }, [input]) => {
                let planes = input.chunks_exact((from[0] * from[1]).max(1));
                for (plane, to_plane) in planes.zip(output.chunks_exact_mut((to[0] * to[1]).max(1))) {
                    max_pool(window, (plane, *from), (to_plane, *to));
                }
            }
            (op, inputs) => unreachable!("{op:?} of {} inputs", inputs.len()),
        }
    }
}

fn softmax(values: &[f32], to: &mut [f32]) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (to, value) in to.iter_mut().zip(values) {
        *to = (value - max).exp();
        sum += *to;
    }
    for to in to {
        *to /= sum;
    }
}

fn max_pool(window: &Window, (plane, from): (&[f32], [usize; 2]), (to_plane, to): (&mut [f32], [usize; 2])) {
    let inside = |start: usize, tap: usize, axis: usize, pad: usize| {
        let place = start * window.stride[axis] + tap * window.dilation[axis];
        place.checked_sub(pad).filter(|place| *place < from[axis])
    };
    for (index, value) in to_plane.iter_mut().enumerate() {
        *value = f32::NEG_INFINITY;
        for row in (0..window.kernel[0]).filter_map(|tap| inside(index / to[1], tap, 0, window.pads.top)) {
            for column in
                (0..window.kernel[1]).filter_map(|tap| inside(index % to[1], tap, 1, window.pads.left))
            {
                *value = value.max(plane[row * from[1] + column]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, FloatOp};
    use crate::int8::kernel::{Border, Window};

    #[test]
    fn softmax_sums_to_one_and_does_not_overflow() {
        let mut output = [0.0; 4];
        FloatOp::Softmax(2).run(&[&[1000.0, 1000.0, 0.0, f32::ln(3.0)]], &mut output);
        for (got, want) in output.iter().zip([0.5, 0.5, 0.25, 0.75]) {
            assert!((got - want).abs() < 1e-6, "{output:?}");
        }
    }

    #[test]
    fn a_pool_reads_only_what_is_inside() {
        let window = Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], pads: Border::all(1) };
        let mut output = [0.0; 4];
        let op = FloatOp::MaxPool { window, from: [2, 2], to: [2, 2] };
        op.run(&[&[-1.0, -2.0, -3.0, -4.0]], &mut output);
        assert_eq!(output.map(f32::to_bits), [-1.0_f32, -2.0, -3.0, -4.0].map(f32::to_bits));
    }

    #[test]
    fn sums_stay_within_bounds() {
        let mut output = [0.0; 2];
        FloatOp::Add(Bounds { lo: 0.0, hi: 6.0 }).run(&[&[1.0, 5.0], &[-3.0, 5.0]], &mut output);
        assert_eq!(output.map(f32::to_bits), [0.0_f32, 6.0].map(f32::to_bits));
    }
}
