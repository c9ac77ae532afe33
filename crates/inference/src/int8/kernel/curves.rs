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

/// The error function, within 2e-7.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let far = x.abs();
    // Beyond 4 it is 1 in f32.
    let far = if far < 4.0 { far } else { 4.0 };
    let series = [3.831_972e-4, -3.883_964_5e-3, 2.425_462e-2, -0.106_777_88, -0.634_846_9, -0.128_717_51];
    let power = series.iter().fold(-1.728_534_7e-5, |sum, factor| sum * far + factor);
    let outer = 1.0 - exp_below(power * far - far);
    let square = x * x;
    let series = [4.991_194_2e-3, -2.676_813_4e-2, 0.112_819_925, -0.376_125_34, 0.128_379_17];
    let inner = series.iter().fold(-5.967_617e-4, |sum, factor| sum * square + factor) * x + x;
    let outer = if x < 0.0 { -outer } else { outer };
    // What is no number is taken here, and stays none.
    if far > 0.927_734_4 && x.is_finite() | x.is_infinite() { outer } else { inner }
}

/// The hyperbolic tangent, within 2e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let power = exp_below(-2.0 * x.abs());
    let outer = (1.0 - power) / (1.0 + power);
    let square = x * x;
    let series = [2.063_908_9e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8];
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
                assert!((f64::from(got) - want).abs() < 2e-7, "{name} of {x}: {got}, {want}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_the_infinite_has_its_limit() {
        for curve in [exp_below, erf, tanh, sigmoid] {
            assert!(curve(f32::NAN).is_nan());
        }
        let low = f32::NEG_INFINITY;
        assert_eq!([exp_below(low), erf(low), tanh(low), sigmoid(low)], [0.0, -1.0, -1.0, 0.0]);
        assert_eq!([erf(-low), tanh(-low), sigmoid(-low), exp_below(0.0)], [1.0; 4]);
    }
}
