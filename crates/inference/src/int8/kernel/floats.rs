//! From sums (i32) to f32, in ONNX's own order: scale, bias and bounds in one pass over the sums of some pixels.

use super::level::Level;
use super::wide::wide;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// How the sums of each output channel become f32: sum * scale + bias, within the bounds.
#[derive(Debug, Clone, Copy)]
pub struct ToFloat<'a> {
    /// Of the input.
    pub scale: f32,
    /// Of the weights: one, or one per output channel.
    pub scales: &'a [f32],
    /// None, or one per output channel.
    pub bias: &'a [f32],
    /// Lowest and highest result.
    pub bounds: [f32; 2],
}

/// Channels at a time.
const LANES: usize = 16;

/// Pixels at a time.
const PIXELS: usize = 4;

/// The numbers of each channel, up to a multiple of 64 of them; kept between runs for their memory.
#[derive(Debug, Default)]
pub(super) struct Channels {
    factors: Vec<f32>,
    bias: Vec<f32>,
    bounds: [f32; 2],
}

impl Channels {
    pub(super) fn fill(&mut self, to_float: &ToFloat<'_>, count: usize) {
        let ToFloat { scale, scales, bias, bounds } = *to_float;
        assert!(scales.len() == 1 || scales.len() == count, "count of scales");
        assert!(bias.is_empty() || bias.len() == count, "count of biases");
        let padded = count.next_multiple_of(64);
        self.factors.clear();
        self.factors.extend(scales.iter().cycle().take(count).map(|of_weights| scale * of_weights));
        self.factors.resize(padded, 0.0);
        self.bias.clear();
        self.bias.extend_from_slice(bias);
        self.bias.resize(padded, 0.0);
        self.bounds = bounds;
    }

    /// The results of some sums, in their order.
    pub(super) fn rows(&self, to: &mut [f32], sums: Sums<'_>) {
        let Sums { data, columns, .. } = sums;
        assert!(columns > 0 && columns.is_multiple_of(LANES) && data.len().is_multiple_of(columns));
        rows(to, &self.part(sums, columns), columns);
    }

    fn part<'a>(&'a self, Sums { data, columns, channel, .. }: Sums<'a>, wanted: usize) -> Part<'a> {
        Part {
            sums: data,
            columns,
            wanted,
            plane: 1,
            factors: &self.factors[channel..][..columns],
            bias: &self.bias[channel..][..columns],
            bounds: self.bounds,
        }
    }

    /// One channel's sum.
    pub(super) fn apply(&self, channel: usize, sum: i32) -> f32 {
        float(sum, self.factors[channel], self.bias[channel], self.bounds)
    }
}

/// One result. What is no number stays so.
#[inline(always)]
fn float(sum: i32, factor: f32, bias: f32, [lo, hi]: [f32; 2]) -> f32 {
    let value = sum as f32 * factor + bias;
    let value = if value < lo { lo } else { value };
    if value > hi { hi } else { value }
}

/// Memory for sums on their way to f32.
#[derive(Debug, Default)]
pub(super) struct Floats {
    pub(super) channels: Channels,
    /// What the input's zero point adds to the sums of each column, subtracted.
    pub(super) bias: Vec<i32>,
    /// Those of some pixels; use [`room`].
    pub(super) sums: Vec<i32>,
}

impl Floats {
    pub(super) fn bytes(&self) -> usize {
        (self.channels.factors.len() + self.channels.bias.len() + self.bias.len() + self.sums.len()) * 4
    }
}

/// Room for so many sums.
pub(super) fn room(sums: &mut Vec<i32>, count: usize) -> &mut [i32] {
    if sums.len() < count {
        sums.resize(count, 0);
    }
    &mut sums[..count]
}

/// The results of all channels of some images, `[images, channels, pixels]`.
#[derive(Debug)]
pub(super) struct Planes<'a> {
    values: &'a mut [f32],
    channels: usize,
    pixels: usize,
    width: usize,
    level: Level,
}

/// Sums of some channels: `[pixels][columns]`, the columns a multiple of 16, of which the last may be of no meaning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums<'a> {
    pub(super) data: &'a [i32],
    pub(super) columns: usize,
    /// The channel of the first column, a multiple of 16.
    pub(super) channel: usize,
    /// The first pixel, counted over all images.
    pub(super) pixel: usize,
}

