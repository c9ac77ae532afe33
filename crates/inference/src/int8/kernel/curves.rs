//! The exponential and what is made of it, as plain arithmetic that compilers turn into vector code: the same bits on
//! every level.

/// e^x for x at most 0, within two units of the last place; 0 from where f32 has but subnormals. What is no number stays
/// none.
#[inline(always)]
pub(super) fn exp_below(x: f32) -> f32 {
    /// The natural logarithm of the smallest normal number.
    const LOWEST: f32 = -87.336_54;
    /// Adding 1.5 * 2^23 leaves a whole number in the low bits of the mantissa.
    const SHIFT: f32 = 12_582_912.0;
    // ln 2 in two parts: products with the first one are exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let rest = x - whole * LN2[0] - whole * LN2[1];
    let series = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let tail = series.iter().fold(1.987_569_2e-4, |sum, factor| sum * rest + factor);
    let mantissa = tail * (rest * rest) + rest + 1.0;
    let power = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    let scale = f32::from_bits((power.wrapping_add(127) as u32).wrapping_shl(23));
    if x < LOWEST { 0.0 } else { mantissa * scale }
}

/// The error function, within 5e-7: a quotient of two polynomials.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    /// From here on it is 1 in f32.
    const END: f32 = 3.832_5;
    let near = if x < -END { -END } else { x };
    let near = if near > END { END } else { near };
    let square = near * near;
    let above =
        [2.770_681_4e-8, -2.101_024e-6, -5.692_506_3e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2];
    let above = above.iter().fold(-2.726_142_3e-10, |sum, factor| sum * square + factor) * near;
    let below = [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2];
    let below = below.iter().fold(-1.456_607_2e-5, |sum, factor| sum * square + factor);
    let value = above / below;
    let value = if x <= -END { -1.0 } else { value };
    if x >= END { 1.0 } else { value }
}

/// The hyperbolic tangent, within 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let power = exp_below(-2.0 * x.abs());
    let outer = (1.0 - power) / (1.0 + power);
    let square = x * x;
    let series = [2.063_909e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8];
    let inner = series.iter().fold(-5.704_988_7e-3, |sum, factor| sum * square + factor) * square * x + x;
    let outer = if x < 0.0 { -outer } else { outer };
    if x.abs() < 0.625 { inner } else { outer }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let power = exp_below(-x.abs());
    (if x < 0.0 { power } else { 1.0 }) / (1.0 + power)
}

#[cfg(test)]
mod tests {
    use super::{erf, exp_below, sigmoid, tanh};

    fn places() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|place| place as f32 / 2000.0)
    }

    /// By its series, in 64 bits.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() > 4.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn curves_are_as_near_as_they_say() {
        for x in places() {
            let wide = f64::from(x);
            if x <= 0.0 {
                let want = wide.exp();
                let off = (f64::from(exp_below(x)) - want).abs() / want;
                assert!(off < 2.5e-7 || x < -87.3, "e^{x} is {off} off");
            }
            for (name, got, want) in [
                ("erf", erf(x), exact_erf(wide)),
                ("tanh", tanh(x), wide.tanh()),
                ("sigmoid", sigmoid(x), 1.0 / (1.0 + (-wide).exp())),
            ] {
                assert!((f64::from(got) - want).abs() < 5e-7, "{name} of {x}: {got}, {want}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_the_infinite_has_its_limit() {
        for curve in [exp_below, erf, tanh, sigmoid] {
            assert!(curve(f32::NAN).is_nan());
        }
        let low = f32::NEG_INFINITY;
        let got = [exp_below(low), sigmoid(low), tanh(low), tanh(-low), sigmoid(-low), exp_below(0.0)];
        assert_eq!(got.map(f32::to_bits), [0.0_f32, 0.0, -1.0, 1.0, 1.0, 1.0].map(f32::to_bits));
        assert_eq!([erf(low), erf(-low)].map(f32::to_bits), [-1.0_f32, 1.0].map(f32::to_bits));
    }
}
