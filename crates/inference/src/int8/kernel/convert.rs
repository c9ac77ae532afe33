//! Between ONNX's plain tensors (`[batch, channels, height, width]`) and our layout, and between f32 and u8.

use super::layout::{Act, ActMut, Layout};
use super::requant::round;

/// QuantizeLinear: round half to even(value / scale) + the layout's zero point, saturated.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn quantize(values: &[f32], scale: f32, output: &mut ActMut<'_>) {
    let zero_point = output.layout().zero_point;
    from_planes(values, output, |value| round(value / scale, zero_point));
}

/// DequantizeLinear: (value - zero point) * scale.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn dequantize(input: &Act<'_>, scale: f32, values: &mut [f32]) {
    let zero_point = i32::from(input.layout().zero_point);
    to_planes(input, values, |value| (i32::from(value) - zero_point) as f32 * scale);
}

/// From a plain tensor of u8.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn from_plain(values: &[u8], output: &mut ActMut<'_>) {
    from_planes(values, output, |value| value);
}

/// To a plain tensor of u8.
///
/// # Panics
/// If `values` doesn't have the layout's elements.
pub fn to_plain(input: &Act<'_>, values: &mut [u8]) {
    to_planes(input, values, |value| value);
}

/// Sums of [`Conv::run_sums`](super::Conv::run_sums) (`[pixels, channels]`) to a plain f32 tensor of `shape`:
/// sum * scale + bias. `scales` has one element or one per channel, `bias` none or one per channel.
///
/// # Panics
/// If a length doesn't fit.
pub fn sums_to_f32(sums: &[i32], shape: &Layout, scales: &[f32], bias: &[f32], values: &mut [f32]) {
    assert_eq!(sums.len(), shape.elements(), "length of the sums");
    assert_eq!(values.len(), shape.elements(), "length of the values");
    let (channels, pixels) = (shape.channels, shape.height * shape.width);
    assert!(scales.len() == 1 || scales.len() == channels, "count of scales");
    assert!(bias.is_empty() || bias.len() == channels, "count of biases");
    if values.is_empty() {
        return;
    }
    for (image, planes) in
        sums.chunks_exact(channels * pixels).zip(values.chunks_exact_mut(channels * pixels))
    {
        for (c, plane) in planes.chunks_exact_mut(pixels).enumerate() {
            let scale = scales[c % scales.len()];
            let bias = bias.get(c).copied().unwrap_or(0.0);
            for (value, sum) in plane.iter_mut().zip(image[c..].iter().step_by(channels)) {
                *value = *sum as f32 * scale + bias;
            }
        }
    }
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
    let (mut min, mut max) = ([0.0_f32; 16], [0.0_f32; 16]);
    let chunks = values.chunks_exact(16);
    for (lane, value) in chunks.remainder().iter().enumerate() {
        min[lane] = min[lane].min(*value);
        max[lane] = max[lane].max(*value);
    }
    for chunk in chunks {
        for lane in 0..16 {
            min[lane] = min[lane].min(chunk[lane]);
            max[lane] = max[lane].max(chunk[lane]);
        }
    }
    Range { min: min.into_iter().fold(0.0, f32::min), max: max.into_iter().fold(0.0, f32::max) }
}

fn from_planes<T: Copy>(values: &[T], output: &mut ActMut<'_>, map: impl Fn(T) -> u8) {
    let layout = *output.layout();
    assert_eq!(values.len(), layout.elements(), "length of the values");
    output.fill_border();
    let step = layout.pixel_bytes();
    let mut rows = values.chunks_exact(layout.width.max(1));
    for n in 0..layout.batch {
        for c in 0..layout.channels {
            for y in 0..layout.height {
                let start = layout.pixel(n, y, 0) + c;
                let places = output.data_mut()[start..].iter_mut().step_by(step);
                for (place, value) in places.zip(rows.next().unwrap_or_default()) {
                    *place = map(*value);
                }
            }
        }
    }
}

fn to_planes<T>(input: &Act<'_>, values: &mut [T], map: impl Fn(u8) -> T) {
    let layout = *input.layout();
    assert_eq!(values.len(), layout.elements(), "length of the values");
    let step = layout.pixel_bytes();
    let mut rows = values.chunks_exact_mut(layout.width.max(1));
    for n in 0..layout.batch {
        for c in 0..layout.channels {
            for y in 0..layout.height {
                let start = layout.pixel(n, y, 0) + c;
                let places = input.data()[start..].iter().step_by(step);
                for (place, value) in places.zip(rows.next().unwrap_or_default()) {
                    *value = map(*place);
                }
            }
        }
    }
}
