//! Rows times a block of weights with the tile multiplier: 16 rows x 64 bytes times 64 bytes x 16 channels at once.
//!
//! Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights: 32 rows x 32 channels, so that each tile that is loaded is
//! multiplied twice. The compiler never uses tile registers, so they keep their contents between the instructions
//! written here. While the multiplier works on some rows, the vector units requantize the sums of those before.
#![expect(unsafe_code, reason = "tile instructions, and pointers whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Lines, Sink};
use super::finish512::{Adder, Writer};
use super::gemm512;
use std::arch::asm;
use std::arch::x86_64::{__m512i, _mm512_load_si512, _mm512_setzero_si512, _mm512_storeu_si512};

/// Rows of a tile.
const ROWS: usize = 16;

/// Bytes of a tile's row, and what a vector of sums has.
const LINE: usize = 64;

/// Rows so short are cheaper without tiles: there is less to multiply than to load and store.
pub(in super::super) const SHORT: usize = 48;

/// Memory for the sums of two times 32 rows and 64 channels.
pub(in super::super) const WORK: usize = 2 * 2 * ROWS * 4 * LINE;

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
        if job.lines.is_none() && (job.count < ROWS || job.k <= SHORT) {
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

/// All rows of a block of `NR * 16` columns.
///
/// # Safety
/// AVX-512 with VNNI, and AMX with the tiles configured; job, sink and work passed the checks of `tile::run`; the job has
/// `NR * 16` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn block<const NR: usize>(job: &Job<'_>, sink: Sink<'_>, work: &mut [u8]) {
    let work = work.as_mut_ptr();
    match sink {
        Sink::Bytes { finish, data, places, addend } => {
            // SAFETY: the sink's columns are the job's.
            let writer = unsafe { Writer::<NR>::new(&finish, data, places) };
            if let Some(addend) = addend {
                let adder = Adder::new(&addend, &finish);
                // SAFETY: the sink has each of the job's rows.
                let store = |row: usize, sums: &[__m512i; NR]| unsafe {
                    if writer.has_place(row) {
                        writer.store_sum(&adder, row, sums);
                    }
                };
                // SAFETY: as this function.
                unsafe { tiles(job, work, store) }
            } else {
                // SAFETY: the sink has each of the job's rows.
                let store = |row: usize, sums: &[__m512i; NR]| unsafe {
                    if writer.has_place(row) {
                        writer.store(row, sums);
                    }
                };
                // SAFETY: as this function.
                unsafe { tiles(job, work, store) }
            }
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
            unsafe { tiles(job, work, store) }
        }
    }
}

/// Up to 16 rows at equal distances.
#[derive(Clone, Copy)]
struct Tile {
    /// The first, and where it starts.
    row: usize,
    at: usize,
    /// The first and the last but one that count: others are those of the tile before, or not there.
    wanted: [usize; 2],
}

/// All rows, line by line. The last tile of a line overlaps the one before, or leaves rows unused.
fn all_tiles(job: &Job<'_>) -> impl Iterator<Item = Tile> {
    let (stride, Lines { width, step }) =
        (job.stride, job.lines.unwrap_or(Lines { width: job.count, step: 0 }));
    (0..job.count / width.max(1)).flat_map(move |line| {
        (0..width).step_by(ROWS).map(move |at| {
            let x = at.min(width.saturating_sub(ROWS));
            let wanted = [at - x, ROWS.min(width - x)];
            Tile { row: line * width + x, at: line * step + x * stride, wanted }
        })
    })
}

/// Tiles whose sums wait in memory.
#[derive(Clone, Copy)]
struct Waiting {
    work: *const u8,
    tiles: [Option<Tile>; 2],
    /// The row of the 32 that comes next.
    next: usize,
}

