//! Average and maximum pooling; global pooling is a window of the whole image.

use super::layout::{Act, ActMut, Border};
use super::requant::round;

/// The window of a pool. What lies outside the image isn't read, so no border is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Steps.
    pub stride: [usize; 2],
    /// Distance of the places in the window.
    pub dilation: [usize; 2],
    /// Padding; `bottom` and `right` don't matter, the output's size says where the last window stands.
    pub pads: Border,
}

impl Window {
    /// The whole image.
    pub const fn global(height: usize, width: usize) -> Self {
        let pads = Border { top: 0, left: 0, bottom: 0, right: 0 };
        Self { kernel: [height, width], stride: [1, 1], dilation: [1, 1], pads }
    }

    /// The places inside the image along one axis for output `index`.
    fn places(&self, axis: usize, index: usize, size: usize) -> impl Iterator<Item = usize> + Clone {
        let pad = [self.pads.top, self.pads.left][axis];
        let (start, step) = (index * self.stride[axis], self.dilation[axis]);
        (0..self.kernel[axis])
            .filter_map(move |k| (start + k * step).checked_sub(pad))
            .filter(move |place| *place < size)
    }
}

/// Average pooling: round((sum of (value - zero point)) * (multiplier / count)) + zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AvgPool {
    /// The window.
    pub window: Window,
    /// Whether padding counts as zeroes (`count_include_pad`).
    pub counts_pads: bool,
    /// Scale of the input / scale of the output.
    pub multiplier: f32,
}

impl AvgPool {
    /// Runs it; zero points are those of the layouts.
    ///
    /// # Panics
    /// If batch or channels differ.
    pub fn run(&self, input: &Act<'_>, output: &mut ActMut<'_>) {
        let (zero, z) = (i64::from(input.layout().zero_point), output.layout().zero_point);
        let whole = self.window.kernel[0] * self.window.kernel[1];
        windows(&self.window, input, output, |values| {
            let (mut sum, mut count) = (0_i64, 0_usize);
            for value in values {
                sum += i64::from(value) - zero;
                count += 1;
            }
            let count = if self.counts_pads { whole } else { count };
            let multiplier = if count == 0 { 0.0 } else { self.multiplier / count as f32 };
            round(sum as f32 * multiplier, z)
        });
    }
}

/// Maximum pooling; scale and zero point stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    /// The window.
    pub window: Window,
}

impl MaxPool {
    /// Runs it.
    ///
    /// # Panics
    /// If batch or channels differ.
    pub fn run(&self, input: &Act<'_>, output: &mut ActMut<'_>) {
        windows(&self.window, input, output, |values| values.max().unwrap_or(0));
    }
}

fn windows(
    window: &Window,
    input: &Act<'_>,
    output: &mut ActMut<'_>,
    fold: impl Fn(&mut dyn Iterator<Item = u8>) -> u8,
) {
    let (from, to) = (*input.layout(), *output.layout());
    assert_eq!([from.batch, from.channels], [to.batch, to.channels], "batch and channels of a pool");
    output.fill_border();
    for n in 0..to.batch {
        for y in 0..to.height {
            for x in 0..to.width {
                for c in 0..to.channels {
                    let columns = window.places(1, x, from.width);
                    let mut values = window
                        .places(0, y, from.height)
                        .flat_map(|row| columns.clone().map(move |column| input.get(n, c, row, column)));
                    output.set(n, c, y, x, fold(&mut values));
                }
            }
        }
    }
}
