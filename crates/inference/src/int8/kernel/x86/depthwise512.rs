//! Depthwise convolution with AVX-512: four rows (or any four taps) of 64 lanes are interleaved so that each lane
//! of 32 bits holds four taps of one channel, which one `vpdpbusd` sums.
//!
//! With 32 or 16 lanes a vector holds two or four parts of the row, which all move on together.
#![expect(unsafe_code, reason = "pointers into planes whose bounds `strip::run` asserts")]

use super::super::depthwise::Shape;
use super::super::strip::{Plane, Strip};
use super::finish512::Finisher;
use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm256_castsi128_si256, _mm256_inserti128_si256,
    _mm256_loadu_si256, _mm256_storeu_si256, _mm512_castsi256_si512, _mm512_castsi512_si128,
    _mm512_castsi512_si256, _mm512_dpbusd_epi32, _mm512_extracti32x4_epi32, _mm512_extracti64x4_epi64,
    _mm512_inserti64x4, _mm512_load_si512, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_storeu_si512, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8,
    _mm512_unpacklo_epi16,
};

/// Sums of 64 lanes.
type Sums = [__m512i; 4];

/// All rows; `SUMS`: not requantized.
///
/// # Safety
/// AVX-512 with VNNI; the arguments passed the checks of `strip::run`.
pub(in super::super) unsafe fn run<const SUMS: bool>(
    strip: &Strip<'_>,
    from: (*const u8, Plane),
    to: (*mut u8, Plane),
) {
    // SAFETY: as this function.
    unsafe {
        match strip.lanes {
            64 => parts::<1, SUMS>(strip, from, to),
            32 => parts::<2, SUMS>(strip, from, to),
            _ => parts::<4, SUMS>(strip, from, to),
        }
    }
}

/// Where one of `P` parts of a row starts, and what a step along the row is.
#[derive(Clone, Copy)]
struct Parts<const P: usize> {
    starts: [usize; P],
}

impl<const P: usize> Parts<P> {
    /// 64 lanes: the same place in each part.
    ///
    /// # Safety
    /// AVX-512 with VNNI; 64 / P bytes are readable at `at` in each part.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn load(&self, at: *const u8) -> __m512i {
        // SAFETY: the caller's place is readable in each part, for 64 / P bytes.
        unsafe {
            match P {
                1 => _mm512_loadu_si512(at.cast()),
                2 => {
                    let low = _mm256_loadu_si256(at.cast());
                    let high = _mm256_loadu_si256(at.add(self.starts[1]).cast());
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                }
                _ => {
                    let part = |p: usize| _mm_loadu_si128(at.add(self.starts[p]).cast());
                    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(part(0)), part(1));
                    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(part(2)), part(3));
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                }
            }
        }
    }

    /// 64 lanes to the same place in each part.
    ///
    /// # Safety
    /// AVX-512 with VNNI; 64 / P bytes are writable at `at` in each part.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn store(&self, at: *mut u8, value: __m512i) {
        // SAFETY: the caller's place is writable in each part, for 64 / P bytes.
        unsafe {
            match P {
                1 => _mm512_storeu_si512(at.cast(), value),
                2 => {
                    _mm256_storeu_si256(at.cast(), _mm512_castsi512_si256(value));
                    let high = _mm512_extracti64x4_epi64::<1>(value);
                    _mm256_storeu_si256(at.add(self.starts[1]).cast(), high);
                }
                _ => {
                    _mm_storeu_si128(at.cast(), _mm512_castsi512_si128(value));
                    let part = |p: usize| at.add(self.starts[p]).cast();
                    _mm_storeu_si128(part(1), _mm512_extracti32x4_epi32::<1>(value));
                    _mm_storeu_si128(part(2), _mm512_extracti32x4_epi32::<2>(value));
                    _mm_storeu_si128(part(3), _mm512_extracti32x4_epi32::<3>(value));
                }
            }
        }
    }

    /// 64 sums in the order of `Order::Lanes512` to the same place in each part, in the order of the channels.
    ///
    /// # Safety
    /// AVX-512 with VNNI; 64 / P sums are writable at `at` in each part.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn store_sums(&self, at: *mut u8, [a, b, c, d]: Sums) {
        // A quarter of a vector is four channels; those of four vectors follow each other.
        let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (low2, high2) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        let vectors = [
            _mm512_shuffle_i32x4::<0x88>(low, low2),
            _mm512_shuffle_i32x4::<0xdd>(low, low2),
            _mm512_shuffle_i32x4::<0x88>(high, high2),
            _mm512_shuffle_i32x4::<0xdd>(high, high2),
        ];
        for (index, vector) in vectors.into_iter().enumerate() {
            // SAFETY: the caller's; a part has 4 / P of the vectors.
            unsafe {
                let part = at.add(self.starts[index * P / 4]);
                _mm512_storeu_si512(part.add(index % (4 / P) * 64).cast(), vector);
            }
        }
    }
}

