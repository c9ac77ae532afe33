//! What retention deletes, and what it must not.

use super::*;
use retention::Kind;

/// Deletes what is older than this, as the job does, one batch; returns how many rows.
pub(crate) async fn prune(conn: &mut Conn, dialect: Dialect, kind: Kind, before: i64) -> u64 {
    let places = retention::find(conn, dialect, kind, UnixMillis(before)).await.unwrap();
    retention::delete(conn, dialect, kind, UnixMillis(before), &places).await.unwrap()
}

async fn run(conn: &mut Conn, sql: &'static str) {
    sqlx::query(sql).execute(conn).await.unwrap();
}

fn report(at: i64, counter: u64) -> tasks::StoredReport {
    let report = TaskReport {
        at: UnixMillis(at),
        rollout: None,
        revision: Revision(1),
        attempt: None,
        model: digits(),
        release: release_ref("1.0.0", 1),
        phase: TaskPhase::Committed,
        cause: None,
        progress: None,
        self_test: None,
    };
    tasks::StoredReport { counter, received_at: UnixMillis(at), report }
}

pub(crate) async fn old_rows_are_deleted(store: Store) {
    let dialect = store.dialect();
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    for (seq, at) in [(1, 100), (2, 200)] {
        telemetry::add_pane(&mut tx, &a, &pane(seq, 0, UnixMillis(at))).await.unwrap();
        history::add_event(&mut tx, &a, &cam, &event(&seq.to_string(), UnixMillis(at))).await.unwrap();
    }
    run(
        &mut tx,
        "INSERT INTO alerts (alert_id, project, kind, severity, message, details, opened_at, updated_at, closed_at) \
         VALUES ('1', 'a', 'drift', 'info', '', 'null', 1, 1, 100), ('2', 'a', 'drift', 'info', '', 'null', 1, 1, NULL)",
    )
    .await;
    run(
        &mut tx,
        "INSERT INTO drift_windows (project, model, version, digest, device, segment, window_start, window_end, n, \
         is_drifting, report, updated_at) VALUES ('a', 'm', '1', '', '', '', 0, 100, 1, 0, '', 9), \
         ('a', 'm', '1', '', '', '', 100, 200, 1, 0, '', 9)",
    )
    .await;
    for kind in [Kind::Panes, Kind::Events, Kind::Alerts, Kind::DriftWindows] {
        assert_eq!(prune(&mut tx, dialect, kind, 200).await, 1, "{kind:?}");
        assert_eq!(prune(&mut tx, dialect, kind, 200).await, 0, "{kind:?}");
    }
    for kind in [Kind::Resources, Kind::Logs, Kind::Quarantine, Kind::Audit, Kind::Sessions, Kind::ApiTokens]
    {
        assert_eq!(prune(&mut tx, dialect, kind, 200).await, 0, "{kind:?}");
    }
}

