//! Rows times a block of weights with plain NEON: two products of eight bits fit into a word of 16 (weights are
//! at least -127), pairs of words are added to the sums; two rows x 16 channels stay in registers.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish::{Finisher, Sums};
use std::arch::aarch64::{
    int8x16_t, int32x4_t, vaddq_s32, vdupq_n_s32, vdupq_n_u8, veorq_u8, vget_low_s8, vld1q_s8, vld1q_s32,
    vmlal_high_s8, vmlal_s8, vmull_high_s8, vmull_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_u8,
    vreinterpretq_u8_s32, vst1q_s32,
};

/// All rows.
///
/// # Safety
/// Job and sink passed the checks of `tile::run`, and no weight is -128.
#[target_feature(enable = "neon")]
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
/// NEON; the job passed its checks, has 16 columns from `first` on, and no weight is -128; `store` takes each of its
/// rows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tiles(job: &Job<'_>, first: usize, store: impl Fn(usize, Sums)) {
    let mut row = 0;
    while row < job.count {
        // SAFETY: `row + MR <= count`.
        unsafe {
            if job.count - row > 1 {
                tile::<2>(job, first, row, &store);
                row += 2;
            } else {
                tile::<1>(job, first, row, &store);
                row += 1;
            }
        }
    }
}

/// Four values, in each quarter of a vector, as signed ones.
///
/// # Safety
/// NEON; four bytes from `at` on are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four(at: *const u8) -> int8x16_t {
    // SAFETY: the caller's four bytes.
    let bytes = vreinterpretq_u8_s32(vdupq_n_s32(unsafe { at.cast::<i32>().read_unaligned() }));
    vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)))
}

/// 16 columns of `MR` rows.
///
/// # Safety
/// As [`tiles`]; the job has rows from `row` to `row + MR`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const MR: usize>(job: &Job<'_>, first: usize, row: usize, store: &impl Fn(usize, Sums)) {
    // SAFETY: rows are readable, and weights there, up to k rounded up to 64; there are 16 biases from `first`.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 8]; MR];
        let (stride, step) = (job.stride, job.columns() * 4);
        let mut at = job.rows.as_ptr().add(row * stride);
        let mut weights = job.weights.as_ptr().cast::<i8>().add(first * 4);
        for _ in 0..job.k.div_ceil(8) {
            let mut values = [[four(at); 2]; MR];
            for (i, values) in values.iter_mut().enumerate() {
                *values = [four(at.add(i * stride)), four(at.add(i * stride + 4))];
            }
            for j in 0..4 {
                let (one, two) = (vld1q_s8(weights.add(16 * j)), vld1q_s8(weights.add(step + 16 * j)));
                for (sums, [first, second]) in sums.iter_mut().zip(values) {
                    let low = vmull_s8(vget_low_s8(one), vget_low_s8(first));
                    let low = vmlal_s8(low, vget_low_s8(two), vget_low_s8(second));
                    let high = vmlal_high_s8(vmull_high_s8(one, first), two, second);
                    sums[2 * j] = vpadalq_s16(sums[2 * j], low);
                    sums[2 * j + 1] = vpadalq_s16(sums[2 * j + 1], high);
                }
            }
            at = at.add(8);
            weights = weights.add(2 * step);
        }
        let bias: [int32x4_t; 4] = [0, 4, 8, 12].map(|j| vld1q_s32(job.bias.as_ptr().add(first + j)));
        for (i, sums) in sums.into_iter().enumerate() {
            let whole = [0, 1, 2, 3].map(|j| vaddq_s32(vpaddq_s32(sums[2 * j], sums[2 * j + 1]), bias[j]));
            store(row + i, whole);
        }
    }
}
