//! Behaviour of some devices on a new release against a control group on the old one, in the same time window,
//! so that what happens to all of them (season, light, load) cancels out.

use std::collections::BTreeSet;

use profile::stats::{self, Proportions};
use profile::{Counters, Schema, Sketch};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis};
use rollout::{Evidence, Interval, Metric, Sample};
use trust::format_rfc3339;

use super::gather::{Own, Seen, Tries, gather};
use super::panes::DriftError;
use crate::app::AppState;
use crate::clock::before;
use crate::store::telemetry::PanesWanted;

/// Level of every interval.
const CONFIDENCE: f64 = 0.95;

/// Devices on one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// SHA-256 of the release's manifest.
    pub digest: Digest,
    /// Whose panes count.
    pub devices: BTreeSet<DeviceId>,
}

/// A device weighs at most so many times what the one in the middle of its group does: neither a busy nor a lying one
/// decides alone.
const MOST_WEIGHT: u64 = 4;

/// Evidence for every behaviour metric that the panes of this time window can tell about.
/// `slice`: a segment, or `None` for all data. Panes count if their window lies wholly in the time window; where that
/// reaches back further than panes are kept, the evidence begins later and says so.
///
/// # Errors
/// [`DriftError`] when database, blob store or a reference fail.
pub async fn behaviour(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    groups: (&Group, Option<&Group>),
    span: (UnixMillis, UnixMillis),
    slice: Option<&str>,
) -> Result<Vec<Evidence>, DriftError> {
    // What is older is deleted, a part of it maybe not yet: to count that part alone would be wrong.
    let from = span.0.max(before(state.clock.now(), state.config.retention.panes));
    let wanted = PanesWanted {
        project: project.clone(),
        model: model.clone(),
        releases: [groups.0.digest, groups.1.unwrap_or(groups.0).digest],
        segment: slice.unwrap_or_default().to_owned(),
        from,
        to: span.1,
    };
    let (Some(candidate), control) = gather(state, &wanted, groups).await? else { return Ok(Vec::new()) };
    let mut all = compare_all(&candidate, control.as_ref());
    for evidence in &mut all {
        (evidence.from, evidence.to) = (from, span.1);
        evidence.slice = slice.map(ToOwned::to_owned);
        if from > span.0 {
            let begin = format_rfc3339(from);
            let note = format!("; only from {begin}, because older panes are deleted (retention.panes_s)");
            evidence.arithmetic.push_str(&note);
        }
    }
    Ok(all)
}

/// The same from counters at hand, which stand on the same schema.
pub fn compare_groups(
    schema: &Schema,
    reference: &Counters,
    candidate: (&Counters, u32),
    control: Option<(&Counters, u32)>,
) -> Vec<Evidence> {
    let seen = |(counters, devices): (&Counters, u32)| Seen {
        schema: schema.clone(),
        reference: reference.clone(),
        counters: counters.clone(),
        by_device: vec![Own::of(schema, counters)],
        devices,
    };
    compare_all(&seen(candidate), control.map(seen).as_ref())
}

fn compare_all(candidate: &Seen, control: Option<&Seen>) -> Vec<Evidence> {
    let found = [
        accuracy(candidate, control),
        estimated_accuracy(candidate, control),
        error_rate(candidate, control),
        latency(candidate, control),
        drift(Metric::PredictionDrift, candidate, control),
        drift(Metric::InputDrift, candidate, control),
    ];
    found.into_iter().flatten().collect()
}

fn evidence(metric: Metric, candidate: Sample, control: Option<Sample>, arithmetic: &str) -> Evidence {
    let (from, to) = (UnixMillis(0), UnixMillis(0));
    let arithmetic = arithmetic.to_owned();
    let left_out = Vec::new();
    Evidence { metric, slice: None, from, to, candidate, control, worse: None, arithmetic, left_out }
}

fn within(shares: Option<Proportions>) -> Option<Interval> {
    shares.map(|s| Interval { low: s.interval.low, high: s.interval.high, confidence: CONFIDENCE })
}

impl Seen {
    /// Adds up each device's hits and tries, with no device above its weight.
    fn tries(&self, of_one: impl Fn(&Own) -> Tries) -> Tries {
        weighed(self.by_device.iter().map(of_one).filter(|(_, n)| *n > 0).collect())
    }
}

fn weighed(mut all: Vec<Tries>) -> Tries {
    all.sort_unstable_by_key(|(_, n)| *n);
    // Of two the smaller one is the middle.
    let middle = all.get(all.len().saturating_sub(1) / 2).map_or(0, |(_, n)| *n);
    let most = middle.saturating_mul(MOST_WEIGHT);
    all.into_iter().fold((0, 0), |sum, (hits, n)| {
        let counted = n.min(most);
        let share = u128::from(hits) * u128::from(counted) / u128::from(n.max(1));
        let hits = u64::try_from(share).unwrap_or(u64::MAX);
        (u64::saturating_add(sum.0, hits), u64::saturating_add(sum.1, counted))
    })
}

