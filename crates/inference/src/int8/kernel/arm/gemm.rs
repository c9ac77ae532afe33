//! Rows times a block of weights with plain NEON: 32 values of a row times 32 weights of a column at once, two
//! products of eight bits in a word of 16 (weights are at least -127), pairs of words added to the sums; two rows x
//! 8 columns stay in registers. Values and weights lie in the same order: nothing has to be spread over a vector.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish::Finisher8;
use std::arch::aarch64::{
    int8x16_t, int32x4_t, vcombine_s32, vcreate_s32, vdupq_n_u8, veorq_u8, vget_low_s8, vld1q_s8, vld1q_u8,
    vmlal_high_s8, vmull_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_u8, vst1q_s32,
};
use std::arch::asm;

/// Columns at a time; their weights lie one behind the other.
const COLUMNS: usize = 8;

/// Bytes of rows that are multiplied with all columns before the next ones: they stay in the first-level cache.
const ROWS_BYTES: usize = 12 << 10;

/// Sums of a row's columns.
type Sums = [int32x4_t; 2];

/// The same while rows are multiplied: a column's sum is that of four lanes.
type Eight = [int32x4_t; COLUMNS];

/// All rows.
///
/// # Safety
/// Job and sink passed the checks of `tile::run`, and no weight is -128.
#[target_feature(enable = "neon")]
pub(in super::super) unsafe fn run(job: &Job<'_>, sink: Sink<'_>) {
    match sink {
        Sink::Bytes { finish, data, places, .. } => {
            let (data, places) = (data.as_mut_ptr(), places.at().as_ptr());
            // SAFETY: there are as many multipliers as columns, and each place has room for the columns.
            let target = |first: usize| unsafe {
                Bytes { finisher: Finisher8::new(&finish, first), data: data.add(first), places }
            };
            // SAFETY: the caller's.
            unsafe { blocks(job, target) };
        }
        Sink::Sums(sums) => {
            let (data, columns) = (sums.as_mut_ptr(), job.columns());
            // SAFETY: there are `count * columns` sums.
            let target = |first: usize| unsafe { Whole { data: data.add(first), columns } };
            // SAFETY: the caller's.
            unsafe { blocks(job, target) };
        }
    }
}

/// Where the sums of some columns go.
trait Target {
    /// Takes those of rows from `row` on.
    ///
    /// # Safety
    /// NEON; the target has these rows.
    unsafe fn put<const MR: usize>(&self, row: usize, sums: [Sums; MR]);
}

/// Requantized bytes, each row at its place.
struct Bytes {
    finisher: Finisher8,
    data: *mut u8,
    places: *const usize,
}

impl Target for Bytes {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn put<const MR: usize>(&self, row: usize, sums: [Sums; MR]) {
        // SAFETY: each row has a place with room for the columns.
        unsafe {
            if MR == 2 {
                let to = [self.data.add(*self.places.add(row)), self.data.add(*self.places.add(row + 1))];
                self.finisher.store_two([sums[0], sums[MR - 1]], to);
            } else {
                self.finisher.store(sums[0], self.data.add(*self.places.add(row)));
            }
        }
    }
}

/// The sums themselves, `columns` a row.
struct Whole {
    data: *mut i32,
    columns: usize,
}

impl Target for Whole {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn put<const MR: usize>(&self, row: usize, sums: [Sums; MR]) {
        for (i, [low, high]) in sums.into_iter().enumerate() {
            // SAFETY: there are sums for this row.
            unsafe {
                let to = self.data.add((row + i) * self.columns);
                vst1q_s32(to, low);
                vst1q_s32(to.add(4), high);
            }
        }
    }
}

/// All columns of all rows, some rows at a time.
///
/// # Safety
/// NEON; the job passed its checks, and no weight is -128; targets take its rows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn blocks<T: Target>(job: &Job<'_>, target: impl Fn(usize) -> T) {
    let most = (ROWS_BYTES / job.k).max(8).next_multiple_of(2);
    let mut start = 0;
    while start < job.count {
        let end = job.count.min(start + most);
        let mut first = 0;
        while first < job.columns() {
            let target = target(first);
            let mut row = start;
            // SAFETY: the rows are the job's.
            unsafe {
                while row + 2 <= end {
                    tile::<2>(job, first, row, &target);
                    row += 2;
                }
                if row < end {
                    tile::<1>(job, first, row, &target);
                }
            }
            first += COLUMNS;
        }
        start = end;
    }
}

/// A sum that starts as a bias.
///
/// # Safety
/// NEON; the bias is readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn bias(at: *const i32) -> int32x4_t {
    // SAFETY: the caller's.
    let first = unsafe { *at }.cast_unsigned();
    vcombine_s32(vcreate_s32(u64::from(first)), vcreate_s32(0))
}

