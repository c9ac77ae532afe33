//! QuantizeLinear's division, without dividing where the CPU multiplies and adds in one rounding: vectors divide at a
//! tenth of the speed.
//!
//! The quotient is exactly that of the division (Markstein, "Computation of elementary functions on the IBM RISC
//! System/6000 processor", 1990): from a guess within a few units in the last place, one correction by the exact
//! remainder gives a neighbour of the true quotient, and one more the nearest. The tests compare both.

use super::requant::round;
#[cfg(target_arch = "x86_64")]
use super::wide::Width;
use super::wide::narrow;

/// Scales for which no remainder of a quotient that matters leaves f32's range.
const USUAL: std::ops::Range<f32> = 1e-18..1e18;

/// Quotients further from zero are the highest or the lowest byte, whatever the zero point.
const SATURATED: f32 = 65_536.0;

/// Each value divided by the scale, rounded half to even, plus the zero point, saturated.
pub(super) fn quantize_line(to: &mut [u8], values: &[f32], scale: f32, zero_point: u8) {
    if USUAL.contains(&scale) && is_fused() {
        return line_fused(to, values, scale, zero_point);
    }
    line_divided(to, values, scale, zero_point);
}

/// The scales of some channels.
#[derive(Debug)]
pub(super) struct Divisors {
    /// Up to a multiple of 64.
    scales: Vec<f32>,
    reciprocals: Vec<f32>,
    is_fused: bool,
}

impl Divisors {
    /// # Panics
    /// If there is neither one scale nor one for each channel.
    pub(super) fn new(scales: &[f32], channels: usize) -> Self {
        assert!(scales.len() == 1 || scales.len() == channels, "count of scales");
        let is_fused = is_fused() && scales.iter().all(|scale| USUAL.contains(scale));
        let padded = channels.next_multiple_of(64);
        let scales = scales.iter().cycle().take(channels).copied();
        let scales: Vec<f32> = scales.chain(std::iter::repeat(1.0)).take(padded).collect();
        let reciprocals = scales.iter().map(|scale| 1.0 / scale).collect();
        Self { scales, reciprocals, is_fused }
    }

    /// As [`quantize_line`] of pixels of so many channels from the first one on.
    pub(super) fn divide(
        &self,
        to: &mut [u8],
        values: &[f32],
        [first, channels]: [usize; 2],
        zero_point: u8,
    ) {
        let [scales, reciprocals] = [&self.scales, &self.reciprocals].map(|all| &all[first..][..channels]);
        if self.is_fused {
            return pixels_fused(to, values, scales, reciprocals, zero_point);
        }
        pixels_divided(to, values, scales, zero_point);
    }
}

/// Whether the CPU multiplies and adds in one rounding, in vectors.
fn is_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Width::chosen() != Width::Plain && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

narrow! {
    fn line_divided(to: &mut [u8], values: &[f32], scale: f32, zero_point: u8) {
        for (to, value) in to.iter_mut().zip(values) {
            *to = round(value / scale, zero_point);
        }
    }

    fn pixels_divided(to: &mut [u8], values: &[f32], scales: &[f32], zero_point: u8) {
        let channels = scales.len();
        for (to, values) in to.chunks_exact_mut(channels).zip(values.chunks_exact(channels)) {
            for ((to, value), scale) in to.iter_mut().zip(values).zip(scales) {
                *to = round(value / scale, zero_point);
            }
        }
    }
}

/// Defines functions that are called only where [`is_fused`].
macro_rules! fused {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)+) => {$(
        fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
                fn body_512($($arg: $type),*) { body($($arg),*); }

                #[target_feature(enable = "avx2,fma")]
                fn body_256($($arg: $type),*) { body($($arg),*); }

                if Width::chosen() == Width::Avx512 {
                    // SAFETY: such a width is chosen where the features were found, and `is_fused` found the other.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    return unsafe { body_512($($arg),*) };
                }
                // SAFETY: as above; without AVX2 it isn't called.
                #[expect(unsafe_code, reason = "code for CPU features that were found")]
                return unsafe { body_256($($arg),*) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            body($($arg),*);
        }
    )+};
}

fused! {
    fn line_fused(to: &mut [u8], values: &[f32], scale: f32, zero_point: u8) {
        let reciprocal = 1.0 / scale;
        for (to, value) in to.iter_mut().zip(values) {
            *to = round(quotient(*value, scale, reciprocal), zero_point);
        }
    }

    fn pixels_fused(to: &mut [u8], values: &[f32], scales: &[f32], reciprocals: &[f32], zero_point: u8) {
        let channels = scales.len();
        for (to, values) in to.chunks_exact_mut(channels).zip(values.chunks_exact(channels)) {
            for (((to, value), scale), reciprocal) in to.iter_mut().zip(values).zip(scales).zip(reciprocals) {
                *to = round(quotient(*value, *scale, *reciprocal), zero_point);
            }
        }
    }
}

/// `value / scale` as f32 division rounds it, or what saturates as it does; no number counts as the lowest.
#[inline(always)]
fn quotient(value: f32, scale: f32, reciprocal: f32) -> f32 {
    let most = scale * SATURATED;
    let value = if value > -most { value } else { -most };
    let value = if value < most { value } else { most };
    let guess = value * reciprocal;
    let near = (-guess).mul_add(scale, value).mul_add(reciprocal, guess);
    (-near).mul_add(scale, value).mul_add(reciprocal, near)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::{quantize_line, quotient, round};

    #[test]
    fn quotients_are_those_of_a_division() {
        let mut random = Random::new(3);
        for _ in 0..20_000 {
            // Any mantissa, exponents of -40 to 40.
            let mut real = || {
                let bits = u32::try_from(random.next() & 0x007f_ffff).unwrap();
                f32::from_bits((127 - 40 + u32::try_from(random.below(81)).unwrap()) << 23 | bits)
            };
            let (scale, other) = (real(), real());
            let ties = [0.5, 1.5, 127.5, 254.5].map(|tie| scale * tie);
            let ties = ties.iter().flat_map(|tie| [tie.next_down(), *tie, tie.next_up(), -tie]);
            for value in ties.chain([other, -other, 0.0, scale, scale * 255.0]) {
                let want = value / scale;
                let got = quotient(value, scale, 1.0 / scale);
                assert!(
                    got.to_bits() == want.to_bits() || want.abs() >= 65_536.0 && got.abs() >= 65_535.0,
                    "{value} / {scale}: {got}, not {want}"
                );
            }
        }
    }

    #[test]
    fn lines_are_divided_rounded_and_saturated() {
        let mut random = Random::new(4);
        for scale in [0.037, 1.0, 3.1e-9, 1e-30, 1e30, f32::MIN_POSITIVE, 255.0] {
            let mut values: Vec<f32> =
                (0..999).map(|_| (random.below(6000) as f32 / 10.0 - 300.0) * scale).collect();
            values.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0, 1e-45]);
            let mut bytes = vec![0; values.len()];
            quantize_line(&mut bytes, &values, scale, 93);
            for (value, byte) in values.iter().zip(bytes) {
                assert_eq!(byte, round(value / scale, 93), "{value} / {scale}");
            }
        }
    }
}
