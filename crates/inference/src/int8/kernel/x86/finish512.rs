//! Sums to bytes with AVX-512: convert, scale, round, add the zero point, saturate; and, where a residual branch is
//! added, the same once more for the sum of both, without writing the first result.
//!
//! Rounding to nearest even is the CPU's default, which Rust relies on too. Products stay within i32, which was
//! checked when the weights were packed (and by `AddSpec::fits`), so that the conversion doesn't overflow.
#![expect(unsafe_code, reason = "loads and stores vectors; each function says what it needs")]

use super::super::tile::{Addend, Finish, NOWHERE, Places};
use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm256_loadu_si256,
    _mm256_storeu_si256, _mm512_add_ps, _mm512_adds_epi16, _mm512_castsi512_si128, _mm512_cvtepi32_ps,
    _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_cvtps_epi32, _mm512_cvtusepi16_epi8, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_max_epi16, _mm512_max_epi32, _mm512_max_epu8, _mm512_min_epi16,
    _mm512_min_epi32, _mm512_min_epu8, _mm512_mul_ps, _mm512_packs_epi32, _mm512_packus_epi16,
    _mm512_permutexvar_epi32, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setr_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
};

/// What turns rounded numbers into bytes.
#[derive(Clone, Copy)]
struct Narrow {
    zero_point: __m512i,
    lo: __m512i,
    hi: __m512i,
    lo16: __m512i,
    hi16: __m512i,
}

impl Narrow {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn new(zero_point: u8, [lo, hi]: [u8; 2]) -> Self {
        Self {
            zero_point: _mm512_set1_epi16(i16::from(zero_point)),
            lo: _mm512_set1_epi8(lo as i8),
            hi: _mm512_set1_epi8(hi as i8),
            lo16: _mm512_set1_epi16(i16::from(lo)),
            hi16: _mm512_set1_epi16(i16::from(hi)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn pair(&self, low: __m512i, high: __m512i) -> __m512i {
        _mm512_adds_epi16(_mm512_packs_epi32(low, high), self.zero_point)
    }

    /// 64 channels, in the order of the lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn four(&self, values: [__m512i; 4]) -> __m512i {
        let (low, high) = (self.pair(values[0], values[1]), self.pair(values[2], values[3]));
        _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(low, high), self.lo), self.hi)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn two(&self, low: __m512i, high: __m512i) -> __m256i {
        let words = self.pair(low, high);
        _mm512_cvtusepi16_epi8(_mm512_min_epi16(_mm512_max_epi16(words, self.lo16), self.hi16))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn one(&self, value: __m512i) -> __m128i {
        let zero = _mm512_setzero_si512();
        let bytes = _mm512_packus_epi16(self.pair(value, zero), zero);
        let limited = _mm512_min_epu8(_mm512_max_epu8(bytes, self.lo), self.hi);
        // The packs leave groups of four apart.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, limited))
    }

    /// Writes `NR * 16` channels.
    ///
    /// # Safety
    /// AVX-512 F and BW; `to` has room for them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn store<const NR: usize>(&self, values: &[__m512i; NR], to: *mut u8) {
        // SAFETY: each branch writes 16 bytes for each of the NR vectors.
        unsafe {
            match NR {
                4 => {
                    let all = [values[0], values[1], values[2], values[3]];
                    _mm512_storeu_si512(to.cast(), self.four(all));
                }
                3 => {
                    _mm256_storeu_si256(to.cast(), self.two(values[0], values[1]));
                    _mm_storeu_si128(to.add(32).cast(), self.one(values[2]));
                }
                2 => _mm256_storeu_si256(to.cast(), self.two(values[0], values[1])),
                _ => _mm_storeu_si128(to.cast(), self.one(values[0])),
            }
        }
    }
}

/// `NR * 16` bytes as numbers of 32 bits, in the lanes that [`Narrow::store`] takes them from.
///
/// # Safety
/// AVX-512 F and BW; so many bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn widened<const NR: usize>(from: *const u8) -> [__m512i; NR] {
    let zero = _mm512_setzero_si512();
    let mut values = [zero; NR];
    // SAFETY: each branch reads 16 bytes for each of the NR vectors.
    unsafe {
        if NR == 4 {
            let bytes = _mm512_loadu_si512(from.cast());
            let (low, high) = (_mm512_unpacklo_epi8(bytes, zero), _mm512_unpackhi_epi8(bytes, zero));
            values[0] = _mm512_unpacklo_epi16(low, zero);
            values[1] = _mm512_unpackhi_epi16(low, zero);
            values[2] = _mm512_unpacklo_epi16(high, zero);
            values[3] = _mm512_unpackhi_epi16(high, zero);
            return values;
        }
        if NR > 1 {
            let words = _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
            values[0] = _mm512_unpacklo_epi16(words, zero);
            values[1] = _mm512_unpackhi_epi16(words, zero);
        }
        if NR != 2 {
            values[NR - 1] = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.add(16 * (NR - 1)).cast()));
        }
    }
    values
}

