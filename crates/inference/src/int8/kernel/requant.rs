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
        value.clamp(self.lo, self.hi)
    }
}

/// `value` rounded half to even, plus the zero point, saturated to u8.
pub(super) fn round(value: f32, zero_point: u8) -> u8 {
    // i16's range is enough to saturate u8 whatever the zero point, and exact in f32.
    let value = value.round_ties_even().clamp(-32768.0, 32767.0) as i32;
    (value + i32::from(zero_point)).clamp(0, 255) as u8
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
    }

    #[test]
    fn limits_hold_after_the_zero_point() {
        let requant = Requant { multiplier: vec![0.5], bias: vec![0], zero_point: 3, lo: 3, hi: 40 };
        assert_eq!(requant.apply(0, -9), 3);
        assert_eq!(requant.apply(0, 9), 7);
        assert_eq!(requant.apply(0, 90), 40);
    }
}
