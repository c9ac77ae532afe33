//! From stored panes to windows, alerts, distributions and evidence, on a real database and blob folder.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fleet;
#[path = "../store/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use flotilla_server::domain::drift::{self, Group, WindowSpan};
use flotilla_server::jobs::windows;
use flotilla_server::store::drift::{DriftWindow, Grain};
use profile::drift::{DriftReport, Thresholds, compare_counters};
use profile::{Pane, Reference};
use protocol::{Digest, UnixMillis};
use rollout::Metric;

use fleet::{BEGIN, Fleet, WINDOW, device, digest, model, project, reference};

#[tokio::test]
async fn one_dirty_lens_is_found_with_its_feature_and_raises_one_alert() {
    let mut fleet = Fleet::start().await;
    fleet.window(0, &[3]).await;
    assert_eq!(fleet.open_alerts().await, [], "one window is not enough");
    fleet.window(1, &[3]).await;
    fleet.window(2, &[3]).await;
    let found = fleet.drifting().await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].device, device(3));
    assert!(!found[0].is_fleet_wide);
    let features: Vec<&str> = found[0].features.iter().map(|f| f.feature.as_str()).collect();
    assert_eq!(features, ["level"]);
    assert_eq!(fleet.open_alerts().await, [Some(device(3))]);
    for number in 3..7 {
        fleet.window(number, &[]).await;
    }
    assert_eq!(fleet.open_alerts().await, [], "three calm windows close it");
    fleet.window(7, &[3]).await;
    fleet.window(8, &[3]).await;
    assert_eq!(fleet.open_alerts().await, [], "closed a moment ago: it rests");
}

#[tokio::test]
async fn many_devices_at_once_are_the_fleets_drift() {
    let mut fleet = Fleet::start().await;
    for number in 0..4 {
        fleet.window(number, &[0, 1, 2, 3]).await;
    }
    assert_eq!(fleet.open_alerts().await, [None]);
    assert!(fleet.drifting().await.iter().all(|device| device.is_fleet_wide));
}

#[tokio::test]
async fn computing_a_window_again_changes_nothing_and_corrections_replace() {
    let mut fleet = Fleet::start().await;
    fleet.window(0, &[]).await;
    let once = fleet.reports(None).await;
    assert_eq!((once.len(), once[0].0.n), (1, 1200));
    assert_eq!(once[0].0.findings.judged, once[0].1.verdict.judged);
    windows::tick(fleet.state()).await.unwrap();
    assert_eq!(fleet.reports(None).await[0].1, once[0].1);

    let mut corrected = fleet.pane("1.0.0", 0, 0.0, 10);
    corrected.key.revision = 1;
    fleet.store(0, "1.0.0", &corrected).await;
    let mut second_run = fleet.pane("1.0.0", 0, 0.0, 95);
    second_run.key.run = 2;
    fleet.store(1, "1.0.0", &second_run).await;
    windows::tick(fleet.state()).await.unwrap();
    let again = fleet.windows(None).await;
    assert_eq!(again[0].n, 1400, "a corrected pane replaces, another run adds");
    assert_eq!(fleet.reports(Some(&device(0))).await[0].1.quality.accuracy, Some(0.1));
}

#[tokio::test]
async fn hostile_panes_and_unknown_releases_are_left_out() {
    let mut fleet = Fleet::start().await;
    let pane = fleet.pane("1.0.0", 0, 0.0, 95);
    let mut lying = pane.clone();
    lying.counters.answered = 1 << 50;
    fleet.store(0, "1.0.0", &lying).await;
    fleet.store_body(1, "1.0.0", &pane, b"no cbor".to_vec()).await;
    let mut unknown = pane.clone();
    unknown.key.digest = Digest::from_bytes([7; 32]);
    fleet.store(2, "1.0.0", &unknown).await;
    windows::tick(fleet.state()).await.unwrap();
    assert!(fleet.windows(None).await.is_empty());
    fleet.store(3, "1.0.0", &pane).await;
    windows::tick(fleet.state()).await.unwrap();
    assert_eq!(fleet.windows(None).await[0].n, 200, "the loop goes on");
}

