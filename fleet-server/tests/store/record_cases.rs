//! Panes, streams, alerts, leases.

use protocol::measurement::{Measurement, Outcome};

use super::*;

pub(crate) fn pane(seq: u64, start: i64, received_at: UnixMillis) -> telemetry::PaneRow {
    telemetry::PaneRow {
        device: device("cam"),
        stream: StreamId::new("s1").unwrap(),
        seq,
        model: digits(),
        version: Version::new("1.0.0").unwrap(),
        digest: Digest::from_bytes([1; 32]),
        segment: String::new(),
        window_start: UnixMillis(start),
        window_end: UnixMillis(start + 100),
        n: 3,
        body: vec![0, 255, 1],
        received_at,
    }
}

pub(crate) async fn records_count_once(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    assert!(telemetry::add_pane(&mut tx, &a, &pane(1, 0, NOW)).await.unwrap());
    assert!(!telemetry::add_pane(&mut tx, &a, &pane(1, 0, NOW)).await.unwrap());
    assert!(telemetry::add_pane(&mut tx, &a, &pane(2, 100, NOW)).await.unwrap());
    let found = telemetry::panes(&mut tx, &a, &digits(), UnixMillis(0), UnixMillis(100)).await.unwrap();
    assert_eq!(found, [pane(1, 0, NOW)]);
    let resources = protocol::telemetry::Resources {
        rss_bytes: 1,
        cpu_ms: 2,
        disk_free_bytes: u64::MAX,
        disk_used_bytes: 4,
        load1: 0.25,
        temperature_c: None,
    };
    for _ in 0..2 {
        let reading = history::Reading { at: NOW, received_at: NOW, resources };
        history::add_reading(&mut tx, &a, &cam, ("s1", 3), &reading).await.unwrap();
        history::add_event(&mut tx, &a, &cam, &event("s1:4", NOW)).await.unwrap();
    }
    let readings = history::readings(&mut tx, &a, &cam, NOW, 10).await.unwrap();
    assert_eq!((readings.len(), readings[0].resources.load1), (1, 0.25));
    assert_eq!(readings[0].resources.temperature_c, None);
    assert_eq!(history::events(&mut tx, &a, &cam, &Window::first(9)).await.unwrap().total, 1);
}

pub(crate) async fn stream_positions_never_fall(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let stream = StreamId::new("s1").unwrap();
    let mut tx = store.begin().await.unwrap();
    assert!(telemetry::position(&mut tx, &a, &cam, &stream).await.unwrap().is_none());
    for upto_seq in [10, 7] {
        let position = telemetry::StreamPosition { upto_seq, ahead: vec![], dropped: vec![] };
        telemetry::set_position(&mut tx, &a, &cam, &stream, &position, NOW).await.unwrap();
    }
    assert_eq!(telemetry::position(&mut tx, &a, &cam, &stream).await.unwrap().unwrap().upto_seq, 10);
}

