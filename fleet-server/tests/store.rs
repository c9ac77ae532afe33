//! The store's suite, run on SQLite and on PostgreSQL: each case gets an empty database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use flotilla_server::domain::access::{Grant, Principal, Role, Scope};
use flotilla_server::domain::audit::{Change, record};
use flotilla_server::store::*;
use protocol::message::{Hello, TaskPhase, TaskReport};
use protocol::{
    Counter, DeviceId, Digest, ModelName, ProjectId, ReleaseRef, Revision, StreamId, UnixMillis, Version,
};
use serde_json::json;
use support::postgres::Postgres;

type Case = fn(Store) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |store| Box::pin($name(store)))),+];
    };
}
cases!(
    a_dropped_transaction_leaves_nothing,
    project_names_are_unique,
    users_carry_their_grants,
    sessions_and_tokens_end,
    audit_pages_from_newest_to_oldest,
    devices_are_filtered_and_paged,
    labels_of_device_and_server_are_merged,
    hello_is_kept_whole_and_models_become_rows,
    counters_and_revisions_only_rise,
    decommissioned_devices_leave_the_lists,
    enrolment_tokens_are_used_once,
    records_count_once,
    stream_positions_never_fall,
    one_alert_is_open_per_key,
    a_lease_has_one_holder,
    releases_are_found_by_version_and_digest,
    the_newest_metadata_is_served,
    blobs_belong_to_projects,
    history_pages_from_newest_to_oldest,
    old_rows_are_deleted,
    writers_wait_for_each_other,
    a_damaged_value_is_a_named_error,
);

#[tokio::test]
async fn sqlite_passes_the_suite() {
    for (name, case) in CASES {
        println!("sqlite: {name}");
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&format!("sqlite://{}", dir.path().join("test.db").display()), 4).await.unwrap();
        assert_eq!(store.dialect(), Dialect::Sqlite);
        case(store.clone()).await;
        store.close().await;
    }
}