/// Byte i of each of four vectors, side by side, in the order of `Order::Lanes512`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn interleave([a, b, c, d]: [__m512i; 4]) -> Sums {
    let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (low2, high2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(low, low2),
        _mm512_unpackhi_epi16(low, low2),
        _mm512_unpacklo_epi16(high, high2),
        _mm512_unpackhi_epi16(high, high2),
    ]
}

/// `sums` plus four taps of each lane.
///
/// # Safety
/// Four vectors of weights on cache lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dot(sums: Sums, values: Sums, weights: *const u8) -> Sums {
    let mut result = sums;
    for (j, sum) in result.iter_mut().enumerate() {
        // SAFETY: the caller's.
        let vector = unsafe { _mm512_load_si512(weights.add(64 * j).cast()) };
        *sum = _mm512_dpbusd_epi32(*sum, values[j], vector);
    }
    result
}

/// All rows, in `P` parts each.
///
/// # Safety
/// AVX-512 with VNNI; the arguments passed the checks of `strip::run`, whose strip has 64 / P lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn parts<const P: usize, const SUMS: bool>(
    strip: &Strip<'_>,
    (input, read): (*const u8, Plane),
    (output, write): (*mut u8, Plane),
) {
    let length = strip.width.div_ceil(P);
    let mut starts = [0; P];
    for (p, start) in starts.iter_mut().enumerate() {
        *start = (p * length).min(strip.width - length);
    }
    // SAFETY: 64 multipliers and biases; the parts lie within the row.
    unsafe {
        let mut bias = [_mm512_setzero_si512(); 4];
        for (j, vector) in bias.iter_mut().enumerate() {
            *vector = _mm512_loadu_si512(strip.bias.as_ptr().add(16 * j).cast());
        }
        let work = Work::<P, SUMS> {
            from: Parts::<P> { starts: starts.map(|start| start * read.pixel) },
            to: Parts::<P> { starts: starts.map(|start| start * write.pixel) },
            finisher: Finisher::new(&strip.finish),
            bias,
            weights: strip.weights.as_ptr(),
            taps: strip.taps,
            inner: strip.inner,
            steps: [read.pixel, write.pixel],
            length,
        };
        let (input, output) = (input.add(read.start), output.add(write.start));
        let mut y = 0;
        while y < strip.height {
            let is_two = strip.shape == Shape::Three && strip.height > 1;
            // The last two rows overlap the two before rather than being one.
            let row = if is_two { y.min(strip.height - 2) } else { y };
            let (from, to) = (input.add(row * read.row), output.add(row * write.row));
            strip.ahead.fetch(y, strip.height);
            if is_two {
                strip.ahead.fetch(y + 1, strip.height);
            }
            match strip.shape {
                Shape::Three if is_two => work.two_rows(from, to, write.row),
                Shape::Three => work.one_row::<1>(from, to),
                Shape::ThreeBy2 => work.one_row::<2>(from, to),
                Shape::Any => work.any(from, to),
            }
            y += if is_two { 2 } else { 1 };
        }
    }
}

struct Work<'a, const P: usize, const SUMS: bool> {
    from: Parts<P>,
    to: Parts<P>,
    finisher: Finisher<4>,
    bias: Sums,
    weights: *const u8,
    taps: &'a [usize],
    inner: [usize; 2],
    /// Distance of pixels that neighbour in the output, in the input and in the output.
    steps: [usize; 2],
    length: usize,
}