/// 16 values as signed ones.
///
/// # Safety
/// NEON; 16 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn signed(at: *const u8) -> int8x16_t {
    // SAFETY: the caller's.
    vreinterpretq_s8_u8(veorq_u8(unsafe { vld1q_u8(at) }, vdupq_n_u8(128)))
}

/// The instructions that add the products of one column of two rows, 32 values (v16 and v17, v18 and v19) with four
/// products under way at any time, or 16 values (v16, v18).
macro_rules! column {
    (32, $first:literal, $second:literal, $low:literal, $high:literal) => {
        concat!(
            "smull v24.8h, ",
            $low,
            ".8b, v16.8b\n",
            "smull v25.8h, ",
            $low,
            ".8b, v18.8b\n",
            "smull v26.8h, ",
            $high,
            ".8b, v17.8b\n",
            "smull v27.8h, ",
            $high,
            ".8b, v19.8b\n",
            "smlal2 v24.8h, ",
            $low,
            ".16b, v16.16b\n",
            "smlal2 v25.8h, ",
            $low,
            ".16b, v18.16b\n",
            "smlal2 v26.8h, ",
            $high,
            ".16b, v17.16b\n",
            "smlal2 v27.8h, ",
            $high,
            ".16b, v19.16b\n",
            "sadalp ",
            $first,
            ".4s, v24.8h\n",
            "sadalp ",
            $second,
            ".4s, v25.8h\n",
            "sadalp ",
            $first,
            ".4s, v26.8h\n",
            "sadalp ",
            $second,
            ".4s, v27.8h\n",
        )
    };
    (16, $first:literal, $second:literal, $low:literal) => {
        concat!(
            "smull v24.8h, ",
            $low,
            ".8b, v16.8b\n",
            "smull v25.8h, ",
            $low,
            ".8b, v18.8b\n",
            "smlal2 v24.8h, ",
            $low,
            ".16b, v16.16b\n",
            "smlal2 v25.8h, ",
            $low,
            ".16b, v18.16b\n",
            "sadalp ",
            $first,
            ".4s, v24.8h\n",
            "sadalp ",
            $second,
            ".4s, v25.8h\n",
        )
    };
}

/// Runs instructions on the sums of 8 columns of two rows, in v0 to v7 and v8 to v15.
macro_rules! two_rows {
    ($sums:ident, $rows:ident, $weights:ident, $steps:expr, $($line:expr,)+) => {{
        let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]] = $sums;
        asm!(
            $($line,)+
            first = inout(reg) $rows[0] => _, second = inout(reg) $rows[1] => _,
            weights = inout(reg) $weights => _, steps = inout(reg) $steps => _,
            inout("v0") *a, inout("v1") *b, inout("v2") *c, inout("v3") *d,
            inout("v4") *e, inout("v5") *f, inout("v6") *g, inout("v7") *h,
            inout("v8") *i, inout("v9") *j, inout("v10") *k, inout("v11") *l,
            inout("v12") *m, inout("v13") *n, inout("v14") *o, inout("v15") *p,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            in("v28") vdupq_n_u8(128),
            options(readonly, nostack),
        );
    }};
}

/// Adds the products of `steps` times 32 values of two rows. Written as instructions: compilers start so many
/// products at once that they have to put sums into memory.
///
/// # Safety
/// NEON; as many values of each row, and 32 weights of each column for each step, are readable; at least one step.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn steps(sums: &mut [Eight; 2], rows: [*const u8; 2], weights: *const i8, steps: usize) {
    // SAFETY: the caller's; only the named registers change.
    unsafe {
        two_rows!(
            sums,
            rows,
            weights,
            steps,
            "2:",
            "ldp q16, q17, [{first}], #32",
            "ldp q18, q19, [{second}], #32",
            "ldp q20, q21, [{weights}], #32",
            "eor v16.16b, v16.16b, v28.16b",
            "eor v17.16b, v17.16b, v28.16b",
            "eor v18.16b, v18.16b, v28.16b",
            "eor v19.16b, v19.16b, v28.16b",
            "ldp q22, q23, [{weights}], #32",
            column!(32, "v0", "v8", "v20", "v21"),
            "ldp q20, q21, [{weights}], #32",
            column!(32, "v1", "v9", "v22", "v23"),
            "ldp q22, q23, [{weights}], #32",
            column!(32, "v2", "v10", "v20", "v21"),
            "ldp q20, q21, [{weights}], #32",
            column!(32, "v3", "v11", "v22", "v23"),
            "ldp q22, q23, [{weights}], #32",
            column!(32, "v4", "v12", "v20", "v21"),
            "ldp q20, q21, [{weights}], #32",
            column!(32, "v5", "v13", "v22", "v23"),
            "ldp q22, q23, [{weights}], #32",
            column!(32, "v6", "v14", "v20", "v21"),
            "subs {steps}, {steps}, #1",
            column!(32, "v7", "v15", "v22", "v23"),
            "b.ne 2b",
        );
    }
}

