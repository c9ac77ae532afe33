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
    /// Padding; the output's size says where the last window stands, `bottom` and `right` matter only to
    /// [`Counts::Padding`].
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

    /// How many places along one axis for output `index` lie in the image or its padding.
    fn padded(&self, axis: usize, index: usize, size: usize) -> usize {
        let Border { top, left, bottom, right } = self.pads;
        let end = size + [top + bottom, left + right][axis];
        let place = |k: usize| index * self.stride[axis] + k * self.dilation[axis];
        (0..self.kernel[axis]).filter(|k| place(*k) < end).count()
    }
}

/// What a sum is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// The places in the image.
    Image,
    /// Those in its padding as well, as ONNX defines `count_include_pad`: not what a last window reaches beyond it.
    Padding,
    /// The whole window, wherever it stands, as ONNX Runtime's 8-bit pool does it.
    Window,
}

/// Pixels whose bytes u32 can sum.
pub const MAX_MEAN_PIXELS: usize = 1 << 24;

/// The mean of (value - zero point) * scale of each channel of each image.
///
/// # Panics
/// If there are more than [`MAX_MEAN_PIXELS`] or `to` has another length.
pub fn mean(input: &Act<'_>, scale: f32, to: &mut [f32]) {
    let layout = *input.layout();
    let pixels = layout.height * layout.width;
    assert!(pixels <= MAX_MEAN_PIXELS, "pixels of a mean");
    assert_eq!(to.len(), layout.batch * layout.channels, "length of the means");
    let zero = pixels as f64 * f64::from(layout.zero_point);
    let mut sums = vec![0; layout.channels];
    for (n, to) in to.chunks_exact_mut(layout.channels).enumerate() {
        sums.fill(0);
        for y in 0..layout.height {
            for x in 0..layout.width {
                add_up(&mut sums, &input.data()[layout.pixel(n, y, x)..][..layout.channels]);
            }
        }
        for (to, sum) in to.iter_mut().zip(&sums) {
            *to = ((f64::from(*sum) - zero) * f64::from(scale) / pixels as f64) as f32;
        }
    }
}

wide! {
    fn add_up(sums: &mut [u32], values: &[u8]) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += u32::from(*value);
        }
    }
}

/// Average pooling: round((sum of (value - zero point)) * (multiplier / count)) + zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AvgPool {
    /// The window.
    pub window: Window,
    /// Which places count; those outside of the image as zeroes.
    pub counts: Counts,
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
        let window = self.window;
        let size = [input.layout().height, input.layout().width];
        let mut sums = vec![0_i32; input.layout().pixel_bytes()];
        by_rows(&self.window, input, output, |y, row, data, target| {
            for (x, (columns, target)) in row.pixels(target).enumerate() {
                let places = row.starts.len() * columns.len();
                let count = match self.counts {
                    Counts::Image => places,
                    Counts::Padding => window.padded(0, y, size[0]) * window.padded(1, x, size[1]),
                    Counts::Window => window.kernel[0] * window.kernel[1],
                };
                let multiplier = if count == 0 { 0.0 } else { self.multiplier / count as f32 };
                if places > MAX_PLACES {
                    let mut totals = vec![0_i64; sums.len()];
                    sum_parts(&mut totals, &mut sums, data, row.starts, columns);
                    average_totals(target, &totals, i64::from(zero) * places as i64, multiplier, z);
                    continue;
                }
                sum_pixels(&mut sums, data, row.starts, columns);
                average(target, &sums, zero * places as i32, multiplier, z);
            }
        });
    }

    /// Whether every result is a number: zero times what is beyond f32 is none.
    pub fn is_finite(&self) -> bool {
        self.multiplier.is_finite()
    }
}

/// Most places of a window whose sum i32 holds.
const MAX_PLACES: usize = 1 << 23;

/// Sums of a window of more places, some rows and columns at a time.
fn sum_parts(totals: &mut [i64], sums: &mut [i32], data: &[u8], starts: &[usize], columns: &[usize]) {
    for columns in columns.chunks(MAX_PLACES) {
        for starts in starts.chunks(MAX_PLACES / columns.len()) {
            sum_pixels(sums, data, starts, columns);
            totals.iter_mut().zip(&*sums).for_each(|(total, sum)| *total += i64::from(*sum));
        }
    }
}

