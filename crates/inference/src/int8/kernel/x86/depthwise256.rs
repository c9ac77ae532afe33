//! Depthwise convolution on 256 bits: 32 channels at a time, or 16 of two parts of the row; otherwise as with
//! AVX-512, whose weights it reads by halves.
#![expect(unsafe_code, reason = "pointers into planes whose bounds `strip::run` asserts")]

use super::super::depthwise::Shape;
use super::super::strip::{Plane, Strip};
use super::finish256::{Limits, Words, dot, eight};
use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm_storeu_si128, _mm256_castsi128_si256, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_load_si256, _mm256_loadu_si256,
    _mm256_permute2x128_si256, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_unpackhi_epi8,
    _mm256_unpackhi_epi16, _mm256_unpacklo_epi8, _mm256_unpacklo_epi16,
};

/// Sums of 32 lanes.
type Sums = [__m256i; 4];

/// All rows; with AVX-VNNI's dot product where `V`; `SUMS`: not requantized.
///
/// # Safety
/// AVX2, and AVX-VNNI where `V`; the arguments passed the checks of `strip::run`.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn run<const V: bool, const SUMS: bool>(
    strip: &Strip<'_>,
    from: (*const u8, Plane),
    to: (*mut u8, Plane),
) {
    // SAFETY: as this function; a strip of 64 lanes has two halves.
    unsafe {
        match strip.lanes {
            64 => {
                half::<V, false, SUMS>(strip, 0, from, to);
                half::<V, false, SUMS>(strip, 1, from, to);
            }
            32 => half::<V, false, SUMS>(strip, 0, from, to),
            _ => half::<V, true, SUMS>(strip, 0, from, to),
        }
    }
}

/// Half of the lanes of the packed weights; `TWO`: two parts of 16 lanes.
///
/// # Safety
/// AVX2, and AVX-VNNI where `V`; the arguments passed the checks of `strip::run`; `index` is 0, or 1 in a strip of 64
/// lanes.
#[target_feature(enable = "avx2")]
unsafe fn half<const V: bool, const TWO: bool, const SUMS: bool>(
    strip: &Strip<'_>,
    index: usize,
    (input, read): (*const u8, Plane),
    (output, write): (*mut u8, Plane),
) {
    let length = if TWO { strip.width.div_ceil(2) } else { strip.width };
    let second = strip.width - length;
    // SAFETY: 64 multipliers and biases, of which the half's eight of each 16 are read; the weights are as many
    // vectors as the shape needs, all asserted by `strip::run`.
    unsafe {
        let at = |j: usize| 16 * j + 8 * index;
        let bias = [0, 1, 2, 3].map(|j| _mm256_loadu_si256(strip.bias.as_ptr().add(at(j)).cast()));
        let multipliers = [0, 1, 2, 3].map(|j| eight(strip.finish.multiplier, at(j)));
        let work = Work::<V, TWO, SUMS> {
            second: [second * read.pixel, second * write.pixel],
            limits: Limits::new(&strip.finish),
            multipliers,
            bias,
            weights: strip.weights.as_ptr().add(32 * index),
            taps: strip.taps,
            inner: strip.inner,
            steps: [read.pixel, write.pixel],
            length,
        };
        let (input, output) = (
            input.add(read.start + 32 * index),
            output.add(write.start + 32 * index * if SUMS { 4 } else { 1 }),
        );
        for y in 0..strip.height {
            let (from, to) = (input.add(y * read.row), output.add(y * write.row));
            strip.ahead.fetch(y, strip.height);
            match strip.shape {
                Shape::Three => work.row::<1>(from, to),
                Shape::ThreeBy2 => work.row::<2>(from, to),
                Shape::Any => work.any(from, to),
            }
        }
    }
}

struct Work<'a, const V: bool, const TWO: bool, const SUMS: bool> {
    /// From the first part of a row to the second, in the input and in the output.
    second: [usize; 2],
    limits: Limits,
    multipliers: [__m256; 4],
    bias: Sums,
    weights: *const u8,
    taps: &'a [usize],
    inner: [usize; 2],
    /// Distance of pixels that neighbour in the output, in the input and in the output.
    steps: [usize; 2],
    length: usize,
}

