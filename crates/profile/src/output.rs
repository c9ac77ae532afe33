//! Counters of what a model says: scores, uncertainty, and labels that come later.
//! Probabilities are summed as whole billionths, so that sums are exact in any order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::numeric::{NumericCounts, add, total};
use crate::reference::OutputSpec;
use crate::sketch::{Sketch, add_sparse};

/// Bins of a score from 0 to 1.
pub(crate) const SCORE_BINS: usize = 100;
/// Bins of normalised entropy and of margin.
pub(crate) const UNCERTAINTY_BINS: usize = 20;
/// Most classes for which the full table of expected outcomes is kept.
const MAX_EXPECTED_CLASSES: usize = 32;
/// How far probabilities may be from adding up to 1.
const SUM_TOLERANCE: f64 = 1e-2;
const NANO: f64 = 1e9;

/// Counters of a model's output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputCounts {
    /// A classifier.
    Classes(ClassCounts),
    /// A regression.
    Value(Box<NumericCounts>),
    /// An output that nobody profiles.
    #[default]
    Nothing,
}

/// Events of one predicted class whose score lies in one bin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreCell {
    /// Events.
    pub n: u64,
    /// Sum of the predicted class's probability in billionths.
    pub sum_nano: u64,
}

/// Counters of a classifier's output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// Predictions counted.
    pub n: u64,
    /// Answers whose probabilities are no distribution.
    pub invalid: u64,
    /// `class * 100 + score bin` -> events.
    pub cells: BTreeMap<u32, ScoreCell>,
    /// `predicted * classes + class` -> sum of that class's probability in billionths; empty above 32 classes.
    pub expected: BTreeMap<u32, u64>,
    /// Entropy divided by its largest value, 20 bins from 0 to 1.
    pub entropy: Vec<u64>,
    /// Highest minus second highest probability, 20 bins from 0 to 1.
    pub margin: Vec<u64>,
}

/// Predictions whose true label came later.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    /// Labels counted.
    pub n: u64,
    /// Labels that are no class of the model.
    pub unknown: u64,
    /// `actual * classes + predicted` -> events.
    pub confusion: BTreeMap<u32, u64>,
    /// How long labels took, in seconds.
    pub delay_s: Sketch,
}

fn bin_of_unit(value: f64, bins: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to bins, by the clamp")]
    let bin = (value.clamp(0.0, 1.0) * bins as f64) as usize;
    bin.min(bins - 1)
}

fn nano(probability: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to a billion, by the clamp"
    )]
    let nano = (probability.clamp(0.0, 1.0) * NANO).round() as u64;
    nano
}

fn cell_key(row: usize, column: usize, columns: usize) -> u32 {
    u32::try_from(row * columns + column).unwrap_or(u32::MAX)
}

fn is_distribution(probabilities: &[f64]) -> bool {
    probabilities.iter().all(|p| (0.0..=1.0 + SUM_TOLERANCE).contains(p))
        && (probabilities.iter().sum::<f64>() - 1.0).abs() <= SUM_TOLERANCE
}

/// The class with the highest probability, the first one on a tie.
pub(crate) fn top_class(probabilities: &[f64]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (class, p) in probabilities.iter().enumerate() {
        if best.is_none_or(|(_, top)| *p > top) {
            best = Some((class, *p));
        }
    }
    best.map(|(class, _)| class)
}

impl ClassCounts {
    /// Zeroes.
    pub fn new() -> Self {
        Self { entropy: vec![0; UNCERTAINTY_BINS], margin: vec![0; UNCERTAINTY_BINS], ..Self::default() }
    }

