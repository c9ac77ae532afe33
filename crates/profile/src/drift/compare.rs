//! From two sets of counters to a report.

use crate::counters::Counters;
use crate::drift::marginal::{Marginal, marginals};
use crate::drift::report::{
    DriftReport, FeatureDrift, Measure, MeasureKind, Quality, Role, Service, Status, Thresholds, Verdict,
};
use crate::pane::{Pane, PaneError};
use crate::reference::{Noise, Reference, Schema};
use crate::stats::{self, Interval, Proportions};

/// Most bins that a report names per distribution.
const TOP_BINS: usize = 5;
/// Largest confusion table in a report.
const MAX_CONFUSION_CLASSES: usize = 32;

/// Compares a pane with the reference it was counted on.
///
/// # Errors
/// [`PaneError`] if the pane cannot have come from counting with this reference.
pub fn compare(
    reference: &Reference,
    pane: &Pane,
    thresholds: &Thresholds,
) -> Result<DriftReport, PaneError> {
    pane.check(reference)?;
    let (schema, noise) = (&reference.schema, &reference.noise);
    Ok(compare_counters(schema, &reference.counters, &pane.counters, noise, thresholds))
}

/// Compares a candidate's pane with a control's: what differs between them in the same time is the candidate's doing.
///
/// # Errors
/// [`PaneError`] if one of them cannot have come from counting with this reference's schema.
pub fn compare_panes(
    control: &Pane,
    candidate: &Pane,
    reference: &Reference,
    thresholds: &Thresholds,
) -> Result<DriftReport, PaneError> {
    control.check(reference)?;
    candidate.check(reference)?;
    Ok(compare_counters(&reference.schema, &control.counters, &candidate.counters, &[], thresholds))
}

/// Compares two sets of counters of one schema that are known to be sound. `noise`: the reference's, or empty.
pub fn compare_counters(
    schema: &Schema,
    reference: &Counters,
    current: &Counters,
    noise: &[Noise],
    thresholds: &Thresholds,
) -> DriftReport {
    let marginals = marginals(schema, reference, current);
    let mut questions = Vec::new();
    let mut features: Vec<FeatureDrift> = Vec::with_capacity(marginals.len());
    let mut bad = Vec::with_capacity(marginals.len());
    for (i, marginal) in marginals.iter().enumerate() {
        let noise = noise.get(i).filter(|_| marginal.role == Role::Input);
        let feature = judge(marginal, noise, thresholds);
        let shares = stats::proportions(marginal.bad.1, marginal.bad.0, 0.95);
        questions.push(feature.p.unwrap_or(1.0));
        questions.push(shares.map_or(1.0, |s| s.p));
        bad.push(shares);
        features.push(feature);
    }
    let adjusted = stats::benjamini_hochberg(&questions);
    for (i, (feature, bad)) in features.iter_mut().zip(bad).enumerate() {
        decide(feature, adjusted[2 * i], adjusted[2 * i + 1], bad, thresholds);
    }
    let (service, quality) = (service(current), quality(schema, current));
    DriftReport { verdict: verdict(&features), features, service, quality, thresholds: *thresholds }
}

fn verdict(features: &[FeatureDrift]) -> Verdict {
    let count = |status: Status, role: Option<Role>| {
        features.iter().filter(|f| f.status == status && role.is_none_or(|role| f.role == role)).count()
    };
    let drifted = count(Status::Drifted, None);
    let inputs = count(Status::Drifted, Some(Role::Input)) + count(Status::Stable, Some(Role::Input));
    let drifted_inputs = count(Status::Drifted, Some(Role::Input));
    Verdict {
        judged: drifted + count(Status::Stable, None),
        drifted,
        is_dataset_drifted: inputs > 0 && 2 * drifted_inputs >= inputs,
    }
}

/// Requests, errors and latency of `counters`.
pub fn service(counters: &Counters) -> Service {
    let (answered, failed) = (counters.answered, counters.failed());
    let requests = answered.saturating_add(failed);
    let quantile = |q: f64| counters.latency_us.quantile(q);
    Service {
        answered,
        failed,
        error_rate: (requests > 0).then(|| failed as f64 / requests as f64),
        p50_us: quantile(0.5),
        p95_us: quantile(0.95),
        p99_us: quantile(0.99),
    }
}

