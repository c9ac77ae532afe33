//! Sums to bytes with NEON: convert, scale, round half to even, add the zero point, saturate.
#![expect(unsafe_code, reason = "loads and stores vectors; each function says what it needs")]

use super::super::tile::Finish;
use std::arch::aarch64::{
    float32x4_t, int16x8_t, int32x4_t, uint8x16_t, vcombine_s16, vcombine_u8, vcvtnq_s32_f32, vcvtq_f32_s32,
    vdupq_n_s16, vdupq_n_u8, vld1q_f32, vmaxq_u8, vminq_u8, vmulq_f32, vqaddq_s16, vqmovn_s32, vqmovun_s16,
    vst1q_u8,
};

/// Sums of 16 channels.
pub(super) type Sums = [int32x4_t; 4];

/// The constants of 16 channels in registers.
#[derive(Clone, Copy)]
pub(super) struct Finisher {
    multiplier: [float32x4_t; 4],
    zero_point: int16x8_t,
    lo: uint8x16_t,
    hi: uint8x16_t,
}

impl Finisher {
    /// # Safety
    /// `finish` has 16 multipliers from `first` on.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn new(finish: &Finish<'_>, first: usize) -> Self {
        // SAFETY: the caller has that many.
        let multiplier =
            [0, 4, 8, 12].map(|j| unsafe { vld1q_f32(finish.multiplier.as_ptr().add(first + j)) });
        Self {
            multiplier,
            zero_point: vdupq_n_s16(i16::from(finish.zero_point)),
            lo: vdupq_n_u8(finish.limits[0]),
            hi: vdupq_n_u8(finish.limits[1]),
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn words(&self, low: int32x4_t, high: int32x4_t, j: usize) -> int16x8_t {
        let low = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(low), self.multiplier[j]));
        let high = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(high), self.multiplier[j + 1]));
        vqaddq_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)), self.zero_point)
    }

    /// Writes 16 channels.
    ///
    /// # Safety
    /// `to` has room for 16 bytes.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn store(&self, sums: Sums, to: *mut u8) {
        let low = vqmovun_s16(self.words(sums[0], sums[1], 0));
        let high = vqmovun_s16(self.words(sums[2], sums[3], 2));
        let bytes = vminq_u8(vmaxq_u8(vcombine_u8(low, high), self.lo), self.hi);
        // SAFETY: the caller's.
        unsafe { vst1q_u8(to, bytes) }
    }
}
