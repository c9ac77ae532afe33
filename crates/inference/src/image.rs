//! Arithmetic on images and feature rows before the model: layout, resize, per-channel standardisation.
//! Plain functions on flat values, so that device, publisher and tests compute the same thing. 8-bit images are resized
//! in [`crate::image8`].

use std::iter::{Copied, StepBy};
use std::ops::Range;
use std::slice::Iter;

/// Where the channels stand in a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `[N, H, W, C]`.
    ChannelsLast,
    /// `[N, C, H, W]`.
    ChannelsFirst,
}

/// Sizes of a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dims {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
}

impl Order {
    /// Reads the sizes from a shape of four dimensions.
    pub(crate) fn dims(self, shape: &[usize]) -> Option<Dims> {
        let &[n, a, b, d] = shape else { return None };
        Some(match self {
            Self::ChannelsLast => Dims { n, h: a, w: b, c: d },
            Self::ChannelsFirst => Dims { n, c: a, h: b, w: d },
        })
    }

    /// The shape of a batch with these sizes.
    pub(crate) fn shape(self, dims: Dims) -> Vec<usize> {
        match self {
            Self::ChannelsLast => vec![dims.n, dims.h, dims.w, dims.c],
            Self::ChannelsFirst => vec![dims.n, dims.c, dims.h, dims.w],
        }
    }

    /// Distance in memory to the next row, column and channel within one image.
    fn strides(self, dims: Dims) -> [usize; 3] {
        match self {
            Self::ChannelsLast => [dims.w * dims.c, dims.c, 1],
            Self::ChannelsFirst => [dims.w, 1, dims.h * dims.w],
        }
    }
}

/// Copies images from one order into the other.
pub(crate) fn reorder<T: Copy>(values: &[T], dims: Dims, from: Order, to: Order) -> Vec<T> {
    if from == to {
        return values.to_vec();
    }
    let Dims { n, c, h, w } = dims;
    let [row, column, channel] = from.strides(dims);
    let mut out = Vec::with_capacity(values.len());
    let [outer, middle, inner] = match to {
        Order::ChannelsLast => [(h, row), (w, column), (c, channel)],
        Order::ChannelsFirst => [(c, channel), (h, row), (w, column)],
    };
    for image in values.chunks_exact((c * h * w).max(1)).take(n) {
        for a in 0..outer.0 {
            for b in 0..middle.0 {
                let start = a * outer.1 + b * middle.1;
                out.extend((0..inner.0).map(|i| image[start + i * inner.1]));
            }
        }
    }
    out
}

/// How a pixel between pixels is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The nearest source pixel.
    Nearest,
    /// Weighted mean of four source pixels; pixel centres at half positions, edges repeated.
    Bilinear,
    /// The same, but weighted over as many source pixels as a target pixel covers.
    Antialias,
}

/// Resizes a batch of images to `height` x `width`.
pub(crate) fn resize(
    values: &[f32],
    dims: Dims,
    order: Order,
    (height, width): (usize, usize),
    method: Method,
) -> Vec<f32> {
    if method == Method::Antialias {
        let (across, down) = (weights(dims.w, width), weights(dims.h, height));
        return in_two_passes(values, dims, order, &across, &down, mean);
    }
    let (rows, columns) = (taps(dims.h, height, method), taps(dims.w, width, method));
    of_four(values, dims, order, (&rows, &columns), |[a, b, c, d], down, across| {
        lerp(lerp(a, b, *across), lerp(c, d, *across), *down)
    })
}

/// Makes each target pixel of four source pixels: left and right of the upper row, then of the lower one.
pub(crate) fn of_four<T: Copy + Default, W>(
    values: &[T],
    dims: Dims,
    order: Order,
    (rows, columns): (&[Tap<W>], &[Tap<W>]),
    mix: impl Fn([T; 4], &W, &W) -> T,
) -> Vec<T> {
    let target = Dims { h: rows.len(), w: columns.len(), ..dims };
    let (from, to) = (order.strides(dims), order.strides(target));
    let (source_size, target_size) = (dims.c * dims.h * dims.w, target.c * target.h * target.w);
    let mut out = vec![T::default(); dims.n * target_size];
    let images = values.chunks_exact(source_size.max(1)).zip(out.chunks_exact_mut(target_size.max(1)));
    for (source, image) in images {
        for (y, row) in rows.iter().enumerate() {
            for (x, column) in columns.iter().enumerate() {
                for channel in 0..dims.c {
                    let at = |y: usize, x: usize| source[y * from[0] + x * from[1] + channel * from[2]];
                    let [top, bottom] = [row.low, row.high].map(|y| [at(y, column.low), at(y, column.high)]);
                    image[y * to[0] + x * to[1] + channel * to[2]] =
                        mix([top[0], top[1], bottom[0], bottom[1]], &row.weight, &column.weight);
                }
            }
        }
    }
    out
}

fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    if weight == 0.0 { a } else { a + (b - a) * weight }
}

/// Which two source positions make one target position.
pub(crate) struct Tap<W> {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) weight: W,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are floored, not negative and below the source size"
)]
pub(crate) fn taps(source: usize, target: usize, method: Method) -> Vec<Tap<f32>> {
    let last = source.saturating_sub(1);
    let ratio = source as f64 / target.max(1) as f64;
    if method == Method::Nearest {
        // As Pillow does it: step by step, with what is rounded on the way.
        let centres = std::iter::successors(Some(ratio * 0.5), |centre| Some(centre + ratio));
        let nearest = centres.take(target).map(|centre| (centre as usize).min(last));
        return nearest.map(|low| Tap { low, high: low, weight: 0.0 }).collect();
    }
    let tap = |place: usize| {
        let position = ((place as f64 + 0.5) * ratio - 0.5).clamp(0.0, last as f64);
        let low = position as usize;
        Tap { low, high: (low + 1).min(last), weight: (position - low as f64) as f32 }
    };
    (0..target).map(tap).collect()
}

/// Source positions from the first one on that make one target position.
pub(crate) struct Weights<W> {
    first: usize,
    weights: Vec<W>,
}

impl<W> Weights<W> {
    /// The same in other numbers.
    pub(crate) fn map<V>(self, number: impl Fn(W) -> V) -> Weights<V> {
        Weights { first: self.first, weights: self.weights.into_iter().map(number).collect() }
    }
}

/// Every so manieth value of a slice.
type Spread<'a, T> = StepBy<Copied<Iter<'a, T>>>;

/// Resizes along the columns, then along the rows. `mean` may be given more values than weights.
pub(crate) fn in_two_passes<T: Copy, W>(
    values: &[T],
    dims: Dims,
    order: Order,
    across: &[Weights<W>],
    down: &[Weights<W>],
    mean: impl Fn(&[W], Spread<'_, T>) -> T,
) -> Vec<T> {
    let Dims { n, c, h, w } = dims;
    let (lines, planes, run) = match order {
        Order::ChannelsLast => (n * h, n, c),
        Order::ChannelsFirst => (n * c * h, n * c, 1),
    };
    let wide = weigh(values, [lines, w, run], across, &mean);
    weigh(&wide, [planes, h, across.len() * run], down, &mean)
}

/// The weights of each target position, which sum up to 1.
///
/// They are a triangle around each target's centre, as wide as the target is in the source, and never narrower than between
/// two source pixels.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are not negative, floored and bounded by the source size"
)]
pub(crate) fn weights(source: usize, target: usize) -> Vec<Weights<f64>> {
    let ratio = source as f64 / target.max(1) as f64;
    let reach = ratio.max(1.0);
    let of = |place: usize| {
        let centre = (place as f64 + 0.5) * ratio;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(source);
        let distance = |at: usize| ((at as f64 - centre + 0.5) * (1.0 / reach)).abs();
        let raw: Vec<f64> = (first..end).map(|at| (1.0 - distance(at)).max(0.0)).collect();
        let sum: f64 = raw.iter().sum();
        Weights { first, weights: raw.into_iter().map(|weight| weight / sum).collect() }
    };
    (0..target).map(of).collect()
}

