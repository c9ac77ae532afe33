//! Depthwise convolution with NEON, 16 channels at a time: two taps' products fit into a word of 16 bits (weights
//! are at least -127), which is added to the sums.
#![expect(unsafe_code, reason = "pointers into planes whose bounds `strip::run` asserts")]

use super::super::strip::{Plane, Strip};
use super::finish::{Finisher, Sums};
use std::arch::aarch64::{
    int8x16_t, vaddw_high_s16, vaddw_s16, vdupq_n_u8, veorq_u8, vget_low_s8, vget_low_s16, vld1q_s8,
    vld1q_s32, vld1q_u8, vmlal_high_s8, vmlal_s8, vmull_high_s8, vmull_s8, vreinterpretq_s8_u8,
    vreinterpretq_u8_s32, vst1q_u8,
};
use std::arch::asm;

/// All rows of 16 channels; the weights are 16 bytes per tap. `SUMS`: not requantized.
///
/// # Safety
/// The arguments passed the checks of `strip::run`, and no weight is -128.
#[target_feature(enable = "neon")]
pub(in super::super) unsafe fn run<const SUMS: bool>(
    strip: &Strip<'_>,
    (input, read): (*const u8, Plane),
    (output, write): (*mut u8, Plane),
) {
    // SAFETY: 16 multipliers and biases; each tap of each output pixel is readable and each output writable for 16
    // bytes, and each tap has 16 weights, all asserted by `strip::run`.
    unsafe {
        let finisher = Finisher::new(&strip.finish, 0);
        let bias = strip.bias.as_ptr();
        let bias = [vld1q_s32(bias), vld1q_s32(bias.add(4)), vld1q_s32(bias.add(8)), vld1q_s32(bias.add(12))];
        let column = columns(strip.taps);
        for y in 0..strip.height {
            let from = (input.add(read.start + y * read.row), read.pixel);
            let to = (output.add(write.start + y * write.row), write.pixel);
            let done = match column {
                Some(column) if read.pixel == column => pairs::<1, SUMS>(strip, (&finisher, bias), from, to),
                Some(column) if read.pixel == 2 * column => {
                    pairs::<2, SUMS>(strip, (&finisher, bias), from, to)
                }
                _ => 0,
            };
            for x in done..strip.width {
                let sums = window(strip, bias, from.0.add(x * read.pixel));
                put::<SUMS>(&finisher, sums, to.0.add(x * write.pixel));
            }
        }
    }
}

/// Writes one pixel.
///
/// # Safety
/// NEON; `to` has room for 16 bytes, or sums.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn put<const SUMS: bool>(finisher: &Finisher, sums: Sums, to: *mut u8) {
    // SAFETY: the caller's.
    unsafe {
        if SUMS {
            for (four, sums) in sums.into_iter().enumerate() {
                vst1q_u8(to.add(16 * four), vreinterpretq_u8_s32(sums));
            }
        } else {
            finisher.store(sums, to);
        }
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

/// `sums` plus the products of two taps.
#[inline]
#[target_feature(enable = "neon")]
fn add_two(sums: Sums, values: [int8x16_t; 2], weights: [int8x16_t; 2]) -> Sums {
    let ([first, second], [one, two]) = (values, weights);
    let low = vmull_s8(vget_low_s8(first), vget_low_s8(one));
    let low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(two));
    let high = vmlal_high_s8(vmull_high_s8(first, one), second, two);
    [
        vaddw_s16(sums[0], vget_low_s16(low)),
        vaddw_high_s16(sums[1], low),
        vaddw_s16(sums[2], vget_low_s16(high)),
        vaddw_high_s16(sums[3], high),
    ]
}

/// `sums` plus the products of one tap.
#[inline]
#[target_feature(enable = "neon")]
fn add_one(sums: Sums, values: int8x16_t, weights: int8x16_t) -> Sums {
    let low = vmull_s8(vget_low_s8(values), vget_low_s8(weights));
    let high = vmull_high_s8(values, weights);
    [
        vaddw_s16(sums[0], vget_low_s16(low)),
        vaddw_high_s16(sums[1], low),
        vaddw_s16(sums[2], vget_low_s16(high)),
        vaddw_high_s16(sums[3], high),
    ]
}

/// The sums of the window at one pixel.
///
/// # Safety
/// NEON; 16 bytes are readable at each tap.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn window(strip: &Strip<'_>, mut sums: Sums, corner: *const u8) -> Sums {
    let mut weights = strip.weights.as_ptr().cast::<i8>();
    let (pairs, last) = strip.taps.as_chunks::<2>();
    // SAFETY: the caller's; each tap has 16 weights.
    unsafe {
        for [first, second] in pairs {
            let values = [signed(corner.add(*first)), signed(corner.add(*second))];
            sums = add_two(sums, values, [vld1q_s8(weights), vld1q_s8(weights.add(16))]);
            weights = weights.add(32);
        }
        if let [last] = last {
            sums = add_one(sums, signed(corner.add(*last)), vld1q_s8(weights));
        }
    }
    sums
}