/// `is_more_worse`: a larger share is worse.
fn shares(
    metric: Metric,
    sides: (Tries, Option<Tries>),
    devices: (u32, Option<u32>),
    is_more_worse: bool,
    arithmetic: &str,
) -> Option<Evidence> {
    let sample = |(hits, n): Tries, devices: u32| {
        (n > 0).then(|| Sample { value: hits as f64 / n as f64, n, devices })
    };
    let candidate = sample(sides.0, devices.0)?;
    let control = sides.1.zip(devices.1).and_then(|(tries, devices)| sample(tries, devices));
    let mut found = evidence(metric, candidate, control, arithmetic);
    found.worse = within(sides.1.filter(|tries| tries.1 > 0).and_then(|control| {
        let (first, second) = if is_more_worse { (sides.0, control) } else { (control, sides.0) };
        stats::proportions(first, second, CONFIDENCE)
    }));
    Some(found)
}

fn accuracy(candidate: &Seen, control: Option<&Seen>) -> Option<Evidence> {
    let tries = |seen: &Seen| seen.tries(|own| own.labelled);
    let sides = (tries(candidate), control.map(tries));
    let devices = (candidate.devices, control.map(|c| c.devices));
    let text = "right answers / labelled answers; interval of the difference by Newcombe on Wilson intervals";
    shares(Metric::Accuracy, sides, devices, false, text)
}

fn estimated_accuracy(candidate: &Seen, control: Option<&Seen>) -> Option<Evidence> {
    let tries = |seen: &Seen| {
        seen.tries(|own| {
            let n = own.predictions;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to n, by the clamp"
            )]
            let hits = own.expected.clamp(0.0, n as f64).round() as u64;
            (hits.min(n), n)
        })
    };
    let sides = (tries(candidate), control.map(tries));
    let devices = (candidate.devices, control.map(|c| c.devices));
    let text =
        "mean probability of the predicted class (CBPE); interval as if each answer were right or wrong";
    shares(Metric::EstimatedAccuracy, sides, devices, false, text)
}

fn error_rate(candidate: &Seen, control: Option<&Seen>) -> Option<Evidence> {
    let tries = |seen: &Seen| seen.tries(|own| own.requests);
    let sides = (tries(candidate), control.map(tries));
    let devices = (candidate.devices, control.map(|c| c.devices));
    let text = "failed requests / requests; interval of the difference by Newcombe on Wilson intervals";
    shares(Metric::ErrorRate, sides, devices, true, text)
}

fn latency(candidate: &Seen, control: Option<&Seen>) -> Option<Evidence> {
    let sample = |seen: &Seen| {
        let sketch = &seen.counters.latency_us;
        sketch.quantile(0.95).map(|value| Sample { value, n: sketch.n(), devices: seen.devices })
    };
    let text = "95th percentile from a sketch with 1 % error; interval of the ratio from order statistics";
    let mut found = evidence(Metric::LatencyP95, sample(candidate)?, control.and_then(sample), text);
    let bounds = |seen: &Seen| p95_bounds(&seen.counters.latency_us);
    let both = bounds(candidate).zip(control.and_then(bounds)).filter(|(_, (low, _))| *low > 0.0);
    found.worse = both.map(|(new, old)| Interval {
        low: new.0 / old.1 - 1.0,
        high: new.1 / old.0 - 1.0,
        confidence: CONFIDENCE,
    });
    Some(found)
}

/// Where the true 95th percentile lies: quantiles whose ranks are 1.96 binomial deviations away.
fn p95_bounds(sketch: &Sketch) -> Option<(f64, f64)> {
    let n = sketch.n();
    let reach = 1.96 * (0.95 * 0.05 / n.max(1) as f64).sqrt();
    Some((sketch.quantile(0.95 - reach)?, sketch.quantile(0.95 + reach)?))
}

/// Candidate: Jensen-Shannon distance (base 2) to the control group, or to the reference without one.
/// Control: what chance alone makes of two samples of these sizes, so that the difference is what is left to explain.
fn drift(metric: Metric, candidate: &Seen, control: Option<&Seen>) -> Option<Evidence> {
    // Groups on different schemas are each compared with their own reference.
    let shared = control.filter(|control| control.schema == candidate.schema);
    let other = shared.map_or(&candidate.reference, |control| &control.counters);
    let (distance, n, m, bins) = widest(metric, &candidate.schema, other, &candidate.counters)?;
    let found = Sample { value: distance, n: m, devices: candidate.devices };
    let chance = |n: u64, m: u64| {
        let spread = 1.0 / n.max(1) as f64 + 1.0 / m.max(1) as f64;
        (bins.saturating_sub(1) as f64 / (8.0 * std::f64::consts::LN_2) * spread).sqrt().min(1.0)
    };
    let control = shared.map(|control| Sample { value: chance(n, m), n, devices: control.devices });
    let text = if shared.is_some() {
        format!(
            "Jensen-Shannon distance, base 2, {bins} bins, to the control group; control: expected by chance"
        )
    } else {
        format!("Jensen-Shannon distance, base 2, {bins} bins, to the release's reference")
    };
    Some(evidence(metric, found, control, &text))
}

