//! Kernels in plain Rust for CPUs that have none of their own: loops of 16 channels, which compilers turn into
//! whatever vectors the target has.

use super::requant::round;
use super::strip::{Plane, Strip};
use super::tile::{Finish, Job, Sink};

/// Channels at a time.
const LANES: usize = 16;

/// Rows times a block of weights.
pub(super) fn multiply(job: &Job<'_>, sink: Sink<'_>) {
    match sink {
        Sink::Bytes { finish, data, places, .. } => each_sum(job, |row, first, sums| {
            let to = &mut data[places.at()[row] + first..][..LANES];
            finish_lanes(&finish, first, sums, to);
        }),
        Sink::Sums(data) => each_sum(job, |row, first, sums| {
            data[row * job.columns() + first..][..LANES].copy_from_slice(sums);
        }),
    }
}

fn each_sum(job: &Job<'_>, mut put: impl FnMut(usize, usize, &[i32; LANES])) {
    let groups = job.columns() / LANES;
    let weights = job.weights.as_chunks::<LANES>().0;
    for group in 0..groups {
        let bias = job.bias.as_chunks::<LANES>().0[group];
        for row in 0..job.count {
            let values = &job.rows[row * job.stride..][..job.k];
            let weights = weights[group..].iter().step_by(groups);
            let mut sums = row_sums(bias, values, &weights);
            if let Some(extra) = job.extra {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.wrapping_add(extra.of(row, group * LANES + lane));
                }
            }
            put(row, group * LANES, &sums);
        }
    }
}

/// Sums over the values of one row, four channels at a time: as many as small CPUs have registers for.
fn row_sums<'a>(
    mut sums: [i32; LANES],
    values: &[u8],
    weights: &(impl Iterator<Item = &'a [u8; LANES]> + Clone),
) -> [i32; LANES] {
    for (quarter, sums) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut four = *sums;
        for (value, weights) in values.iter().zip(weights.clone()) {
            let value = i32::from(*value);
            for (sum, weight) in four.iter_mut().zip(weights.as_chunks::<4>().0[quarter]) {
                *sum = sum.wrapping_add(value * i32::from(weight.cast_signed()));
            }
        }
        *sums = four;
    }
    sums
}

/// A product of a u8 and an i8 fits into 16 bits, whose products are cheap in vectors.
#[inline(always)]
fn add_products(mut sums: [i32; LANES], values: [u8; LANES], weights: [u8; LANES]) -> [i32; LANES] {
    for lane in 0..LANES {
        let product = i16::from(values[lane]).wrapping_mul(i16::from(weights[lane].cast_signed()));
        sums[lane] = sums[lane].wrapping_add(i32::from(product));
    }
    sums
}

fn finish_lanes(finish: &Finish<'_>, first: usize, sums: &[i32; LANES], to: &mut [u8]) {
    let [lo, hi] = finish.limits;
    for ((to, sum), multiplier) in to.iter_mut().zip(sums).zip(&finish.multiplier[first..]) {
        *to = round(*sum as f32 * multiplier, finish.zero_point).max(lo).min(hi);
    }
}

/// All rows of 16 channels of a depthwise convolution; the weights are 16 bytes per tap.
pub(super) fn strip(strip: &Strip<'_>, from: (&[u8], Plane), (output, write): (&mut [u8], Plane)) {
    each_window(strip, from, |y, x, sums| {
        let to = &mut output[write.start + y * write.row + x * write.pixel..][..LANES];
        finish_lanes(&strip.finish, 0, sums, to);
    });
}

/// The same without requantization.
pub(super) fn strip_sums(strip: &Strip<'_>, from: (&[u8], Plane), output: &mut [i32]) {
    each_window(strip, from, |y, x, sums| {
        output[(y * strip.width + x) * LANES..][..LANES].copy_from_slice(sums);
    });
}

fn each_window(
    strip: &Strip<'_>,
    (input, read): (&[u8], Plane),
    mut put: impl FnMut(usize, usize, &[i32; LANES]),
) {
    for y in 0..strip.height {
        for x in 0..strip.width {
            let corner = &input[read.start + y * read.row + x * read.pixel..];
            let mut sums = strip.bias.as_chunks::<LANES>().0[0];
            for (tap, weights) in strip.taps.iter().zip(strip.weights.as_chunks::<LANES>().0) {
                sums = add_products(sums, corner[*tap..].as_chunks::<LANES>().0[0], *weights);
            }
            put(y, x, &sums);
        }
    }
}
