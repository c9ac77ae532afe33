//! Resizing of 8-bit images: whole values in, whole values out, bit by bit as the libraries do it that models are
//! trained with. Both compute in fixed point: OpenCV with 11 bits, cut to 7 between columns and rows; Pillow with 22 bits
//! and whole values between the two. Tests: [`crate::parity`].

use crate::image::{self, Dims, Method, Order, Tap};

/// Bits of OpenCV's weights behind the point.
const OPENCV_ONE: f32 = 2048.0;
/// Bits of Pillow's.
const PILLOW_BITS: u32 = 22;

/// Resizes a batch of images to `height` x `width`.
pub(crate) fn resize(
    values: &[u8],
    dims: Dims,
    order: Order,
    (height, width): (usize, usize),
    method: Method,
) -> Vec<u8> {
    match method {
        Method::Nearest => {
            let taps = (image::taps(dims.h, height, method), image::taps(dims.w, width, method));
            image::of_four(values, dims, order, (&taps.0, &taps.1), |[nearest, ..], _, _| nearest)
        }
        Method::Bilinear => {
            let rows = opencv_taps(dims.h, height, Edge::Weighed);
            let columns = opencv_taps(dims.w, width, Edge::Whole);
            image::of_four(values, dims, order, (&rows, &columns), |four, down, across| {
                opencv_mix(four, *down, *across)
            })
        }
        Method::Antialias => {
            let (across, down) = (pillow_weights(dims.w, width), pillow_weights(dims.h, height));
            image::in_two_passes(values, dims, order, &across, &down, |weights, values| {
                let sum: i32 =
                    weights.iter().zip(values).map(|(weight, value)| weight * i32::from(value)).sum();
                whole((sum + (1 << (PILLOW_BITS - 1))) >> PILLOW_BITS)
            })
        }
    }
}

/// How the pixel beyond the edge, which is the one at the edge again, is weighed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Only the one at the edge counts.
    Whole,
    /// Both count: the same up to rounding.
    Weighed,
}

/// Where a target position lies between two source positions, with the weight of each.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are bounded by the source size, weights by one"
)]
fn opencv_taps(source: usize, target: usize, edge: Edge) -> Vec<Tap<[i32; 2]>> {
    let last = source.saturating_sub(1);
    let ratio = source as f64 / target.max(1) as f64;
    let tap = |place: usize| {
        let position = ((place as f64 + 0.5) * ratio - 0.5) as f32;
        let floor = position.floor();
        let is_beyond = floor < 0.0 || floor >= last as f32;
        let weight = if is_beyond && edge == Edge::Whole { 0.0 } else { position - floor };
        // Below zero becomes zero.
        let low = (floor as usize).min(last);
        let high = ((floor + 1.0) as usize).min(last);
        let weight = [1.0 - weight, weight].map(|weight| (weight * OPENCV_ONE).round_ties_even() as i32);
        Tap { low, high, weight }
    };
    (0..target).map(tap).collect()
}

fn opencv_mix(four: [u8; 4], down: [i32; 2], across: [i32; 2]) -> u8 {
    let [a, b, c, d] = four.map(i32::from);
    let rows = [[a, b], [c, d]].map(|[left, right]| (left * across[0] + right * across[1]) >> 4);
    whole((((rows[0] * down[0]) >> 16) + ((rows[1] * down[1]) >> 16) + 2) >> 2)
}

#[expect(clippy::cast_possible_truncation, reason = "weights are at most one")]
fn pillow_weights(source: usize, target: usize) -> Vec<image::Weights<i32>> {
    let fixed = |weight: f64| (0.5 + weight * f64::from(1 << PILLOW_BITS)) as i32;
    image::weights(source, target).into_iter().map(|weights| weights.map(fixed)).collect()
}

fn whole(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        let values: Vec<u8> = (0..24).map(|value| value * 10).collect();
        let dims = Dims { n: 2, c: 3, h: 2, w: 2 };
        for method in [Method::Nearest, Method::Bilinear, Method::Antialias] {
            for order in [Order::ChannelsFirst, Order::ChannelsLast] {
                assert_eq!(resize(&values, dims, order, (2, 2), method), values);
            }
        }
    }

    #[test]
    fn one_pixel_becomes_as_many_as_are_asked_for() {
        let dims = Dims { n: 1, c: 1, h: 1, w: 1 };
        for method in [Method::Nearest, Method::Bilinear, Method::Antialias] {
            assert_eq!(resize(&[255], dims, Order::ChannelsLast, (3, 2), method), [255; 6]);
        }
    }

    #[test]
    fn both_orders_of_channels_are_resized_alike() {
        let values: Vec<u8> = (0..120_u32).map(|value| u8::try_from(value * 97 % 256).unwrap()).collect();
        let (dims, size) = (Dims { n: 2, c: 3, h: 4, w: 5 }, (3, 7));
        let (last, first) = (Order::ChannelsLast, Order::ChannelsFirst);
        for method in [Method::Nearest, Method::Bilinear, Method::Antialias] {
            let made = resize(&values, dims, last, size, method);
            let other = resize(&image::reorder(&values, dims, last, first), dims, first, size, method);
            let target = Dims { h: size.0, w: size.1, ..dims };
            assert_eq!(image::reorder(&other, target, first, last), made, "{method:?}");
        }
    }
}
