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
    /// One channel's sum: multiply in f32, round half to even, add the zero point, saturate.
    pub fn apply(&self, channel: usize, sum: i32) -> u8 {
        let value = round(sum as f32 * self.multiplier[channel], self.zero_point);
        value.max(self.lo).min(self.hi)
    }

    /// Without what each channel has of its own: for kernels that hold that in another order.
    pub(super) fn without_channels(&self) -> Self {
        Self { multiplier: Vec::new(), bias: Vec::new(), ..*self }
    }
}

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
    fn limits_hold_after_the_zero_point() {
        let requant = Requant { multiplier: vec![0.5], bias: vec![0], zero_point: 3, lo: 3, hi: 40 };
        assert_eq!(requant.apply(0, -9), 3);
        assert_eq!(requant.apply(0, 9), 7);
        assert_eq!(requant.apply(0, 90), 40);
    }
}