/// How often the model is right, as far as `counters` tell.
pub fn quality(schema: &Schema, counters: &Counters) -> Quality {
    let classes = schema.classes();
    let labelled = &counters.labelled;
    let correct = labelled.correct(classes);
    Quality {
        predictions: counters.classes().map_or(0, |c| c.n),
        labelled: labelled.n,
        correct,
        accuracy: labelled.accuracy(classes),
        accuracy_interval: stats::wilson_interval(correct, labelled.n, 0.95),
        estimated_accuracy: counters.classes().and_then(crate::ClassCounts::estimated_accuracy),
        confusion: if classes <= MAX_CONFUSION_CLASSES {
            labelled.confusion_table(classes)
        } else {
            Vec::new()
        },
    }
}

fn judge(marginal: &Marginal<'_>, noise: Option<&Noise>, thresholds: &Thresholds) -> FeatureDrift {
    let (n, m) = (marginal.n(), marginal.m());
    let share = |(bad, total): (u64, u64)| if total > 0 { bad as f64 / total as f64 } else { 0.0 };
    let mut top_bins = marginal.shares();
    top_bins.retain(|bin| bin.contribution > 0.0);
    top_bins.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
    top_bins.truncate(TOP_BINS);
    let measures = if n > 0 && m > 0 { measures(marginal, noise, thresholds.alpha) } else { Vec::new() };
    let deciding = if marginal.ordered.is_some() { MeasureKind::Ks } else { MeasureKind::ChiSquare };
    let find = |kind: MeasureKind| measures.iter().find(|measure| measure.kind == kind);
    FeatureDrift {
        feature: marginal.name.to_owned(),
        role: marginal.role,
        kind: marginal.kind.to_owned(),
        status: Status::Insufficient,
        distance: find(MeasureKind::JsNatural).map_or(0.0, |measure| measure.value),
        p: find(deciding).and_then(|measure| measure.p),
        adjusted_p: None,
        top_bins,
        bad_share_reference: share(marginal.bad.0),
        bad_share_current: share(marginal.bad.1),
        mean_reference: marginal.moments.filter(|_| n > 0).map(|moments| moments.0.mean),
        mean_current: marginal.moments.filter(|_| m > 0).map(|moments| moments.1.mean),
        n,
        m,
        measures,
    }
}

fn decide(feature: &mut FeatureDrift, p: f64, bad_p: f64, bad: Option<Proportions>, thresholds: &Thresholds) {
    feature.adjusted_p = feature.p.map(|_| p);
    let is_moved = feature.m.min(feature.n) >= thresholds.min_values
        && p <= thresholds.alpha
        && feature.distance >= thresholds.min_distance;
    let rise = bad.map_or(0.0, |shares| shares.difference);
    let is_bad = bad_p <= thresholds.alpha && rise >= thresholds.min_bad_share;
    feature.status = if is_moved || is_bad {
        Status::Drifted
    } else if feature.m.min(feature.n) < thresholds.min_values {
        Status::Insufficient
    } else {
        Status::Stable
    };
    if let Some(shares) = bad.filter(|shares| shares.difference != 0.0) {
        feature.measures.push(Measure {
            kind: MeasureKind::BadShare,
            value: shares.difference,
            convention: "two-proportion z, pooled; interval by Newcombe".into(),
            bins: 0,
            n: feature.n,
            m: feature.m,
            interval: Some(shares.interval),
            critical: Some(thresholds.min_bad_share),
            p: Some(shares.p),
            comparable: None,
        });
    }
}

fn measures(marginal: &Marginal<'_>, noise: Option<&Noise>, alpha: f64) -> Vec<Measure> {
    let mut all = distances(marginal, noise, alpha);
    all.extend(ks(marginal, alpha));
    all.extend(moved(marginal));
    all
}

