//! Rows times a block of weights with plain NEON: 32 values of a row times 32 weights of a column at once, two
//! products of eight bits in a word of 16 (weights are at least -127), pairs of words added to the sums; two rows x
//! 8 columns stay in registers. Values and weights lie in the same order: nothing has to be spread over a vector.
#![expect(unsafe_code, reason = "pointers into rows, weights and outputs, whose bounds `tile::run` asserts")]

use super::super::tile::{Job, Sink};
use super::finish::Finisher8;
use std::arch::aarch64::{
    int8x16_t, int32x4_t, vaddq_s32, vdupq_n_s32, vdupq_n_u8, veorq_u8, vget_low_s8, vld1q_s8, vld1q_s32,
    vld1q_u8, vmlal_high_s8, vmlaq_n_s32, vmull_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_u8, vst1q_s32,
};
use std::arch::asm;

/// Columns at a time; their weights lie one behind the other.
const COLUMNS: usize = 8;

/// Bytes of rows that are multiplied with all columns before the next ones: they stay in the first-level cache.
const ROWS_BYTES: usize = 12 << 10;

/// Sums of a row's columns.
type Sums = [int32x4_t; 2];

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
    /// # Safety
    /// As the trait says.
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
    /// # Safety
    /// As the trait says.
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

/// The instructions for one column of two rows: products of 32 values (v16 and v17, v18 and v19) with four of them
/// under way at any time, or of 16 values (v16, v18), which `saddlp` makes the column's sums, or `sadalp` adds.
macro_rules! column {
    ($add:literal, $first:literal, $second:literal, $low:literal, $high:literal) => {
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
            $add,
            " ",
            $first,
            ".4s, v24.8h\n",
            $add,
            " ",
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
    ($add:literal, $first:literal, $second:literal, $low:literal) => {
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
            $add,
            " ",
            $first,
            ".4s, v24.8h\n",
            $add,
            " ",
            $second,
            ".4s, v25.8h\n",
        )
    };
}

/// The instructions for 32 values of two rows and all columns. The pointers move on.
macro_rules! step {
    ($add:literal) => {
        concat!(
            "ldp q16, q17, [{first}], #32\n",
            "ldp q18, q19, [{second}], #32\n",
            "ldp q20, q21, [{weights}], #32\n",
            "ldp q22, q23, [{weights}], #32\n",
            "eor v16.16b, v16.16b, v28.16b\n",
            "eor v17.16b, v17.16b, v28.16b\n",
            "eor v18.16b, v18.16b, v28.16b\n",
            "eor v19.16b, v19.16b, v28.16b\n",
            column!($add, "v0", "v8", "v20", "v21"),
            "ldp q20, q21, [{weights}], #32\n",
            column!($add, "v1", "v9", "v22", "v23"),
            "ldp q22, q23, [{weights}], #32\n",
            column!($add, "v2", "v10", "v20", "v21"),
            "ldp q20, q21, [{weights}], #32\n",
            column!($add, "v3", "v11", "v22", "v23"),
            "ldp q22, q23, [{weights}], #32\n",
            column!($add, "v4", "v12", "v20", "v21"),
            "ldp q20, q21, [{weights}], #32\n",
            column!($add, "v5", "v13", "v22", "v23"),
            "ldp q22, q23, [{weights}], #32\n",
            column!($add, "v6", "v14", "v20", "v21"),
            column!($add, "v7", "v15", "v22", "v23"),
        )
    };
}

/// The instructions for 16 values of two rows and all columns, the first half of a step.
macro_rules! half_step {
    ($add:literal) => {
        concat!(
            "ldr q16, [{first}]\n",
            "ldr q18, [{second}]\n",
            "ldr q20, [{weights}]\n",
            "ldr q22, [{weights}, #32]\n",
            "eor v16.16b, v16.16b, v28.16b\n",
            "eor v18.16b, v18.16b, v28.16b\n",
            column!($add, "v0", "v8", "v20"),
            "ldr q20, [{weights}, #64]\n",
            column!($add, "v1", "v9", "v22"),
            "ldr q22, [{weights}, #96]\n",
            column!($add, "v2", "v10", "v20"),
            "ldr q20, [{weights}, #128]\n",
            column!($add, "v3", "v11", "v22"),
            "ldr q22, [{weights}, #160]\n",
            column!($add, "v4", "v12", "v20"),
            "ldr q20, [{weights}, #192]\n",
            column!($add, "v5", "v13", "v22"),
            "ldr q22, [{weights}, #224]\n",
            column!($add, "v6", "v14", "v20"),
            column!($add, "v7", "v15", "v22"),
        )
    };
}

