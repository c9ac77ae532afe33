//! Samples that are kept for retraining: off until somebody consents.

use super::reader::Reader;

const MIB: u64 = 1024 * 1024;

/// A probability in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Rate {
    /// Certainty.
    pub const ONE: Self = Self(1_000_000);

    /// From a fraction; none outside of 0 to 1. What is above 0 stays above.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million by then")]
    pub fn new(fraction: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&fraction) {
            return None;
        }
        let millionths = (fraction * 1e6).round() as u32;
        Some(Self(millionths.max(u32::from(fraction > 0.0))))
    }

    /// Whether it is above 0.
    pub fn is_ever(self) -> bool {
        self.0 > 0
    }

    /// As a fraction, 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// Whether a draw, uniform in 0 to 999,999, wins.
    pub fn wins(self, draw: u32) -> bool {
        draw < self.0
    }
}

/// What is kept of requests for retraining. Nothing without `consent`, and nothing of a release that forbids it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Whether whoever is seen by this device has agreed that inputs leave it. Default false.
    pub consent: bool,
    /// Part of all items that is kept by chance alone. Default 0.001.
    pub random_rate: Rate,
    /// An answer whose best class has a lower probability is uncertain. Default 0.6.
    pub uncertain_below: Rate,
    /// Part of the uncertain items that is kept. Default 0.1.
    pub uncertainty_rate: Rate,
    /// Part of the items outside of the reference that is kept. Default 0.1.
    pub out_of_reference_rate: Rate,
    /// Part of the items that a candidate beside answers otherwise that is kept. Default 1.
    pub disagreement_rate: Rate,
    /// Part of the items whose true label is another that is kept. Default 1.
    pub contradiction_rate: Rate,
    /// Memory for requests whose label may still come. Default 4 MiB.
    pub recent_bytes: u64,
    /// Disk space of samples that wait for the server. Default 64 MiB.
    pub quota_bytes: u64,
    /// Largest sample; a larger one is not kept. Default 4 MiB, at most 16 MiB.
    pub max_bytes: u64,
    /// Samples that each strategy may keep in a day (UTC). Default 200.
    pub max_per_day: u64,
}

pub(super) fn capture(r: &mut Reader) -> Capture {
    let rate = |r: &mut Reader, key: &str, default: f64| {
        let default = Rate::new(default).unwrap_or(Rate::ONE);
        r.rate(key, default)
    };
    let quota_bytes = r.number("capture.quota_bytes", 64 * MIB, 1024..=1024 * 1024 * MIB);
    let max_bytes = r.number("capture.max_bytes", 4 * MIB, 1024..=protocol::sample::MAX_SAMPLE_BYTES);
    if max_bytes > quota_bytes {
        // Said of a bound that was given: a small quota alone is no contradiction, larger samples are not kept then.
        r.refuse("capture.max_bytes", &format!("at most capture.quota_bytes, which is {quota_bytes}"));
    }
    Capture {
        consent: r.boolean("capture.consent", false),
        random_rate: rate(r, "capture.random_rate", 0.001),
        uncertain_below: rate(r, "capture.uncertain_below", 0.6),
        uncertainty_rate: rate(r, "capture.uncertainty_rate", 0.1),
        out_of_reference_rate: rate(r, "capture.out_of_reference_rate", 0.1),
        disagreement_rate: rate(r, "capture.disagreement_rate", 1.0),
        contradiction_rate: rate(r, "capture.contradiction_rate", 1.0),
        recent_bytes: r.number("capture.recent_bytes", 4 * MIB, 0..=1024 * MIB),
        quota_bytes,
        max_bytes,
        max_per_day: r.number("capture.max_per_day", 200, 1..=1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_fraction_and_never_rounds_to_never() {
        for (fraction, millionths) in [(0.0, 0), (1.0, 1_000_000), (0.25, 250_000), (1e-9, 1)] {
            assert_eq!(Rate::new(fraction), Some(Rate(millionths)));
        }
        assert!([-0.1, 1.1, f64::NAN].into_iter().all(|fraction| Rate::new(fraction).is_none()));
        assert!(!Rate(0).wins(0) && Rate(1).wins(0) && !Rate(1).wins(1) && Rate::ONE.wins(999_999));
    }
}