    /// Counts one answer: a probability per class.
    pub fn observe(&mut self, classes: usize, probabilities: &[f64]) {
        let top = top_class(probabilities)
            .filter(|_| probabilities.len() == classes && is_distribution(probabilities));
        let Some(top) = top else {
            self.invalid += 1;
            return;
        };
        let score = probabilities[top];
        let second =
            probabilities.iter().enumerate().filter(|(i, _)| *i != top).map(|(_, p)| *p).fold(0.0, f64::max);
        let entropy: f64 = probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let most = (classes as f64).ln().max(f64::MIN_POSITIVE);
        self.n += 1;
        self.entropy[bin_of_unit(entropy / most, UNCERTAINTY_BINS)] += 1;
        self.margin[bin_of_unit(score - second, UNCERTAINTY_BINS)] += 1;
        let cell = self.cells.entry(cell_key(top, bin_of_unit(score, SCORE_BINS), SCORE_BINS)).or_default();
        cell.n += 1;
        cell.sum_nano += nano(score);
        if classes <= MAX_EXPECTED_CLASSES {
            for (class, p) in probabilities.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                *self.expected.entry(cell_key(top, class, classes)).or_default() += nano(*p);
            }
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n = self.n.saturating_add(other.n);
        self.invalid = self.invalid.saturating_add(other.invalid);
        for (key, from) in &other.cells {
            let to = self.cells.entry(*key).or_default();
            to.n = to.n.saturating_add(from.n);
            to.sum_nano = to.sum_nano.saturating_add(from.sum_nano);
        }
        add_sparse(&mut self.expected, &other.expected);
        add(&mut self.entropy, &other.entropy);
        add(&mut self.margin, &other.margin);
    }

    /// Events by predicted class.
    pub fn by_class(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0u64; classes];
        for (key, cell) in &self.cells {
            if let Some(count) = usize::try_from(*key).ok().and_then(|key| counts.get_mut(key / SCORE_BINS)) {
                *count = count.saturating_add(cell.n);
            }
        }
        counts
    }

    /// Events by score bin, all classes.
    pub fn by_score(&self) -> Vec<u64> {
        let mut counts = vec![0u64; SCORE_BINS];
        for (key, cell) in &self.cells {
            if let Ok(key) = usize::try_from(*key) {
                counts[key % SCORE_BINS] = counts[key % SCORE_BINS].saturating_add(cell.n);
            }
        }
        counts
    }

    /// Accuracy estimated without labels (CBPE): the mean probability of the predicted class.
    /// As right as the model's probabilities are calibrated.
    pub fn estimated_accuracy(&self) -> Option<f64> {
        let sum: f64 = self.cells.values().map(|cell| cell.sum_nano as f64).sum();
        (self.n > 0).then(|| sum / NANO / self.n as f64)
    }

    fn fault(&self, classes: usize) -> Option<&'static str> {
        if self.entropy.len() != UNCERTAINTY_BINS || self.margin.len() != UNCERTAINTY_BINS {
            return Some("another number of uncertainty bins");
        }
        let is_in = |key: &u32, bound: usize| usize::try_from(*key).is_ok_and(|key| key < bound);
        if !self.cells.keys().all(|key| is_in(key, classes * SCORE_BINS)) {
            return Some("a score cell outside the classes");
        }
        let cells = if classes <= MAX_EXPECTED_CLASSES { classes * classes } else { 0 };
        if !self.expected.keys().all(|key| is_in(key, cells)) {
            return Some("an expected outcome outside the classes");
        }
        let sums =
            [total(&self.entropy), total(&self.margin), total(self.cells.values().map(|cell| &cell.n))];
        if sums.iter().any(|sum| *sum != Some(self.n)) {
            return Some("score bins do not add up to the number of answers");
        }
        let most = |n: u64| n.saturating_mul(1_000_000_000);
        if self.cells.values().any(|cell| cell.sum_nano > most(cell.n))
            || self.expected.values().any(|s| *s > most(self.n))
        {
            return Some("a sum of probabilities above its count");
        }
        None
    }
}