/// The sums of 8 columns of two rows, in v0 to v7 and v8 to v15. Written as instructions: compilers start so many
/// products at once that they have to put sums into memory.
///
/// # Safety
/// NEON; values and 32 weights of each column are readable up to `k` rounded up to 32; `k` isn't 0.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn two_rows(rows: [*const u8; 2], weights: *const i8, k: usize) -> [Sums; 2] {
    let mut sums = [[vdupq_n_s32(0); 2]; 2];
    // SAFETY: the caller's; only the named registers change.
    unsafe {
        asm!(
            "cbz {steps}, 4f",
            step!("saddlp"),
            "subs {steps}, {steps}, #1",
            "b.eq 3f",
            "2:",
            step!("sadalp"),
            "subs {steps}, {steps}, #1",
            "b.ne 2b",
            "3:",
            "cbz {rest}, 5f",
            half_step!("sadalp"),
            "b 5f",
            "4:",
            half_step!("saddlp"),
            "5:",
            "addp v0.4s, v0.4s, v1.4s",
            "addp v1.4s, v2.4s, v3.4s",
            "addp v4.4s, v4.4s, v5.4s",
            "addp v5.4s, v6.4s, v7.4s",
            "addp v8.4s, v8.4s, v9.4s",
            "addp v9.4s, v10.4s, v11.4s",
            "addp v12.4s, v12.4s, v13.4s",
            "addp v13.4s, v14.4s, v15.4s",
            "addp v0.4s, v0.4s, v1.4s",
            "addp v4.4s, v4.4s, v5.4s",
            "addp v8.4s, v8.4s, v9.4s",
            "addp v12.4s, v12.4s, v13.4s",
            first = inout(reg) rows[0] => _, second = inout(reg) rows[1] => _, weights = inout(reg) weights => _,
            // What is left of a row is at most 16 values, or as good as 32.
            steps = inout(reg) (k + 15) / 32 => _, rest = in(reg) usize::from(matches!(k % 32, 1..=16)),
            out("v0") sums[0][0], out("v1") _, out("v2") _, out("v3") _,
            out("v4") sums[0][1], out("v5") _, out("v6") _, out("v7") _,
            out("v8") sums[1][0], out("v9") _, out("v10") _, out("v11") _,
            out("v12") sums[1][1], out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            in("v28") vdupq_n_u8(128),
            options(pure, readonly, nostack),
        );
    }
    sums
}

/// As [`two_rows`] for one row.
///
/// # Safety
/// As [`two_rows`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn one_row(mut row: *const u8, mut weights: *const i8, k: usize) -> Sums {
    // Each column's sum is that of four lanes.
    let mut sums = [vdupq_n_s32(0); COLUMNS];
    for _ in 0..k.div_ceil(32) {
        // SAFETY: the caller's.
        unsafe {
            let values = [signed(row), signed(row.add(16))];
            // Written out: compilers keep sums in memory where they don't unroll a loop around them.
            sums = [
                add(sums[0], weights, values),
                add(sums[1], weights.add(32), values),
                add(sums[2], weights.add(64), values),
                add(sums[3], weights.add(96), values),
                add(sums[4], weights.add(128), values),
                add(sums[5], weights.add(160), values),
                add(sums[6], weights.add(192), values),
                add(sums[7], weights.add(224), values),
            ];
            (row, weights) = (row.add(32), weights.add(32 * COLUMNS));
        }
    }
    let low = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
    [low, vpaddq_s32(vpaddq_s32(sums[4], sums[5]), vpaddq_s32(sums[6], sums[7]))]
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
        let (rows, k) = (job.rows.as_ptr().add(row * job.stride), job.k);
        let weights = job.weights.as_ptr().cast::<i8>().add(first * k.next_multiple_of(64));
        let bias = |row: usize| [start(job, row, first), start(job, row, first + 4)];
        if MR == 1 {
            target.put(row, [both(one_row(rows, weights, k), bias(row))]);
        } else {
            let [first, second] = two_rows([rows, rows.add(job.stride)], weights, k);
            target.put(row, [both(first, bias(row)), both(second, bias(row + 1))]);
        }
    }
}

/// What the sums of four columns of a row start with, or end with: the bias, and what is added to the row besides.
///
/// # Safety
/// NEON; the job passed its checks and has this row, and four columns from the given one on.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn start(job: &Job<'_>, row: usize, column: usize) -> int32x4_t {
    // SAFETY: there are a bias and a factor for each column, and a sum for each row.
    unsafe {
        let bias = vld1q_s32(job.bias.as_ptr().add(column));
        match &job.extra {
            None => bias,
            Some(extra) => {
                let factors = vld1q_s32(extra.factors.as_ptr().add(column));
                vmlaq_n_s32(bias, factors, *extra.rows.get_unchecked(row))
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn both(sums: Sums, bias: Sums) -> Sums {
    [vaddq_s32(sums[0], bias[0]), vaddq_s32(sums[1], bias[1])]
}
