//! Rows times a block of weights with the tile multiplier: 16 rows x 64 bytes times 64 bytes x 16 channels at once.
//!
//! Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights. The compiler never uses tile registers, so they keep
//! their contents between the pieces of assembly. While the multiplier works on one tile of rows, the vector
//! units requantize the sums of the one before.
#![expect(unsafe_code, reason = "tile instructions, and pointers whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish512::Finisher;
use super::gemm512;
use std::arch::asm;
use std::arch::x86_64::{__m512i, _mm512_load_si512, _mm512_setzero_si512, _mm512_storeu_si512};

/// Rows of a tile.
const ROWS: usize = 16;

/// So few rows left are cheaper without tiles.
const FEW: usize = 5;

/// Rows so short are cheaper without tiles: there is less to multiply than to load and store.
pub(in super::super) const SHORT: usize = 48;

/// All tiles with 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

/// All rows.
///
/// # Safety
/// AVX-512 with VNNI and AMX with leave to use it; job, sink and work passed the checks of `tile::run`.
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>, work: &mut [u8]) {
    // SAFETY: as this function; a tile of rows needs 16 of them.
    unsafe {
        if job.count < ROWS || job.k <= SHORT {
            return gemm512::run(job, sink);
        }
        asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly));
        match job.columns() {
            64 => block::<4>(job, sink, work),
            48 => block::<3>(job, sink, work),
            32 => block::<2>(job, sink, work),
            _ => block::<1>(job, sink, work),
        }
        asm!("tilerelease", options(nostack, nomem));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn block<const NR: usize>(job: &Job<'_>, sink: Sink<'_>, work: &mut [u8]) {
    let work = work.as_mut_ptr();
    match sink {
        Sink::Bytes { finish, data, places } => {
            // SAFETY: there are as many multipliers as columns.
            let finisher = unsafe { Finisher::<NR>::new(&finish) };
            let to = data.as_mut_ptr();
            let at = places.at();
            // SAFETY: each place has room for a block's columns.
            let store = |row: usize, sums: &[__m512i; NR]| unsafe {
                finisher.store(sums, to.add(*at.get_unchecked(row)));
            };
            // SAFETY: as this function.
            let done = unsafe { tiles(job, work, store) };
            // SAFETY: as this function.
            unsafe { gemm512::rows(job, Sink::Bytes { finish, data, places }, done) }
        }
        Sink::Sums(sums) => {
            let to = sums.as_mut_ptr();
            // SAFETY: there are `count * columns` sums.
            let store = |row: usize, sums: &[__m512i; NR]| unsafe {
                for (j, vector) in sums.iter().enumerate() {
                    _mm512_storeu_si512(to.add((row * NR + j) * 16).cast(), *vector);
                }
            };
            // SAFETY: as this function.
            let done = unsafe { tiles(job, work, store) };
            // SAFETY: as this function.
            unsafe { gemm512::rows(job, Sink::Sums(sums), done) }
        }
    }
}

/// Multiplies tile after tile; returns how many rows are done.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const NR: usize>(
    job: &Job<'_>,
    work: *mut u8,
    store: impl Fn(usize, &[__m512i; NR]),
) -> usize {
    let whole = job.count / ROWS * ROWS;
    let has_rest = job.count - whole > FEW;
    let done = if has_rest { job.count } else { whole };
    // Sums wait in memory while the next tile is multiplied, so that reading them never waits for the stores.
    let mut waiting = [None; 2];
    for (turn, at) in (0..done).step_by(ROWS).enumerate() {
        // The last tile overlaps the one before rather than being lower.
        let row = at.min(job.count - ROWS);
        // SAFETY: 16 rows from `row` on are there, each readable up to k rounded up to 64; `work` holds twice
        // 16 * NR vectors.
        unsafe {
            let work = work.add(turn % 2 * ROWS * NR * 64);
            multiply::<NR>(job, row);
            job.ahead.fetch(turn, done.div_ceil(ROWS));
            if let Some(before) = waiting[turn % 2] {
                finish::<NR>(work, before, &store);
            }
            keep::<NR>(work);
        }
        waiting[turn % 2] = Some(row);
    }
    let turns = done.div_ceil(ROWS);
    for turn in turns..turns + 2 {
        if let Some(before) = waiting[turn % 2] {
            // SAFETY: as above.
            unsafe { finish::<NR>(work.add(turn % 2 * ROWS * NR * 64), before, &store) }
        }
    }
    done
}

