//! Average and maximum pooling; global pooling is a window of the whole image.

#[cfg(target_arch = "aarch64")]
use super::arm::larger;
use super::layout::{Act, ActMut, Border};
use super::requant::round;
use super::wide::wide;

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
    fn places(&self, axis: usize, index: usize, size: usize) -> impl Iterator<Item = usize> + use<> {
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
        let (zero, z) = (i32::from(input.layout().zero_point), output.layout().zero_point);
        let whole = self.window.kernel[0] * self.window.kernel[1];
        let mut sums = vec![0_i32; input.layout().pixel_bytes()];
        windows(&self.window, input, output, |places, data, target| {
            sum_pixels(&mut sums, data, places);
            let count = if self.counts_pads { whole } else { places.len() };
            let multiplier = if count == 0 { 0.0 } else { self.multiplier / count as f32 };
            let zeroes = zero.wrapping_mul(places.len() as i32);
            average(target, &sums, zeroes, multiplier, z);
        });
    }
}

wide! {
    fn sum_pixels(sums: &mut [i32], data: &[u8], places: &[usize]) {
        sums.fill(0);
        for place in places {
            for (sum, value) in sums.iter_mut().zip(&data[*place..]) {
                *sum = sum.wrapping_add(i32::from(*value));
            }
        }
    }

    fn average(target: &mut [u8], sums: &[i32], zeroes: i32, multiplier: f32, zero_point: u8) {
        for (target, sum) in target.iter_mut().zip(sums) {
            *target = round(sum.wrapping_sub(zeroes) as f32 * multiplier, zero_point);
        }
    }

    fn highest(target: &mut [u8], data: &[u8], places: &[usize]) {
        // Pixels are multiples of 16 bytes.
        for (index, target) in target.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let mut most = [0; 16];
            for place in places {
                most = larger(most, &data[place + 16 * index..].as_chunks().0[0]);
            }
            *target = most;
        }
    }
}

/// The larger of each two bytes.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
fn larger(mut bytes: [u8; 16], others: &[u8; 16]) -> [u8; 16] {
    for (byte, other) in bytes.iter_mut().zip(others) {
        *byte = (*byte).max(*other);
    }
    bytes
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
        windows(&self.window, input, output, |places, data, target| {
            highest(target, data, places);
        });
    }
}

/// Calls `fold(places of the window's pixels, input, output pixel)` for each output pixel.
fn windows(
    window: &Window,
    input: &Act<'_>,
    output: &mut ActMut<'_>,
    mut fold: impl FnMut(&[usize], &[u8], &mut [u8]),
) {
    let (from, to) = (*input.layout(), *output.layout());
    assert_eq!([from.batch, from.channels], [to.batch, to.channels], "batch and channels of a pool");
    assert!(!from.is_packed && !to.is_packed, "packed pixels");
    output.fill_border();
    let (pixel, row) = (to.pixel_bytes(), from.row_bytes());
    let columns: Vec<Vec<usize>> = (0..to.width)
        .map(|x| window.places(1, x, from.width).map(|column| column * pixel).collect())
        .collect();
    let mut places = Vec::new();
    for n in 0..to.batch {
        for y in 0..to.height {
            let rows: Vec<usize> = window.places(0, y, from.height).collect();
            for (x, columns) in columns.iter().enumerate() {
                places.clear();
                for y in &rows {
                    let start = from.pixel(n, 0, 0) + y * row;
                    places.extend(columns.iter().map(|column| start + column));
                }
                let target = &mut output.data_mut()[to.pixel(n, y, x)..][..pixel];
                fold(&places, input.data(), target);
            }
        }
    }
}
