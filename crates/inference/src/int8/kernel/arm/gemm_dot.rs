//! Rows times a block of weights with the dot product: four products of a lane at once, four rows x 16 channels
//! in registers.
//!
//! The intrinsic isn't stable, so the instruction is written as such.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish::{Finisher, Sums};
use std::arch::aarch64::{
    int8x16_t, int32x4_t, vdupq_n_u8, veorq_u8, vld1q_s8, vld1q_s32, vld1q_u8, vmlaq_n_s32,
    vreinterpretq_s8_u8, vst1q_s32,
};
use std::arch::asm;

/// All rows.
///
/// # Safety
/// The dot product; job and sink passed the checks of `tile::run`.
#[target_feature(enable = "neon,dotprod")]
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>) {
    match sink {
        Sink::Bytes { finish, data, places, .. } => {
            let (data, at) = (data.as_mut_ptr(), places.at());
            for first in (0..job.columns()).step_by(16) {
                // SAFETY: there are as many multipliers as columns, and each place has room for the columns.
                unsafe {
                    let finisher = Finisher::new(&finish, first);
                    let store = |row: usize, sums: Sums| {
                        finisher.store(sums, data.add(*at.get_unchecked(row) + first));
                    };
                    tiles(job, first, store);
                }
            }
        }
        Sink::Sums(sums) => {
            let (data, columns) = (sums.as_mut_ptr(), job.columns());
            for first in (0..columns).step_by(16) {
                // SAFETY: there are `count * columns` sums.
                unsafe {
                    let store = |row: usize, sums: Sums| {
                        for (j, sum) in sums.into_iter().enumerate() {
                            vst1q_s32(data.add(row * columns + first + 4 * j), sum);
                        }
                    };
                    tiles(job, first, store);
                }
            }
        }
    }
}

/// 16 columns of all rows.
///
/// # Safety
/// NEON with the dot product; the job passed its checks and has 16 columns from `first` on; `store` takes each of its
/// rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tiles(job: &Job<'_>, first: usize, store: impl Fn(usize, Sums)) {
    let mut row = 0;
    while row < job.count {
        let left = job.count - row;
        let high = if left < 8 { left.div_ceil(left.div_ceil(4)) } else { 4 };
        // SAFETY: `row + MR <= count`.
        unsafe {
            if first == 0 {
                job.ahead.fetch(row / high, job.count.div_ceil(high));
            }
            match high {
                4 => tile::<4>(job, first, row, &store),
                3 => tile::<3>(job, first, row, &store),
                2 => tile::<2>(job, first, row, &store),
                _ => tile::<1>(job, first, row, &store),
            }
        }
        row += high;
    }
}

/// `sum` plus four products in each lane: those of four weights with the four values of lane `L`.
///
/// # Safety
/// The dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<const L: usize>(sum: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t {
    let mut result = sum;
    // SAFETY: the CPU has the instruction, which only changes the named register.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]",
            inout(vreg) result, in(vreg) weights, in(vreg) values, lane = const L,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    result
}

/// Adds the products of four values of each row, those of lane `L`, to its 16 columns. Written out: compilers keep
/// sums in memory, with a load and a store for each instruction, where they don't unroll a loop around them.
///
/// # Safety
/// The dot product; 64 weights are readable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn four<const L: usize, const MR: usize>(
    sums: &mut [Sums; MR],
    weights: *const i8,
    values: [int8x16_t; MR],
) {
    // SAFETY: as this function.
    unsafe {
        let [a, b] = [vld1q_s8(weights), vld1q_s8(weights.add(16))];
        let [c, d] = [vld1q_s8(weights.add(32)), vld1q_s8(weights.add(48))];
        for (sums, values) in sums.iter_mut().zip(values) {
            let [one, two, three, last] = *sums;
            *sums = [
                dot::<L>(one, a, values),
                dot::<L>(two, b, values),
                dot::<L>(three, c, values),
                dot::<L>(last, d, values),
            ];
        }
    }
}

/// 16 columns of `MR` rows.
///
/// # Safety
/// As [`tiles`]; the job has rows from `row` to `row + MR`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const MR: usize>(job: &Job<'_>, first: usize, row: usize, store: &impl Fn(usize, Sums)) {
    // SAFETY: rows are readable, and weights there, up to k rounded up to 64; there are 16 biases from `first`.
    unsafe {
        let bias = job.bias.as_ptr().add(first);
        let bias = [vld1q_s32(bias), vld1q_s32(bias.add(4)), vld1q_s32(bias.add(8)), vld1q_s32(bias.add(12))];
        let mut sums = [bias; MR];
        let stride = job.stride;
        let mut at = job.rows.as_ptr().add(row * stride);
        let mut weights = job.weights.as_ptr().cast::<i8>().add(first * job.k.next_multiple_of(64));
        let middle = vdupq_n_u8(128);
        for _ in 0..job.k.div_ceil(16) {
            let mut values = [vreinterpretq_s8_u8(middle); MR];
            for (i, values) in values.iter_mut().enumerate() {
                *values = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at.add(i * stride)), middle));
            }
            four::<0, MR>(&mut sums, weights, values);
            four::<1, MR>(&mut sums, weights.add(64), values);
            four::<2, MR>(&mut sums, weights.add(128), values);
            four::<3, MR>(&mut sums, weights.add(192), values);
            weights = weights.add(256);
            at = at.add(16);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            store(row + i, with_extra(job, row + i, first, sums));
        }
    }
}

/// The sums of 16 columns of a row, and what is added to the row besides. Not where the sums begin: what depends on a
/// condition there keeps all of them in memory through the loop.
///
/// # Safety
/// NEON; the job passed its checks and has this row, and 16 columns from `first` on.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn with_extra(job: &Job<'_>, row: usize, first: usize, sums: Sums) -> Sums {
    let Some(extra) = &job.extra else { return sums };
    // SAFETY: there are a factor for each column and a sum for each row.
    unsafe {
        let of_row = *extra.rows.get_unchecked(row);
        let factors = extra.factors.as_ptr().add(first);
        let [one, two, three, last] = sums;
        [
            vmlaq_n_s32(one, vld1q_s32(factors), of_row),
            vmlaq_n_s32(two, vld1q_s32(factors.add(4)), of_row),
            vmlaq_n_s32(three, vld1q_s32(factors.add(8)), of_row),
            vmlaq_n_s32(last, vld1q_s32(factors.add(12)), of_row),
        ]
    }
}