/// The constants of one block in registers.
#[derive(Clone, Copy)]
pub(super) struct Finisher<const NR: usize> {
    multiplier: [__m512; NR],
    narrow: Narrow,
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
        Self { multiplier, narrow: Narrow::new(finish.zero_point, finish.limits) }
    }

    /// Multiplied and rounded, the zero point not yet added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn scaled(&self, sums: &[__m512i; NR]) -> [__m512i; NR] {
        let mut values = *sums;
        for (value, multiplier) in values.iter_mut().zip(&self.multiplier) {
            *value = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(*value), *multiplier));
        }
        values
    }
}

impl Finisher<4> {
    /// 64 channels, in the order of the lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn four(&self, sums: [__m512i; 4]) -> __m512i {
        self.narrow.four(self.scaled(&sums))
    }
}

/// What is added to each result: another activation's values, and the constants in registers.
pub(super) struct Adder<'a> {
    data: *const u8,
    places: &'a [usize],
    /// The own values less their zero point lie within these.
    own: [__m512i; 2],
    other_zero: __m512i,
    multiplier: [__m512; 2],
    narrow: Narrow,
}

impl<'a> Adder<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn new(addend: &Addend<'a>, finish: &Finish<'_>) -> Self {
        let own =
            finish.limits.map(|limit| _mm512_set1_epi32(i32::from(limit) - i32::from(finish.zero_point)));
        let [other_zero, zero_point] = addend.zero_points;
        Self {
            data: addend.data.as_ptr(),
            places: addend.places.at(),
            own,
            other_zero: _mm512_set1_epi32(i32::from(other_zero)),
            multiplier: [_mm512_set1_ps(addend.spec.a_multiplier), _mm512_set1_ps(addend.spec.b_multiplier)],
            narrow: Narrow::new(zero_point, [addend.spec.lo, addend.spec.hi]),
        }
    }

    /// The rounded sums of own values, zero point not yet added, and the row's others.
    ///
    /// # Safety
    /// The row's place has `NR * 16` readable bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add<const NR: usize>(&self, row: usize, mut values: [__m512i; NR]) -> [__m512i; NR] {
        // SAFETY: the caller's.
        let others = unsafe { widened::<NR>(self.data.add(*self.places.get_unchecked(row))) };
        for (value, other) in values.iter_mut().zip(others) {
            let own = _mm512_min_epi32(_mm512_max_epi32(*value, self.own[0]), self.own[1]);
            let own = _mm512_mul_ps(_mm512_cvtepi32_ps(own), self.multiplier[0]);
            let other = _mm512_cvtepi32_ps(_mm512_sub_epi32(other, self.other_zero));
            let other = _mm512_mul_ps(other, self.multiplier[1]);
            *value = _mm512_cvtps_epi32(_mm512_add_ps(own, other));
        }
        values
    }
}

/// Writes the rows of one block.
pub(super) struct Writer<'a, const NR: usize> {
    finisher: Finisher<NR>,
    data: *mut u8,
    places: &'a [usize],
}

impl<'a, const NR: usize> Writer<'a, NR> {
    /// # Safety
    /// AVX-512 F and BW; the sink passed the checks of `tile::run`, with `NR * 16` columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn new(finish: &Finish<'_>, data: &mut [u8], places: &'a Places) -> Self {
        Self {
            // SAFETY: there are as many multipliers as columns.
            finisher: unsafe { Finisher::new(finish) },
            data: data.as_mut_ptr(),
            places: places.at(),
        }
    }

    /// Whether a row has a place; where kernels take gaps, they must ask before they write.
    ///
    /// # Safety
    /// The sink has this row.
    #[inline]
    pub(super) unsafe fn has_place(&self, row: usize) -> bool {
        // SAFETY: the caller's.
        unsafe { *self.places.get_unchecked(row) != NOWHERE }
    }

    /// Writes one row.
    ///
    /// # Safety
    /// AVX-512 F and BW; the sink has this row, and a place for it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn store(&self, row: usize, sums: &[__m512i; NR]) {
        // SAFETY: each place has room for a block's columns.
        unsafe {
            let to = self.data.add(*self.places.get_unchecked(row));
            self.finisher.narrow.store(&self.finisher.scaled(sums), to);
        }
    }

    /// Writes the sum of one row and its addend.
    ///
    /// # Safety
    /// As [`store`](Self::store); the addend belongs to the sink.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn store_sum(&self, adder: &Adder<'_>, row: usize, sums: &[__m512i; NR]) {
        // SAFETY: each place has room for a block's columns, and so has that of the addend.
        unsafe {
            let to = self.data.add(*self.places.get_unchecked(row));
            adder.narrow.store(&adder.add(row, self.finisher.scaled(sums)), to);
        }
    }
}