#[tokio::test]
async fn postgresql_passes_the_suite() {
    let server = Postgres::start();
    // The schema is made once and copied, which is much faster than making it for each case.
    Store::open(&server.database("template", None), 2).await.unwrap().close().await;
    for (number, (name, case)) in CASES.iter().enumerate() {
        println!("postgresql: {name}");
        let store =
            Store::open(&server.database(&format!("case_{number}"), Some("template")), 4).await.unwrap();
        assert_eq!(store.dialect(), Dialect::Postgres);
        case(store.clone()).await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_opened_database_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("test.db").display());
    Store::open(&url, 2).await.unwrap().close().await;
    Store::open(&url, 2).await.unwrap().ping().await.unwrap();
}

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn project(name: &str) -> ProjectId {
    ProjectId::new(name).unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

fn digits() -> ModelName {
    ModelName::new("digits").unwrap()
}

fn release_ref(version: &str, byte: u8) -> ReleaseRef {
    let (version, digest) = (Version::new(version).unwrap(), Digest::from_bytes([byte; 32]));
    ReleaseRef { version, digest, counter: Counter(u64::from(byte)) }
}

fn hello(active: Option<&ReleaseRef>) -> Hello {
    serde_json::from_value(json!({
        "at": 5, "agent_version": "0.1.0", "target": "x86_64-unknown-linux-musl", "boot_id": "b", "uptime_s": 1,
        "clock": {"floor": 1, "is_plausible": true},
        "hardware": {"arch": "x86_64", "class": "box", "cpu_features": [], "cpus": 2, "memory_bytes": 1000},
        "labels": {"site": "lab", "line": "1"}, "desired_revision": 1,
        "models": [{"model": "digits", "active": active, "candidate": null, "fallback": null, "phase": "committed"}],
        "spool": {"stream": "s1", "depth_records": 0, "depth_bytes": 0}, "metadata": null, "problems": ["hot"],
    }))
    .unwrap()
}

async fn add_project(store: &Store, name: &str) -> ProjectId {
    let mut tx = store.begin().await.unwrap();
    let row = projects::Project { project: project(name), title: name.to_uppercase(), created_at: NOW };
    projects::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    row.project
}

async fn add_device(store: &Store, project: &ProjectId, name: &str, labels: &[(&str, &str)]) -> DeviceId {
    let new = devices::NewDevice {
        project: project.clone(),
        device: device(name),
        report_key: vec![7; 32],
        certificate_serial: format!("serial-{name}"),
        certificate_expires: NOW,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        created_at: NOW,
    };
    let mut tx = store.begin().await.unwrap();
    devices::insert(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    new.device
}

fn user(name: &str, role: Role) -> users::User {
    users::User {
        username: name.into(),
        password_hash: "x".into(),
        must_change_password: false,
        is_disabled: false,
        created_at: NOW,
        updated_at: NOW,
        grants: vec![Grant { scope: Scope::Project(project("a")), role }],
    }
}

async fn a_dropped_transaction_leaves_nothing(store: Store) {
    let mut tx = store.begin().await.unwrap();
    let row = projects::Project { project: project("a"), title: "A".into(), created_at: NOW };
    projects::insert(&mut tx, &row).await.unwrap();
    drop(tx);
    assert!(!projects::exists(&mut store.read().await.unwrap(), &project("a")).await.unwrap());
}

async fn project_names_are_unique(store: Store) {
    add_project(&store, "b").await;
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    let row = projects::get(&mut tx, &a).await.unwrap().unwrap();
    assert_eq!((row.title.as_str(), row.created_at), ("A", NOW));
    let names: Vec<_> = projects::list(&mut tx).await.unwrap().into_iter().map(|p| p.project).collect();
    assert_eq!(names, [project("a"), project("b")]);
    assert!(projects::insert(&mut tx, &row).await.unwrap_err().is_conflict());
}

async fn users_carry_their_grants(store: Store) {
    let mut tx = store.begin().await.unwrap();
    users::insert(&mut tx, &user("ana", Role::Operator)).await.unwrap();
    users::insert(&mut tx, &user("bob", Role::Viewer)).await.unwrap();
    let mut ana = users::get(&mut tx, "ana").await.unwrap().unwrap();
    assert_eq!(ana, user("ana", Role::Operator));
    ana.grants = vec![Grant { scope: Scope::All, role: Role::Admin }];
    ana.is_disabled = true;
    users::update(&mut tx, &ana).await.unwrap();
    assert_eq!(users::list(&mut tx).await.unwrap(), [ana, user("bob", Role::Viewer)]);
    assert_eq!(users::count(&mut tx).await.unwrap(), 2);
    users::delete(&mut tx, "bob").await.unwrap();
    assert!(users::get(&mut tx, "bob").await.unwrap().is_none());
    tx.commit().await.unwrap();
}

async fn sessions_and_tokens_end(store: Store) {
    let mut tx = store.begin().await.unwrap();
    users::insert(&mut tx, &user("ana", Role::Publisher)).await.unwrap();
    sessions::insert(&mut tx, b"session", "ana", NOW, NOW.plus_millis(1000)).await.unwrap();
    let role = |who: Option<Principal>| who.and_then(|who| who.role_in(&project("a")));
    assert_eq!(role(sessions::principal(&mut tx, b"session", NOW).await.unwrap()), Some(Role::Publisher));
    assert!(sessions::principal(&mut tx, b"session", NOW.plus_millis(1000)).await.unwrap().is_none());
    assert!(sessions::principal(&mut tx, b"other", NOW).await.unwrap().is_none());
    let token = tokens::ApiToken {
        token_id: "t1".into(),
        username: "ana".into(),
        title: "ci".into(),
        limit: Grant { scope: Scope::All, role: Role::Viewer },
        created_at: NOW,
        expires_at: Some(NOW.plus_millis(1000)),
        last_used_at: None,
    };
    tokens::insert(&mut tx, &token, b"token").await.unwrap();
    assert_eq!(role(tokens::principal(&mut tx, b"token", NOW).await.unwrap()), Some(Role::Viewer));
    assert_eq!(tokens::get(&mut tx, "t1").await.unwrap().unwrap().last_used_at, Some(NOW));
    assert!(tokens::principal(&mut tx, b"token", NOW.plus_millis(1000)).await.unwrap().is_none());
    assert_eq!(tokens::list(&mut tx, Some("bob")).await.unwrap(), []);
    assert_eq!(tokens::list(&mut tx, None).await.unwrap().len(), 1);
    users::delete(&mut tx, "ana").await.unwrap();
    assert!(tokens::get(&mut tx, "t1").await.unwrap().is_none(), "a token outlives its owner");
    assert!(sessions::principal(&mut tx, b"session", NOW).await.unwrap().is_none());
    tx.commit().await.unwrap();
}

async fn audit_pages_from_newest_to_oldest(store: Store) {
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    for n in 0..5 {
        let object = n.to_string();
        let change = Change::new(NOW.plus_millis(n), "ana", "thing.change", "thing", &object).in_project(&a);
        record(&mut tx, &change.before(n).after(json!({"n": n}))).await.unwrap();
    }
    record(&mut tx, &Change::new(NOW, "ana", "user.create", "user", "bob")).await.unwrap();
    let first = audit::list(&mut tx, Some(&a), &Window::first(3)).await.unwrap();
    let objects =
        |page: &Page<audit::AuditRow>| page.items.iter().map(|r| r.object.clone()).collect::<Vec<_>>();
    assert_eq!((objects(&first), first.total), (vec!["4".into(), "3".into(), "2".into()], 5));
    assert_eq!(first.items[0].after, Some(json!({"n": 4})));
    let window = Window { after: Some(first.items[2].audit_id.clone()), limit: 3 };
    assert_eq!(objects(&audit::list(&mut tx, Some(&a), &window).await.unwrap()), ["1", "0"]);
    let server = audit::list(&mut tx, None, &Window::first(10)).await.unwrap();
    assert_eq!(
        (server.items[0].object.as_str(), server.items[0].before.clone(), server.total),
        ("bob", None, 1)
    );
}

async fn devices_are_filtered_and_paged(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    add_device(&store, &a, "cam-1", &[("site", "x")]).await;
    add_device(&store, &a, "cam-2", &[("site", "y")]).await;
    add_device(&store, &a, "box_1", &[("site", "x"), ("line", "2")]).await;
    add_device(&store, &b, "cam-1", &[("site", "x")]).await;
    let mut tx = store.begin().await.unwrap();
    assert!(devices::set_online(&mut tx, &a, &device("cam-2"), true, NOW).await.unwrap());
    assert!(!devices::set_online(&mut tx, &a, &device("cam-2"), true, NOW).await.unwrap());
    devices::set_hello(&mut tx, &a, &device("cam-1"), &hello(Some(&release_ref("1.0.0", 1))), NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut conn = store.read().await.unwrap();
    let mut names = async |filter: devices::Filter, window: Window| {
        let page = devices::list(&mut conn, &a, &filter, &window).await.unwrap();
        (page.items.into_iter().map(|d| d.device.to_string()).collect::<Vec<_>>().join(" "), page.total)
    };
    let all = || Window::first(10);
    let filter = devices::Filter::default;
    assert_eq!(names(filter(), all()).await, ("box_1 cam-1 cam-2".into(), 3));
    assert_eq!(names(filter(), Window { after: Some("cam-1".into()), limit: 1 }).await, ("cam-2".into(), 3));
    let part = |text: &str| devices::Filter { name_contains: Some(text.into()), ..filter() };
    assert_eq!(names(part("CAM"), all()).await, ("cam-1 cam-2".into(), 2));
    assert_eq!(names(part("_"), all()).await, ("box_1".into(), 1));
    assert_eq!(names(part("%"), all()).await, (String::new(), 0));
    let online = |is_online| devices::Filter { is_online: Some(is_online), ..filter() };
    assert_eq!(names(online(true), all()).await, ("cam-2".into(), 1));
    let labels = |labels: &[(&str, &str)]| devices::Filter {
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..filter()
    };
    assert_eq!(names(labels(&[("site", "x")]), all()).await, ("box_1 cam-1".into(), 2));
    assert_eq!(names(labels(&[("site", "x"), ("line", "2")]), all()).await, ("box_1".into(), 1));
    let serving = |version: &str| devices::Filter {
        model: Some(digits()),
        version: Some(Version::new(version).unwrap()),
        ..filter()
    };
    assert_eq!(names(serving("1.0.0"), all()).await, ("cam-1".into(), 1));
    assert_eq!(names(serving("2.0.0"), all()).await, (String::new(), 0));
}

async fn labels_of_device_and_server_are_merged(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[("site", "roof")]).await;
    let mut tx = store.begin().await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &hello(None), NOW).await.unwrap();
    let labels = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap().all_labels();
    assert_eq!((labels["site"].as_str(), labels["line"].as_str()), ("roof", "1"));
    let filter =
        |value: &str| devices::Filter { labels: vec![("site".into(), value.into())], ..Default::default() };
    assert_eq!(devices::list(&mut tx, &a, &filter("roof"), &Window::first(9)).await.unwrap().total, 1);
    devices::set_labels(&mut tx, &a, &cam, &BTreeMap::new()).await.unwrap();
    assert_eq!(devices::list(&mut tx, &a, &filter("roof"), &Window::first(9)).await.unwrap().total, 0);
    assert_eq!(devices::list(&mut tx, &a, &filter("lab"), &Window::first(9)).await.unwrap().total, 1);
}

async fn hello_is_kept_whole_and_models_become_rows(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    add_device(&store, &a, "silent", &[]).await;
    let said = hello(Some(&release_ref("1.0.0", 1)));
    let mut tx = store.begin().await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &said, NOW).await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &said, NOW.plus_millis(5)).await.unwrap();
    let row = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap();
    assert_eq!(
        (row.hello, row.hello_at, row.last_seen),
        (Some(said), Some(NOW.plus_millis(5)), Some(NOW.plus_millis(5)))
    );
    let mix = devices::release_mix(&mut tx, &a).await.unwrap();
    assert_eq!(mix, [(digits(), Some(Version::new("1.0.0").unwrap()), Some(Digest::from_bytes([1; 32])), 1)]);
    assert_eq!(devices::counts(&mut tx, &a).await.unwrap(), (2, 0, 1));
    assert_eq!(overview::totals(&mut tx).await.unwrap().devices, 2);
}