fn distances(marginal: &Marginal<'_>, noise: Option<&Noise>, alpha: f64) -> Vec<Measure> {
    let (a, b) = (&marginal.counts.0, &marginal.counts.1);
    let (p, q) = (stats::normalise(a), stats::normalise(b));
    let is_input = marginal.role == Role::Input;
    let rule = if is_input && marginal.kind == "numeric" {
        "doane bins and one outside"
    } else {
        "one bin per name or step"
    };
    let measure = |kind, value, convention: String, critical, comparable: Option<&str>| Measure {
        kind,
        value,
        convention,
        bins: a.len(),
        n: marginal.n(),
        m: marginal.m(),
        interval: None,
        critical,
        p: None,
        comparable: comparable.map(Into::into),
    };
    let learnt = noise.map(|noise| noise.js_base2_mean + 3.0 * noise.js_base2_std);
    let nannyml = is_input.then_some("NannyML 0.13");
    let evidently = (is_input && marginal.kind == "categorical").then_some("Evidently 0.7");
    let mut all = vec![
        measure(
            MeasureKind::JsNatural,
            stats::jensen_shannon_natural(&p, &q),
            format!("distance, natural logarithm; {rule}"),
            Some(0.1),
            evidently,
        ),
        measure(
            MeasureKind::JsBase2,
            stats::jensen_shannon_base2(&p, &q),
            format!("distance, base 2; {rule}; critical: mean + 3 sigma of reference windows"),
            learnt,
            nannyml,
        ),
        measure(
            MeasureKind::JsDivergenceBase2,
            stats::jensen_shannon_divergence_base2(&p, &q),
            format!("divergence, base 2; {rule}"),
            None,
            Some("TFDV on the same bins"),
        ),
        measure(MeasureKind::Hellinger, stats::hellinger(&p, &q), rule.into(), None, nannyml),
        measure(MeasureKind::LInfinity, stats::l_infinity(&p, &q), rule.into(), None, nannyml),
    ];
    let (fine_a, fine_b) = marginal.fine.as_ref().map_or((a, b), |fine| (&fine.0, &fine.1));
    let occupied = fine_a.iter().zip(fine_b).filter(|(a, b)| **a > 0 || **b > 0).count();
    let fine_rule =
        if marginal.fine.is_some() { "64 quantile bins of the reference or one per value" } else { rule };
    let mut psi = measure(
        MeasureKind::Psi,
        stats::psi(fine_a, fine_b),
        format!("{fine_rule}; half an event added per bin; critical: two-sample"),
        stats::psi_critical(alpha, occupied, marginal.n(), marginal.m()),
        None,
    );
    psi.bins = fine_a.len();
    all.push(psi);
    if let Some(chi) = stats::chi_square_two_sample(a, b) {
        let mut chi_measure = measure(
            MeasureKind::ChiSquare,
            chi.statistic,
            format!("two-sample, {} degrees of freedom, Yates on 2 x 2; {rule}", chi.freedom),
            None,
            nannyml,
        );
        chi_measure.p = Some(chi.p);
        all.push(chi_measure);
    }
    all
}

fn ks(marginal: &Marginal<'_>, alpha: f64) -> Option<Measure> {
    let ordered = marginal.ordered.as_ref()?;
    let found = stats::ks_interval(&ordered.counts.0, &ordered.counts.1)?;
    let high = if ordered.is_exact { found.low } else { found.high };
    let interval =
        Interval { low: (found.low - ordered.loose).max(0.0), high: (high + ordered.loose).min(1.0) };
    let (n, m) = (marginal.n(), marginal.m());
    let critical = ((alpha / 2.0).ln() / -2.0).sqrt() * (1.0 / n as f64 + 1.0 / m as f64).sqrt();
    Some(Measure {
        kind: MeasureKind::Ks,
        value: interval.low,
        convention: "lower end of the interval that the bins leave for D; p of that end, asymptotic".into(),
        bins: ordered.counts.0.len(),
        n,
        m,
        interval: Some(interval),
        critical: Some(critical),
        p: Some(stats::ks_asymptotic_p(interval.low, n, m)),
        comparable: Some("SciPy ks_2samp lies within the interval".into()),
    })
}

fn moved(marginal: &Marginal<'_>) -> Vec<Measure> {
    let (Some((a, b)), Some((sketch_a, sketch_b))) = (marginal.moments, marginal.sketches) else {
        return Vec::new();
    };
    let blank = |kind, value, convention: &str| Measure {
        kind,
        value,
        convention: convention.into(),
        bins: 0,
        n: a.n,
        m: b.n,
        interval: None,
        critical: None,
        p: None,
        comparable: None,
    };
    let mut all = Vec::new();
    if let Some(distance) = stats::wasserstein(sketch_a, sketch_b) {
        let sigma = a.std().max(0.001);
        let error = stats::wasserstein_error(sketch_a, sketch_b) / sigma;
        let value = distance / sigma;
        let mut measure = blank(
            MeasureKind::WassersteinPerSigma,
            value,
            "from sketches; divided by max(sigma of the reference, 0.001)",
        );
        measure.interval = Some(Interval { low: (value - error).max(0.0), high: value + error });
        measure.critical = Some(0.1);
        measure.comparable = Some("Evidently 0.7, within the interval".into());
        all.push(measure);
    }
    let mut mean = blank(MeasureKind::MeanDifference, b.mean - a.mean, "Welch's t");
    mean.p = stats::welch_t_p(&a, &b);
    all.push(mean);
    all
}
