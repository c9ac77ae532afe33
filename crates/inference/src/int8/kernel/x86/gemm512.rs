//! Rows times a block of weights with `vpdpbusd` on 512 bits: a tile of rows x 16, 32, 48 or 64 channels stays in
//! registers; each group of four values is one broadcast.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Parts, Sink};
use super::finish512::{Adder, Writer};
use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_si512,
    _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
};

/// All rows.
///
/// # Safety
/// AVX-512 with VNNI; job and sink passed the checks of `tile::run`.
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>) {
    // SAFETY: as this function; NR is the number of columns / 16.
    unsafe {
        match job.columns() {
            64 => block::<4>(job, sink),
            48 => block::<3>(job, sink),
            32 => block::<2>(job, sink),
            _ => block::<1>(job, sink),
        }
    }
}

/// All rows of a block of `NR * 16` columns.
///
/// # Safety
/// AVX-512 with VNNI; job and sink passed the checks of `tile::run`; the job has `NR * 16` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn block<const NR: usize>(job: &Job<'_>, sink: Sink<'_>) {
    match sink {
        Sink::Bytes { finish, data, places, addend } => {
            // SAFETY: the sink's columns are the job's.
            let writer = unsafe { Writer::<NR>::new(&finish, data, places) };
            // Two copies of the code: the one without an addition has more registers left.
            if let Some(addend) = addend {
                let adder = Adder::new(&addend, &finish);
                // SAFETY: as this function; the sink has each of the job's rows.
                unsafe { tiles(job, |row, sums| writer.store_sum(&adder, row, sums)) }
            } else {
                // SAFETY: as above.
                unsafe { tiles(job, |row, sums| writer.store(row, sums)) }
            }
        }
        Sink::Sums(sums) => {
            let data = sums.as_mut_ptr();
            // SAFETY: there are `count * columns` sums.
            let store = |row: usize, sums: &[__m512i; NR]| unsafe {
                for (j, vector) in sums.iter().enumerate() {
                    _mm512_storeu_si512(data.add((row * NR + j) * 16).cast(), *vector);
                }
            };
            // SAFETY: as this function.
            unsafe { tiles(job, store) }
        }
    }
}

/// The sums of one row and what is added to them.
///
/// # Safety
/// AVX-512; the job passed its checks and has `NR * 16` columns and this row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn with_extra<const NR: usize>(
    job: &Job<'_>,
    row: usize,
    mut sums: [__m512i; NR],
) -> [__m512i; NR] {
    let Some(extra) = &job.extra else { return sums };
    // SAFETY: there is a sum for each row, and a factor for each column.
    unsafe {
        let of_row = _mm512_set1_epi32(*extra.rows.get_unchecked(row));
        for (j, sum) in sums.iter_mut().enumerate() {
            let factors = _mm512_loadu_si512(extra.factors.as_ptr().add(16 * j).cast());
            *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(factors, of_row));
        }
    }
    sums
}

/// Tiles as high as the registers allow; what is left is divided evenly.
///
/// # Safety
/// AVX-512 with VNNI; the job passed its checks and has `NR * 16` columns; `store` takes each of its rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const NR: usize>(job: &Job<'_>, store: impl Fn(usize, &[__m512i; NR])) {
    // SAFETY: `store`'s caller gives rows of the job.
    let store = |row: usize, sums: &[__m512i; NR]| store(row, &unsafe { with_extra(job, row, *sums) });
    let mut row = 0;
    while row < job.count {
        let left = job.count - row;
        let high = match (NR, left) {
            // Rows whose parts lie apart take a register each for their addresses.
            (1 | 2, 12..) if job.parts.is_none() => 12,
            (1..=3, 8..) => 8,
            (_, 7..=11) => left.div_ceil(2),
            _ => left.min(6),
        };
        job.ahead.fetch(row / high, job.count.div_ceil(high));
        // SAFETY: `row + MR <= count`.
        unsafe {
            match high {
                12 => tile::<12, NR>(job, row, &store),
                8 => tile::<8, NR>(job, row, &store),
                6 => tile::<6, NR>(job, row, &store),
                5 => tile::<5, NR>(job, row, &store),
                4 => tile::<4, NR>(job, row, &store),
                3 => tile::<3, NR>(job, row, &store),
                2 => tile::<2, NR>(job, row, &store),
                _ => tile::<1, NR>(job, row, &store),
            }
        }
        row += high;
    }
}

