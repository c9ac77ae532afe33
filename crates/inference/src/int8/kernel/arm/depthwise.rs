//! Depthwise convolution with NEON, 16 channels at a time: two taps' products fit into a word of 16 bits (weights
//! are at least -127), which is added to the sums.
#![expect(unsafe_code, reason = "pointers into planes whose bounds `strip::run` asserts")]

use super::super::strip::{Plane, Strip};
use super::finish::Finisher;
use std::arch::aarch64::{
    vaddw_high_s16, vaddw_s16, vdupq_n_u8, veorq_u8, vget_low_s8, vget_low_s16, vld1q_s8, vld1q_s32,
    vld1q_u8, vmlal_high_s8, vmlal_s8, vmull_high_s8, vmull_s8, vreinterpretq_s8_u8,
};

/// All rows of 16 channels; the weights are 16 bytes per tap, the taps an even number.
///
/// # Safety
/// The arguments passed the checks of `strip::run`, and no weight is -128.
#[target_feature(enable = "neon")]
pub(in super::super) unsafe fn run(
    strip: &Strip<'_>,
    (input, read): (*const u8, Plane),
    (output, write): (*mut u8, Plane),
) {
    let middle = vdupq_n_u8(128);
    // SAFETY: 16 multipliers and biases; each tap of each output pixel is readable and each output writable for 16
    // bytes, and each tap has 16 weights, all asserted by `strip::run`.
    unsafe {
        let finisher = Finisher::new(&strip.finish, 0);
        let bias = [0, 4, 8, 12].map(|j| vld1q_s32(strip.bias.as_ptr().add(j)));
        for y in 0..strip.height {
            for x in 0..strip.width {
                let corner = input.add(read.start + y * read.row + x * read.pixel);
                let mut weights = strip.weights.as_ptr().cast::<i8>();
                let mut sums = bias;
                for taps in strip.taps.chunks_exact(2) {
                    let value =
                        |tap: usize| vreinterpretq_s8_u8(veorq_u8(vld1q_u8(corner.add(taps[tap])), middle));
                    let (first, second) = (value(0), value(1));
                    let (one, two) = (vld1q_s8(weights), vld1q_s8(weights.add(16)));
                    let low = vmull_s8(vget_low_s8(first), vget_low_s8(one));
                    let low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(two));
                    let high = vmlal_high_s8(vmull_high_s8(first, one), second, two);
                    sums = [
                        vaddw_s16(sums[0], vget_low_s16(low)),
                        vaddw_high_s16(sums[1], low),
                        vaddw_s16(sums[2], vget_low_s16(high)),
                        vaddw_high_s16(sums[3], high),
                    ];
                    weights = weights.add(32);
                }
                finisher.store(sums, output.add(write.start + y * write.row + x * write.pixel));
            }
        }
    }
}