async fn counters_and_revisions_only_rise(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    assert!(devices::raise_report_counter(&mut tx, &a, &cam, 5).await.unwrap());
    assert!(!devices::raise_report_counter(&mut tx, &a, &cam, 5).await.unwrap());
    assert!(!devices::raise_report_counter(&mut tx, &a, &cam, 4).await.unwrap());
    let desired = json!({"models": [{"model": "digits", "release": release_ref("1.0.0", 1), "mode": "replace", "rollout": "r1"}]});
    assert!(devices::set_desired(&mut tx, &a, &cam, Revision(2), &desired, b"signed").await.unwrap());
    assert!(!devices::set_desired(&mut tx, &a, &cam, Revision(2), &desired, b"other").await.unwrap());
    let row = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap();
    assert_eq!((row.report_counter, row.desired_revision), (5, Revision(2)));
    assert_eq!(row.desired_envelope.as_deref(), Some(&b"signed"[..]));
    assert_eq!(row.desired_models()[0].rollout.as_ref().unwrap().as_str(), "r1");
}

async fn decommissioned_devices_leave_the_lists(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    devices::set_hello(&mut tx, &a, &cam, &hello(Some(&release_ref("1.0.0", 1))), NOW).await.unwrap();
    devices::decommission(&mut tx, &a, &cam, NOW).await.unwrap();
    assert_eq!(
        devices::list(&mut tx, &a, &devices::Filter::default(), &Window::first(9)).await.unwrap().total,
        0
    );
    assert!(devices::all_in_service(&mut tx, &a).await.unwrap().is_empty());
    assert!(devices::release_mix(&mut tx, &a).await.unwrap().is_empty());
    let row = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap();
    assert_eq!((row.decommissioned_at, row.certificate_serial.as_str()), (Some(NOW), ""));
}