const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn old_windows_become_hours_and_then_days() {
    let mut fleet = Fleet::start().await;
    // BEGIN lies on the hour: windows 0 and 1 are of one hour, 400 of the next.
    assert_eq!(BEGIN % HOUR, 0);
    for number in [0, 1, 400] {
        fleet.window(number, &[3]).await;
    }
    let before = fleet.windows(Some(&device(3))).await;
    assert_eq!(before.iter().filter(|window| window.grain != Grain::Window).count(), 0);
    fleet.clock.set(UnixMillis(BEGIN + 49 * HOUR));
    assert_eq!(drift::merge_old(fleet.state(), fleet.rules()).await.unwrap(), 14);
    let merged = fleet.reports(Some(&device(3))).await;
    let shape = |windows: &[(DriftWindow, DriftReport)]| {
        let each = windows.iter().map(|(window, _)| (window.window_start.0 - BEGIN, window.n, window.grain));
        each.collect::<Vec<_>>()
    };
    assert_eq!(
        shape(&merged),
        [(0, 400, Grain::Hour), (400 * WINDOW, 200, Grain::Window)],
        "two days are whole"
    );
    assert!(merged[0].0.is_drifting);
    assert_eq!(merged[0].0.findings.drifted[0].feature, "level");
    assert_eq!(merged[0].1.service.answered, 400);
    assert_eq!(merged[0].0.window_end.0, BEGIN + HOUR);
    let of_fleet = [(0, 2400, Grain::Hour), (400 * WINDOW, 1200, Grain::Window)];
    assert_eq!(shape(&fleet.reports(None).await), of_fleet);
    let span =
        WindowSpan { version: None, device: Some(&device(3)), from: UnixMillis(0), to: UnixMillis(i64::MAX) };
    let found = drift::distribution(fleet.state(), &project(), &model(), "level", &span).await.unwrap();
    assert_eq!(found.unwrap().1.m, 600, "nothing is lost or counted twice");
    windows::tick(fleet.state()).await.unwrap();
    assert_eq!(shape(&fleet.reports(Some(&device(3))).await), shape(&merged), "the same from the panes");

    // A device was without a network for two days: its windows are added to the hour.
    let late = fleet.pane("1.0.0", 2, 0.0, 95);
    fleet.store(3, "1.0.0", &late).await;
    windows::tick(fleet.state()).await.unwrap();
    let again = fleet.reports(Some(&device(3))).await;
    assert_eq!(shape(&again), [(0, 600, Grain::Hour), (400 * WINDOW, 200, Grain::Window)]);
    let of_fleet = [(0, 2600, Grain::Hour), (400 * WINDOW, 1200, Grain::Window)];
    assert_eq!(shape(&fleet.reports(None).await), of_fleet);

    // After the panes' own time there is nothing to compute a window from: hours become days. BEGIN is at eight o'clock.
    fleet.clock.set(UnixMillis(BEGIN + 31 * 24 * HOUR));
    let too_late = fleet.pane("1.0.0", 3, 0.0, 95);
    fleet.store(3, "1.0.0", &too_late).await;
    windows::tick(fleet.state()).await.unwrap();
    assert_eq!(shape(&fleet.reports(Some(&device(3))).await), [(-8 * HOUR, 800, Grain::Day)]);
    let days = fleet.reports(None).await;
    assert_eq!(shape(&days), [(-8 * HOUR, 3800, Grain::Day)]);
    assert_eq!(days[0].0.window_end.0, BEGIN + 16 * HOUR);
    windows::tick(fleet.state()).await.unwrap();
    assert_eq!(shape(&fleet.reports(None).await), shape(&days));
}

#[tokio::test]
async fn ninety_days_are_exact() {
    ninety_days(None).await;
}

#[tokio::test]
async fn ninety_days_are_exact_on_postgresql() {
    let database = support::postgres::Postgres::start();
    ninety_days(Some(database.database("days", None))).await;
}