pub(crate) async fn a_refused_value_leaves_the_rest_of_the_transaction(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    history::add_event(&mut tx, &a, &cam, &event("s1:1", NOW)).await.unwrap();
    mark(&mut tx).await.unwrap();
    let again = projects::Project { project: a.clone(), title: "A".into(), created_at: NOW };
    let refused = projects::insert(&mut tx, &again).await.unwrap_err();
    assert!(refused.is_refusal() && !refused.is_retryable(), "{refused}");
    undo(&mut tx).await.unwrap();
    mark(&mut tx).await.unwrap();
    history::add_event(&mut tx, &a, &cam, &event("s1:2", NOW)).await.unwrap();
    keep(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let mut conn = store.read().await.unwrap();
    assert_eq!(history::events(&mut conn, &a, &cam, &Window::first(9)).await.unwrap().total, 2);
}

pub(crate) async fn log_lines_are_read_back_newest_first(store: Store) {
    let a = add_project(&store, "a").await;
    let (cam, other) = (add_device(&store, &a, "cam", &[]).await, add_device(&store, &a, "other", &[]).await);
    let stream = StreamId::new("s1").unwrap();
    let mut tx = store.begin().await.unwrap();
    for (device, seq, at) in [(&cam, 1, 10), (&cam, 2, 20), (&cam, 3, 20), (&other, 1, 30)] {
        let lines = vec![format!("first of {seq}"), "last".into()];
        let sent = protocol::telemetry::LogLines { command_id: format!("c{seq}"), lines };
        telemetry::add_logs(&mut tx, &a, device, (&stream, seq), &sent, UnixMillis(at)).await.unwrap();
    }
    let first = logs::list(&mut tx, &a, &cam, &Window::first(2)).await.unwrap();
    let seqs = |page: &[logs::Upload]| page.iter().map(|upload| upload.seq).collect::<Vec<_>>();
    assert_eq!((seqs(&first.items), first.total), (vec![3, 2], 3));
    assert_eq!(first.items[0].lines, ["first of 3", "last"]);
    assert_eq!((first.items[0].command_id.as_str(), first.items[0].received_at), ("c3", UnixMillis(20)));
    let window = Window { after: Some(logs::key(&first.items[1])), limit: 2 };
    assert_eq!(seqs(&logs::list(&mut tx, &a, &cam, &window).await.unwrap().items), [1]);
}

pub(crate) async fn the_newest_measurement_of_a_device_and_variant_is_kept(store: Store) {
    let a = add_project(&store, "a").await;
    let (cam, other) = (add_device(&store, &a, "cam", &[]).await, add_device(&store, &a, "other", &[]).await);
    let measured = |device: &DeviceId, class: &str, variant: &str, at: i64| measurements::Measured {
        device: device.clone(),
        hardware_class: class.into(),
        received_at: UnixMillis(at),
        measurement: Measurement {
            command_id: format!("c{at}"),
            model: digits(),
            release: release_ref("1.0.0", 1),
            variant: variant.into(),
            agent_version: "0.1.0".into(),
            outcome: Outcome::Measured(Box::default()),
        },
    };
    let mut tx = store.begin().await.unwrap();
    let newest = measured(&cam, "rpi4", "int8", 3);
    let beside = measured(&other, "rpi3", "int8", 1);
    for row in [&measured(&cam, "box", "int8", 2), &newest, &beside] {
        measurements::put(&mut tx, &a, row).await.unwrap();
    }
    let digest = release_ref("1.0.0", 1).digest;
    assert_eq!(measurements::list(&mut tx, &a, &digits(), &digest).await.unwrap(), [beside, newest]);
    let unmeasured = Digest::from_bytes([2; 32]);
    assert!(measurements::list(&mut tx, &a, &digits(), &unmeasured).await.unwrap().is_empty());
}

pub(crate) async fn a_failed_measurement_stands_beside_the_figures_before_it(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let row = |at: i64, outcome: Outcome| measurements::Measured {
        device: cam.clone(),
        hardware_class: "rpi4".into(),
        received_at: UnixMillis(at),
        measurement: Measurement {
            command_id: format!("c{at}"),
            model: digits(),
            release: release_ref("1.0.0", 1),
            variant: "int8".into(),
            agent_version: "0.1.0".into(),
            outcome,
        },
    };
    let cause = |detail: &str| protocol::message::Cause {
        kind: protocol::message::CauseKind::Superseded,
        detail: detail.into(),
    };
    let failed = |at| row(at, Outcome::Failed(cause("ask again")));
    let figures = |at| row(at, Outcome::Measured(Box::default()));
    let steps = [
        (failed(1), vec![failed(1)]),
        (failed(2), vec![failed(2)]),
        (figures(3), vec![figures(3)]),
        (failed(4), vec![figures(3), failed(4)]),
        (failed(5), vec![figures(3), failed(5)]),
        (figures(6), vec![figures(6)]),
    ];
    let mut tx = store.begin().await.unwrap();
    let digest = release_ref("1.0.0", 1).digest;
    for (said, kept) in steps {
        measurements::put(&mut tx, &a, &said).await.unwrap();
        assert_eq!(measurements::list(&mut tx, &a, &digits(), &digest).await.unwrap(), kept);
    }
}

pub(crate) async fn the_newest_quarantined_records_are_kept(store: Store) {
    let a = add_project(&store, "a").await;
    let (cam, other) = (add_device(&store, &a, "cam", &[]).await, add_device(&store, &a, "other", &[]).await);
    let stream = StreamId::new("s1").unwrap();
    let mut tx = store.begin().await.unwrap();
    let record = |seq: u64, at| {
        quarantine::Quarantined::new((&stream, seq), "pane", "no pane".into(), &[7; 5000], UnixMillis(at))
    };
    for seq in 1..=202 {
        // The later half arrived at one moment: then the sequence number decides.
        quarantine::add(&mut tx, &a, &cam, &record(seq, seq.min(100).cast_signed())).await.unwrap();
    }
    quarantine::add(&mut tx, &a, &other, &record(1, 1)).await.unwrap();
    assert_eq!(quarantine::trim(&mut tx, &a, &cam).await.unwrap(), 2);
    assert_eq!(quarantine::count(&mut tx, &a, &other).await.unwrap(), 1);
    let first = quarantine::list(&mut tx, &a, &cam, &Window::first(150)).await.unwrap();
    assert_eq!((first.items[0].clone(), first.total), (record(202, 100), 200));
    assert_eq!((first.items[0].size_bytes, first.items[0].body.len()), (5000, quarantine::MAX_BODY_BYTES));
    let window = Window { after: Some(quarantine::key(&first.items[149])), limit: 150 };
    let rest = quarantine::list(&mut tx, &a, &cam, &window).await.unwrap().items;
    let seqs: Vec<u64> = first.items.iter().chain(&rest).map(|record| record.seq).collect();
    assert_eq!(seqs, (3..=202).rev().collect::<Vec<_>>());
    // As a build wrote it that had no such columns.
    sqlx::query(
        "INSERT INTO quarantine (project, device, stream, seq, kind, why, body, received_at) \
         SELECT project, device, 'old', seq, kind, why, body, received_at FROM quarantine WHERE device = 'other'",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    let both = quarantine::list(&mut tx, &a, &other, &Window::first(9)).await.unwrap().items;
    let old = both.iter().find(|record| record.stream.as_str() == "old").unwrap();
    assert_eq!((both.len(), old.size_bytes, old.body_sha256), (2, 4096, None));
    assert_eq!(prune(&mut tx, store.dialect(), retention::Kind::Quarantine, 100).await, 97 + 2);
}

pub(crate) async fn old_streams_are_forgotten(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    let stream = |n: i64| StreamId::new(format!("s{n}")).unwrap();
    for n in 0..40 {
        telemetry::open_stream(&mut tx, &a, &cam, &stream(n), UnixMillis(n)).await.unwrap();
    }
    assert_eq!(telemetry::trim_streams(&mut tx, &a, &cam).await.unwrap(), 8);
    assert!(telemetry::position(&mut tx, &a, &cam, &stream(7)).await.unwrap().is_none());
    assert!(telemetry::position(&mut tx, &a, &cam, &stream(8)).await.unwrap().is_some());
}

pub(crate) async fn one_alert_is_open_per_key(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    let alert = |message: &str| alerts::NewAlert {
        key: "drift/digits/cam".into(),
        kind: "drift".into(),
        severity: alerts::Severity::Warning,
        device: Some(device("cam")),
        model: Some(digits()),
        rollout: None,
        message: message.into(),
        details: json!({"features": 2}),
    };
    let mut tx = store.begin().await.unwrap();
    let id = alerts::raise(&mut tx, &a, &alert("first"), NOW).await.unwrap().unwrap();
    assert_eq!(alerts::raise(&mut tx, &a, &alert("second"), NOW.plus_millis(1)).await.unwrap(), None);
    assert!(alerts::raise(&mut tx, &b, &alert("elsewhere"), NOW).await.unwrap().is_some());
    let open = alerts::list(&mut tx, &a, true, &Window::first(9)).await.unwrap();
    assert_eq!((open.items[0].message.as_str(), open.total), ("second", 1));
    assert!(alerts::acknowledge(&mut tx, &a, &id, "ana", NOW).await.unwrap());
    assert!(!alerts::acknowledge(&mut tx, &a, &id, "bob", NOW).await.unwrap());
    assert!(!alerts::acknowledge(&mut tx, &b, &id, "bob", NOW).await.unwrap());
    assert!(alerts::close(&mut tx, &a, alerts::Over::Key("drift/digits/cam"), NOW).await.unwrap());
    assert!(!alerts::close(&mut tx, &a, alerts::Over::Key("drift/digits/cam"), NOW).await.unwrap());
    assert_eq!(alerts::list(&mut tx, &a, true, &Window::first(9)).await.unwrap().total, 0);
    assert!(alerts::raise(&mut tx, &a, &alert("again"), NOW.plus_millis(2)).await.unwrap().is_some());
    assert_eq!(alerts::list(&mut tx, &a, false, &Window::first(9)).await.unwrap().total, 2);
    let (cam, other) = (DeviceId::new("cam").unwrap(), DeviceId::new("other").unwrap());
    let others = [alerts::Over::OfDevice(&other), alerts::Over::OfModel("gate_failed", &digits())];
    for over in others {
        assert!(!alerts::close(&mut tx, &a, over, NOW).await.unwrap(), "{over:?}");
    }
    for over in [alerts::Over::OfDevice(&cam), alerts::Over::OfModel("drift", &digits())] {
        assert!(alerts::close(&mut tx, &a, over, NOW).await.unwrap(), "{over:?}");
        assert!(alerts::raise(&mut tx, &a, &alert("again"), NOW).await.unwrap().is_some());
    }
    assert_eq!(alerts::list(&mut tx, &b, true, &Window::first(9)).await.unwrap().total, 1);
    let past = alerts::get(&mut tx, &a, &id).await.unwrap().unwrap();
    assert_eq!((past.acknowledged_by.as_deref(), past.closed_at), (Some("ana"), Some(NOW)));
}

pub(crate) async fn a_lease_has_one_holder(store: Store) {
    let second = Duration::from_secs(1);
    assert!(leases::take(&store, "job", "one", NOW, second).await.unwrap());
    assert!(leases::take(&store, "job", "one", NOW.plus_millis(500), second).await.unwrap());
    assert!(!leases::take(&store, "job", "two", NOW.plus_millis(1400), second).await.unwrap());
    assert!(leases::take(&store, "job", "two", NOW.plus_millis(1501), second).await.unwrap());
    leases::give_back(&store, "job", "one").await.unwrap();
    assert!(!leases::take(&store, "job", "one", NOW.plus_millis(1502), second).await.unwrap());
    leases::give_back(&store, "job", "two").await.unwrap();
    assert!(leases::take(&store, "job", "one", NOW.plus_millis(1503), second).await.unwrap());
}

pub(crate) async fn a_lease_is_taken_over_unless_it_was_renewed(store: Store) {
    let second = Duration::from_secs(1);
    let ahead = NOW.plus_millis(86_400_000);
    assert!(leases::take(&store, "job", "ahead", ahead, second).await.unwrap());
    assert!(!leases::take(&store, "job", "two", NOW, second).await.unwrap());
    let seen = leases::get(&store, "job").await.unwrap().unwrap();
    assert_eq!((seen.holder.as_str(), seen.until), ("ahead", ahead.plus_millis(1000)));
    let new = leases::Lease { holder: "two".into(), until: NOW.plus_millis(1000) };
    assert!(leases::take(&store, "job", "ahead", ahead.plus_millis(1), second).await.unwrap());
    assert!(!leases::take_over(&store, "job", &seen, &new).await.unwrap(), "it was renewed meanwhile");
    let seen = leases::get(&store, "job").await.unwrap().unwrap();
    assert!(leases::take_over(&store, "job", &seen, &new).await.unwrap());
    assert_eq!(leases::get(&store, "job").await.unwrap(), Some(new));
    leases::forget_all(&store).await.unwrap();
    assert_eq!(leases::get(&store, "job").await.unwrap(), None);
}

pub(crate) async fn panes_of_two_releases_come_by_time_and_device(store: Store) {
    use futures_util::TryStreamExt;
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    let other = |byte: u8, row: telemetry::PaneRow| telemetry::PaneRow {
        digest: Digest::from_bytes([byte; 32]),
        ..row
    };
    let from = |name: &str, row: telemetry::PaneRow| telemetry::PaneRow { device: device(name), ..row };
    let wanted = [pane(1, 0, NOW), from("dam", pane(2, 0, NOW)), other(2, pane(3, 100, NOW))];
    let segment = telemetry::PaneRow { segment: "line=1".into(), ..pane(5, 0, NOW) };
    let unwanted =
        [other(3, pane(4, 0, NOW)), segment, pane(6, -1, NOW), pane(7, 101, NOW), pane(8, 200, NOW)];
    for row in wanted.iter().rev().chain(&unwanted) {
        telemetry::add_pane(&mut tx, &a, row).await.unwrap();
    }
    let of = telemetry::PanesWanted {
        project: a,
        model: digits(),
        releases: [Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32])],
        segment: String::new(),
        from: UnixMillis(0),
        to: UnixMillis(200),
    };
    let found: Vec<_> = telemetry::panes_of_releases(&mut tx, &of).try_collect().await.unwrap();
    assert_eq!(found, wanted);
}

pub(crate) async fn panes_are_found_by_arrival(store: Store) {
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    for (seq, start, at) in [(1, 0, 10), (2, 0, 20), (3, 100, 20), (4, 200, 30)] {
        telemetry::add_pane(&mut tx, &a, &pane(seq, start, UnixMillis(at))).await.unwrap();
    }
    let found = drift::touched(&mut tx, (UnixMillis(20), UnixMillis(30))).await.unwrap();
    let starts: Vec<_> = found.into_iter().map(|(_, _, start)| start.0).collect();
    assert_eq!(starts, [0, 100]);
}
