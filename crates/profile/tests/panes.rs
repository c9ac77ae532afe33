//! Laws of merging, and panes that no device would send.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use profile::drift::{Status, Thresholds, compare, compare_panes};
use profile::features::Extractor;
use profile::{
    Counters, FeatureCounts, Observed, OutputCounts, Pane, PaneError, PaneKey, Reference, ReferenceBuilder,
};
use proptest::prelude::*;
use protocol::{Digest, ModelName, UnixMillis};

const CATEGORIES: [&str; 4] = ["ash", "beech", "cedar", "never seen"];

fn reference() -> Reference {
    let names = ["level", "step", "tree"].map(str::to_owned).to_vec();
    let extractor = Extractor::Columns { input: "x".into(), names };
    let labels = ["no", "yes", "maybe"].map(str::to_owned).to_vec();
    let mut builder = ReferenceBuilder::new(extractor, labels).exporting_extremes();
    for i in 0..1000u32 {
        let wave = (f64::from(i) * 0.37).sin() * 10.0;
        let row = [
            Observed::Number(wave),
            Observed::Number(f64::from(i % 5)),
            Observed::Text(CATEGORIES[i as usize % 3]),
        ];
        let top = 0.5 + f64::from(i % 40) / 100.0;
        let rest = (1.0 - top) / 2.0;
        builder.add_classified(&row, &[top, rest, rest], Some(usize::from(i % 7 == 0)));
    }
    builder.build().unwrap()
}

fn key(reference: &Reference) -> PaneKey {
    PaneKey {
        model: ModelName::new("digits").unwrap(),
        digest: Digest::from_bytes([1; 32]),
        schema: reference.schema.digest(),
        segment: String::new(),
        start: UnixMillis(1_000),
        end: UnixMillis(61_000),
        run: 1,
        revision: 0,
    }
}