/// A window every twelve hours, merged as time goes on; then what the charts tell against the sum of all panes.
async fn ninety_days(database: Option<String>) {
    const EVERY: i64 = 12 * HOUR / WINDOW;
    let mut fleet = Fleet::on(database, reference()).await;
    let seen = [(0.0, 95), (5.0, 80), (30.0, 60)].map(|(shift, right)| fleet.pane("1.0.0", 0, shift, right));
    let mut all: Option<Pane> = None;
    for number in 0..90 * 2 {
        let mut pane = seen[usize::try_from(number % 3).unwrap()].clone();
        pane.key = fleet.key("1.0.0", number * EVERY);
        match &mut all {
            Some(all) => all.merge(&pane).unwrap(),
            None => all = Some(pane.clone()),
        }
        fleet.clock.set(pane.key.end);
        fleet.store(0, "1.0.0", &pane).await;
        if number % 6 == 5 {
            windows::tick(fleet.state()).await.unwrap();
        }
    }
    let (all, reference) = (all.unwrap().counters, &fleet.reference);
    let expected = compare_counters(
        &reference.schema,
        &reference.counters,
        &all,
        &reference.noise,
        &Thresholds::default(),
    );
    for of in [None, Some(&device(0))] {
        let windows = fleet.windows(of).await;
        let count = |grain| windows.iter().filter(|window| window.grain == grain).count();
        let counts = [count(Grain::Window), count(Grain::Hour), count(Grain::Day)];
        assert!(counts[0] <= 5 && counts[1] <= 29 * 2 && counts[2] >= 58, "{counts:?}");
        let span = WindowSpan { version: None, device: of, from: UnixMillis(0), to: UnixMillis(i64::MAX) };
        for feature in ["level", "tone", "confidence"] {
            let (project, model) = (project(), model());
            let found = drift::distribution(fleet.state(), &project, &model, feature, &span).await;
            let found = found.unwrap().unwrap().1;
            let of_all = profile::drift::distribution(&reference.schema, &reference.counters, &all, feature);
            let of_all = of_all.unwrap();
            assert_eq!((found.current, found.m), (of_all.current, of_all.m), "{feature}");
        }
        for limit in [500, 100, 10, 1] {
            let chart = fleet.chart(of, limit).await;
            assert!(i64::try_from(chart.len()).unwrap() <= limit, "{} of {limit}", chart.len());
            assert_eq!(chart.iter().map(|(window, _)| window.n).sum::<u64>(), all.answered, "{limit}");
            let is_in_order = chart.windows(2).all(|two| two[0].0.window_end <= two[1].0.window_start);
            assert!(is_in_order, "{limit}");
            if let [(window, report)] = &chart[..] {
                assert_eq!((report.verdict, &report.service), (expected.verdict, &expected.service));
                assert_eq!(report.quality.accuracy, expected.quality.accuracy);
                let far =
                    |report: &DriftReport| report.features.iter().map(|f| f.distance).collect::<Vec<_>>();
                assert_eq!(far(report), far(&expected));
                assert_eq!(window.findings.drifted.len(), expected.verdict.drifted);
            }
        }
    }
}

#[tokio::test]
async fn windows_of_an_earlier_version_are_read_and_merged() {
    let mut fleet = Fleet::start().await;
    fleet.window(0, &[3]).await;
    fleet.window(1, &[3]).await;
    let (window, report) = fleet.reports(Some(&device(3))).await.remove(0);
    let (place, pane) = ((&device(3), UnixMillis(BEGIN)), window.pane.clone().unwrap());
    raw::store_report(&fleet.state().store, place, serde_json::to_string(&report).unwrap(), pane).await;
    let (old, stored) = fleet.reports(Some(&device(3))).await.remove(0);
    assert_eq!((&old.findings, stored.verdict), (&window.findings, report.verdict));
    assert!(old.report.is_some() && window.report.is_none());
    assert_eq!(old.pane, window.pane);
    fleet.clock.set(UnixMillis(BEGIN + 50 * HOUR));
    assert_eq!(drift::merge_old(fleet.state(), fleet.rules()).await.unwrap(), 14);
    let merged = fleet.reports(Some(&device(3))).await;
    assert_eq!((merged.len(), merged[0].0.n, merged[0].0.report.is_none()), (1, 400, true));
}

