//! Sums to bytes with AVX2, and the two ways to sum four products in a lane of 32 bits: the dot product of
//! AVX-VNNI, or two multiplications of 16 bits, which are exact too.
#![expect(unsafe_code, reason = "loads vectors, and an instruction that the caller made sure of")]

use super::super::tile::{Finish, Job};
use std::arch::asm;
use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_adds_epi16, _mm256_and_si256, _mm256_cvtepi32_ps,
    _mm256_cvtps_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_epu8,
    _mm256_min_epu8, _mm256_mul_ps, _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_packus_epi16,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_slli_epi16, _mm256_srai_epi16,
    _mm256_srli_epi16,
};

/// Bytes, as they are for AVX-VNNI (`V`), else the even and the odd ones as words.
#[derive(Clone, Copy)]
pub(super) struct Words(pub(super) [__m256i; 2]);

impl Words {
    /// From unsigned values.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn values<const V: bool>(bytes: __m256i) -> Self {
        if V {
            return Self([bytes; 2]);
        }
        Self([_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(bytes)])
    }

    /// From signed weights.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn weights<const V: bool>(bytes: __m256i) -> Self {
        if V {
            return Self([bytes; 2]);
        }
        Self([_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)])
    }
}

/// `sums` plus four products in each lane.
///
/// # Safety
/// AVX2; AVX-VNNI where `V`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot<const V: bool>(sums: __m256i, values: Words, weights: Words) -> __m256i {
    let (Words([even, odd]), Words([weight_even, weight_odd])) = (values, weights);
    if V {
        let mut result = sums;
        // SAFETY: the CPU has the instruction, which only changes the named register.
        unsafe {
            asm!(
                "{{vex}} vpdpbusd {0}, {1}, {2}",
                inout(ymm_reg) result, in(ymm_reg) even, in(ymm_reg) weight_even,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        return result;
    }
    let products = _mm256_add_epi32(_mm256_madd_epi16(even, weight_even), _mm256_madd_epi16(odd, weight_odd));
    _mm256_add_epi32(sums, products)
}

/// Sums of 16 columns of one row and what is added to them.
///
/// # Safety
/// AVX2; the job passed its checks and has this row, and 16 columns from the given one on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn with_extra(
    job: &Job<'_>,
    [row, column]: [usize; 2],
    mut sums: [__m256i; 2],
) -> [__m256i; 2] {
    let Some(extra) = &job.extra else { return sums };
    // SAFETY: there is a sum for each row, and a factor for each column.
    unsafe {
        let of_row = _mm256_set1_epi32(*extra.rows.get_unchecked(row));
        for (j, sum) in sums.iter_mut().enumerate() {
            let factors = _mm256_loadu_si256(extra.factors.as_ptr().add(column + 8 * j).cast());
            *sum = _mm256_add_epi32(*sum, _mm256_mullo_epi32(factors, of_row));
        }
    }
    sums
}

/// The constants that all channels share.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    zero_point: __m256i,
    lo: __m256i,
    hi: __m256i,
}

impl Limits {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(finish: &Finish<'_>) -> Self {
        Self {
            zero_point: _mm256_set1_epi16(i16::from(finish.zero_point)),
            lo: _mm256_set1_epi8(finish.limits[0] as i8),
            hi: _mm256_set1_epi8(finish.limits[1] as i8),
        }
    }

    /// Two vectors of sums to words, in the order in which the pack leaves them.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn words(&self, sums: [__m256i; 2], multipliers: [__m256; 2]) -> __m256i {
        let [low, high] = [0, 1]
            .map(|half| _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[half]), multipliers[half])));
        _mm256_adds_epi16(_mm256_packs_epi32(low, high), self.zero_point)
    }

    /// Words to bytes within the limits.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn bytes(&self, low: __m256i, high: __m256i) -> __m256i {
        _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(low, high), self.lo), self.hi)
    }
}

/// Eight multipliers.
///
/// # Safety
/// AVX2; `multipliers` has eight from `first` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn eight(multipliers: &[f32], first: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_loadu_ps(multipliers.as_ptr().add(first)) }
}