/// All columns of `MR` rows.
///
/// # Safety
/// As [`tiles`]; the job has rows from `row` to `row + MR`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const MR: usize, const NR: usize>(
    job: &Job<'_>,
    row: usize,
    store: &impl Fn(usize, &[__m512i; NR]),
) {
    if NR > 2 && MR > 8 || NR > 3 && MR > 6 {
        // Never chosen: more sums than registers.
        return;
    }
    let mut bias = [_mm512_setzero_si512(); NR];
    for (j, vector) in bias.iter_mut().enumerate() {
        // SAFETY: there are NR * 16 biases.
        *vector = unsafe { _mm512_loadu_si512(job.bias.as_ptr().add(16 * j).cast()) };
    }
    let mut sums = [bias; MR];
    match job.parts {
        // SAFETY: as this function.
        None => unsafe { whole(job, row, &mut sums) },
        // SAFETY: as this function.
        Some(parts) => unsafe { apart(job, parts, row, &mut sums) },
    }
    for (i, line) in sums.iter().enumerate() {
        store(row + i, line);
    }
}

/// Adds the products of rows at equal distances.
///
/// # Safety
/// As [`tile`]; the rows lie at equal distances, each in one part.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn whole<const MR: usize, const NR: usize>(job: &Job<'_>, row: usize, sums: &mut [[__m512i; NR]; MR]) {
    // SAFETY: rows `row..row + MR` have `k` bytes each, the weights `k / 4 * NR` vectors on cache lines.
    unsafe {
        let stride = job.stride;
        let mut values = job.rows.as_ptr().add(row * stride);
        let mut weights = job.weights.as_ptr();
        for _ in 0..job.k / 4 {
            multiply(sums, weights, |i| values.add(i * stride));
            values = values.add(4);
            weights = weights.add(64 * NR);
        }
    }
}

/// Adds the products of rows whose parts lie apart.
///
/// # Safety
/// As [`tile`]; `parts` are the job's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn apart<const MR: usize, const NR: usize>(
    job: &Job<'_>,
    parts: Parts<'_>,
    row: usize,
    sums: &mut [[__m512i; NR]; MR],
) {
    // SAFETY: rows `row..row + MR` have starts, behind which each part is readable; together they have `k` bytes,
    // and the weights `k / 4 * NR` vectors on cache lines.
    unsafe {
        let mut rows = [job.rows.as_ptr(); MR];
        for (i, values) in rows.iter_mut().enumerate() {
            *values = values.add(match parts.starts {
                Some(starts) => *starts.at().get_unchecked(row + i),
                None => (row + i) * job.stride,
            });
        }
        let mut weights = job.weights.as_ptr();
        for offset in parts.offsets {
            let end = offset + parts.bytes;
            let mut at = *offset;
            while at < end {
                multiply(sums, weights, |i| rows[i].add(at));
                at += 4;
                weights = weights.add(64 * NR);
            }
        }
    }
}

/// Adds the products of four bytes of each row and a vector of weights for each 16 columns.
///
/// # Safety
/// `values` gives four readable bytes for each row; `weights` are NR vectors on cache lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply<const MR: usize, const NR: usize>(
    sums: &mut [[__m512i; NR]; MR],
    weights: *const u8,
    values: impl Fn(usize) -> *const u8,
) {
    let mut vectors = [_mm512_setzero_si512(); NR];
    for (j, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *vector = unsafe { _mm512_load_si512(weights.add(64 * j).cast()) };
    }
    for (i, line) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        let four = _mm512_set1_epi32(unsafe { values(i).cast::<i32>().read_unaligned() });
        for (sum, vector) in line.iter_mut().zip(&vectors) {
            *sum = _mm512_dpbusd_epi32(*sum, four, *vector);
        }
    }
}