#[tokio::test]
async fn a_distribution_sums_windows_on_the_references_bins() {
    let mut fleet = Fleet::start().await;
    fleet.window(0, &[2]).await;
    fleet.window(1, &[2]).await;
    let dirty = device(2);
    let span =
        WindowSpan { version: None, device: Some(&dirty), from: UnixMillis(0), to: UnixMillis(i64::MAX) };
    let found = drift::distribution(fleet.state(), &project(), &model(), "level", &span).await.unwrap();
    let (version, found) = found.unwrap();
    assert_eq!((version.as_str(), found.n, found.m), ("1.0.0", 1000, 400));
    assert_eq!(found.current.iter().sum::<u64>(), 400);
    assert_eq!(found.bins.last().unwrap().name.as_deref(), Some("outside"));
    assert!(found.current.last().is_some_and(|outside| *outside > 100), "40 to 139 against 0 to 99");
    let none = drift::distribution(fleet.state(), &project(), &model(), "no such", &span).await.unwrap();
    assert!(none.is_none());
}

#[tokio::test]
async fn evidence_tells_the_worse_release_from_its_control() {
    let mut fleet = Fleet::start().await;
    fleet.window(0, &[]).await;
    let worse = fleet.pane("2.0.0", 0, 0.0, 75);
    fleet.store(7, "2.0.0", &worse).await;
    let group = |version: &str, devices: std::ops::Range<usize>| Group {
        digest: digest(&fleet.manifest(version)),
        devices: devices.map(device).collect::<BTreeSet<_>>(),
    };
    let (candidate, control) = (group("2.0.0", 7..8), group("1.0.0", 0..6));
    let span = (UnixMillis(BEGIN), UnixMillis(BEGIN + WINDOW));
    let groups = (&candidate, Some(&control));
    let all = drift::behaviour(fleet.state(), &project(), &model(), groups, span, None).await.unwrap();
    let accuracy = all.iter().find(|e| e.metric == Metric::Accuracy).unwrap();
    assert_eq!((accuracy.candidate.n, accuracy.control.unwrap().n), (200, 1200));
    assert!(accuracy.worse.unwrap().low > 0.1, "{accuracy:?}");
    assert_eq!((accuracy.from, accuracy.to), span);
    let input = all.iter().find(|e| e.metric == Metric::InputDrift).unwrap();
    assert!(input.candidate.value <= input.control.unwrap().value, "{input:?}");
    let later = (span.1, span.1.plus_millis(WINDOW));
    let none = drift::behaviour(fleet.state(), &project(), &model(), groups, later, None).await.unwrap();
    assert!(none.is_empty(), "another time tells nothing");
}

#[tokio::test]
async fn evidence_says_where_panes_are_deleted_already_and_begins_there() {
    let mut fleet = Fleet::start().await;
    for number in 0..3 {
        let pane = fleet.pane("1.0.0", number, 0.0, 95);
        fleet.store(0, "1.0.0", &pane).await;
    }
    let month = i64::try_from(fleet.state().config.retention.panes.as_millis()).unwrap();
    fleet.clock.set(UnixMillis(BEGIN + month + WINDOW));
    let group = Group { digest: digest(&fleet.manifest("1.0.0")), devices: [device(0)].into() };
    let span = (UnixMillis(BEGIN), fleet.clock.now());
    let all =
        drift::behaviour(fleet.state(), &project(), &model(), (&group, None), span, None).await.unwrap();
    let accuracy = all.iter().find(|e| e.metric == Metric::Accuracy).unwrap();
    assert_eq!(
        (accuracy.candidate.n, accuracy.from),
        (400, UnixMillis(BEGIN + WINDOW)),
        "the first one is too old"
    );
    assert!(all.iter().all(|e| e.arithmetic.contains("older panes are deleted")), "{all:?}");
}