impl Waiting {
    /// Stores at most so many rows.
    ///
    /// # Safety
    /// AVX-512 with VNNI; where a tile waits, `work` lies on a cache line and holds its `16 * NR` vectors; `store` takes each
    /// of its rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn store<const NR: usize>(&mut self, most: usize, store: &impl Fn(usize, &[__m512i; NR])) {
        let end = (self.next + most).min(2 * ROWS);
        for row in self.next..end {
            let Some(tile) = self.tiles[row / ROWS] else { continue };
            let [first, last] = tile.wanted;
            if row % ROWS < first || row % ROWS >= last {
                continue;
            }
            let mut sums = [_mm512_setzero_si512(); NR];
            for (j, vector) in sums.iter_mut().enumerate() {
                // SAFETY: the memory is on a cache line and holds `32 * NR` vectors.
                *vector = unsafe { _mm512_load_si512(self.work.add((row * NR + j) * LINE).cast()) };
            }
            store(tile.row + row % ROWS, &sums);
        }
        self.next = end;
    }
}

/// Multiplies two tiles after two tiles.
///
/// # Safety
/// AVX-512 with VNNI, and AMX with the tiles configured; the job passed its checks and has `NR * 16` columns; `work` lies
/// on a cache line and holds twice `32 * NR` vectors; `store` takes each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const NR: usize>(job: &Job<'_>, work: *mut u8, store: impl Fn(usize, &[__m512i; NR])) {
    // SAFETY: only rows of the job are stored.
    let store =
        |row: usize, sums: &[__m512i; NR]| store(row, &unsafe { gemm512::with_extra(job, row, *sums) });
    let depth = Depth::of(job);
    let passes = NR.div_ceil(2) * depth.steps();
    // How many rows to requantize at each step.
    let most = (2 * ROWS).div_ceil(passes);
    let mut ahead = job.ahead.walk(job.count.div_ceil(2 * ROWS) * passes);
    // Sums wait in memory while the next rows are multiplied, so that reading them never waits for the stores.
    let mut waiting = Waiting { work, tiles: [None; 2], next: 2 * ROWS };
    let (mut all, mut turn) = (all_tiles(job), 0);
    while let Some(upper) = all.next() {
        let lower = all.next();
        // SAFETY: 16 rows from each tile's place on are readable up to k rounded up to 64, which the job's check
        // made sure of; `work` holds twice 32 * NR vectors.
        unsafe {
            let to = work.add(turn % 2 * 2 * ROWS * NR * LINE);
            let mut meanwhile = || {
                ahead.fetch();
                waiting.store(most, &store);
            };
            let rows = job.rows.as_ptr();
            if let Some(lower) = lower {
                let rows = [rows.add(upper.at), rows.add(lower.at)];
                pairs::<NR>(job, depth, rows, to, &mut meanwhile);
            } else {
                single::<NR>(job, depth, rows.add(upper.at), to, &mut meanwhile);
            }
            waiting.store(2 * ROWS, &store);
            waiting = Waiting { work: to, tiles: [Some(upper), lower], next: 0 };
        }
        turn += 1;
    }
    // SAFETY: as above.
    unsafe { waiting.store(2 * ROWS, &store) }
}

/// Where the 64 bytes of each step lie, from a row's start.
#[derive(Clone, Copy)]
struct Depth<'a> {
    offsets: &'a [usize],
    bytes: usize,
}

impl<'a> Depth<'a> {
    fn of(job: &Job<'a>) -> Self {
        match job.parts {
            Some(parts) => Self { offsets: parts.offsets, bytes: parts.bytes },
            None => Self { offsets: &[0], bytes: job.k },
        }
    }

    fn steps(self) -> usize {
        self.offsets.len() * self.bytes.div_ceil(LINE)
    }

    #[inline]
    fn places(self) -> impl Iterator<Item = usize> {
        self.offsets.iter().flat_map(move |offset| (*offset..offset + self.bytes).step_by(LINE))
    }
}

macro_rules! load {
    ($tile:literal, $at:expr, $stride:expr) => {
        asm!(
            concat!("tileloadd tmm", $tile, ", [{} + {}]"),
            in(reg) $at, in(reg) $stride, options(nostack, readonly, preserves_flags)
        )
    };
}

macro_rules! multiply {
    ($sums:literal, $rows:literal, $weights:literal) => {
        asm!(
            concat!("tdpbusd tmm", $sums, ", tmm", $rows, ", tmm", $weights),
            options(nostack, nomem, preserves_flags)
        )
    };
}