impl Labelled {
    /// Counts a prediction with its true label. `actual`: `None` for a label that is no class of the model.
    pub fn observe(&mut self, classes: usize, predicted: usize, actual: Option<usize>, delay_s: f64) {
        self.n += 1;
        self.delay_s.observe(if delay_s.is_finite() { delay_s.max(0.0) } else { f64::MAX });
        match actual {
            Some(actual) if actual < classes && predicted < classes => {
                *self.confusion.entry(cell_key(actual, predicted, classes)).or_default() += 1;
            }
            _ => self.unknown += 1,
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.n = self.n.saturating_add(other.n);
        self.unknown = self.unknown.saturating_add(other.unknown);
        add_sparse(&mut self.confusion, &other.confusion);
        self.delay_s.merge(&other.delay_s);
    }

    /// Right answers among the labelled ones; a label outside the classes counts as a wrong answer.
    pub fn correct(&self, classes: usize) -> u64 {
        let diagonal = (0..classes).filter_map(|class| self.confusion.get(&cell_key(class, class, classes)));
        diagonal.fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Share of right answers; `None` without labels.
    pub fn accuracy(&self, classes: usize) -> Option<f64> {
        (self.n > 0).then(|| self.correct(classes) as f64 / self.n as f64)
    }

    /// `[actual][predicted]` counts.
    pub fn confusion_table(&self, classes: usize) -> Vec<Vec<u64>> {
        let count = |actual, predicted| {
            self.confusion.get(&cell_key(actual, predicted, classes)).copied().unwrap_or(0)
        };
        (0..classes).map(|actual| (0..classes).map(|predicted| count(actual, predicted)).collect()).collect()
    }

    pub(crate) fn fault(&self, classes: usize) -> Option<&'static str> {
        let is_in = |key: &u32| usize::try_from(*key).is_ok_and(|key| key < classes * classes);
        if !self.confusion.keys().all(is_in) {
            return Some("a labelled outcome outside the classes");
        }
        let whole = total(self.confusion.values().chain([&self.unknown]));
        if whole != Some(self.n) || self.delay_s.n() != self.n || !self.delay_s.is_sound() {
            return Some("labelled outcomes do not add up");
        }
        None
    }
}

impl OutputCounts {
    /// Zeroes for `spec`.
    pub fn new(spec: &OutputSpec) -> Self {
        match spec {
            OutputSpec::Classes { .. } => Self::Classes(ClassCounts::new()),
            OutputSpec::Value { spec } => Self::Value(Box::new(NumericCounts::new(spec))),
            OutputSpec::Nothing => Self::Nothing,
        }
    }

    /// Adds the counts of `other`, which has the same form.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Classes(to), Self::Classes(from)) => to.merge(from),
            (Self::Value(to), Self::Value(from)) => to.merge(from),
            (Self::Nothing | Self::Classes(_) | Self::Value(_), _) => {}
        }
    }

    pub(crate) fn fault(&self, spec: &OutputSpec) -> Option<&'static str> {
        match (self, spec) {
            (Self::Classes(counts), OutputSpec::Classes { labels }) => counts.fault(labels.len()),
            (Self::Value(counts), OutputSpec::Value { spec }) => counts.fault(spec),
            (Self::Nothing, OutputSpec::Nothing) => None,
            _ => Some("another kind of output than the reference"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimated_accuracy_is_the_mean_of_the_top_scores() {
        let mut counts = ClassCounts::new();
        counts.observe(2, &[0.9, 0.1]);
        counts.observe(2, &[0.3, 0.7]);
        assert!((counts.estimated_accuracy().unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(counts.by_class(2), [1, 1]);
        assert_eq!(counts.fault(2), None);
    }

    #[test]
    fn what_is_no_distribution_is_counted_apart() {
        let mut counts = ClassCounts::new();
        for bad in [&[0.9, 0.9][..], &[f64::NAN, 0.5], &[-0.5, 1.5], &[1.0], &[]] {
            counts.observe(2, bad);
        }
        assert_eq!((counts.n, counts.invalid), (0, 5));
        assert_eq!(counts.estimated_accuracy(), None);
    }

    #[test]
    fn accuracy_counts_unknown_labels_as_wrong() {
        let mut labelled = Labelled::default();
        labelled.observe(3, 1, Some(1), 2.0);
        labelled.observe(3, 1, Some(2), 2.0);
        labelled.observe(3, 0, None, 1.0);
        labelled.observe(3, 0, Some(0), -5.0);
        assert_eq!(labelled.accuracy(3), Some(0.5));
        assert_eq!(labelled.confusion_table(3)[2], [0, 1, 0]);
        assert_eq!(labelled.fault(3), None);
    }
}
