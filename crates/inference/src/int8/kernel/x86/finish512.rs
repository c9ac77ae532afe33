//! Sums to bytes with AVX-512: convert, scale, round, add the zero point, saturate.
//!
//! Rounding to nearest even is the CPU's default, which Rust relies on too. Products stay within i32, which was
//! checked when the weights were packed, so that the conversion doesn't overflow.
#![expect(unsafe_code, reason = "loads and stores vectors; each function says what it needs")]

use super::super::tile::Finish;
use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _mm_storeu_si128, _mm256_storeu_si256, _mm512_adds_epi16,
    _mm512_castsi512_si128, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_cvtusepi16_epi8, _mm512_loadu_ps,
    _mm512_max_epi16, _mm512_max_epu8, _mm512_min_epi16, _mm512_min_epu8, _mm512_mul_ps, _mm512_packs_epi32,
    _mm512_packus_epi16, _mm512_permutexvar_epi32, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_si512,
};

/// The constants of one block in registers.
#[derive(Clone, Copy)]
pub(super) struct Finisher<const NR: usize> {
    multiplier: [__m512; NR],
    zero_point: __m512i,
    lo: __m512i,
    hi: __m512i,
    lo16: __m512i,
    hi16: __m512i,
}

impl<const NR: usize> Finisher<NR> {
    /// # Safety
    /// AVX-512 F and BW; at least `NR * 16` multipliers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn new(finish: &Finish<'_>) -> Self {
        let mut multiplier = [_mm512_setzero_ps(); NR];
        for (j, vector) in multiplier.iter_mut().enumerate() {
            // SAFETY: the caller has that many.
            *vector = unsafe { _mm512_loadu_ps(finish.multiplier.as_ptr().add(16 * j)) };
        }
        let [lo, hi] = finish.limits;
        Self {
            multiplier,
            zero_point: _mm512_set1_epi16(i16::from(finish.zero_point)),
            lo: _mm512_set1_epi8(lo as i8),
            hi: _mm512_set1_epi8(hi as i8),
            lo16: _mm512_set1_epi16(i16::from(lo)),
            hi16: _mm512_set1_epi16(i16::from(hi)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn scaled(&self, sums: __m512i, j: usize) -> __m512i {
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), self.multiplier[j]))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn pair(&self, sums: [__m512i; 2], j: usize) -> __m512i {
        let packed = _mm512_packs_epi32(self.scaled(sums[0], j), self.scaled(sums[1], j + 1));
        _mm512_adds_epi16(packed, self.zero_point)
    }

    /// 64 channels, in the order of the lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn four(&self, sums: [__m512i; 4]) -> __m512i {
        let low = self.pair([sums[0], sums[1]], 0);
        let high = self.pair([sums[2], sums[3]], 2);
        _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(low, high), self.lo), self.hi)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn two(&self, sums: [__m512i; 2], j: usize) -> __m256i {
        let limited = _mm512_min_epi16(_mm512_max_epi16(self.pair(sums, j), self.lo16), self.hi16);
        _mm512_cvtusepi16_epi8(limited)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn one(&self, sums: __m512i, j: usize) -> __m128i {
        let zero = _mm512_setzero_si512();
        // The pack leaves groups of four apart; narrowing i32 directly keeps the order.
        let value = self.scaled(sums, j);
        let words = _mm512_adds_epi16(_mm512_packs_epi32(value, zero), self.zero_point);
        let bytes = _mm512_packus_epi16(words, zero);
        let limited = _mm512_min_epu8(_mm512_max_epu8(bytes, self.lo), self.hi);
        let order = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, limited))
    }

    /// Writes `NR * 16` channels.
    ///
    /// # Safety
    /// AVX-512 F and BW; `to` has room for them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn store(&self, sums: &[__m512i; NR], to: *mut u8) {
        // SAFETY: each branch writes 16 bytes for each of the NR vectors.
        unsafe {
            match NR {
                4 => _mm512_storeu_si512(to.cast(), self.four([sums[0], sums[1], sums[2], sums[3]])),
                3 => {
                    _mm256_storeu_si256(to.cast(), self.two([sums[0], sums[1]], 0));
                    _mm_storeu_si128(to.add(32).cast(), self.one(sums[2], 2));
                }
                2 => _mm256_storeu_si256(to.cast(), self.two([sums[0], sums[1]], 0)),
                _ => _mm_storeu_si128(to.cast(), self.one(sums[0], 0)),
            }
        }
    }
}