/// Adds the products of 16 values of two rows, the first half of a step.
///
/// # Safety
/// NEON; as many values of each row, and 32 weights of each column, are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn half_step(sums: &mut [Eight; 2], rows: [*const u8; 2], weights: *const i8) {
    // SAFETY: the caller's; only the named registers change.
    unsafe {
        two_rows!(
            sums,
            rows,
            weights,
            0_usize,
            "ldr q16, [{first}]",
            "ldr q18, [{second}]",
            "ldr q20, [{weights}]",
            "ldr q22, [{weights}, #32]",
            "eor v16.16b, v16.16b, v28.16b",
            "eor v18.16b, v18.16b, v28.16b",
            column!(16, "v0", "v8", "v20"),
            "ldr q20, [{weights}, #64]",
            column!(16, "v1", "v9", "v22"),
            "ldr q22, [{weights}, #96]",
            column!(16, "v2", "v10", "v20"),
            "ldr q20, [{weights}, #128]",
            column!(16, "v3", "v11", "v22"),
            "ldr q22, [{weights}, #160]",
            column!(16, "v4", "v12", "v20"),
            "ldr q20, [{weights}, #192]",
            column!(16, "v5", "v13", "v22"),
            "ldr q22, [{weights}, #224]",
            column!(16, "v6", "v14", "v20"),
            column!(16, "v7", "v15", "v22"),
            "/* {steps} */",
        );
    }
}

/// As [`steps`] for one row and any number of values.
///
/// # Safety
/// NEON; values and 32 weights of each column are readable up to `k` rounded up to 32.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn one_row(sums: &mut Eight, mut row: *const u8, mut weights: *const i8, k: usize) {
    for _ in 0..k.div_ceil(32) {
        // SAFETY: the caller's.
        unsafe {
            let values = [signed(row), signed(row.add(16))];
            let [a, b, c, d, e, f, g, h] = *sums;
            *sums = [
                add(a, weights, values),
                add(b, weights.add(32), values),
                add(c, weights.add(64), values),
                add(d, weights.add(96), values),
                add(e, weights.add(128), values),
                add(f, weights.add(160), values),
                add(g, weights.add(192), values),
                add(h, weights.add(224), values),
            ];
            (row, weights) = (row.add(32), weights.add(32 * COLUMNS));
        }
    }
}

/// `sum` plus 32 products.
///
/// # Safety
/// NEON; 32 weights are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add(sum: int32x4_t, weights: *const i8, [low, high]: [int8x16_t; 2]) -> int32x4_t {
    // SAFETY: the caller's.
    let (first, second) = unsafe { (vld1q_s8(weights), vld1q_s8(weights.add(16))) };
    let sum = vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(first), vget_low_s8(low)), first, low));
    vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(second), vget_low_s8(high)), second, high))
}

/// 8 columns of one row, or two.
///
/// # Safety
/// NEON; the job passed its checks, has 8 columns from `first` on and rows from `row` to `row + MR`, which the
/// target takes, and no weight is -128.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const MR: usize>(job: &Job<'_>, first: usize, row: usize, target: &impl Target) {
    // SAFETY: rows are readable, and weights there, up to k rounded up to 64; there are 8 biases from `first`.
    unsafe {
        let at = job.bias.as_ptr().add(first);
        let biases = [
            bias(at),
            bias(at.add(1)),
            bias(at.add(2)),
            bias(at.add(3)),
            bias(at.add(4)),
            bias(at.add(5)),
            bias(at.add(6)),
            bias(at.add(7)),
        ];
        let (row_at, k) = (job.rows.as_ptr().add(row * job.stride), job.k);
        let weights = job.weights.as_ptr().cast::<i8>().add(first * k.next_multiple_of(64));
        if MR == 1 {
            let mut sums = biases;
            one_row(&mut sums, row_at, weights, k);
            return target.put(row, [whole(sums)]);
        }
        let (mut sums, rows) = ([biases; 2], [row_at, row_at.add(job.stride)]);
        // What is left of a row is at most 16 values, or as good as 32.
        let count = (k + 15) / 32;
        if count > 0 {
            steps(&mut sums, rows, weights, count);
        }
        if matches!(k % 32, 1..=16) {
            let done = 32 * count;
            half_step(&mut sums, [rows[0].add(done), rows[1].add(done)], weights.add(done * COLUMNS));
        }
        target.put(row, [whole(sums[0]), whole(sums[1])]);
    }
}

/// The sums of 8 columns, each of which four lanes hold.
#[inline]
#[target_feature(enable = "neon")]
fn whole([a, b, c, d, e, f, g, h]: Eight) -> Sums {
    let low = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    [low, vpaddq_s32(vpaddq_s32(e, f), vpaddq_s32(g, h))]
}
