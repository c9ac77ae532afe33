//! Tables of 256 bytes on x86: 64 values at once where AVX-512 shuffles bytes across a vector, else 32 with shuffles
//! of 16.
#![expect(unsafe_code, reason = "loads and stores vectors within slices of one length")]

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_storeu_si256, _mm256_subs_epi8, _mm256_xor_si256,
    _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_movepi8_mask, _mm512_permutex2var_epi8,
};

/// All values. Returns how many those are.
///
/// # Safety
/// AVX-512 with VBMI; both slices have one length.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in super::super) unsafe fn map_512(to: &mut [u8], from: &[u8], table: &[u8; 256]) -> usize {
    // SAFETY: the table has four vectors; masks leave out what lies behind the slices.
    unsafe {
        let part = |index: usize| _mm512_loadu_si512(table.as_ptr().add(64 * index).cast());
        let [a, b, c, d] = [part(0), part(1), part(2), part(3)];
        for start in (0..from.len()).step_by(64) {
            let mask = u64::MAX >> (64 - (from.len() - start).min(64));
            let values = _mm512_maskz_loadu_epi8(mask, from.as_ptr().add(start).cast());
            let low = _mm512_permutex2var_epi8(a, values, b);
            let high = _mm512_permutex2var_epi8(c, values, d);
            let result = _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), low, high);
            _mm512_mask_storeu_epi8(to.as_mut_ptr().add(start).cast(), mask, result);
        }
    }
    from.len()
}

/// As many as are a multiple of 32. Returns how many those are.
///
/// # Safety
/// AVX2; both slices have one length.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn map_256(to: &mut [u8], from: &[u8], table: &[u8; 256]) -> usize {
    let whole = from.len() / 32 * 32;
    if whole == 0 {
        return 0;
    }
    // A shuffle gives zero for what is negative. Values count down by 16 until they are, each step adding what its
    // part of the table differs from the one before in.
    let zero = _mm256_setzero_si256();
    let mut parts = [zero; 16];
    // SAFETY: the table has 16 parts of 16 bytes.
    let part = |index: usize| unsafe {
        _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().add(16 * index).cast()))
    };
    for (index, value) in parts.iter_mut().enumerate() {
        *value = if index % 8 == 0 { part(index) } else { _mm256_xor_si256(part(index), part(index - 1)) };
    }
    let half = |mut values: __m256i, parts: &[__m256i], mut result: __m256i| {
        for part in parts {
            result = _mm256_xor_si256(result, _mm256_shuffle_epi8(*part, values));
            values = _mm256_subs_epi8(values, _mm256_set1_epi8(16));
        }
        result
    };
    for start in (0..whole).step_by(32) {
        // SAFETY: there are 32 bytes from `start` on in both slices.
        unsafe {
            let values = _mm256_loadu_si256(from.as_ptr().add(start).cast());
            let above = _mm256_xor_si256(values, _mm256_set1_epi8(-128));
            let result = half(above, &parts[8..], half(values, &parts[..8], zero));
            _mm256_storeu_si256(to.as_mut_ptr().add(start).cast(), result);
        }
    }
    whole
}