async fn enrolment_tokens_are_used_once(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    let token = enrollment::EnrollmentToken {
        token_id: "t1".into(),
        project: a.clone(),
        device: None,
        labels: BTreeMap::from([("site".into(), "x".into())]),
        created_at: NOW,
        created_by: "ana".into(),
        expires_at: NOW.plus_millis(1000),
        used_at: None,
        used_by: None,
    };
    let mut tx = store.begin().await.unwrap();
    enrollment::insert(&mut tx, &token, b"secret").await.unwrap();
    assert_eq!(enrollment::by_secret(&mut tx, b"secret").await.unwrap(), Some(token.clone()));
    assert!(enrollment::by_secret(&mut tx, b"guess").await.unwrap().is_none());
    assert!(enrollment::get(&mut tx, &b, "t1").await.unwrap().is_none(), "another project sees the token");
    assert!(enrollment::use_up(&mut tx, "t1", &device("cam"), NOW).await.unwrap());
    assert!(!enrollment::use_up(&mut tx, "t1", &device("other"), NOW).await.unwrap());
    let used = enrollment::list(&mut tx, &a, &Window::first(9)).await.unwrap();
    assert_eq!((used.items[0].used_by.clone(), used.total), (Some(device("cam")), 1));
    enrollment::delete(&mut tx, &b, "t1").await.unwrap();
    assert_eq!(enrollment::list(&mut tx, &a, &Window::first(9)).await.unwrap().total, 1);
    enrollment::delete(&mut tx, &a, "t1").await.unwrap();
    assert_eq!(enrollment::list(&mut tx, &a, &Window::first(9)).await.unwrap().total, 0);
}