#[tokio::test]
async fn evidence_counts_corrections_once_and_runs_apart() {
    let mut fleet = Fleet::start().await;
    let first = fleet.pane("1.0.0", 0, 0.0, 95);
    fleet.store(0, "1.0.0", &first).await;
    let mut corrected = fleet.pane("1.0.0", 0, 0.0, 50);
    corrected.key.revision = 1;
    fleet.store(0, "1.0.0", &corrected).await;
    let mut restarted = fleet.pane("1.0.0", 0, 0.0, 95);
    restarted.key.run = 2;
    fleet.store(0, "1.0.0", &restarted).await;
    let group = Group { digest: digest(&fleet.manifest("1.0.0")), devices: [device(0)].into() };
    let span = (UnixMillis(BEGIN), UnixMillis(BEGIN + WINDOW));
    let all =
        drift::behaviour(fleet.state(), &project(), &model(), (&group, None), span, None).await.unwrap();
    let accuracy = all.iter().find(|e| e.metric == Metric::Accuracy).unwrap().candidate;
    assert_eq!((accuracy.n, accuracy.devices), (400, 1));
    assert!((accuracy.value - 0.725).abs() < 1e-9, "{accuracy:?}");
}

#[tokio::test]
async fn windows_go_on_after_the_clock_was_ahead() {
    const DAY: i64 = 24 * HOUR;
    let mut fleet = Fleet::start().await;
    fleet.window(0, &[]).await;
    // The clock jumps a day ahead, panes come and are counted, one more comes, and the clock is right again.
    fleet.clock.set(UnixMillis(BEGIN + DAY));
    let ahead = fleet.pane("1.0.0", 1, 0.0, 95);
    fleet.store(1, "1.0.0", &ahead).await;
    windows::tick(fleet.state()).await.unwrap();
    fleet.clock.set(UnixMillis(BEGIN + DAY + 1000));
    let last = fleet.pane("1.0.0", 1, 0.0, 95);
    fleet.store(2, "1.0.0", &last).await;
    fleet.window(2, &[]).await;
    assert_eq!(fleet.windows(None).await.len(), 3);
    assert_eq!(fleet.windows(Some(&device(2))).await.len(), 3, "nothing of that time is lost");
    fleet.window(3, &[]).await;
    assert_eq!(fleet.windows(None).await.len(), 4);
}

/// The figures of "How the database grows" in docs/CONFIGURATION.md; run with `--nocapture` to see them.
#[tokio::test]
async fn a_day_of_a_device_is_small() {
    let json = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/1.0.0/reference.json");
    let mut fleet = Fleet::of(Reference::parse(&std::fs::read(json).unwrap()).unwrap()).await;
    // Six hours of windows of five minutes; every one saw as much as the whole reference.
    for number in 0..72 {
        let mut pane = Pane::new(fleet.key("1.0.0", number * 30), &fleet.reference.schema);
        pane.counters = fleet.reference.counters.clone();
        for i in 0..u32::try_from(20 + number).unwrap() {
            pane.counters.observe_answer(900.0 + f64::from(i * i));
        }
        fleet.store(0, "1.0.0", &pane).await;
    }
    windows::tick(fleet.state()).await.unwrap();
    let (panes, windows) = raw::stored_bytes(&fleet.state().store).await;
    fleet.clock.set(UnixMillis(BEGIN + 60 * HOUR));
    assert_eq!(drift::merge_old(fleet.state(), fleet.rules()).await.unwrap(), 144);
    let (_, hours) = raw::stored_bytes(&fleet.state().store).await;
    assert_eq!(fleet.windows(Some(&device(0))).await.len(), 6);
    fleet.clock.set(UnixMillis(BEGIN + 40 * 24 * HOUR));
    assert_eq!(drift::merge_old(fleet.state(), fleet.rules()).await.unwrap(), 12);
    let (_, day) = raw::stored_bytes(&fleet.state().store).await;
    let [panes, windows, hours] = [panes, windows, hours].map(|bytes| bytes * 4 / 1000);
    println!(
        "a day of a device, in kB: {panes} of panes, {windows} of windows, {hours} of hours; {day} bytes as a day"
    );
    println!("kept: {} kB", panes * 30 + windows * 2 + hours * 28 + day * 370 / 1000);
    assert!(panes < 1200 && windows < 1200 && hours < 120 && day < 6000);
}
