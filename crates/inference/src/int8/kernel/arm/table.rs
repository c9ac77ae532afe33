//! Tables of 256 bytes with NEON: four shuffles of 64 bytes, each of which leaves what lies outside.
#![expect(unsafe_code, reason = "loads and stores vectors within slices of one length")]

use std::arch::aarch64::{
    uint8x16x4_t, vdupq_n_u8, vld1q_u8, vld1q_u8_x4, vqtbl4q_u8, vqtbx4q_u8, vst1q_u8, vsubq_u8,
};

/// As many as are a multiple of 16. Returns how many those are.
///
/// # Safety
/// NEON; both slices have one length.
#[target_feature(enable = "neon")]
pub(in super::super) unsafe fn map(to: &mut [u8], from: &[u8], table: &[u8; 256]) -> usize {
    let whole = from.len() / 16 * 16;
    // SAFETY: the table has four parts of 64 bytes; there are 16 bytes from `start` on in both slices.
    unsafe {
        let part = |index: usize| -> uint8x16x4_t { vld1q_u8_x4(table.as_ptr().add(64 * index)) };
        let [a, b, c, d] = [part(0), part(1), part(2), part(3)];
        let step = vdupq_n_u8(64);
        for start in (0..whole).step_by(16) {
            let first = vld1q_u8(from.as_ptr().add(start));
            let second = vsubq_u8(first, step);
            let third = vsubq_u8(second, step);
            let result = vqtbx4q_u8(vqtbx4q_u8(vqtbl4q_u8(a, first), b, second), c, third);
            vst1q_u8(to.as_mut_ptr().add(start), vqtbx4q_u8(result, d, vsubq_u8(third, step)));
        }
    }
    whole
}