fn pane(seq: u64, start: i64, received_at: UnixMillis) -> telemetry::PaneRow {
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

async fn records_count_once(store: Store) {
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

async fn stream_positions_never_fall(store: Store) {
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

async fn one_alert_is_open_per_key(store: Store) {
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
    assert!(alerts::close(&mut tx, &a, "drift/digits/cam", NOW).await.unwrap());
    assert!(!alerts::close(&mut tx, &a, "drift/digits/cam", NOW).await.unwrap());
    assert_eq!(alerts::list(&mut tx, &a, true, &Window::first(9)).await.unwrap().total, 0);
    assert!(alerts::raise(&mut tx, &a, &alert("again"), NOW.plus_millis(2)).await.unwrap().is_some());
    assert_eq!(alerts::list(&mut tx, &a, false, &Window::first(9)).await.unwrap().total, 2);
    let past = alerts::get(&mut tx, &a, &id).await.unwrap().unwrap();
    assert_eq!((past.acknowledged_by.as_deref(), past.closed_at), (Some("ana"), Some(NOW)));
}

async fn a_lease_has_one_holder(store: Store) {
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

async fn releases_are_found_by_version_and_digest(store: Store) {
    let a = add_project(&store, "a").await;
    let release = |version: &str, byte: u8| releases::Release {
        model: digits(),
        version: Version::new(version).unwrap(),
        digest: Digest::from_bytes([byte; 32]),
        counter: Counter(byte.into()),
        manifest: vec![b'{', b'}', byte],
        state: releases::ReleaseState::Published,
        published_at: NOW,
        published_by: "ana".into(),
    };
    let mut tx = store.begin().await.unwrap();
    releases::insert(&mut tx, &a, &release("1.0.0", 1)).await.unwrap();
    releases::insert(&mut tx, &a, &release("1.1.0", 2)).await.unwrap();
    let versions: Vec<_> = releases::list(&mut tx, &a, &digits()).await.unwrap();
    assert_eq!(versions, [release("1.1.0", 2), release("1.0.0", 1)]);
    let found = releases::by_digest(&mut tx, &a, &digits(), &Digest::from_bytes([1; 32])).await.unwrap();
    assert_eq!(found, Some(release("1.0.0", 1)));
    let version = Version::new("1.0.0").unwrap();
    releases::set_state(&mut tx, &a, &digits(), &version, releases::ReleaseState::Withdrawn).await.unwrap();
    let state = releases::get(&mut tx, &a, &digits(), &version).await.unwrap().unwrap().state;
    assert_eq!(state, releases::ReleaseState::Withdrawn);
    assert_eq!(releases::models(&mut tx, &a).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    assert!(releases::insert(&mut tx, &a, &release("1.0.0", 3)).await.unwrap_err().is_conflict());
}

async fn the_newest_metadata_is_served(store: Store) {
    let a = add_project(&store, "a").await;
    let file = |name: &str, version: u64| metadata::MetadataFile {
        name: name.into(),
        version,
        bytes: format!("{name}{version}").into_bytes(),
        expires_at: NOW,
        stored_at: NOW,
        stored_by: "ana".into(),
    };
    let mut tx = store.begin().await.unwrap();
    for version in [1, 2, 10] {
        metadata::insert(&mut tx, &a, &file("root", version)).await.unwrap();
    }
    metadata::insert(&mut tx, &a, &file("digits", 1)).await.unwrap();
    assert_eq!(metadata::newest(&mut tx, &a, "root").await.unwrap(), Some(file("root", 10)));
    assert_eq!(metadata::get(&mut tx, &a, "root", 2).await.unwrap(), Some(file("root", 2)));
    assert_eq!(metadata::all_newest(&mut tx, &a).await.unwrap(), [file("digits", 1), file("root", 10)]);
    let key = metadata::OnlineKey {
        role: "director".into(),
        public_key: vec![1; 32],
        sealed_seed: vec![2; 48],
        created_at: NOW,
    };
    metadata::insert_online_key(&mut tx, &a, &key).await.unwrap();
    let other = metadata::OnlineKey { public_key: vec![9; 32], ..key.clone() };
    metadata::insert_online_key(&mut tx, &a, &other).await.unwrap();
    assert_eq!(metadata::online_key(&mut tx, &a, "director").await.unwrap(), Some(key));
    let digest = Digest::from_bytes([4; 32]);
    metadata::insert_target(&mut tx, &a, "director.json", &digest, b"{}", NOW).await.unwrap();
    let target = metadata::target(&mut tx, &a, "director.json", &digest).await.unwrap();
    assert_eq!(target.as_deref(), Some(&b"{}"[..]));
}

async fn blobs_belong_to_projects(store: Store) {
    let (a, b) = (add_project(&store, "a").await, add_project(&store, "b").await);
    let digest = Digest::from_bytes([5; 32]);
    let mut tx = store.begin().await.unwrap();
    blobs::insert(&mut tx, &a, &digest, 77, NOW).await.unwrap();
    blobs::insert(&mut tx, &a, &digest, 77, NOW).await.unwrap();
    assert_eq!(blobs::size(&mut tx, &a, &digest).await.unwrap(), Some(77));
    assert_eq!(blobs::size(&mut tx, &b, &digest).await.unwrap(), None);
}

fn event(id: &str, received_at: UnixMillis) -> history::Event {
    history::Event { event_id: id.into(), at: NOW, received_at, name: "clock".into(), detail: "late".into() }
}

async fn history_pages_from_newest_to_oldest(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    for (id, at) in [("s:1", 1), ("s:2", 2), ("s:3", 2)] {
        history::add_event(&mut tx, &a, &cam, &event(id, UnixMillis(at))).await.unwrap();
    }
    let first = history::events(&mut tx, &a, &cam, &Window::first(2)).await.unwrap();
    let ids = |page: &Page<history::Event>| page.items.iter().map(|e| e.event_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ["s:3", "s:2"]);
    let window = Window { after: Some(history::event_key(&first.items[1])), limit: 2 };
    assert_eq!(ids(&history::events(&mut tx, &a, &cam, &window).await.unwrap()), ["s:1"]);
    let report = |phase| TaskReport {
        at: NOW,
        rollout: None,
        revision: Revision(1),
        model: digits(),
        release: release_ref("1.0.0", 1),
        phase,
        cause: None,
        progress: None,
        self_test: None,
    };
    for (counter, phase) in [(1, TaskPhase::Fetching), (2, TaskPhase::Committed), (2, TaskPhase::Failed)] {
        let stored = tasks::StoredReport { counter, received_at: NOW, report: report(phase) };
        tasks::insert(&mut tx, &a, &cam, &stored).await.unwrap();
    }
    let page = tasks::list(&mut tx, &a, &cam, &Window::first(1)).await.unwrap();
    assert_eq!((page.items[0].report.phase, page.total), (TaskPhase::Committed, 2));
    let window = Window { after: Some("2".into()), limit: 9 };
    assert_eq!(
        tasks::list(&mut tx, &a, &cam, &window).await.unwrap().items[0].report.phase,
        TaskPhase::Fetching
    );
}

async fn old_rows_are_deleted(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let mut tx = store.begin().await.unwrap();
    for (seq, at) in [(1, 100), (2, 200)] {
        telemetry::add_pane(&mut tx, &a, &pane(seq, 0, UnixMillis(at))).await.unwrap();
        history::add_event(&mut tx, &a, &cam, &event(&seq.to_string(), UnixMillis(at))).await.unwrap();
    }
    assert_eq!(telemetry::delete_panes_before(&mut tx, UnixMillis(200)).await.unwrap(), 1);
    assert_eq!(history::delete_before(&mut tx, UnixMillis(200)).await.unwrap(), 1);
    assert_eq!(audit::delete_before(&mut tx, UnixMillis(200)).await.unwrap(), 0);
}

async fn writers_wait_for_each_other(store: Store) {
    let a = add_project(&store, "a").await;
    let cam = add_device(&store, &a, "cam", &[]).await;
    let raise = |counter: u64| {
        let (store, a, cam) = (store.clone(), a.clone(), cam.clone());
        async move {
            let mut tx = store.begin().await.unwrap();
            let before = devices::get(&mut tx, &a, &cam).await.unwrap().unwrap().report_counter;
            tokio::task::yield_now().await;
            let _ = before;
            let is_raised = devices::raise_report_counter(&mut tx, &a, &cam, counter).await.unwrap();
            tx.commit().await.unwrap();
            is_raised
        }
    };
    let all: Vec<_> = (1..=12).map(|_| tokio::spawn(raise(5))).collect();
    let mut raised = 0;
    for one in all {
        raised += i32::from(one.await.unwrap());
    }
    assert_eq!(raised, 1, "of twelve writers at once exactly one raises the counter");
}

async fn a_damaged_value_is_a_named_error(store: Store) {
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    let file = metadata::MetadataFile {
        name: "root".into(),
        version: u64::MAX,
        bytes: vec![],
        expires_at: NOW,
        stored_at: NOW,
        stored_by: "ana".into(),
    };
    // A counter beyond the database's range is cut to it, and stays a counter.
    metadata::insert(&mut tx, &a, &file).await.unwrap();
    let stored = metadata::newest(&mut tx, &a, "root").await.unwrap().unwrap();
    assert_eq!(stored.version, i64::MAX.unsigned_abs());
    let mut broken = user("ana", Role::Viewer);
    broken.grants.clear();
    users::insert(&mut tx, &broken).await.unwrap();
    damage(&mut tx).await;
    let error = users::get(&mut tx, "ana").await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { column, .. } if column == "role"), "{error}");
}

/// Writes what this build never would.
async fn damage(conn: &mut Conn) {
    sqlx::query("INSERT INTO grants (username, project, role) VALUES ('ana', 'a', 'emperor')")
        .execute(conn)
        .await
        .unwrap();
}
