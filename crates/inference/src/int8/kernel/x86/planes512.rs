//! Sums to f32 with AVX-512, 16 pixels by 16 channels turned at a time.
#![expect(unsafe_code, reason = "loads and stores vectors within bounds that are asserted above")]

use super::super::floats::Part;
use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_cvtepi32_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

/// Pixels and channels at a time.
const SIDE: usize = 16;

/// Writes each channel's results one behind the other; only for levels with AVX-512.
pub(in super::super) fn write(to: &mut [f32], part: &Part<'_>) {
    let Part { sums, columns, wanted, plane, factors, bias, .. } = *part;
    let count = sums.len() / columns;
    if count == 0 || wanted == 0 {
        return;
    }
    assert!(columns.is_multiple_of(SIDE) && wanted <= columns, "columns of the sums");
    assert!(factors.len() == columns && bias.len() == columns, "factors of the sums");
    let end = plane.checked_mul(wanted - 1).and_then(|start| start.checked_add(count));
    assert!(end.is_some_and(|end| end <= to.len()), "places of the results");
    // SAFETY: the level is only chosen where the CPU has AVX-512; bounds are asserted above.
    unsafe { all(to.as_mut_ptr(), part, count) }
}

/// # Safety
/// AVX-512; the checks of [`write`].
#[target_feature(enable = "avx512f")]
unsafe fn all(to: *mut f32, part: &Part<'_>, count: usize) {
    let Part { sums, columns, wanted, plane, factors, bias, bounds } = *part;
    let [lo, hi] = bounds.map(|bound| _mm512_set1_ps(bound));
    for first in (0..wanted).step_by(SIDE) {
        // SAFETY: there are as many factors and biases as columns, a multiple of 16, of which `first` is one; each
        // pixel has so many sums; each channel's place has room for `count` results.
        unsafe {
            let (factor, bias) =
                (_mm512_loadu_ps(factors.as_ptr().add(first)), _mm512_loadu_ps(bias.as_ptr().add(first)));
            for pixel in (0..count).step_by(SIDE) {
                let there = SIDE.min(count - pixel);
                let mut block = [_mm512_setzero_ps(); SIDE];
                for (index, line) in block.iter_mut().enumerate() {
                    let at = sums.as_ptr().add((pixel + index.min(there - 1)) * columns + first);
                    let sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(at.cast()));
                    let value = _mm512_add_ps(_mm512_mul_ps(sums, factor), bias);
                    // What is no number stays so: the second operand is the result then.
                    *line = _mm512_min_ps(hi, _mm512_max_ps(lo, value));
                }
                let mask = ((1_u32 << there) - 1) as __mmask16;
                let to = to.add(first * plane + pixel);
                for (lane, line) in turn(&block).into_iter().enumerate().take(wanted - first) {
                    _mm512_mask_storeu_ps(to.add(lane * plane), mask, line);
                }
            }
        }
    }
}

/// Rows for columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn(block: &[__m512; SIDE]) -> [__m512; SIDE] {
    let mut pairs = *block;
    for at in (0..SIDE).step_by(2) {
        pairs[at] = _mm512_unpacklo_ps(block[at], block[at + 1]);
        pairs[at + 1] = _mm512_unpackhi_ps(block[at], block[at + 1]);
    }
    // Each quarter of `fours[4 * i + j]` holds, of one fourth of the lanes, lane j of rows 4 * i to 4 * i + 3.
    let mut fours = pairs;
    for at in (0..SIDE).step_by(4) {
        for half in 0..2 {
            let [low, high] = [pairs[at + half], pairs[at + 2 + half]].map(|pair| _mm512_castps_pd(pair));
            fours[at + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            fours[at + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    let mut turned = fours;
    for lane in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|at| fours[at + lane]);
        let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        turned[lane] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        turned[lane + 4] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        turned[lane + 8] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        turned[lane + 12] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    turned
}