type Attack = (&'static str, fn(&mut Pane));
type Event = (f64, u32, usize, f64, Option<usize>);

fn pane(reference: &Reference, events: &[Event]) -> Pane {
    let mut pane = Pane::new(key(reference), &reference.schema);
    let (schema, counters) = (&reference.schema, &mut pane.counters);
    for (number, step, tree, top, actual) in events {
        let tree = CATEGORIES.get(*tree).map_or(Observed::Missing, |t| Observed::Text(t));
        counters.observe_row(schema, &[Observed::Number(*number), Observed::Number(f64::from(*step)), tree]);
        counters.observe_probabilities(schema, &[*top, 1.0 - top, 0.0]);
        counters.observe_answer(number.abs() * 100.0);
        counters.observe_label(schema, 0, *actual, 3.0);
    }
    if events.len() > 3 {
        counters.observe_error("model");
    }
    pane
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let number = prop_oneof![-20.0..20.0f64, Just(f64::NAN), Just(f64::INFINITY), Just(-1e300), Just(0.0)];
    proptest::collection::vec(
        (number, 0..8u32, 0..6usize, 0.0..1.0f64, proptest::option::of(0..4usize)),
        0..40,
    )
}

/// Everything but the means, which associate only up to rounding.
fn integers(pane: &Pane) -> Counters {
    let mut counters = pane.counters.clone();
    for feature in &mut counters.features {
        if let FeatureCounts::Numeric(counts) = feature {
            (counts.moments.mean, counts.moments.m2) = (0.0, 0.0);
        }
    }
    counters
}

fn merged(a: &Pane, b: &Pane) -> Pane {
    let mut sum = a.clone();
    sum.merge(b).unwrap();
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merging_commutes_associates_and_equals_counting_at_once(a in events(), b in events(), c in events()) {
        let reference = reference();
        let [pa, pb, pc] = [&a, &b, &c].map(|events| pane(&reference, events));
        prop_assert_eq!(&merged(&pa, &pb).counters, &merged(&pb, &pa).counters);
        let (left, right) = (merged(&merged(&pa, &pb), &pc), merged(&pa, &merged(&pb, &pc)));
        prop_assert_eq!(integers(&left), integers(&right));
        let all: Vec<Event> = a.iter().chain(&b).chain(&c).copied().collect();
        let mut once = pane(&reference, &all);
        once.counters.errors.clone_from(&left.counters.errors);
        prop_assert_eq!(integers(&left), integers(&once));
        for (l, o) in left.counters.features.iter().zip(&once.counters.features) {
            if let (FeatureCounts::Numeric(l), FeatureCounts::Numeric(o)) = (l, o) {
                prop_assert!((l.moments.mean - o.moments.mean).abs() < 1e-9);
                prop_assert!((l.moments.m2 - o.moments.m2).abs() < 1e-6 * (1.0 + o.moments.m2));
            }
        }
        prop_assert!(left.check(&reference).is_ok());
    }

    #[test]
    fn what_devices_count_survives_the_wire(events in events()) {
        let reference = reference();
        let pane = pane(&reference, &events);
        prop_assert!(pane.check(&reference).is_ok(), "{:?}", pane.check(&reference));
        prop_assert_eq!(Pane::decode(&pane.encode()).unwrap(), pane);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..400, to in any::<u8>()) {
        let _ = Pane::decode(&bytes);
        let reference = reference();
        let mut bytes = pane(&reference, &[(1.0, 1, 1, 0.5, None)]).encode();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(pane) = Pane::decode(&bytes) && pane.check(&reference).is_ok() {
            let _ = compare(&reference, &pane, &Thresholds::default()).unwrap();
        }
    }
}

#[test]
fn a_reference_survives_json_to_the_last_bit() {
    let reference = reference();
    let read = Reference::parse(&reference.to_json()).unwrap();
    assert_eq!(read, reference);
    assert_eq!(read.schema.digest(), reference.schema.digest());
}

#[test]
fn hostile_panes_are_refused() {
    let reference = reference();
    let good = pane(&reference, &[(1.0, 1, 1, 0.5, Some(0)); 5]);
    good.check(&reference).unwrap();
    let attacks: [Attack; 9] = [
        ("fewer features", |p| p.counters.features.truncate(1)),
        ("more bins", |p| {
            if let FeatureCounts::Numeric(c) = &mut p.counters.features[0] {
                c.doane.push(1);
            }
        }),
        ("counts from nowhere", |p| {
            if let FeatureCounts::Numeric(c) = &mut p.counters.features[0] {
                c.fine[0] += 9;
            }
        }),
        ("absurd counts", |p| {
            if let FeatureCounts::Categorical(c) = &mut p.counters.features[2] {
                c.other = u64::MAX;
            }
        }),
        ("NaN mean", |p| {
            if let FeatureCounts::Numeric(c) = &mut p.counters.features[0] {
                c.moments.mean = f64::NAN;
            }
        }),
        ("class outside", |p| {
            p.counters.labelled.confusion.insert(99, 0);
        }),
        ("probability above one", |p| {
            if let OutputCounts::Classes(c) = &mut p.counters.output {
                for cell in c.cells.values_mut() {
                    cell.sum_nano = u64::MAX;
                }
            }
        }),
        ("another output", |p| p.counters.output = OutputCounts::Nothing),
        ("answers without latency", |p| p.counters.answered += 1),
    ];
    for (name, attack) in attacks {
        let mut pane = good.clone();
        attack(&mut pane);
        assert!(matches!(pane.check(&reference), Err(PaneError::Bound { .. })), "{name} was accepted");
    }
    let mut other = good.clone();
    other.key.schema = Digest::from_bytes([9; 32]);
    assert!(matches!(other.check(&reference), Err(PaneError::Schema { .. })));
    assert!(matches!(good.clone().merge(&other), Err(PaneError::Schema { .. })));
    let mut endless = good;
    endless.key.end = UnixMillis(i64::MAX);
    assert!(matches!(Pane::decode(&endless.encode()), Err(PaneError::Bound { .. })));
    assert!(matches!(Pane::decode(&vec![0; 300_000]), Err(PaneError::TooLarge { .. })));
}

fn week(shift: f64, right: usize) -> Vec<Event> {
    let event = |i: u32| {
        let number = (f64::from(i) * 0.37).sin() * 10.0 + shift;
        let actual = usize::from((i as usize) % 100 >= right);
        (number, i % 5, i as usize % 3, 0.5 + f64::from(i % 40) / 100.0, Some(actual))
    };
    (0..200).map(event).collect()
}

#[test]
fn only_the_feature_that_moved_drifts() {
    let reference = reference();
    let calm = compare(&reference, &pane(&reference, &week(0.0, 90)), &Thresholds::default()).unwrap();
    assert!(
        calm.features
            .iter()
            .filter(|f| f.role == profile::drift::Role::Input)
            .all(|f| f.status == Status::Stable)
    );
    let moved = compare(&reference, &pane(&reference, &week(6.0, 90)), &Thresholds::default()).unwrap();
    let drifted: Vec<&str> = moved
        .features
        .iter()
        .filter(|f| f.status == Status::Drifted && f.role == profile::drift::Role::Input)
        .map(|f| f.feature.as_str())
        .collect();
    assert_eq!(drifted, ["level"]);
    assert!(moved.features[0].adjusted_p.unwrap() <= 0.01 && !moved.features[0].top_bins.is_empty());
}

#[test]
fn few_values_give_no_verdict_and_no_values_no_numbers() {
    let reference = reference();
    let report = compare(&reference, &pane(&reference, &week(6.0, 90)[..5]), &Thresholds::default()).unwrap();
    assert!(report.features.iter().all(|f| f.status == Status::Insufficient));
    let empty = compare(&reference, &pane(&reference, &[]), &Thresholds::default()).unwrap();
    assert_eq!((empty.verdict.judged, empty.quality.accuracy), (0, None));
}

#[test]
fn a_candidate_is_compared_with_its_control() {
    let reference = reference();
    let (control, candidate) = (pane(&reference, &week(6.0, 95)), pane(&reference, &week(6.0, 60)));
    let report = compare_panes(&control, &candidate, &reference, &Thresholds::default()).unwrap();
    assert_eq!(report.verdict.drifted, 0, "the same world, whatever the reference says");
    assert_eq!(report.quality.accuracy, Some(0.6));
}
