//! Between ONNX's plain tensors (`[batch, channels, height, width]`) and our layout, and between f32 and u8.

use super::arith::Curve;
#[cfg(target_arch = "aarch64")]
use super::arm::turn;
use super::divide::quantize_line;
use super::layout::{Act, ActMut, Layout};
use super::wide::wide;

/// QuantizeLinear of a function of each value: round half to even(value / scale) + the layout's zero point, saturated.
/// There is one scale, or one for each channel.
///
/// # Panics
/// If `values` doesn't have the layout's elements, or there is another number of scales.
pub fn quantize(values: &[f32], (curve, scales): (Option<Curve>, &[f32]), output: &mut ActMut<'_>) {
    let Layout { zero_point, channels, .. } = *output.layout();
    assert!(scales.len() == 1 || scales.len() == channels, "count of scales");
    let mut made = Vec::new();
    from_planes(values, output, |first, values, row| {
        let values = curve.map_or(values, |curve| {
            made.resize(values.len(), 0.0);
            curve.run(values, &mut made);
            &made
        });
        match (scales, first) {
            ([scale], _) => quantize_line(row, values, *scale, zero_point),
            (_, Line::Of(channel)) => quantize_line(row, values, scales[channel], zero_point),
            (_, Line::Across) => {
                let each = row.chunks_mut(1).zip(values.chunks(1)).zip(scales);
                each.for_each(|((to, value), scale)| quantize_line(to, value, *scale, zero_point));
            }
        }
    });
}

/// Values of one channel, or one of each.
#[derive(Clone, Copy)]
enum Line {
    Of(usize),
    Across,
}

/// DequantizeLinear: (value - zero point) * scale.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn dequantize(input: &Act<'_>, scale: f32, values: &mut [f32]) {
    let zero_point = i32::from(input.layout().zero_point);
    to_planes(input, values, |row, values| {
        dequantize_line(values, row, zero_point, scale);
    });
}

/// From a plain tensor of u8.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn from_plain(values: &[u8], output: &mut ActMut<'_>) {
    from_planes(values, output, |_, values, row| row.copy_from_slice(values));
}

/// To a plain tensor of u8.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn to_plain(input: &Act<'_>, values: &mut [u8]) {
    to_planes(input, values, |row, values| values.copy_from_slice(row));
}

/// Lowest and highest of some values, 0 included, as DynamicQuantizeLinear wants them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// At most 0.
    pub min: f32,
    /// At least 0.
    pub max: f32,
}

impl Range {
    /// DynamicQuantizeLinear's scale and zero point.
    pub fn scale_and_zero_point(self) -> (f32, u8) {
        let scale = (self.max - self.min) / 255.0;
        if scale == 0.0 {
            return (1.0, 0);
        }
        let zero_point = (-self.min / scale).round_ties_even().clamp(0.0, 255.0);
        (scale, zero_point as u8)
    }
}

/// The range of `values`; what isn't a number is passed over.
pub fn min_max(values: &[f32]) -> Range {
    let (mut min, mut max) = ([0.0_f32; 64], [0.0_f32; 64]);
    extend(values, &mut min, &mut max);
    Range { min: min.into_iter().fold(0.0, f32::min), max: max.into_iter().fold(0.0, f32::max) }
}

wide! {
    fn dequantize_line(to: &mut [f32], values: &[u8], zero_point: i32, scale: f32) {
        for (to, value) in to.iter_mut().zip(values) {
            *to = (i32::from(*value) - zero_point) as f32 * scale;
        }
    }

    /// Extends each lane's range by every 64th value.
    fn extend(values: &[f32], min: &mut [f32; 64], max: &mut [f32; 64]) {
        let (chunks, rest) = values.as_chunks::<64>();
        for chunk in chunks {
            for lane in 0..64 {
                min[lane] = if chunk[lane] < min[lane] { chunk[lane] } else { min[lane] };
                max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
            }
        }
        for value in rest {
            min[0] = min[0].min(*value);
            max[0] = max[0].max(*value);
        }
    }

    /// From lines of four channels, so far apart, to pixels of four bytes.
    fn to_packed(lines: &[u8], apart: usize, to: &mut [u8]) {
        let (first, rest) = lines.split_at(apart);
        let (second, rest) = rest.split_at(apart);
        let (third, fourth) = rest.split_at(apart);
        let lines = first.iter().zip(second).zip(third).zip(fourth);
        for (to, (((a, b), c), d)) in to.as_chunks_mut::<4>().0.iter_mut().zip(lines) {
            *to = [*a, *b, *c, *d];
        }
    }

    /// From lines of 16 channels, so far apart, to the first 16 bytes of pixels, 16 of them at a time; what lies
    /// behind a line's last value is read, but not written.
    fn to_pixels(lines: &[u8], apart: usize, to: &mut [u8], size: [usize; 2]) {
        let [pixel, width] = size;
        for start in (0..width).step_by(16) {
            let mut block = [[0_u8; 16]; 16];
            for (line, values) in block.iter_mut().zip(lines[start..].chunks(apart)) {
                *line = values.as_chunks::<16>().0[0];
            }
            let pixels = to[start * pixel..].chunks_mut(pixel).take(16.min(width - start));
            for (to, bytes) in pixels.zip(turn(block)) {
                to[..16].copy_from_slice(&bytes);
            }
        }
    }

    /// The other way round: from the first 16 bytes of pixels to rows.
    fn to_rows(pixels: &[u8], rows: &mut [u8], pixel: usize) {
        let width = rows.len() / 16;
        for start in (0..width).step_by(16) {
            let start = start.min(width.saturating_sub(16));
            let count = width.min(16);
            let mut block = [[0_u8; 16]; 16];
            for (x, bytes) in block.iter_mut().enumerate().take(count) {
                bytes.copy_from_slice(&pixels[(start + x) * pixel..][..16]);
            }
            for (row, line) in rows.chunks_exact_mut(width).zip(turn(block)) {
                row[start..][..count].copy_from_slice(&line[..count]);
            }
        }
    }
}