/// The farthest distribution of this metric: distance, sizes and occupied bins.
fn widest(
    metric: Metric,
    schema: &Schema,
    other: &Counters,
    new: &Counters,
) -> Option<(f64, u64, u64, usize)> {
    let names: Vec<&str> = match metric {
        Metric::InputDrift => schema.features.iter().map(|f| f.name.as_str()).collect(),
        _ if schema.classes() > 0 => vec!["predicted_class"],
        _ => vec!["value"],
    };
    let distances = names.into_iter().filter_map(|name| {
        let found = profile::drift::distribution(schema, other, new, name)?;
        if found.n == 0 || found.m == 0 {
            return None;
        }
        let (p, q) = (stats::normalise(&found.reference), stats::normalise(&found.current));
        let occupied = found.reference.iter().zip(&found.current).filter(|(a, b)| **a > 0 || **b > 0).count();
        Some((stats::jensen_shannon_base2(&p, &q), found.n, found.m, occupied))
    });
    distances.max_by(|a, b| a.0.total_cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use profile::features::Extractor;
    use profile::{Observed, Reference, ReferenceBuilder};

    use super::*;

    fn reference() -> Reference {
        let extractor = Extractor::Columns { input: "x".into(), names: vec!["level".into()] };
        let mut builder = ReferenceBuilder::new(extractor, vec!["a".into(), "b".into()]);
        for i in 0..500u32 {
            builder.add_classified(&[Observed::Number(f64::from(i % 100))], &[0.9, 0.1], Some(0));
        }
        builder.build().unwrap()
    }

    fn counted(reference: &Reference, right_of_100: usize, latency_us: f64) -> Counters {
        let mut counters = Counters::new(&reference.schema);
        for i in 0..300usize {
            let value = Observed::Number((i % 100) as f64);
            counters.observe_row(&reference.schema, &[value]);
            counters.observe_probabilities(&reference.schema, &[0.9, 0.1]);
            counters.observe_answer(latency_us + (i % 10) as f64);
            counters.observe_label(&reference.schema, 0, Some(usize::from(i % 100 >= right_of_100)), 1.0);
        }
        counters
    }

    fn find(all: &[Evidence], metric: Metric) -> &Evidence {
        all.iter().find(|e| e.metric == metric).unwrap()
    }

    #[test]
    fn a_worse_release_is_told_from_its_control_by_accuracy_alone() {
        let reference = reference();
        let (old, new) = (counted(&reference, 95, 1000.0), counted(&reference, 78, 1000.0));
        let all = compare_groups(&reference.schema, &reference.counters, (&new, 1), Some((&old, 5)));
        let accuracy = find(&all, Metric::Accuracy);
        assert_eq!((accuracy.candidate.n, accuracy.control.unwrap().devices), (300, 5));
        assert!(accuracy.worse.unwrap().low > 0.05, "{accuracy:?}");
        assert!(find(&all, Metric::EstimatedAccuracy).worse.unwrap().low < 0.0);
        assert!(find(&all, Metric::InputDrift).candidate.value < 1e-9);
        assert!(find(&all, Metric::ErrorRate).worse.unwrap().low <= 0.0);
    }

    #[test]
    fn no_device_weighs_more_than_four_of_the_middle_one() {
        assert_eq!(weighed(vec![(90, 100), (95, 100), (0, 1_000_000_000_000)]), (185, 600));
        assert_eq!(weighed(vec![(50, 100), (100, 200)]), (150, 300));
        assert_eq!(weighed(vec![(7, 10)]), (7, 10));
        assert_eq!(weighed(vec![]), (0, 0));
    }

    #[test]
    fn a_slower_release_is_told_as_a_ratio() {
        let reference = reference();
        let (old, new) = (counted(&reference, 95, 1000.0), counted(&reference, 95, 1500.0));
        let all = compare_groups(&reference.schema, &reference.counters, (&new, 1), Some((&old, 5)));
        let worse = find(&all, Metric::LatencyP95).worse.unwrap();
        assert!(worse.low > 0.4 && worse.high < 0.6, "{worse:?}");
    }

    #[test]
    fn without_labels_or_control_there_is_no_accuracy_and_no_comparison() {
        let reference = reference();
        let mut new = counted(&reference, 95, 1000.0);
        new.labelled = profile::Labelled::default();
        let all = compare_groups(&reference.schema, &reference.counters, (&new, 1), None);
        assert!(all.iter().all(|e| e.metric != Metric::Accuracy && e.worse.is_none()));
    }
}
