//! Rows times a block of weights with AVX2 alone. `vpmaddubsw` multiplies bytes and adds two neighbouring products in
//! 16 bits, where they may saturate. Whatever the weights, they don't while two values are at most 255 together
//! (255 * 128 fits), nor does the sum of two such sums while four values are. So the values are looked at first, once
//! for each few rows: those that fit go the short way, the others are widened to 16 bits. All ways give the same sums.
//!
//! Values around 128 would seldom fit. Where the input's zero point lies there they are taken less 128, and are the
//! signed operand; weights have 128 added. Then the sizes of two or four values may be at most 128 together.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish256::{Limits, Words, dot, eight, with_extra};
use super::look::{CHUNK, FOUR, Look, ONE, ROWS, TWO};
use std::arch::x86_64::{
    __m256i, _mm_storeu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_load_si256,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_storeu_si256,
};

/// All rows.
///
/// # Safety
/// AVX2; job, sink and work passed the checks of `tile::run`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>, work: &mut [u8]) {
    let work = work.as_mut_ptr();
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
/// AVX2; the job passed its checks; `work` has [`work_bytes`]; `store` takes each of the rows and each 16 columns.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tiles(job: &Job<'_>, work: *mut u8, store: impl Fn(usize, usize, [__m256i; 2])) {
    let mut row = 0;
    while row < job.count {
        let left = job.count - row;
        let high = if left < 2 * ROWS { left.div_ceil(left.div_ceil(ROWS)) } else { ROWS };
        // SAFETY: `row + MR <= count`.
        unsafe {
            job.ahead.fetch(row / high, job.count.div_ceil(high));
            match (high, job.is_centred) {
                (4, false) => tile::<4, false>(job, work, row, &store),
                (3, false) => tile::<3, false>(job, work, row, &store),
                (2, false) => tile::<2, false>(job, work, row, &store),
                (_, false) => tile::<1, false>(job, work, row, &store),
                (4, true) => tile::<4, true>(job, work, row, &store),
                (3, true) => tile::<3, true>(job, work, row, &store),
                (2, true) => tile::<2, true>(job, work, row, &store),
                (_, true) => tile::<1, true>(job, work, row, &store),
            }
        }
        row += high;
    }
}

/// `MR` rows of all columns, of values less 128 where `S`.
///
/// # Safety
/// As [`tiles`]; the job has rows from `row` to `row + MR`, and `MR` is at most [`ROWS`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn tile<const MR: usize, const S: bool>(
    job: &Job<'_>,
    work: *mut u8,
    row: usize,
    store: &impl Fn(usize, usize, [__m256i; 2]),
) {
    // SAFETY: rows are readable up to the padded k; the weights are `padded k / 4 * columns` lanes on cache lines,
    // and there is a bias for each column.
    unsafe {
        let rows = (job.rows.as_ptr().add(row * job.stride), job.stride);
        let look = Look::at::<MR, S>(rows, job.k, work);
        let (values, stride) = if S { (work.cast_const(), job.k.next_multiple_of(64)) } else { rows };
        for first in (0..job.columns()).step_by(16) {
            let bias = job.bias.as_ptr().add(first);
            let bias = [_mm256_loadu_si256(bias.cast()), _mm256_loadu_si256(bias.add(8).cast())];
            let mut sums = [bias; MR];
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = with_extra(job, [row + i, first], *sums);
            }
            if S {
                for (sums, less) in sums.iter_mut().zip(look.less) {
                    let less = _mm256_set1_epi32(less);
                    *sums = [_mm256_add_epi32(sums[0], less), _mm256_add_epi32(sums[1], less)];
                }
            }
            let weights = job.weights.as_ptr().add(first * 4);
            let place = Place::<S> { values, stride, words: look.words, weights, columns: job.columns() };
            for at in look.list(FOUR) {
                place.four(*at as usize, &mut sums);
            }
            for at in look.list(TWO) {
                place.two(*at as usize, &mut sums);
            }
            for at in look.list(ONE) {
                place.one(*at as usize, job.k.next_multiple_of(64), &mut sums);
            }
            for (i, sums) in sums.into_iter().enumerate() {
                store(row + i, first, sums);
            }
        }
    }
}

/// Some rows and 16 columns of weights; values less 128 where `S`.
struct Place<const S: bool> {
    values: *const u8,
    stride: usize,
    words: *const u8,
    weights: *const u8,
    columns: usize,
}

impl<const S: bool> Place<S> {
    /// Four values of a row in each lane.
    ///
    /// # Safety
    /// AVX2; the place lies in the rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn values(&self, row: usize, at: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_epi32(self.values.add(at + row * self.stride).cast::<i32>().read_unaligned()) }
    }

    /// Weights of four values and both vectors of columns.
    ///
    /// # Safety
    /// AVX2; 64 bytes on a cache line are readable there.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn weights(at: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe { [_mm256_load_si256(at.cast()), _mm256_load_si256(at.add(32).cast())] }
    }

    /// Products, two added in each 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn products(values: __m256i, weights: __m256i) -> __m256i {
        if S { _mm256_maddubs_epi16(weights, values) } else { _mm256_maddubs_epi16(values, weights) }
    }

    /// A group of which four products can be added in 16 bits.
    ///
    /// # Safety
    /// AVX2; the group lies in the rows, padding included.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn four<const MR: usize>(&self, at: usize, sums: &mut [[__m256i; 2]; MR]) {
        let ones = _mm256_set1_epi16(1);
        // SAFETY: the caller's.
        unsafe {
            let lines = self.weights.add(at * self.columns);
            let (first, second) = (Self::weights(lines), Self::weights(lines.add(4 * self.columns)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let values = [self.values(i, at), self.values(i, at + 4)];
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let low = Self::products(values[0], first[vector]);
                    let high = Self::products(values[1], second[vector]);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_add_epi16(low, high), ones));
                }
            }
        }
    }

    /// Half a group of which two products can be added in 16 bits.
    ///
    /// # Safety
    /// AVX2; it lies in the rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn two<const MR: usize>(&self, at: usize, sums: &mut [[__m256i; 2]; MR]) {
        let ones = _mm256_set1_epi16(1);
        // SAFETY: the caller's.
        unsafe {
            let weights = Self::weights(self.weights.add(at * self.columns));
            for (i, sums) in sums.iter_mut().enumerate() {
                let values = self.values(i, at);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(Self::products(values, weights), ones));
                }
            }
        }
    }

    /// Half a group of any values.
    ///
    /// # Safety
    /// AVX2; it lies in the rows, and stands on the list of such.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn one<const MR: usize>(&self, at: usize, padded: usize, sums: &mut [[__m256i; 2]; MR]) {
        // SAFETY: the caller's.
        unsafe {
            let weights = Self::weights(self.weights.add(at * self.columns));
            let (low, high) = if S {
                (Words::values::<false>(weights[0]), Words::values::<false>(weights[1]))
            } else {
                (Words::weights::<false>(weights[0]), Words::weights::<false>(weights[1]))
            };
            let words = self.words.add(2 * (at / CHUNK * CHUNK) + at % CHUNK);
            for (i, sums) in sums.iter_mut().enumerate() {
                let at = words.add(2 * i * padded);
                let two = |at: *const u8| _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
                let values = Words([two(at), two(at.add(CHUNK))]);
                *sums = [dot::<false>(sums[0], values, low), dot::<false>(sums[1], values, high)];
            }
        }
    }
}