/// Rows for columns. Four times each half of the rows is shuffled with the other, as two piles of cards are.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
fn turn(mut block: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    for _ in 0..4 {
        let mut next = [[0; 16]; 16];
        for row in 0..8 {
            for at in 0..8 {
                next[2 * row][2 * at] = block[row][at];
                next[2 * row][2 * at + 1] = block[row + 8][at];
                next[2 * row + 1][2 * at] = block[row][at + 8];
                next[2 * row + 1][2 * at + 1] = block[row + 8][at + 8];
            }
        }
        block = next;
    }
    block
}

/// Channels at a time between planes and pixels.
const CHANNELS: usize = 16;

/// Pixels at a time, about, at most: with so many channels they stay in the first-level cache.
const PIXELS: usize = 512;

/// Calls `map(which, values of one plane's row, bytes)` and puts the bytes into the pixels.
fn from_planes<T>(values: &[T], output: &mut ActMut<'_>, mut map: impl FnMut(Line, &[T], &mut [u8])) {
    let layout = *output.layout();
    assert_eq!(values.len(), layout.elements(), "length of the values");
    output.fill_border();
    let (width, pixel, plane) = (layout.width, layout.pixel_bytes(), layout.height * layout.width);
    if plane == 1 {
        for (n, values) in values.chunks_exact(layout.channels).enumerate() {
            map(Line::Across, values, &mut output.data_mut()[layout.pixel(n, 0, 0)..][..layout.channels]);
        }
        return;
    }
    let (lanes, border) = (CHANNELS.min(pixel), layout.border);
    // Some rows at a time; all of them are one where nothing lies between them.
    let at_once = (PIXELS / width.max(1)).max(1).min(layout.height);
    let apart = at_once * width + CHANNELS;
    let mut lines = vec![0; lanes * apart];
    for n in 0..layout.batch {
        for y in (0..layout.height).step_by(at_once) {
            let count = at_once.min(layout.height - y) * width;
            let step = if border.left + border.right == 0 { count } else { width };
            for first in (0..layout.channels).step_by(lanes) {
                let there = lanes.min(layout.channels - first);
                for (c, line) in lines.chunks_exact_mut(apart).take(there).enumerate() {
                    let start = (n * layout.channels + first + c) * plane + y * width;
                    map(Line::Of(first + c), &values[start..][..count], &mut line[..count]);
                }
                for start in (0..count).step_by(step) {
                    let to = layout.pixel(n, y + start / width, 0) + first;
                    let to = &mut output.data_mut()[to..];
                    if lanes == 4 {
                        to_packed(&lines[start..], apart, &mut to[..step * 4]);
                    } else {
                        to_pixels(&lines[start..], apart, to, [pixel, step]);
                    }
                }
            }
        }
    }
}

/// Calls `map(bytes of one plane's row, values)`.
fn to_planes<T>(input: &Act<'_>, values: &mut [T], map: impl Fn(&[u8], &mut [T])) {
    let layout = *input.layout();
    assert_eq!(values.len(), layout.elements(), "length of the values");
    let (width, pixel, plane) = (layout.width, layout.pixel_bytes(), layout.height * layout.width);
    if plane == 1 {
        for (n, values) in values.chunks_exact_mut(layout.channels).enumerate() {
            map(&input.data()[layout.pixel(n, 0, 0)..][..layout.channels], values);
        }
        return;
    }
    let lanes = CHANNELS.min(pixel);
    let mut rows = vec![0; lanes * width];
    for n in 0..layout.batch {
        for y in 0..layout.height {
            for first in (0..layout.channels).step_by(lanes) {
                let from = &input.data()[layout.pixel(n, y, 0) + first..];
                if lanes == 4 {
                    from_packed(from, &mut rows);
                } else {
                    to_rows(from, &mut rows, pixel);
                }
                for (c, row) in rows.chunks_exact(width.max(1)).take(layout.channels - first).enumerate() {
                    map(row, &mut values[(n * layout.channels + first + c) * plane + y * width..][..width]);
                }
            }
        }
    }
}

fn from_packed(pixels: &[u8], rows: &mut [u8]) {
    let width = rows.len() / 4;
    for (c, row) in rows.chunks_exact_mut(width.max(1)).enumerate() {
        for (to, pixel) in row.iter_mut().zip(pixels.as_chunks::<4>().0) {
            *to = pixel[c];
        }
    }
}