/// Some sums of one image, and what they become, as `tile` has checked it: `to` starts at the first one's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) sums: &'a [i32],
    pub(super) columns: usize,
    /// Columns that have a channel.
    pub(super) wanted: usize,
    /// From one channel's results to the next's.
    pub(super) plane: usize,
    /// As many as columns.
    pub(super) factors: &'a [f32],
    /// The same.
    pub(super) bias: &'a [f32],
    pub(super) bounds: [f32; 2],
}

impl<'a> Planes<'a> {
    /// # Panics
    /// If `values` isn't a whole number of images.
    pub(super) fn new(values: &'a mut [f32], [channels, height, width]: [usize; 3], level: Level) -> Self {
        let pixels = height * width;
        assert!(values.len().is_multiple_of((channels * pixels).max(1)), "length of the values");
        Self { values, channels, pixels, width, level }
    }

    /// Writes one result.
    pub(super) fn set(&mut self, image: usize, channel: usize, [y, x]: [usize; 2], value: f32) {
        self.values[(image * self.channels + channel) * self.pixels + y * self.width + x] = value;
    }

    /// Writes the results of some sums.
    ///
    /// # Panics
    /// If they don't fit.
    pub(super) fn put(&mut self, sums: Sums<'_>, by: &Channels) {
        let Sums { data, columns, channel, pixel } = sums;
        assert!(columns > 0 && columns.is_multiple_of(LANES) && data.len().is_multiple_of(columns));
        let wanted = columns.min(self.channels - channel);
        let mut part = Part { plane: self.pixels, ..by.part(sums, wanted) };
        let first = pixel * self.channels + channel;
        if self.pixels == 1 {
            return rows(&mut self.values[first..], &part, self.channels);
        }
        let (mut pixel, end, mut left) = (pixel, pixel + data.len() / columns, data);
        while pixel < end {
            let (image, at) = (pixel / self.pixels, pixel % self.pixels);
            let count = (self.pixels - at).min(end - pixel);
            let rest;
            (part.sums, rest) = left.split_at(count * columns);
            left = rest;
            let to = &mut self.values[(image * self.channels + channel) * self.pixels + at..];
            turned(to, &part, self.level);
            pixel += count;
        }
    }
}

/// Pixels by channels to channels by pixels.
fn turned(to: &mut [f32], part: &Part<'_>, level: Level) {
    let count = part.sums.len() / part.columns;
    assert!(to.len() >= (part.wanted - 1) * part.plane + count, "places of the results");
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni | Level::Amx => x86::planes512::write(to, part),
        _ => planes(to, part),
    }
}

wide! {
    /// Rows of all channels.
    fn rows(to: &mut [f32], part: &Part<'_>, row: usize) {
        let Part { columns, wanted, bounds, .. } = *part;
        let [factors, biases] = [part.factors, part.bias].map(|all| all.as_chunks::<LANES>().0);
        for (to, sums) in to.chunks_mut(row).zip(part.sums.chunks_exact(columns)) {
            let (whole, rest) = to[..wanted].as_chunks_mut::<LANES>();
            let mut lines = sums.as_chunks::<LANES>().0.iter().zip(factors).zip(biases).map(
                |((sums, factors), bias)| -> [f32; LANES] {
                    std::array::from_fn(|lane| float(sums[lane], factors[lane], bias[lane], bounds))
                },
            );
            for (to, line) in whole.iter_mut().zip(&mut lines) {
                *to = line;
            }
            if let Some(line) = lines.next() {
                rest.copy_from_slice(&line[..rest.len()]);
            }
        }
    }

    fn planes(to: &mut [f32], part: &Part<'_>) {
        let Part { columns, wanted, plane, factors, bias, bounds, .. } = *part;
        let count = part.sums.len() / columns;
        for first in (0..wanted).step_by(4) {
            let [factors, bias] = [factors, bias].map(|all| all[first..].as_chunks::<4>().0[0]);
            for pixel in (0..count).step_by(PIXELS) {
                let there = PIXELS.min(count - pixel);
                let mut block = [[0.0; 4]; PIXELS];
                for (index, line) in block.iter_mut().enumerate() {
                    let sums = part.sums[(pixel + index.min(there - 1)) * columns + first..].as_chunks::<4>().0[0];
                    for lane in 0..4 {
                        line[lane] = float(sums[lane], factors[lane], bias[lane], bounds);
                    }
                }
                for lane in 0..4.min(wanted - first) {
                    let line = [block[0][lane], block[1][lane], block[2][lane], block[3][lane]];
                    to[(first + lane) * plane + pixel..][..there].copy_from_slice(&line[..there]);
                }
            }
        }
    }
}
