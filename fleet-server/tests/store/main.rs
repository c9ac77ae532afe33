//! The store's suite, run on SQLite and on PostgreSQL: each case gets an empty database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access_cases;
mod device_cases;
mod publishing_cases;
mod record_cases;
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
use support::postgres::Postgres;

use access_cases::*;
use device_cases::*;
use publishing_cases::*;
use record_cases::*;
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
    old_streams_are_forgotten,
    one_alert_is_open_per_key,
    a_lease_has_one_holder,
    releases_are_found_by_version_and_digest,
    the_newest_metadata_is_served,
    blobs_belong_to_projects,
    history_pages_from_newest_to_oldest,
    old_rows_are_deleted,
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