fn average_totals(target: &mut [u8], totals: &[i64], zeroes: i64, multiplier: f32, zero_point: u8) {
    for (target, total) in target.iter_mut().zip(totals) {
        *target = round((total - zeroes) as f32 * multiplier, zero_point);
    }
}

wide! {
    fn sum_pixels(sums: &mut [i32], data: &[u8], starts: &[usize], columns: &[usize]) {
        sums.fill(0);
        for start in starts {
            for column in columns {
                for (sum, value) in sums.iter_mut().zip(&data[start + column..]) {
                    *sum = sum.wrapping_add(i32::from(*value));
                }
            }
        }
    }

    fn average(target: &mut [u8], sums: &[i32], zeroes: i32, multiplier: f32, zero_point: u8) {
        for (target, sum) in target.iter_mut().zip(sums) {
            *target = round(sum.wrapping_sub(zeroes) as f32 * multiplier, zero_point);
        }
    }

    fn highest(target: &mut [u8], data: &[u8], row: Row<'_>) {
        for (columns, target) in row.pixels(target) {
            // Pixels are multiples of 16 bytes, and 64 are one vector at best.
            let (wide, rest) = target.as_chunks_mut::<64>();
            let done = wide.as_flattened().len();
            for (index, target) in wide.iter_mut().enumerate() {
                *target = highest_of(data, row.starts, columns, 64 * index);
            }
            for (index, target) in rest.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                *target = highest_of(data, row.starts, columns, done + 16 * index);
            }
        }
    }
}

/// The highest of each of some bytes of the window's pixels, from `offset` on.
#[inline(always)]
fn highest_of<const BYTES: usize>(
    data: &[u8],
    starts: &[usize],
    columns: &[usize],
    offset: usize,
) -> [u8; BYTES] {
    let mut most = [0; BYTES];
    for start in starts {
        for column in columns {
            most = larger(most, &data[start + column + offset..].as_chunks().0[0]);
        }
    }
    most
}

/// The larger of each two bytes.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
fn larger<const BYTES: usize>(mut bytes: [u8; BYTES], others: &[u8; BYTES]) -> [u8; BYTES] {
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
        by_rows(&self.window, input, output, |_, row, data, target| highest(target, data, row));
    }
}

/// Where the windows of one row of the output have their pixels.
#[derive(Clone, Copy)]
struct Row<'a> {
    /// Where the windows' rows begin in the input.
    starts: &'a [usize],
    /// For each window, how far its columns lie from there.
    columns: &'a [Vec<usize>],
    /// Bytes of a pixel, of the input and of the output.
    pixel: usize,
}

impl<'a> Row<'a> {
    /// The columns of each window, and its pixel of the output.
    fn pixels(self, target: &mut [u8]) -> impl Iterator<Item = (&'a [usize], &mut [u8])> {
        self.columns.iter().map(Vec::as_slice).zip(target.chunks_exact_mut(self.pixel))
    }
}

/// Calls `fold(index, windows, input, pixels of the output)` for each row of the output.
fn by_rows(
    window: &Window,
    input: &Act<'_>,
    output: &mut ActMut<'_>,
    mut fold: impl FnMut(usize, Row<'_>, &[u8], &mut [u8]),
) {
    let (from, to) = (*input.layout(), *output.layout());
    assert_eq!([from.batch, from.channels], [to.batch, to.channels], "batch and channels of a pool");
    assert!(!from.is_packed && !to.is_packed, "packed pixels");
    output.fill_border();
    let pixel = to.pixel_bytes();
    let columns: Vec<Vec<usize>> = (0..to.width)
        .map(|x| window.places(1, x, from.width).map(|column| column * pixel).collect())
        .collect();
    for n in 0..to.batch {
        for y in 0..to.height {
            let start = |row| from.pixel(n, 0, 0) + row * from.row_bytes();
            let starts: Vec<usize> = window.places(0, y, from.height).map(start).collect();
            let target = &mut output.data_mut()[to.pixel(n, y, 0)..][..to.width * pixel];
            fold(y, Row { starts: &starts, columns: &columns, pixel }, input.data(), target);
        }
    }
}
