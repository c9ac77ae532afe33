//! From sums (i32) back to u8, as ONNX's QLinear operators define it.

/// How the sums of each output channel become u8.
#[derive(Debug, Clone, PartialEq)]
pub struct Requant {
    /// Per output channel: scale of the input * scale of the weights / scale of the output.
    pub multiplier: Vec<f32>,
    /// Per output channel, in units of input scale * weight scale.
    pub bias: Vec<i32>,
    /// Zero point of the output.
    pub zero_point: u8,
    /// Lowest output (a folded Relu or Clip raises it).
    pub lo: u8,
    /// Highest output.
    pub hi: u8,
}

impl Requant {
    /// One channel's sum, bias included: multiply in f32, round half to even, add the zero point, saturate.
    pub fn apply(&self, channel: usize, sum: i64) -> u8 {
        let value = round(sum as f32 * self.multiplier[channel], self.zero_point);
        value.max(self.lo).min(self.hi)
    }

    /// With biases that leave room in i32 for sums so far from zero (one for each channel), where the results stay
    /// the same: a bias that far out gives the highest or the lowest result whatever the sum is. Others stay.
    pub(super) fn with_room(&self, reaches: &[i64]) -> Self {
        let channels = self.bias.iter().zip(reaches).zip(&self.multiplier);
        let bias = channels.map(|((bias, reach), multiplier)| {
            let most = i64::from(i32::MAX) - reach;
            let nearest = f64::from(*multiplier) * (most - reach) as f64;
            match i32::try_from(most) {
                Ok(most) if bias.unsigned_abs() > most.unsigned_abs() && nearest >= SURELY_SATURATED => {
                    most * bias.signum()
                }
                _ => *bias,
            }
        });
        Self { bias: bias.collect(), multiplier: self.multiplier.clone(), ..*self }
    }

    /// Without what each channel has of its own: for kernels that hold that in another order.
    pub(super) fn without_channels(&self) -> Self {
        Self { multiplier: Vec::new(), bias: Vec::new(), ..*self }
    }
}

/// So many steps from zero a result is the highest or the lowest, whatever the zero point.
const SURELY_SATURATED: f64 = 512.0;

/// `value` rounded half to even, plus the zero point, saturated to u8.
///
/// Written so that compilers turn loops of it into vector code: adding 1.5 * 2^23 leaves a whole number in the low
/// bits of the mantissa, rounded as the addition rounds.
#[inline(always)]
pub(super) fn round(value: f32, zero_point: u8) -> u8 {
    const SHIFT: f32 = 12_582_912.0;
    // i16's range is enough to saturate u8 whatever the zero point; what is no number counts as lowest.
    let value = if value > -32768.0 { value } else { -32768.0 };
    let value = if value < 32767.0 { value } else { 32767.0 };
    let whole = (value + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32;
    (whole + i32::from(zero_point)).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::{Requant, round};

    #[test]
    fn halves_go_to_the_even_neighbour() {
        assert_eq!(round(2.5, 10), 12);
        assert_eq!(round(3.5, 10), 14);
        assert_eq!(round(-0.5, 10), 10);
        assert_eq!(round(1e30, 10), 255);
        assert_eq!(round(-1e30, 10), 0);
        assert_eq!(round(f32::NAN, 10), 0);
        for step in -40_000..40_000 {
            let value = step as f32 / 128.0;
            let want = (value.round_ties_even() + 100.0).clamp(0.0, 255.0) as u8;
            assert_eq!(round(value, 100), want, "{value}");
        }
    }

    #[test]
    fn far_biases_make_room_only_where_the_result_stays() {
        let bias = vec![i32::MAX, i32::MIN, i32::MAX, i32::MAX - 1000, 7];
        let multiplier = vec![1e-3, 1e-3, 1e-8, 1e-3, 1e-3];
        let far = Requant { multiplier, bias: bias.clone(), zero_point: 9, lo: 0, hi: 255 };
        let near = far.with_room(&[1000; 5]);
        assert_eq!(near.bias, [i32::MAX - 1000, 1000 - i32::MAX, i32::MAX, i32::MAX - 1000, 7]);
        for (channel, (before, after)) in bias.iter().zip(&near.bias).enumerate() {
            for sum in [-1000, 0, 1000] {
                let [want, got] = [before, after].map(|bias| far.apply(channel, i64::from(*bias) + sum));
                assert_eq!(want, got, "channel {channel}, sum {sum}");
            }
        }
    }

    #[test]
    fn limits_hold_after_the_zero_point() {
        let requant = Requant { multiplier: vec![0.5], bias: vec![0], zero_point: 3, lo: 3, hi: 40 };
        assert_eq!(requant.apply(0, -9), 3);
        assert_eq!(requant.apply(0, 9), 7);
        assert_eq!(requant.apply(0, 90), 40);
    }
}