/// The distance of the columns, if taps are three rows of three.
fn columns(taps: &[usize]) -> Option<usize> {
    let is_square =
        (0..9).all(|tap| taps.get(tap).is_some_and(|at| *at == taps[tap / 3 * 3] + taps[tap % 3]));
    (taps.len() == 9 && is_square).then(|| taps[1])
}

/// The weights of nine taps, in the order of the window.
type Nine = [int8x16_t; 9];

/// The products of two taps for two windows, in v14 and v15, v30 and v31.
macro_rules! products {
    ([$a:literal, $b:literal], [$c:literal, $d:literal], [$w:literal, $x:literal]) => {
        concat!(
            "smull v14.8h, ",
            $a,
            ".8b, ",
            $w,
            ".8b\n",
            "smull v30.8h, ",
            $c,
            ".8b, ",
            $w,
            ".8b\n",
            "smull2 v15.8h, ",
            $a,
            ".16b, ",
            $w,
            ".16b\n",
            "smull2 v31.8h, ",
            $c,
            ".16b, ",
            $w,
            ".16b\n",
            "smlal v14.8h, ",
            $b,
            ".8b, ",
            $x,
            ".8b\n",
            "smlal v30.8h, ",
            $d,
            ".8b, ",
            $x,
            ".8b\n",
            "smlal2 v15.8h, ",
            $b,
            ".16b, ",
            $x,
            ".16b\n",
            "smlal2 v31.8h, ",
            $d,
            ".16b, ",
            $x,
            ".16b\n",
        )
    };
    ([$a:literal], [$c:literal], [$w:literal]) => {
        concat!(
            "smull v14.8h, ",
            $a,
            ".8b, ",
            $w,
            ".8b\n",
            "smull v30.8h, ",
            $c,
            ".8b, ",
            $w,
            ".8b\n",
            "smull2 v15.8h, ",
            $a,
            ".16b, ",
            $w,
            ".16b\n",
            "smull2 v31.8h, ",
            $c,
            ".16b, ",
            $w,
            ".16b\n",
        )
    };
}

/// Adds the products to sums of the first window, here given, and of the second, and leaves them in v0 to v7.
macro_rules! sums {
    ([$a:literal, $b:literal, $c:literal, $d:literal], [$e:literal, $f:literal, $g:literal, $h:literal]) => {
        concat!(
            "saddw v0.4s, ",
            $a,
            ".4s, v14.4h\n",
            "saddw v4.4s, ",
            $e,
            ".4s, v30.4h\n",
            "saddw v2.4s, ",
            $c,
            ".4s, v15.4h\n",
            "saddw v6.4s, ",
            $g,
            ".4s, v31.4h\n",
            "saddw2 v1.4s, ",
            $b,
            ".4s, v14.8h\n",
            "saddw2 v5.4s, ",
            $f,
            ".4s, v30.8h\n",
            "saddw2 v3.4s, ",
            $d,
            ".4s, v15.8h\n",
            "saddw2 v7.4s, ",
            $h,
            ".4s, v31.8h\n",
        )
    };
    (bias) => {
        sums!(["v25", "v26", "v27", "v28"], ["v25", "v26", "v27", "v28"])
    };
    () => {
        sums!(["v0", "v1", "v2", "v3"], ["v4", "v5", "v6", "v7"])
    };
}

/// Loads columns of a window, and makes signed values of them.
macro_rules! load {
    ($($register:literal: $row:literal $(+ $column:literal)?),+) => {
        concat!(
            $("ldr q", $register, ", [{", $row, "}", $(", {", $column, "}",)? "]\n",)+
            $("eor v", $register, ".16b, v", $register, ".16b, v29.16b\n",)+
        )
    };
}

/// Runs instructions on two windows of 3x3. Written as such: compilers take the halves of all weights apart ahead
/// of the loop, for which there are too few registers.
macro_rules! two_windows {
    ($rows:ident, $column:ident, $bias:ident, $weights:ident, $($line:expr,)+) => {{
        let [a, b, c, d]: Sums;
        let [e, f, g, h]: Sums;
        asm!(
            $($line,)+
            r0 = in(reg) $rows[0], r1 = in(reg) $rows[1], r2 = in(reg) $rows[2],
            c1 = in(reg) $column, c2 = in(reg) 2 * $column, c3 = in(reg) 3 * $column, c4 = in(reg) 4 * $column,
            out("v0") a, out("v1") b, out("v2") c, out("v3") d,
            out("v4") e, out("v5") f, out("v6") g, out("v7") h,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
            out("v14") _, out("v15") _, out("v30") _, out("v31") _,
            in("v16") $weights[0], in("v17") $weights[1], in("v18") $weights[2],
            in("v19") $weights[3], in("v20") $weights[4], in("v21") $weights[5],
            in("v22") $weights[6], in("v23") $weights[7], in("v24") $weights[8],
            in("v25") $bias[0], in("v26") $bias[1], in("v27") $bias[2], in("v28") $bias[3],
            in("v29") vdupq_n_u8(128),
            options(pure, readonly, nostack, preserves_flags),
        );
        [[a, b, c, d], [e, f, g, h]]
    }};
}