impl<const V: bool, const TWO: bool, const SUMS: bool> Work<'_, V, TWO, SUMS> {
    /// 32 lanes of one place of the input.
    ///
    /// # Safety
    /// AVX2; 32 bytes from `at` on are readable, or 16 there and 16 in the second part.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(&self, at: *const u8) -> __m256i {
        // SAFETY: 32 bytes are readable, or 16 in each part.
        unsafe {
            if !TWO {
                return _mm256_loadu_si256(at.cast());
            }
            let low = _mm256_castsi128_si256(_mm_loadu_si128(at.cast()));
            _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(at.add(self.second[0]).cast()))
        }
    }

    /// 32 lanes of one place of the output.
    ///
    /// # Safety
    /// AVX2; 32 bytes, or sums, from `at` on are writable, or 16 there and 16 in the second part.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(&self, at: *mut u8, sums: Sums) {
        if SUMS {
            // SAFETY: the caller's.
            return unsafe { self.store_sums(at, sums) };
        }
        let low = self.limits.words([sums[0], sums[1]], [self.multipliers[0], self.multipliers[1]]);
        let high = self.limits.words([sums[2], sums[3]], [self.multipliers[2], self.multipliers[3]]);
        let bytes = self.limits.bytes(low, high);
        // SAFETY: 32 bytes are writable, or 16 in each part.
        unsafe {
            if !TWO {
                return _mm256_storeu_si256(at.cast(), bytes);
            }
            _mm_storeu_si128(at.cast(), _mm256_castsi256_si128(bytes));
            _mm_storeu_si128(at.add(self.second[1]).cast(), _mm256_extracti128_si256::<1>(bytes));
        }
    }

    /// The sums of 32 lanes, in the order of the channels.
    ///
    /// # Safety
    /// As [`Work::store`].
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store_sums(&self, at: *mut u8, [a, b, c, d]: Sums) {
        // Half a vector is four channels; those of four vectors follow each other.
        let low = [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x20>(c, d)];
        let high = [_mm256_permute2x128_si256::<0x31>(a, b), _mm256_permute2x128_si256::<0x31>(c, d)];
        // SAFETY: the caller's.
        unsafe {
            let second = at.add(if TWO { self.second[1] } else { 64 });
            for (at, [first, last]) in [(at, low), (second, high)] {
                _mm256_storeu_si256(at.cast(), first);
                _mm256_storeu_si256(at.add(32).cast(), last);
            }
        }
    }

    /// `sums` plus four taps of each lane; the weights of this half are every second 32 bytes.
    ///
    /// # Safety
    /// AVX2, and AVX-VNNI where `V`; four times 32 bytes of weights, 64 apart, are readable, each on 32 bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot(sums: Sums, values: [Words; 4], weights: *const u8) -> Sums {
        let mut result = sums;
        for (j, sum) in result.iter_mut().enumerate() {
            // SAFETY: the caller's weights are four vectors of 64 bytes on cache lines.
            unsafe {
                let vector = _mm256_load_si256(weights.add(64 * j).cast());
                *sum = dot::<V>(*sum, values[j], Words::weights::<V>(vector));
            }
        }
        result
    }

    /// Byte i of each of four vectors, side by side.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn interleave([a, b, c, d]: [__m256i; 4]) -> [Words; 4] {
        let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let (low2, high2) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
        [
            Words::values::<V>(_mm256_unpacklo_epi16(low, low2)),
            Words::values::<V>(_mm256_unpackhi_epi16(low, low2)),
            Words::values::<V>(_mm256_unpacklo_epi16(high, high2)),
            Words::values::<V>(_mm256_unpackhi_epi16(high, high2)),
        ]
    }

    /// Three rows of one column of the input.
    ///
    /// # Safety
    /// As [`Work::load`] at `at` and in the two rows of the input below it.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn three(&self, at: *const u8) -> [Words; 4] {
        let row = self.inner[0];
        // SAFETY: the caller's place has two more rows below.
        unsafe {
            let rows = [self.load(at), self.load(at.add(row)), self.load(at.add(2 * row))];
            Self::interleave([rows[0], rows[1], rows[2], _mm256_setzero_si256()])
        }
    }

    /// A row of a 3x3 convolution at stride `S`; each column of the input is interleaved once.
    ///
    /// # Safety
    /// AVX2, and AVX-VNNI where `V`; `from` is the first window of a row and `to` its result in a strip that passed the
    /// checks of `strip::run`, of three rows of taps at stride `S`.
    #[target_feature(enable = "avx2")]
    unsafe fn row<const S: usize>(&self, from: *const u8, to: *mut u8) {
        let (pixel, kx) = (self.inner[1], 256);
        // SAFETY: output pixel x reads columns S * x to S * x + 2.
        unsafe {
            let mut first = Self::dot(self.bias, self.three(from), self.weights);
            let mut second = self.bias;
            if S == 1 {
                let column = self.three(from.add(pixel));
                first = Self::dot(first, column, self.weights.add(kx));
                second = Self::dot(second, column, self.weights);
            }
            for x in 0..self.length {
                let last = if S == 1 {
                    self.three(from.add((x + 2) * pixel))
                } else {
                    let column = self.three(from.add((2 * x + 1) * pixel));
                    first = Self::dot(first, column, self.weights.add(kx));
                    self.three(from.add((2 * x + 2) * pixel))
                };
                first = Self::dot(first, last, self.weights.add(2 * kx));
                self.store(to.add(x * self.steps[1]), first);
                if S == 1 {
                    first = Self::dot(second, last, self.weights.add(kx));
                    second = Self::dot(self.bias, last, self.weights);
                } else {
                    first = Self::dot(self.bias, last, self.weights);
                }
            }
        }
    }

    /// A row of any kernel, four taps at a time.
    ///
    /// # Safety
    /// AVX2, and AVX-VNNI where `V`; `from` is the first window of a row and `to` its result in a strip that passed the
    /// checks of `strip::run`.
    #[target_feature(enable = "avx2")]
    unsafe fn any(&self, from: *const u8, to: *mut u8) {
        for x in 0..self.length {
            let mut sums = self.bias;
            let mut weights = self.weights;
            // SAFETY: each tap of each output pixel is readable; there are four vectors for each four taps.
            unsafe {
                let corner = from.add(x * self.steps[0]);
                for taps in self.taps.chunks_exact(4) {
                    let tap = |t: usize| self.load(corner.add(taps[t]));
                    sums = Self::dot(sums, Self::interleave([tap(0), tap(1), tap(2), tap(3)]), weights);
                    weights = weights.add(256);
                }
                self.store(to.add(x * self.steps[1]), sums);
            }
        }
    }
}
