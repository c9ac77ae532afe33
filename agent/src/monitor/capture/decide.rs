//! Whether an item is kept, and why. Pure: the draws come from outside.
//!
//! Every strategy draws for itself. Chance alone goes first and looks at nothing, so that the random slice is a fair
//! sample of all that was asked; then comes what lies outside of the reference, then what the model was unsure of.

use protocol::sample::Strategy;

use crate::config::{self, Rate};

/// What decides about an item when it has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Seen {
    /// Probability of the class that was said; none for a model without classes.
    pub(super) confidence: Option<f64>,
    /// Whether a feature lies outside of the reference.
    pub(super) is_outside: bool,
}

/// The strategies that want an item which was just answered, in their order. `draw` is uniform in 0 to 999,999 and called
/// as far as it is looked.
pub(super) fn at_answer(
    rules: &config::Capture,
    seen: Seen,
    mut draw: impl FnMut() -> u32,
) -> impl Iterator<Item = Strategy> {
    let is_uncertain = |confidence: f64| confidence.is_nan() || confidence < rules.uncertain_below.fraction();
    let applies = [
        (Strategy::Random, true),
        (Strategy::OutOfReference, seen.is_outside),
        (Strategy::Uncertainty, seen.confidence.is_some_and(is_uncertain)),
    ];
    let applying = applies.into_iter().filter(|(_, applies)| *applies).map(|(strategy, _)| strategy);
    applying.filter(move |strategy| rate(rules, *strategy).wins(draw()))
}

/// Part of the items that a strategy applies to which is kept.
pub(super) fn rate(rules: &config::Capture, strategy: Strategy) -> Rate {
    match strategy {
        Strategy::Random => rules.random_rate,
        Strategy::Uncertainty => rules.uncertainty_rate,
        Strategy::OutOfReference => rules.out_of_reference_rate,
        Strategy::Disagreement => rules.disagreement_rate,
        Strategy::Contradiction => rules.contradiction_rate,
    }
}

/// A small generator (splitmix64): fair enough for a lottery, and the same again from the same seed.
#[derive(Debug)]
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in 0 to 999,999.
    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % 1_000_000).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn rules(flags: &[&str]) -> config::Capture {
        RawConfig::default().with_flags(flags.iter().copied()).check().unwrap().capture
    }

    fn half() -> config::Capture {
        rules(&[
            "capture.random_rate=0.5",
            "capture.uncertainty_rate=0.5",
            "capture.out_of_reference_rate=0.5",
            "capture.uncertain_below=0.6",
        ])
    }

    #[test]
    fn each_strategy_draws_for_itself_in_order() {
        const WIN: u32 = 0;
        const LOSE: u32 = 999_999;
        let sure = Seen { confidence: Some(0.6), is_outside: false };
        let unsure = Seen { confidence: Some(0.59), is_outside: false };
        let strange = Seen { confidence: Some(0.9), is_outside: true };
        let both = Seen { confidence: Some(0.1), is_outside: true };
        let nan = Seen { confidence: Some(f64::NAN), is_outside: false };
        let number = Seen { confidence: None, is_outside: false };
        let cases: [(&str, Seen, &[u32], Option<Strategy>); 12] = [
            ("chance takes anything", sure, &[WIN], Some(Strategy::Random)),
            ("a sure answer that chance leaves", sure, &[LOSE], None),
            ("chance goes first", both, &[WIN], Some(Strategy::Random)),
            ("an unsure answer", unsure, &[LOSE, WIN], Some(Strategy::Uncertainty)),
            ("an unsure answer that loses", unsure, &[LOSE, LOSE], None),
            ("a strange item", strange, &[LOSE, WIN], Some(Strategy::OutOfReference)),
            ("a strange item that loses", strange, &[LOSE, LOSE], None),
            ("strange before unsure", both, &[LOSE, WIN], Some(Strategy::OutOfReference)),
            ("unsure where strange loses", both, &[LOSE, LOSE, WIN], Some(Strategy::Uncertainty)),
            ("both lose", both, &[LOSE, LOSE, LOSE], None),
            ("no number is no certainty", nan, &[LOSE, WIN], Some(Strategy::Uncertainty)),
            ("a regression is never unsure", number, &[LOSE], None),
        ];
        for (what, seen, draws, kept) in cases {
            let mut draws = draws.iter().copied();
            let chosen = at_answer(&half(), seen, || draws.next().unwrap()).next();
            assert_eq!((chosen, draws.next()), (kept, None), "{what}: every draw is used, none is missing");
        }
    }

    #[test]
    fn a_rate_of_zero_never_keeps_and_of_one_always_does() {
        let seen = Seen { confidence: Some(0.0), is_outside: true };
        let none = ["capture.random_rate=0", "capture.uncertainty_rate=0", "capture.out_of_reference_rate=0"];
        let mut draws = Draws::seeded(1);
        assert!((0..10_000).all(|_| at_answer(&rules(&none), seen, || draws.next()).next().is_none()));
        let all = rules(&["capture.random_rate=1"]);
        let first = |draws: &mut Draws| at_answer(&all, seen, || draws.next()).next();
        assert!((0..10_000).all(|_| first(&mut draws) == Some(Strategy::Random)));
    }

    #[test]
    fn the_random_slice_has_its_probability_and_repeats_from_its_seed() {
        let rules = rules(&["capture.random_rate=0.1"]);
        let slice = |seed| {
            let mut draws = Draws::seeded(seed);
            (0..100_000)
                .filter(|_| at_answer(&rules, Seen::default(), || draws.next()).next().is_some())
                .count()
        };
        // Ten standard deviations of a binomial: seeds are fixed, so this holds or it does not.
        assert!(
            (0..8).all(|seed| slice(seed).abs_diff(10_000) < 950),
            "{:?}",
            (0..8).map(slice).collect::<Vec<_>>()
        );
        assert_eq!(slice(3), slice(3));
    }
}
