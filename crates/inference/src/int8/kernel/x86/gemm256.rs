//! Rows times a block of weights with the dot product on 256 bits: six rows x 16 channels stay in registers.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish256::{Limits, Words, dot, eight, with_extra};
use std::arch::x86_64::{
    __m256i, _mm_storeu_si128, _mm256_castsi256_si128, _mm256_load_si256, _mm256_loadu_si256,
    _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_storeu_si256,
};

/// All rows.
///
/// # Safety
/// AVX2 and AVX-VNNI; job and sink passed the checks of `tile::run`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>) {
    match sink {
        Sink::Bytes { finish, data, places, .. } => {
            let (limits, data, at) = (Limits::new(&finish), data.as_mut_ptr(), places.at());
            for first in (0..job.columns()).step_by(16) {
                // SAFETY: there are as many multipliers as columns, and each place has room for the columns.
                unsafe {
                    let multipliers = [eight(finish.multiplier, first), eight(finish.multiplier, first + 8)];
                    let store = |row: usize, sums: [__m256i; 2]| {
                        let words = limits.words(sums, multipliers);
                        let bytes = _mm256_permute4x64_epi64::<0b1000>(limits.bytes(words, words));
                        let to = data.add(*at.get_unchecked(row) + first);
                        _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
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
                    let store = |row: usize, sums: [__m256i; 2]| {
                        let to = data.add(row * columns + first);
                        _mm256_storeu_si256(to.cast(), sums[0]);
                        _mm256_storeu_si256(to.add(8).cast(), sums[1]);
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
/// AVX2 and AVX-VNNI; the job passed its checks, and has 16 columns from `first` on; `store` takes each of its rows.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tiles(job: &Job<'_>, first: usize, store: impl Fn(usize, [__m256i; 2])) {
    let mut row = 0;
    while row < job.count {
        let left = job.count - row;
        let high = if left < 12 { left.div_ceil(left.div_ceil(6)) } else { 6 };
        // SAFETY: `row + MR <= count`.
        unsafe {
            if first == 0 {
                job.ahead.fetch(row / high, job.count.div_ceil(high));
            }
            match high {
                6 => tile::<6>(job, first, row, &store),
                5 => tile::<5>(job, first, row, &store),
                4 => tile::<4>(job, first, row, &store),
                3 => tile::<3>(job, first, row, &store),
                2 => tile::<2>(job, first, row, &store),
                _ => tile::<1>(job, first, row, &store),
            }
        }
        row += high;
    }
}

/// 16 columns of `MR` rows.
///
/// # Safety
/// As [`tiles`]; the job has rows from `row` to `row + MR`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tile<const MR: usize>(
    job: &Job<'_>,
    first: usize,
    row: usize,
    store: &impl Fn(usize, [__m256i; 2]),
) {
    // SAFETY: rows `row..row + MR` have `k` bytes each, the weights `k / 4 * columns` lanes on cache lines, and
    // there are 16 biases from `first` on.
    unsafe {
        let bias = job.bias.as_ptr().add(first);
        let bias = [_mm256_loadu_si256(bias.cast()), _mm256_loadu_si256(bias.add(8).cast())];
        let mut sums = [bias; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = with_extra(job, [row + i, first], *sums);
        }
        let (stride, step) = (job.stride, job.columns() * 4);
        let mut values = job.rows.as_ptr().add(row * stride);
        let mut weights = job.weights.as_ptr().add(first * 4);
        for _ in 0..job.k / 4 {
            let low = Words::weights::<true>(_mm256_load_si256(weights.cast()));
            let high = Words::weights::<true>(_mm256_load_si256(weights.add(32).cast()));
            let mut at = values;
            for sums in &mut sums {
                let four = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
                let four = Words::values::<true>(four);
                *sums = [dot::<true>(sums[0], four, low), dot::<true>(sums[1], four, high)];
                at = at.add(stride);
            }
            values = values.add(4);
            weights = weights.add(step);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            store(row + i, sums);
        }
    }
}
