//! The store's suite, run on SQLite and on PostgreSQL: each case gets an empty database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access_cases;
mod device_cases;
mod plan_cases;
mod publishing_cases;
mod record_cases;
mod retention_cases;
mod sample_cases;
#[path = "../support/mod.rs"]
mod support;
mod upkeep_cases;

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
use sha2::{Digest as _, Sha256};
use support::postgres::Postgres;

use access_cases::*;
use device_cases::*;
use plan_cases::*;
use publishing_cases::*;
use record_cases::*;
use retention_cases::*;
use sample_cases::*;
use upkeep_cases::*;

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
    a_refused_value_leaves_the_rest_of_the_transaction,
    the_newest_quarantined_records_are_kept,
    log_lines_are_read_back_newest_first,
    the_newest_measurement_of_a_device_and_variant_is_kept,
    a_failed_measurement_stands_beside_the_figures_before_it,
    old_streams_are_forgotten,
    one_alert_is_open_per_key,
    a_lease_has_one_holder,
    a_lease_is_taken_over_unless_it_was_renewed,
    panes_of_two_releases_come_by_time_and_device,
    panes_are_found_by_arrival,
    hot_queries_read_no_whole_table,
    releases_are_found_by_version_and_digest,
    the_newest_metadata_is_served,
    blobs_belong_to_projects,
    history_pages_from_newest_to_oldest,
    old_rows_are_deleted,
    what_is_still_needed_is_kept,
    rollouts_that_are_over_lose_their_journal,
    many_old_rows_go_a_few_at_a_time,
    samples_are_held_filtered_and_paged,
    an_upload_moves_on_one_part_at_a_time,
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

/// PostgreSQL keeps its files; an SQLite file of an earlier version does, too.
#[tokio::test]
async fn a_new_file_gives_its_free_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = Store::open(&format!("sqlite://{}", path.display()), 2).await.unwrap();
    let a = add_project(&store, "a").await;
    let mut tx = store.begin().await.unwrap();
    for seq in 0..400 {
        // No frame is smaller than noise.
        let body = (0..150_u32).flat_map(|n| Sha256::digest((seq * 1000 + n).to_le_bytes())).collect();
        let row = telemetry::PaneRow { body, ..pane(seq.into(), 0, UnixMillis(1)) };
        telemetry::add_pane(&mut tx, &a, &row).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(store.give_back_space().await.unwrap(), 0, "nothing is free yet");
    let mut tx = store.begin().await.unwrap();
    assert_eq!(prune(&mut tx, store.dialect(), retention::Kind::Panes, 2).await, 400);
    tx.commit().await.unwrap();
    let pages = store.give_back_space().await.unwrap();
    assert!(pages > 400, "{pages} pages");
    store.close().await;
    let left = std::fs::metadata(&path).unwrap().len();
    assert!(left < 1_000_000, "{left} bytes are left");
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