impl<const P: usize, const SUMS: bool> Work<'_, P, SUMS> {
    /// Writes the results of one pixel of each part.
    ///
    /// # Safety
    /// As [`Parts::store`], or [`Parts::store_sums`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn put(&self, at: *mut u8, sums: Sums) {
        // SAFETY: the caller's.
        unsafe {
            if SUMS { self.to.store_sums(at, sums) } else { self.to.store(at, self.finisher.four(sums)) }
        }
    }

    /// Three rows of one column of the input, the fourth byte of each lane being zero.
    ///
    /// # Safety
    /// As [`Parts::load`] at `at` and in the two rows of the input below it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn three(&self, at: *const u8) -> Sums {
        let row = self.inner[0];
        // SAFETY: the caller's place has two more rows below.
        unsafe {
            let rows = [self.from.load(at), self.from.load(at.add(row)), self.from.load(at.add(2 * row))];
            interleave([rows[0], rows[1], rows[2], _mm512_setzero_si512()])
        }
    }

    /// Four rows of one column.
    ///
    /// # Safety
    /// As [`Parts::load`] at `at` and in the three rows of the input below it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn four(&self, at: *const u8) -> Sums {
        let row = self.inner[0];
        // SAFETY: the caller's place has three more rows below.
        unsafe {
            interleave([
                self.from.load(at),
                self.from.load(at.add(row)),
                self.from.load(at.add(2 * row)),
                self.from.load(at.add(3 * row)),
            ])
        }
    }

    /// A row of a 3x3 convolution at stride `S`; each column of the input is interleaved once.
    ///
    /// # Safety
    /// AVX-512 with VNNI; `from` is the first window of a row and `to` its result in a strip that passed the checks of
    /// `strip::run`, of three rows of taps at stride `S`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn one_row<const S: usize>(&self, from: *const u8, to: *mut u8) {
        let (pixel, kx) = (self.inner[1], 256);
        // SAFETY: output pixel x reads columns S * x to S * x + 2.
        unsafe {
            let mut first = dot(self.bias, self.three(from), self.weights);
            let mut second = self.bias;
            if S == 1 {
                let column = self.three(from.add(pixel));
                first = dot(first, column, self.weights.add(kx));
                second = dot(second, column, self.weights);
            }
            for x in 0..self.length {
                let last = if S == 1 {
                    self.three(from.add((x + 2) * pixel))
                } else {
                    let column = self.three(from.add((2 * x + 1) * pixel));
                    first = dot(first, column, self.weights.add(kx));
                    self.three(from.add((2 * x + 2) * pixel))
                };
                first = dot(first, last, self.weights.add(2 * kx));
                self.put(to.add(x * self.steps[1]), first);
                if S == 1 {
                    first = dot(second, last, self.weights.add(kx));
                    second = dot(self.bias, last, self.weights);
                } else {
                    first = dot(self.bias, last, self.weights);
                }
            }
        }
    }

    /// Two rows of a 3x3 convolution at stride 1 from four rows of the input.
    ///
    /// # Safety
    /// As [`Work::one_row`] at stride 1; the output has a row below, at the distance `row`, the input a fourth row, and the
    /// weights of the second row lie behind those of the first.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn two_rows(&self, from: *const u8, to: *mut u8, row: usize) {
        let (pixel, kx) = (self.inner[1], 256);
        let upper = self.weights;
        // SAFETY: the second row's weights follow the first's; output pixel x reads columns x to x + 2 of four
        // rows, of which the upper three belong to the first output row and the lower three to the second.
        unsafe {
            let lower = self.weights.add(3 * kx);
            let column = self.four(from);
            let mut first = [dot(self.bias, column, upper), dot(self.bias, column, lower)];
            let column = self.four(from.add(pixel));
            let mut second = [dot(self.bias, column, upper), dot(self.bias, column, lower)];
            first = [dot(first[0], column, upper.add(kx)), dot(first[1], column, lower.add(kx))];
            for x in 0..self.length {
                let column = self.four(from.add((x + 2) * pixel));
                let at = to.add(x * self.steps[1]);
                let sums = dot(first[0], column, upper.add(2 * kx));
                self.put(at, sums);
                let sums = dot(first[1], column, lower.add(2 * kx));
                self.put(at.add(row), sums);
                first = [dot(second[0], column, upper.add(kx)), dot(second[1], column, lower.add(kx))];
                second = [dot(self.bias, column, upper), dot(self.bias, column, lower)];
            }
        }
    }

    /// A row of any kernel, four taps at a time.
    ///
    /// # Safety
    /// AVX-512 with VNNI; `from` is the first window of a row and `to` its result in a strip that passed the checks of
    /// `strip::run`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn any(&self, from: *const u8, to: *mut u8) {
        for x in 0..self.length {
            let mut sums = self.bias;
            let mut weights = self.weights;
            // SAFETY: each tap of each output pixel is readable; there are four vectors for each four taps.
            unsafe {
                let corner = from.add(x * self.steps[0]);
                for taps in self.taps.chunks_exact(4) {
                    let tap = |t: usize| self.from.load(corner.add(taps[t]));
                    sums = dot(sums, interleave([tap(0), tap(1), tap(2), tap(3)]), weights);
                    weights = weights.add(256);
                }
                self.put(to.add(x * self.steps[1]), sums);
            }
        }
    }
}