macro_rules! keep {
    ($tile:literal, $at:expr, $stride:expr) => {
        asm!(
            concat!("tilestored [{} + {}], tmm", $tile),
            in(reg) $at, in(reg) $stride, options(nostack, preserves_flags)
        )
    };
}

/// Sums of twice 16 rows, starting from the bias, to memory, `[32][NR * 16]`.
///
/// # Safety
/// So many rows are there, each readable for 64 bytes at each of the steps; `to` holds the sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pairs<const NR: usize>(
    job: &Job<'_>,
    depth: Depth<'_>,
    [rows, below]: [*const u8; 2],
    to: *mut u8,
    meanwhile: &mut impl FnMut(),
) {
    // SAFETY: the caller's; weights are as long as the rows, NR * 16 biases are read once for each row (stride 0).
    // Only tile registers change.
    unsafe {
        let (lda, ldb) = (job.stride, NR * LINE);
        let lower = to.add(ROWS * ldb);
        for j in (0..NR).step_by(2) {
            let bias = job.bias.as_ptr().cast::<u8>().add(j * LINE);
            let mut weights = job.weights.as_ptr().add(j * LINE);
            load!(0, bias, 0_usize);
            load!(2, bias, 0_usize);
            if j + 1 < NR {
                load!(1, bias.add(LINE), 0_usize);
                load!(3, bias.add(LINE), 0_usize);
                for at in depth.places() {
                    load!(4, rows.add(at), lda);
                    load!(6, weights, ldb);
                    multiply!(0, 4, 6);
                    load!(7, weights.add(LINE), ldb);
                    multiply!(1, 4, 7);
                    load!(5, below.add(at), lda);
                    multiply!(2, 5, 6);
                    multiply!(3, 5, 7);
                    weights = weights.add(ROWS * ldb);
                    meanwhile();
                }
                keep!(1, to.add((j + 1) * LINE), ldb);
                keep!(3, lower.add((j + 1) * LINE), ldb);
            } else {
                for at in depth.places() {
                    load!(4, rows.add(at), lda);
                    load!(6, weights, ldb);
                    multiply!(0, 4, 6);
                    load!(5, below.add(at), lda);
                    multiply!(2, 5, 6);
                    weights = weights.add(ROWS * ldb);
                    meanwhile();
                }
            }
            keep!(0, to.add(j * LINE), ldb);
            keep!(2, lower.add(j * LINE), ldb);
        }
    }
}

/// As [`pairs`], for 16 rows.
///
/// # Safety
/// As [`pairs`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn single<const NR: usize>(
    job: &Job<'_>,
    depth: Depth<'_>,
    rows: *const u8,
    to: *mut u8,
    meanwhile: &mut impl FnMut(),
) {
    // SAFETY: as in `pairs`.
    unsafe {
        let (lda, ldb) = (job.stride, NR * LINE);
        let bias = job.bias.as_ptr().cast::<u8>();
        let mut weights = job.weights.as_ptr();
        load!(0, bias, 0_usize);
        if NR > 1 {
            load!(1, bias.add(LINE), 0_usize);
        }
        if NR > 2 {
            load!(2, bias.add(2 * LINE), 0_usize);
        }
        if NR > 3 {
            load!(3, bias.add(3 * LINE), 0_usize);
        }
        for at in depth.places() {
            load!(4, rows.add(at), lda);
            load!(6, weights, ldb);
            multiply!(0, 4, 6);
            if NR > 1 {
                load!(7, weights.add(LINE), ldb);
                multiply!(1, 4, 7);
            }
            if NR > 2 {
                load!(6, weights.add(2 * LINE), ldb);
                multiply!(2, 4, 6);
            }
            if NR > 3 {
                load!(7, weights.add(3 * LINE), ldb);
                multiply!(3, 4, 7);
            }
            weights = weights.add(ROWS * ldb);
            meanwhile();
        }
        keep!(0, to, ldb);
        if NR > 1 {
            keep!(1, to.add(LINE), ldb);
        }
        if NR > 2 {
            keep!(2, to.add(2 * LINE), ldb);
        }
        if NR > 3 {
            keep!(3, to.add(3 * LINE), ldb);
        }
    }
}
