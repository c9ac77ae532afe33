//! Sums to bytes with NEON: convert, scale, round half to even, add the zero point, saturate.
#![expect(unsafe_code, reason = "loads and stores vectors; each function says what it needs")]

use super::super::tile::Finish;
use std::arch::aarch64::{
    float32x4_t, int16x8_t, int32x4_t, uint8x16_t, vcvtnq_s32_f32, vcvtq_f32_s32, vdupq_n_s16, vdupq_n_u8,
    vget_high_u8, vget_low_u8, vld1q_f32, vmaxq_u8, vminq_u8, vmulq_f32, vqaddq_s16, vqmovn_high_s32,
    vqmovn_s32, vqmovun_high_s16, vqmovun_s16, vst1_u8, vst1q_u8,
};

/// Sums of 16 channels.
pub(super) type Sums = [int32x4_t; 4];

/// What is the same for all channels, in registers.
#[derive(Clone, Copy)]
struct Range {
    zero_point: int16x8_t,
    lo: uint8x16_t,
    hi: uint8x16_t,
}

impl Range {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(finish: &Finish<'_>) -> Self {
        Self {
            zero_point: vdupq_n_s16(i16::from(finish.zero_point)),
            lo: vdupq_n_u8(finish.limits[0]),
            hi: vdupq_n_u8(finish.limits[1]),
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn words(&self, sums: [int32x4_t; 2], multiplier: [float32x4_t; 2]) -> int16x8_t {
        let low = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[0]), multiplier[0]));
        let high = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sums[1]), multiplier[1]));
        vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), self.zero_point)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn bytes(&self, low: int16x8_t, high: int16x8_t) -> uint8x16_t {
        vminq_u8(vmaxq_u8(vqmovun_high_s16(vqmovun_s16(low), high), self.lo), self.hi)
    }
}

/// The constants of 16 channels in registers.
#[derive(Clone, Copy)]
pub(super) struct Finisher {
    multiplier: [float32x4_t; 4],
    range: Range,
}

impl Finisher {
    /// # Safety
    /// `finish` has 16 multipliers from `first` on.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn new(finish: &Finish<'_>, first: usize) -> Self {
        // SAFETY: the caller has that many.
        let multiplier = unsafe {
            let at = finish.multiplier.as_ptr().add(first);
            [vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))]
        };
        Self { multiplier, range: Range::new(finish) }
    }

    /// Writes 16 channels.
    ///
    /// # Safety
    /// `to` has room for 16 bytes.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn store(&self, sums: Sums, to: *mut u8) {
        let ([first, second, third, last], by) = (sums, self.multiplier);
        let low = self.range.words([first, second], [by[0], by[1]]);
        let bytes = self.range.bytes(low, self.range.words([third, last], [by[2], by[3]]));
        // SAFETY: the caller's.
        unsafe { vst1q_u8(to, bytes) }
    }
}

/// The constants of 8 channels in registers.
#[derive(Clone, Copy)]
pub(super) struct Finisher8 {
    multiplier: [float32x4_t; 2],
    range: Range,
}

impl Finisher8 {
    /// # Safety
    /// `finish` has 8 multipliers from `first` on.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn new(finish: &Finish<'_>, first: usize) -> Self {
        // SAFETY: the caller has that many.
        let multiplier = unsafe {
            let at = finish.multiplier.as_ptr().add(first);
            [vld1q_f32(at), vld1q_f32(at.add(4))]
        };
        Self { multiplier, range: Range::new(finish) }
    }

    /// Writes 8 channels of two rows.
    ///
    /// # Safety
    /// Both places have room for 8 bytes.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn store_two(&self, [first, second]: [[int32x4_t; 2]; 2], to: [*mut u8; 2]) {
        let range = &self.range;
        let bytes = range.bytes(range.words(first, self.multiplier), range.words(second, self.multiplier));
        // SAFETY: the caller's.
        unsafe {
            vst1_u8(to[0], vget_low_u8(bytes));
            vst1_u8(to[1], vget_high_u8(bytes));
        }
    }

    /// Writes 8 channels of one row.
    ///
    /// # Safety
    /// The place has room for 8 bytes.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn store(&self, sums: [int32x4_t; 2], to: *mut u8) {
        let words = self.range.words(sums, self.multiplier);
        let bytes = vget_low_u8(self.range.bytes(words, words));
        // SAFETY: the caller's.
        unsafe { vst1_u8(to, bytes) }
    }
}