pub(crate) async fn what_is_still_needed_is_kept(store: Store) {
    let dialect = store.dialect();
    let a = add_project(&store, "a").await;
    let (cam, gone) = (add_device(&store, &a, "cam", &[]).await, add_device(&store, &a, "gone", &[]).await);
    let mut tx = store.begin().await.unwrap();
    for counter in 1..=3 {
        let at = i64::try_from(counter).unwrap() * 100;
        tasks::insert(&mut tx, &a, &cam, &report(at, counter)).await.unwrap();
        tasks::insert(&mut tx, &a, &gone, &report(at, counter)).await.unwrap();
    }
    assert_eq!(prune(&mut tx, dialect, Kind::TaskReports, 900).await, 0, "no hello told what runs since");
    devices::set_hello(&mut tx, &a, &cam, &hello(None), UnixMillis(300)).await.unwrap();
    run(
        &mut tx,
        "INSERT INTO rollouts (project, rollout, model, version, plan, state, state_name, is_terminal, created_by, \
         created_at, updated_at, row_version) VALUES ('a', 'r', 'digits', '1.0.0', '', '', 'x', 0, '', 1, 1, 1)",
    )
    .await;
    run(
        &mut tx,
        "INSERT INTO rollout_tasks (project, rollout, device, phase, stage, attempt, task, report_counter, is_terminal, \
         updated_at) VALUES ('a', 'r', 'cam', 'x', 0, 0, '', 1, 0, 1)",
    )
    .await;
    assert_eq!(prune(&mut tx, dialect, Kind::TaskReports, 900).await, 1, "the rollout has read one only");
    run(&mut tx, "UPDATE rollout_tasks SET is_terminal = 1").await;
    assert_eq!(prune(&mut tx, dialect, Kind::TaskReports, 900).await, 1, "the third came with the hello");
    devices::decommission(&mut tx, &a, &gone, UnixMillis(400)).await.unwrap();
    assert_eq!(prune(&mut tx, dialect, Kind::TaskReports, 900).await, 3);

    let stream = |name: &str| StreamId::new(name).unwrap();
    for (device, name, at) in [(&cam, "s1", 100), (&cam, "s2", 200), (&gone, "s3", 300)] {
        telemetry::open_stream(&mut tx, &a, device, &stream(name), UnixMillis(at)).await.unwrap();
    }
    assert_eq!(prune(&mut tx, dialect, Kind::Streams, 350).await, 1, "the stream that cam left");
    assert_eq!(prune(&mut tx, dialect, Kind::Streams, 900).await, 1, "the stream of the device that left");
    assert!(telemetry::position(&mut tx, &a, &cam, &stream("s2")).await.unwrap().is_some());

    for (token_id, expires_at) in [("used", 900), ("over", 100), ("good", 900)] {
        let token = enrollment::EnrollmentToken {
            token_id: token_id.into(),
            project: a.clone(),
            device: None,
            labels: BTreeMap::new(),
            created_at: UnixMillis(1),
            created_by: "ana".into(),
            expires_at: UnixMillis(expires_at),
            used_at: None,
            used_by: None,
        };
        enrollment::insert(&mut tx, &token, token_id.as_bytes()).await.unwrap();
    }
    assert!(enrollment::use_up(&mut tx, "used", &cam, UnixMillis(100)).await.unwrap());
    assert_eq!(prune(&mut tx, dialect, Kind::EnrollmentTokens, 200).await, 2);
}

pub(crate) async fn rollouts_that_are_over_lose_their_journal(store: Store) {
    let dialect = store.dialect();
    add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    run(
        &mut tx,
        "INSERT INTO rollouts (project, rollout, model, version, plan, state, state_name, is_terminal, created_by, \
         created_at, updated_at, finished_at, row_version) \
         VALUES ('a', 'over', 'digits', '1.0.0', '', '', 'x', 1, '', 1, 1, 100, 1), \
         ('a', 'runs', 'digits', '1.0.0', '', '', 'x', 0, '', 1, 1, NULL, 1)",
    )
    .await;
    run(
        &mut tx,
        "INSERT INTO rollout_journal (project, rollout, seq, at, actor, cause, transition) \
         VALUES ('a', 'over', 1, 1, '', '', ''), ('a', 'runs', 1, 1, '', '', '')",
    )
    .await;
    run(
        &mut tx,
        "INSERT INTO evidence (project, rollout, stage, gate, at, body) \
         VALUES ('a', 'over', 1, '', 1, ''), ('a', 'runs', 1, '', 1, '')",
    )
    .await;
    for kind in [Kind::RolloutJournal, Kind::Evidence] {
        assert_eq!(prune(&mut tx, dialect, kind, 100).await, 0);
        assert_eq!(prune(&mut tx, dialect, kind, 101).await, 1);
    }
}

pub(crate) async fn many_old_rows_go_a_few_at_a_time(store: Store) {
    let dialect = store.dialect();
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    for seq in 1..=510 {
        telemetry::add_pane(&mut tx, &a, &pane(seq, 0, UnixMillis(100))).await.unwrap();
    }
    let places = retention::find(&mut tx, dialect, Kind::Panes, UnixMillis(200)).await.unwrap();
    assert_eq!(places.len(), 500);
    let none = retention::delete(&mut tx, dialect, Kind::Panes, UnixMillis(100), &places).await.unwrap();
    assert_eq!(none, 0, "a row at such a place that is not old stays");
    assert_eq!(prune(&mut tx, dialect, Kind::Panes, 200).await, 500);
    assert_eq!(prune(&mut tx, dialect, Kind::Panes, 200).await, 10);
}
