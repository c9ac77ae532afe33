//! The few operators in f32 that stand between or after quantized layers.

use super::step::Bounds;
use crate::int8::kernel::{self, Arith, Bilinear, Curve, LayerNorm, Window};

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
    /// LayerNormalization of rows.
    Norm(Box<LayerNorm>),
    /// A function of each value.
    Curve(Curve),
    /// Two tensors, the second one of one shape with the first or smaller: `repeat` neighbours share a value, and after
    /// the last of a row's values comes the first again. A constant is the second where there is but one.
    Arith { op: Arith, repeat: usize, each: usize, constant: Vec<f32> },
    /// Planes of another size, with values in between.
    Bilinear(Box<Bilinear>),
    /// Maximum pooling of planes of this size.
    MaxPool { window: Window, from: [usize; 2], to: [usize; 2] },
}

impl FloatOp {
    /// What reports call it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Clip(_) => "f32 bounds",
            Self::Add(_) | Self::Arith { .. } => "f32 arithmetic",
            Self::Mean(_) => "f32 mean",
            Self::Softmax(_) => "f32 softmax",
            Self::Norm(_) => "f32 normalization",
            Self::Curve(_) => "f32 function",
            Self::Bilinear(_) => "f32 resize",
            Self::MaxPool { .. } => "f32 maximum pool",
        }
    }

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
            (Self::Mean(run), [input]) => kernel::means(input, *run, output),
            (Self::Softmax(run), [input]) => {
                output.copy_from_slice(input);
                kernel::softmax(output, *run, 1);
            }
            (Self::Norm(norm), [input]) => norm.run(input, output),
            (Self::Bilinear(bilinear), [input]) => bilinear.run(input, output),
            (Self::Curve(curve), [input]) => curve.run(input, output),
            (Self::Arith { op, repeat, constant, .. }, [a]) => op.run(a, (constant, *repeat), output),
            (Self::Arith { op, repeat, each, .. }, [a, b]) => {
                let rows = b.len() / each.max(&1);
                let row = (a.len() / rows.max(1)).max(1);
                let parts = a.chunks_exact(row).zip(b.chunks_exact((*each).max(1)));
                for (to, (a, b)) in output.chunks_exact_mut(row).zip(parts) {
                    op.run(a, (b, *repeat), to);
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

fn max_pool(window: &Window, (plane, from): (&[f32], [usize; 2]), (to_plane, to): (&mut [f32], [usize; 2])) {
    let Window { kernel, stride, dilation, pads } = *window;
    for (y, line) in to_plane.chunks_exact_mut(to[1].max(1)).enumerate() {
        line.fill(f32::NEG_INFINITY);
        let rows = (0..kernel[0]).filter_map(|tap| {
            (y * stride[0] + tap * dilation[0]).checked_sub(pads.top).filter(|row| *row < from[0])
        });
        for row in rows {
            let values = &plane[row * from[1]..][..from[1]];
            for offset in (0..kernel[1]).map(|tap| tap * dilation[1]) {
                // From the first window in which this tap is inside to the last.
                let first = pads.left.saturating_sub(offset).div_ceil(stride[1]);
                let end = (from[1] + pads.left).saturating_sub(offset).div_ceil(stride[1]).min(to[1]);
                let Some(line) = line.get_mut(first..end) else { continue };
                let values = values[(first * stride[1] + offset - pads.left).min(from[1])..].iter();
                for (to, value) in line.iter_mut().zip(values.step_by(stride[1])) {
                    *to = to.max(*value);
                }
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
    fn each_window_takes_each_tap_that_is_inside() {
        for case in 0..400_usize {
            let pick = |divisor: usize, count: usize| case / divisor % count;
            let (kernel, stride) = ([1 + pick(1, 3), 1 + pick(3, 4)], [1 + pick(2, 2), 1 + pick(5, 3)]);
            let (dilation, pad) = ([1, 1 + pick(7, 2)], pick(11, 3));
            let window = Window { kernel, stride, dilation, pads: Border::all(pad) };
            let from = [5, 7];
            let size = |axis: usize| {
                (from[axis] + 2 * pad)
                    .checked_sub((kernel[axis] - 1) * dilation[axis] + 1)
                    .map(|rest| rest / stride[axis] + 1)
            };
            let (Some(height), Some(width)) = (size(0), size(1)) else { continue };
            let values: Vec<f32> = (0..35).map(|index| (index * 17 % 35) as f32).collect();
            let mut output = vec![0.0; height * width];
            FloatOp::MaxPool { window, from, to: [height, width] }.run(&[&values], &mut output);
            for (index, got) in output.into_iter().enumerate() {
                let taps = (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| [ky, kx]));
                let inside = taps.filter_map(|[ky, kx]| {
                    let row = (index / width * stride[0] + ky * dilation[0]).checked_sub(pad)?;
                    let column = (index % width * stride[1] + kx * dilation[1]).checked_sub(pad)?;
                    (row < 5 && column < 7).then(|| values[row * 7 + column])
                });
                let want = inside.fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(got.to_bits(), want.to_bits(), "case {case}, place {index}");
            }
        }
    }

    #[test]
    fn sums_stay_within_bounds() {
        let mut output = [0.0; 2];
        FloatOp::Add(Bounds { lo: 0.0, hi: 6.0 }).run(&[&[1.0, 5.0], &[-3.0, 5.0]], &mut output);
        assert_eq!(output.map(f32::to_bits), [0.0_f32, 6.0].map(f32::to_bits));
    }
}
