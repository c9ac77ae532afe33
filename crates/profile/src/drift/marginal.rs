//! One distribution on both sides: labels of its bins and counts, from whichever counters hold it.

use serde::{Deserialize, Serialize};

use crate::counters::{Counters, FeatureCounts};
use crate::drift::report::{Bin, BinShare, Role};
use crate::numeric::{Moments, NumericCounts};
use crate::output::OutputCounts;
use crate::reference::{FeatureKind, FineBins, NumericSpec, OutputSpec, Schema};
use crate::sketch::Sketch;
use crate::stats::{contributions, normalise};

/// Reference and current counts on the same bins, to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The feature.
    pub feature: String,
    /// Input or output.
    pub role: Role,
    /// `numeric` or `categorical`.
    pub kind: String,
    /// Values on the reference's side.
    pub n: u64,
    /// Values on the current side.
    pub m: u64,
    /// In order of value, or of category.
    pub bins: Vec<Bin>,
    /// Count per bin on the reference's side.
    pub reference: Vec<u64>,
    /// Count per bin on the current side.
    pub current: Vec<u64>,
    /// Each bin's part of the whole difference, 0 to 1.
    pub contributions: Vec<f64>,
}

/// A pair: reference or control, and the sample under test.
pub(crate) type Pair<T> = (T, T);

/// Rising bins for Kolmogorov-Smirnov.
pub(crate) struct Ordered {
    pub(crate) counts: Pair<Vec<u64>>,
    /// Every bin is one value: D at the edges is D.
    pub(crate) is_exact: bool,
    /// Share of values whose place in the order is unknown.
    pub(crate) loose: f64,
}

pub(crate) struct Marginal<'a> {
    pub(crate) name: &'a str,
    pub(crate) role: Role,
    pub(crate) kind: &'static str,
    pub(crate) bins: Vec<Bin>,
    pub(crate) counts: Pair<Vec<u64>>,
    pub(crate) fine: Option<Pair<Vec<u64>>>,
    pub(crate) ordered: Option<Ordered>,
    pub(crate) moments: Option<Pair<Moments>>,
    pub(crate) sketches: Option<Pair<&'a Sketch>>,
    /// Bad values and all values.
    pub(crate) bad: Pair<(u64, u64)>,
}

impl Marginal<'_> {
    pub(crate) fn n(&self) -> u64 {
        self.counts.0.iter().sum()
    }

    pub(crate) fn m(&self) -> u64 {
        self.counts.1.iter().sum()
    }

    /// All bins with their shares, in order.
    pub(crate) fn shares(&self) -> Vec<BinShare> {
        let (p, q) = (normalise(&self.counts.0), normalise(&self.counts.1));
        let mut shares: Vec<BinShare> = self
            .bins
            .iter()
            .zip(p.iter().zip(&q))
            .map(|(bin, (p, q))| BinShare { bin: bin.clone(), reference: *p, current: *q, contribution: 0.0 })
            .collect();
        for (bin, contribution) in contributions(&p, &q) {
            shares[bin].contribution = contribution;
        }
        shares
    }
}

/// The distributions of `feature` in both counters; `None` if there is no such feature.
pub fn distribution(
    schema: &Schema,
    reference: &Counters,
    current: &Counters,
    feature: &str,
) -> Option<Distribution> {
    let found =
        marginals(schema, reference, current).into_iter().find(|marginal| marginal.name == feature)?;
    let (n, m) = (found.n(), found.m());
    let contributions = found.shares().iter().map(|share| share.contribution).collect();
    let (role, kind) = (found.role, found.kind.to_owned());
    let (reference, current) = found.counts;
    Some(Distribution {
        feature: feature.to_owned(),
        role,
        kind,
        n,
        m,
        bins: found.bins,
        reference,
        current,
        contributions,
    })
}

/// Everything that can be compared, inputs first.
pub(crate) fn marginals<'a>(
    schema: &'a Schema,
    reference: &'a Counters,
    current: &'a Counters,
) -> Vec<Marginal<'a>> {
    let sides = reference.features.iter().zip(&current.features);
    let inputs = schema.features.iter().zip(sides).filter_map(|(spec, sides)| match (&spec.kind, sides) {
        (FeatureKind::Numeric(bins), (FeatureCounts::Numeric(a), FeatureCounts::Numeric(b))) => {
            Some(numeric(&spec.name, Role::Input, bins, a, b))
        }
        (
            FeatureKind::Categorical { categories },
            (FeatureCounts::Categorical(a), FeatureCounts::Categorical(b)),
        ) => {
            let mut bins: Vec<Bin> = categories.iter().map(|name| named(name)).collect();
            bins.push(named("other"));
            let whole = |counts: &FeatureCounts| {
                let (good, total) = counts.n_good_and_total();
                (total - good, total)
            };
            let bad = (whole(sides.0), whole(sides.1));
            Some(binned(&spec.name, Role::Input, bins, (a.with_other(), b.with_other()), bad))
        }
        _ => None,
    });
    let mut all: Vec<Marginal<'a>> = inputs.collect();
    all.extend(outputs(&schema.output, &reference.output, &current.output));
    all
}

