//! Rows times a block of weights with AVX2 alone: values are widened to 16 bits once for each few rows, weights as
//! they are read, and pairs are multiplied and added exactly; six rows x 16 channels stay in registers.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish256::{Limits, eight};
use std::arch::x86_64::{
    __m256i, _mm_load_si128, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_store_si256, _mm256_storeu_si256,
};

/// Rows at a time.
pub(in super::super) const ROWS: usize = 6;

/// All rows.
///
/// # Safety
/// AVX2; job, sink and work passed the checks of `tile::run`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>, work: &mut [u8]) {
    #[expect(clippy::cast_ptr_alignment, reason = "work lies on a cache line, as `tile::run` asserts")]
    let work = work.as_mut_ptr().cast::<u16>();
    match sink {
        Sink::Bytes { finish, data, places, .. } => {
            let (limits, data, at) = (Limits::new(&finish), data.as_mut_ptr(), places.at());
            let store = |row: usize, first: usize, sums: [__m256i; 2]| {
                // SAFETY: there are as many multipliers as columns, and each place has room for the columns.
                unsafe {
                    let multipliers = [eight(finish.multiplier, first), eight(finish.multiplier, first + 8)];
                    let words = limits.words(sums, multipliers);
                    let bytes = _mm256_permute4x64_epi64::<0b1000>(limits.bytes(words, words));
                    let to = data.add(*at.get_unchecked(row) + first);
                    _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
                }
            };
            // SAFETY: as this function.
            unsafe { tiles(job, work, store) }
        }
        Sink::Sums(sums) => {
            let (data, columns) = (sums.as_mut_ptr(), job.columns());
            let store = |row: usize, first: usize, sums: [__m256i; 2]| {
                // SAFETY: there are `count * columns` sums.
                unsafe {
                    let to = data.add(row * columns + first);
                    _mm256_storeu_si256(to.cast(), sums[0]);
                    _mm256_storeu_si256(to.add(8).cast(), sums[1]);
                }
            };
            // SAFETY: as this function.
            unsafe { tiles(job, work, store) }
        }
    }
}

/// All rows, up to [`ROWS`] at a time.
///
/// # Safety
/// AVX2; the job passed its checks; `work` holds [`ROWS`] rows of it in 16 bits, on a cache line; `store` takes each of
/// its rows and each 16 columns.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tiles(job: &Job<'_>, work: *mut u16, store: impl Fn(usize, usize, [__m256i; 2])) {
    let mut row = 0;
    while row < job.count {
        let left = job.count - row;
        let high = if left < 2 * ROWS { left.div_ceil(left.div_ceil(ROWS)) } else { ROWS };
        // SAFETY: `row + MR <= count`.
        unsafe {
            job.ahead.fetch(row / high, job.count.div_ceil(high));
            match high {
                6 => tile::<6>(job, work, row, &store),
                5 => tile::<5>(job, work, row, &store),
                4 => tile::<4>(job, work, row, &store),
                3 => tile::<3>(job, work, row, &store),
                2 => tile::<2>(job, work, row, &store),
                _ => tile::<1>(job, work, row, &store),
            }
        }
        row += high;
    }
}

/// `MR` rows of all columns.
///
/// # Safety
/// As [`tiles`]; the job has rows from `row` to `row + MR`, and `MR` is at most [`ROWS`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tile<const MR: usize>(
    job: &Job<'_>,
    work: *mut u16,
    row: usize,
    store: &impl Fn(usize, usize, [__m256i; 2]),
) {
    let padded = job.k.next_multiple_of(64);
    // SAFETY: rows are readable up to the padded k, for which `work` has room in 16 bits for `ROWS` rows; the
    // weights are `k / 2` pairs for each column, on cache lines, and there is a bias for each column.
    unsafe {
        for i in 0..MR {
            let from = job.rows.as_ptr().add((row + i) * job.stride);
            for at in (0..job.k).step_by(16) {
                let words = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.add(at).cast()));
                _mm256_store_si256(work.add(i * padded + at).cast(), words);
            }
        }
        for first in (0..job.columns()).step_by(16) {
            let bias = job.bias.as_ptr().add(first);
            let bias = [_mm256_loadu_si256(bias.cast()), _mm256_loadu_si256(bias.add(8).cast())];
            let mut sums = [bias; MR];
            let mut weights = job.weights.as_ptr().add(first * 2);
            let mut values = work.cast_const();
            for _ in 0..job.k / 2 {
                let low = _mm256_cvtepi8_epi16(_mm_load_si128(weights.cast()));
                let high = _mm256_cvtepi8_epi16(_mm_load_si128(weights.add(16).cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let two = _mm256_set1_epi32(values.add(i * padded).cast::<i32>().read_unaligned());
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(two, low));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(two, high));
                }
                values = values.add(2);
                weights = weights.add(job.columns() * 2);
            }
            for (i, sums) in sums.into_iter().enumerate() {
                store(row + i, first, sums);
            }
        }
    }
}