/// The sums of two windows, of which the second is one column further.
///
/// # Safety
/// NEON; 16 bytes are readable at each tap of both windows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn next_to(rows: [*const u8; 3], column: usize, bias: Sums, weights: &Nine) -> [Sums; 2] {
    // SAFETY: the caller's; only the named registers change.
    unsafe {
        two_windows!(
            rows,
            column,
            bias,
            weights,
            load!("8": "r0", "9": "r0" + "c1", "10": "r0" + "c2", "11": "r0" + "c3"),
            products!(["v8", "v9"], ["v9", "v10"], ["v16", "v17"]),
            load!("8": "r1", "9": "r1" + "c1", "12": "r1" + "c2", "13": "r1" + "c3"),
            sums!(bias),
            products!(["v10", "v8"], ["v11", "v9"], ["v18", "v19"]),
            sums!(),
            products!(["v9", "v12"], ["v12", "v13"], ["v20", "v21"]),
            load!("8": "r2", "9": "r2" + "c1", "10": "r2" + "c2", "11": "r2" + "c3"),
            sums!(),
            products!(["v8", "v9"], ["v9", "v10"], ["v22", "v23"]),
            sums!(),
            products!(["v10"], ["v11"], ["v24"]),
            sums!(),
            "/* {c4} is for windows further apart */",
        )
    }
}

/// As [`next_to`], where the second window is two columns further.
///
/// # Safety
/// As [`next_to`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn two_apart(rows: [*const u8; 3], column: usize, bias: Sums, weights: &Nine) -> [Sums; 2] {
    // SAFETY: the caller's; only the named registers change.
    unsafe {
        two_windows!(
            rows,
            column,
            bias,
            weights,
            load!("8": "r0", "9": "r0" + "c1", "10": "r0" + "c2", "11": "r0" + "c3", "12": "r0" + "c4"),
            products!(["v8", "v9"], ["v10", "v11"], ["v16", "v17"]),
            load!("8": "r1", "9": "r1" + "c1", "11": "r1" + "c3", "13": "r1" + "c2"),
            sums!(bias),
            products!(["v10", "v8"], ["v12", "v13"], ["v18", "v19"]),
            load!("8": "r2", "10": "r2" + "c2", "12": "r1" + "c4"),
            sums!(),
            products!(["v9", "v13"], ["v11", "v12"], ["v20", "v21"]),
            load!("9": "r2" + "c1", "11": "r2" + "c3", "12": "r2" + "c4"),
            sums!(),
            products!(["v8", "v9"], ["v10", "v11"], ["v22", "v23"]),
            sums!(),
            products!(["v10"], ["v12"], ["v24"]),
            sums!(),
        )
    }
}

/// One row of output pixels of a window of 3x3, two at a time, `S` columns apart. Returns how many were written.
///
/// # Safety
/// As [`run`], from the row's first pixels on, which are `S` columns apart; the taps are three rows of three.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pairs<const S: usize, const SUMS: bool>(
    strip: &Strip<'_>,
    (finisher, bias): (&Finisher, Sums),
    (from, step): (*const u8, usize),
    (to, to_step): (*mut u8, usize),
) -> usize {
    let count = strip.width / 2 * 2;
    // SAFETY: the caller's; nine taps have 9 * 16 weights.
    unsafe {
        let at = strip.weights.as_ptr().cast::<i8>();
        let weights = [
            vld1q_s8(at),
            vld1q_s8(at.add(16)),
            vld1q_s8(at.add(32)),
            vld1q_s8(at.add(48)),
            vld1q_s8(at.add(64)),
            vld1q_s8(at.add(80)),
            vld1q_s8(at.add(96)),
            vld1q_s8(at.add(112)),
            vld1q_s8(at.add(128)),
        ];
        let [column, second, third] = [strip.taps[1], strip.taps[3], strip.taps[6]];
        let (mut from, mut to) = (from, to);
        for _ in 0..count / 2 {
            let rows = [from, from.add(second), from.add(third)];
            let sums = if S == 1 {
                next_to(rows, column, bias, &weights)
            } else {
                two_apart(rows, column, bias, &weights)
            };
            put::<SUMS>(finisher, sums[0], to);
            put::<SUMS>(finisher, sums[1], to.add(to_step));
            (from, to) = (from.add(2 * step), to.add(2 * to_step));
        }
    }
    count
}