fn named(name: &str) -> Bin {
    Bin { name: Some(name.to_owned()), low: None, high: None }
}

fn binned(
    name: &str,
    role: Role,
    bins: Vec<Bin>,
    counts: Pair<Vec<u64>>,
    bad: Pair<(u64, u64)>,
) -> Marginal<'_> {
    let (ordered, moments, sketches) = (None, None, None);
    Marginal { name, role, kind: "categorical", bins, counts, fine: None, ordered, moments, sketches, bad }
}

fn numeric<'a>(
    name: &'a str,
    role: Role,
    spec: &NumericSpec,
    a: &'a NumericCounts,
    b: &'a NumericCounts,
) -> Marginal<'a> {
    let mut bins: Vec<Bin> = spec
        .doane
        .windows(2)
        .map(|pair| Bin { name: None, low: Some(pair[0]), high: Some(pair[1]) })
        .collect();
    bins.push(named("outside"));
    let place = |counts: &NumericCounts| {
        let mut placed = vec![counts.under];
        placed.extend(&counts.fine);
        placed.push(counts.over);
        placed
    };
    let between = |counts: &NumericCounts| match spec.fine {
        FineBins::Values { .. } => counts.other.saturating_sub(counts.under.saturating_add(counts.over)),
        FineBins::Quantiles { .. } => 0,
    };
    let share = |counts: &NumericCounts| between(counts) as f64 / counts.moments.n.max(1) as f64;
    Marginal {
        name,
        role,
        kind: "numeric",
        bins,
        counts: (a.with_outside(), b.with_outside()),
        fine: Some((a.fine_with_rest(spec), b.fine_with_rest(spec))),
        ordered: Some(Ordered {
            counts: (place(a), place(b)),
            is_exact: matches!(spec.fine, FineBins::Values { .. }),
            loose: share(a).max(share(b)),
        }),
        moments: Some((a.moments, b.moments)),
        sketches: Some((&a.sketch, &b.sketch)),
        bad: ((a.n_bad(), a.n_total()), (b.n_bad(), b.n_total())),
    }
}

fn outputs<'a>(spec: &'a OutputSpec, a: &'a OutputCounts, b: &'a OutputCounts) -> Vec<Marginal<'a>> {
    match (spec, a, b) {
        (OutputSpec::Classes { labels }, OutputCounts::Classes(a), OutputCounts::Classes(b)) => {
            let classes = labels.len();
            let bad =
                ((a.invalid, a.n.saturating_add(a.invalid)), (b.invalid, b.n.saturating_add(b.invalid)));
            let labels = labels.iter().map(|label| named(label)).collect();
            let predicted = binned(
                "predicted_class",
                Role::Output,
                labels,
                (a.by_class(classes), b.by_class(classes)),
                bad,
            );
            let unit = |name: &'a str, counts: Pair<Vec<u64>>| units(name, counts, bad);
            vec![
                predicted,
                unit("confidence", (a.by_score(), b.by_score())),
                unit("entropy", (a.entropy.clone(), b.entropy.clone())),
                unit("margin", (a.margin.clone(), b.margin.clone())),
            ]
        }
        (OutputSpec::Value { spec }, OutputCounts::Value(a), OutputCounts::Value(b)) => {
            vec![numeric("value", Role::Output, spec, a, b)]
        }
        _ => Vec::new(),
    }
}

/// A distribution on equal bins from 0 to 1, shown on at most 20 of them, tested on all.
fn units(name: &str, counts: Pair<Vec<u64>>, bad: Pair<(u64, u64)>) -> Marginal<'_> {
    const SHOWN: usize = 20;
    let coarse = |counts: &[u64]| -> Vec<u64> {
        counts.chunks(counts.len().div_ceil(SHOWN).max(1)).map(|chunk| chunk.iter().sum()).collect()
    };
    let edge = |i: usize| i as f64 / SHOWN as f64;
    let bins = (0..SHOWN).map(|i| Bin { name: None, low: Some(edge(i)), high: Some(edge(i + 1)) }).collect();
    let shown = (coarse(&counts.0), coarse(&counts.1));
    let mut marginal = binned(name, Role::Output, bins, shown, bad);
    marginal.kind = "numeric";
    marginal.ordered = Some(Ordered { counts, is_exact: false, loose: 0.0 });
    marginal
}
