//! Simple operations on bytes, by instructions that compilers don't find by themselves.
#![expect(unsafe_code, reason = "loads and stores vectors, and needs NEON")]

use std::arch::aarch64::{uint8x16_t, vdupq_n_u8, vld1q_u8, vmaxq_u8, vst1q_u8, vzip1q_u8, vzip2q_u8};

/// Rows for columns.
pub(in super::super) fn turn(mut block: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    // SAFETY: NEON is part of the target; each row has 16 bytes.
    unsafe {
        let mut rows = [vdupq_n_u8(0); 16];
        for (row, bytes) in rows.iter_mut().zip(&block) {
            *row = vld1q_u8(bytes.as_ptr());
        }
        for (row, bytes) in shuffled(shuffled(shuffled(shuffled(rows)))).into_iter().zip(&mut block) {
            vst1q_u8(bytes.as_mut_ptr(), row);
        }
    }
    block
}

/// Each half of the rows shuffled with the other, as two piles of cards are.
#[inline]
#[target_feature(enable = "neon")]
fn shuffled(rows: [uint8x16_t; 16]) -> [uint8x16_t; 16] {
    let mut next = rows;
    for row in 0..8 {
        next[2 * row] = vzip1q_u8(rows[row], rows[row + 8]);
        next[2 * row + 1] = vzip2q_u8(rows[row], rows[row + 8]);
    }
    next
}

/// The larger of each two bytes, of a multiple of 16.
#[inline(always)]
pub(in super::super) fn larger<const BYTES: usize>(
    mut bytes: [u8; BYTES],
    others: &[u8; BYTES],
) -> [u8; BYTES] {
    for (bytes, others) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(others.as_chunks::<16>().0) {
        // SAFETY: NEON is part of the target; both have 16 bytes.
        unsafe {
            vst1q_u8(bytes.as_mut_ptr(), vmaxq_u8(vld1q_u8(bytes.as_ptr()), vld1q_u8(others.as_ptr())))
        };
    }
    bytes
}