/// Makes `[outer, len, inner]` into `[outer, targets, inner]`.
fn weigh<T: Copy, W>(
    values: &[T],
    [outer, len, inner]: [usize; 3],
    targets: &[Weights<W>],
    mean: impl Fn(&[W], Spread<'_, T>) -> T,
) -> Vec<T> {
    let mut out = Vec::with_capacity(outer * targets.len() * inner);
    for block in values.chunks_exact((len * inner).max(1)).take(outer) {
        for Weights { first, weights } in targets {
            out.extend(
                (0..inner).map(|i| mean(weights, block[first * inner + i..].iter().copied().step_by(inner))),
            );
        }
    }
    out
}

#[expect(clippy::cast_possible_truncation, reason = "arithmetic is in f64 and rounded once")]
fn mean(weights: &[f64], values: Spread<'_, f32>) -> f32 {
    weights.iter().zip(values).map(|(weight, value)| f64::from(value) * weight).sum::<f64>() as f32
}

/// The part of each image within these rows and columns.
pub(crate) fn crop<T: Copy>(
    values: &[T],
    dims: Dims,
    order: Order,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Vec<T> {
    let Dims { c, h, w, .. } = dims;
    // A plane is an image with all channels or one channel; a pixel has all channels or one.
    let (plane, pixel) = match order {
        Order::ChannelsLast => (h * w * c, c),
        Order::ChannelsFirst => (h * w, 1),
    };
    let lines = values
        .chunks_exact(plane.max(1))
        .flat_map(|plane| plane.chunks_exact((w * pixel).max(1)).skip(rows.start).take(rows.len()));
    lines.flat_map(|line| &line[columns.start * pixel..columns.end * pixel]).copied().collect()
}

/// The channels with these numbers, in this order.
pub(crate) fn choose<T: Copy>(values: &[T], dims: Dims, order: Order, channels: &[usize]) -> Vec<T> {
    let Dims { c, h, w, .. } = dims;
    // A run is what stands together of one channel.
    let run = if order == Order::ChannelsLast { 1 } else { h * w };
    let groups = values.chunks_exact((c * run).max(1));
    groups
        .flat_map(|group| channels.iter().flat_map(move |at| &group[at * run..(at + 1) * run]))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: Dims = Dims { n: 2, c: 3, h: 2, w: 2 };

    #[test]
    fn reordering_there_and_back_changes_nothing() {
        let values: Vec<u8> = (0..24).collect();
        let first = reorder(&values, DIMS, Order::ChannelsLast, Order::ChannelsFirst);
        assert_eq!(first[..4], [0, 3, 6, 9], "the first channel's pixels stand together");
        assert_eq!(reorder(&first, DIMS, Order::ChannelsFirst, Order::ChannelsLast), values);
    }

    /// Places times pixels, summed up, as Pillow 13 takes them from a row of so many: at all sizes but the last it takes some
    /// pixels beside `floor((i + 0.5) * s / t)`.
    #[test]
    fn nearest_takes_the_pixels_that_pillow_takes() {
        for (source, target, expected) in [
            (640, 224, 10_726_186),
            (1920, 224, 32_208_045),
            (256, 224, 4_282_035),
            (480, 300, 14_414_766),
            (640, 416, 36_944_934),
            (480, 224, 8_042_272),
        ] {
            let taken = taps(source, target, Method::Nearest);
            let sum: usize = taken.iter().zip(1..).map(|(tap, place)| tap.low * place).sum();
            assert_eq!(sum, expected, "{source} to {target}");
        }
    }

    #[test]
    fn bilinear_doubling_matches_half_pixel_centres() {
        let dims = Dims { n: 1, c: 1, h: 1, w: 2 };
        let out = resize(&[0.0, 4.0], dims, Order::ChannelsFirst, (1, 4), Method::Bilinear);
        assert_eq!(out, [0.0, 1.0, 3.0, 4.0]);
        let nearest = resize(&[0.0, 4.0], dims, Order::ChannelsLast, (2, 4), Method::Nearest);
        assert_eq!(nearest, [0.0, 0.0, 4.0, 4.0, 0.0, 0.0, 4.0, 4.0]);
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        let values: Vec<f32> = (0..24_u8).map(f32::from).collect();
        for method in [Method::Nearest, Method::Bilinear, Method::Antialias] {
            for order in [Order::ChannelsFirst, Order::ChannelsLast] {
                assert_eq!(resize(&values, DIMS, order, (2, 2), method), values);
            }
        }
    }

    #[test]
    fn cropping_and_choosing_channels_are_the_same_in_both_orders() {
        let last: Vec<u8> = (0..24).collect();
        let first = reorder(&last, DIMS, Order::ChannelsLast, Order::ChannelsFirst);
        let (rows, columns) = (1..2, 0..1);
        let cropped = crop(&last, DIMS, Order::ChannelsLast, rows.clone(), columns.clone());
        assert_eq!(cropped, [6, 7, 8, 18, 19, 20]);
        assert_eq!(
            crop(&first, DIMS, Order::ChannelsFirst, rows, columns),
            cropped,
            "one pixel has no order"
        );
        let chosen = choose(&last, DIMS, Order::ChannelsLast, &[2, 0]);
        assert_eq!(chosen[..4], [2, 0, 5, 3]);
        let two = Dims { c: 2, ..DIMS };
        let other = choose(&first, DIMS, Order::ChannelsFirst, &[2, 0]);
        assert_eq!(reorder(&other, two, Order::ChannelsFirst, Order::ChannelsLast), chosen);
    }

    #[test]
    fn shrinking_weighs_all_pixels_that_are_covered() {
        let dims = Dims { n: 1, c: 1, h: 1, w: 4 };
        let out = resize(&[0.0, 8.0, 8.0, 0.0], dims, Order::ChannelsFirst, (1, 1), Method::Antialias);
        assert_eq!(out, [4.666_666_5], "weights 5, 7, 7, 5 of 24 by a triangle of 4 pixels to each side");
    }
}
