//! Arithmetic on images and feature rows before the model: layout, resize, per-channel standardisation.
//! Plain functions on flat f32 values, so that device, publisher and tests compute the same thing.

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
}

/// Resizes a batch of images to `height` x `width`.
pub(crate) fn resize(
    values: &[f32],
    dims: Dims,
    order: Order,
    (height, width): (usize, usize),
    method: Method,
) -> Vec<f32> {
    let target = Dims { h: height, w: width, ..dims };
    let (from, to) = (order.strides(dims), order.strides(target));
    let rows = taps(dims.h, height, method);
    let columns = taps(dims.w, width, method);
    let (source_size, target_size) = (dims.c * dims.h * dims.w, target.c * target.h * target.w);
    let mut out = vec![0.0; dims.n * target_size];
    let images = values.chunks_exact(source_size.max(1)).zip(out.chunks_exact_mut(target_size.max(1)));
    for (source, image) in images {
        for (y, row) in rows.iter().enumerate() {
            for (x, column) in columns.iter().enumerate() {
                for channel in 0..dims.c {
                    let at = |y: usize, x: usize| source[y * from[0] + x * from[1] + channel * from[2]];
                    let top = lerp(at(row.low, column.low), at(row.low, column.high), column.weight);
                    let bottom = lerp(at(row.high, column.low), at(row.high, column.high), column.weight);
                    image[y * to[0] + x * to[1] + channel * to[2]] = lerp(top, bottom, row.weight);
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
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are floored, not negative and below the source size"
)]
fn taps(source: usize, target: usize, method: Method) -> Vec<Tap> {
    let last = source.saturating_sub(1);
    let ratio = source as f64 / target.max(1) as f64;
    let tap = |place: usize| {
        let centre = (place as f64 + 0.5) * ratio;
        if method == Method::Nearest {
            let low = (centre as usize).min(last);
            return Tap { low, high: low, weight: 0.0 };
        }
        let position = (centre - 0.5).clamp(0.0, last as f64);
        let low = position as usize;
        Tap { low, high: (low + 1).min(last), weight: (position - low as f64) as f32 }
    };
    (0..target).map(tap).collect()
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
        for method in [Method::Nearest, Method::Bilinear] {
            for order in [Order::ChannelsFirst, Order::ChannelsLast] {
                assert_eq!(resize(&values, DIMS, order, (2, 2), method), values);
            }
        }
    }
}