/// Sums of 16 rows, starting from the bias, into tiles 0 to NR - 1.
#[inline]
unsafe fn multiply<const NR: usize>(job: &Job<'_>, row: usize) {
    // SAFETY: the caller's; rows are read 64 bytes at a time up to the padded k, weights likewise, NR * 16
    // biases once for each row (stride 0). Only tile registers and the named ones change.
    unsafe {
        let values = job.rows.as_ptr().add(row * job.stride);
        let weights = job.weights.as_ptr();
        let bias = job.bias.as_ptr();
        let steps = job.k.div_ceil(64);
        match NR {
            4 => asm!(
                "tileloadd tmm0, [{bias} + {zero}]",
                "tileloadd tmm1, [{bias} + {zero} + 64]",
                "tileloadd tmm2, [{bias} + {zero} + 128]",
                "tileloadd tmm3, [{bias} + {zero} + 192]",
                "2:",
                "tileloadd tmm4, [{a} + {lda}]",
                "tileloadd tmm6, [{b} + {ldb}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {ldb} + 64]",
                "tdpbusd tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{b} + {ldb} + 128]",
                "tdpbusd tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {ldb} + 192]",
                "tdpbusd tmm3, tmm4, tmm7",
                "add {a}, 64",
                "add {b}, 4096",
                "dec {steps}",
                "jnz 2b",
                bias = in(reg) bias, zero = in(reg) 0_usize,
                a = inout(reg) values => _, lda = in(reg) job.stride,
                b = inout(reg) weights => _, ldb = in(reg) 256_usize,
                steps = inout(reg) steps => _,
                options(nostack, readonly),
            ),
            3 => asm!(
                "tileloadd tmm0, [{bias} + {zero}]",
                "tileloadd tmm1, [{bias} + {zero} + 64]",
                "tileloadd tmm2, [{bias} + {zero} + 128]",
                "2:",
                "tileloadd tmm4, [{a} + {lda}]",
                "tileloadd tmm6, [{b} + {ldb}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {ldb} + 64]",
                "tdpbusd tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{b} + {ldb} + 128]",
                "tdpbusd tmm2, tmm4, tmm5",
                "add {a}, 64",
                "add {b}, 3072",
                "dec {steps}",
                "jnz 2b",
                bias = in(reg) bias, zero = in(reg) 0_usize,
                a = inout(reg) values => _, lda = in(reg) job.stride,
                b = inout(reg) weights => _, ldb = in(reg) 192_usize,
                steps = inout(reg) steps => _,
                options(nostack, readonly),
            ),
            2 => asm!(
                "tileloadd tmm0, [{bias} + {zero}]",
                "tileloadd tmm1, [{bias} + {zero} + 64]",
                "2:",
                "tileloadd tmm4, [{a} + {lda}]",
                "tileloadd tmm6, [{b} + {ldb}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {ldb} + 64]",
                "tdpbusd tmm1, tmm4, tmm7",
                "add {a}, 64",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
                bias = in(reg) bias, zero = in(reg) 0_usize,
                a = inout(reg) values => _, lda = in(reg) job.stride,
                b = inout(reg) weights => _, ldb = in(reg) 128_usize,
                steps = inout(reg) steps => _,
                options(nostack, readonly),
            ),
            _ => asm!(
                "tileloadd tmm0, [{bias} + {zero}]",
                "2:",
                "tileloadd tmm4, [{a} + {lda}]",
                "tileloadd tmm6, [{b} + {ldb}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "add {a}, 64",
                "add {b}, 1024",
                "dec {steps}",
                "jnz 2b",
                bias = in(reg) bias, zero = in(reg) 0_usize,
                a = inout(reg) values => _, lda = in(reg) job.stride,
                b = inout(reg) weights => _, ldb = in(reg) 64_usize,
                steps = inout(reg) steps => _,
                options(nostack, readonly),
            ),
        }
    }
}

/// Writes tiles 0 to NR - 1 to memory, `[16][NR * 16]`.
#[inline]
unsafe fn keep<const NR: usize>(work: *mut u8) {
    // SAFETY: the caller's memory holds 16 * NR vectors.
    unsafe {
        let stride = NR * 64;
        asm!("tilestored [{} + {}], tmm0", in(reg) work, in(reg) stride, options(nostack));
        if NR > 1 {
            asm!("tilestored [{} + {} + 64], tmm1", in(reg) work, in(reg) stride, options(nostack));
        }
        if NR > 2 {
            asm!("tilestored [{} + {} + 128], tmm2", in(reg) work, in(reg) stride, options(nostack));
        }
        if NR > 3 {
            asm!("tilestored [{} + {} + 192], tmm3", in(reg) work, in(reg) stride, options(nostack));
        }
    }
}

/// Hands the 16 rows that [`keep`] wrote to `store`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn finish<const NR: usize>(work: *const u8, row: usize, store: &impl Fn(usize, &[__m512i; NR])) {
    for i in 0..ROWS {
        let mut sums = [_mm512_setzero_si512(); NR];
        for (j, vector) in sums.iter_mut().enumerate() {
            // SAFETY: the memory is on a cache line and holds 16 * NR vectors.
            *vector = unsafe { _mm512_load_si512(work.add((i * NR + j) * 64).cast()) };
        }
        store(row + i, &sums);
    }
}
