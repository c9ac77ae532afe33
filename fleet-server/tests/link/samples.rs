//! Samples from devices: resumed, checked, bounded, deleted in time; and what a hostile device gets for its pains.

use bytes::Bytes;
use flotilla_server::clock::Clock;
use flotilla_server::domain::samples;
use flotilla_server::store::samples::{
    SampleKey, Wanted, advance_upload, begin_upload, list, room_bytes, stale_uploads,
};
use flotilla_server::store::{Window, releases};
use http::{Method, StatusCode};
use http_body_util::Full;
use protocol::sample::{PART_BYTES, Said, SampleHead, SampleInput, Strategy};
use protocol::{Digest, UnixMillis};
use release::{BlobRef, DraftManifest};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::*;

const PART: usize = 256 * 1024;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A published release that allows samples or does not.
async fn publish(server: &Server, version: &str, privacy: Value) -> Digest {
    let blob = serde_json::to_value(BlobRef::of(b"x", "application/octet-stream")).unwrap();
    let manifest = json!({
        "format": 1, "model": "digits", "version": version, "counter": 1, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 64]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [], "post": [], "labels": ["a", "b"],
        "variants": [{"name": "int8", "precision": "int8", "model": blob, "peak_memory_bytes": 1_000_000}],
        "reference": blob, "golden": blob, "card": blob,
        "budgets": {"latency_p95_us": 50_000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        "privacy": privacy,
    });
    let draft = DraftManifest::parse_unsigned(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let release = releases::Release {
        model: draft.model.clone(),
        version: draft.version.clone(),
        digest: draft.digest(),
        counter: draft.counter,
        manifest: draft.bytes().to_vec(),
        state: releases::ReleaseState::Published,
        published_at: UnixMillis(0),
        published_by: "test".into(),
    };
    let mut tx = server.state.store.begin().await.unwrap();
    releases::insert(&mut tx, &project(), &release).await.unwrap();
    tx.commit().await.unwrap();
    release.digest
}

fn sample(version: &str, release: Digest, size: usize) -> Vec<u8> {
    let head = SampleHead {
        id: "1-1".into(),
        model: "digits".parse().unwrap(),
        version: version.parse().unwrap(),
        release,
        at: UnixMillis(7),
        strategy: Strategy::Uncertainty,
        probability: 0.5,
        answer: Said { label: Some("a".into()), confidence: Some(0.4), value: None },
        beside: None,
        feature: None,
        label: None,
        inputs: vec![SampleInput {
            name: "image".into(),
            datatype: "UINT8".into(),
            shape: vec![1, size as u64],
            size_bytes: size as u64,
        }],
    };
    head.join(&[vec![size.to_le_bytes()[0]; size]])
}

fn digest(content: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(content).into())
}

fn path(content: &[u8]) -> String {
    format!("/device/v1/samples/{}", digest(content))
}

async fn put(server: &Server, device: &Device, path: &str, range: &str, body: &[u8]) -> (StatusCode, Value) {
    let builder = http::Request::builder().method(Method::PUT).uri(path).header("host", "localhost");
    let builder = builder.header("content-range", range);
    let sent = builder.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let (status, _, body) = request(server.bound.device, device.tls(server), sent).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Part `number` of `content`, as an agent sends it.
async fn put_part(server: &Server, device: &Device, content: &[u8], number: usize) -> (StatusCode, Value) {
    let first = number * PART;
    let end = content.len().min(first + PART);
    let range = format!("bytes {first}-{}/{}", end - 1, content.len());
    put(server, device, &path(content), &range, &content[first..end]).await
}

async fn room(server: &Server, device: &Device) -> u64 {
    room_bytes(&mut server.state.store.read().await.unwrap(), &project(), &device.id).await.unwrap()
}

fn code(answer: &Value) -> &str {
    answer.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
}

/// Files of the object store below its folders for samples.
fn stored_files(server: &Server) -> usize {
    fn count(path: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().path())
            .map(|path| if path.is_dir() { count(&path) } else { 1 })
            .sum()
    }
    let dir = &server.state.config.blobs.dir;
    ["samples", "sample-parts"].iter().map(|name| count(&dir.join(name))).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_comes_in_parts_is_resumed_and_is_acknowledged_when_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (one, two) = (server.enroll("one").await, server.enroll("two").await);
    let release = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let content = sample("1.0.0", release, 2 * PART + 10);
    let state = |answer: (StatusCode, Value)| {
        (answer.0.as_u16(), answer.1["got_bytes"].as_u64().unwrap(), answer.1["is_stored"].as_bool().unwrap())
    };
    assert_eq!(
        state(put_part(&server, &one, &content, 1).await),
        (409, 0, false),
        "not the part that is due"
    );
    assert_eq!(state(put_part(&server, &one, &content, 0).await), (202, PART_BYTES, false));
    assert_eq!(
        state(put_part(&server, &one, &content, 0).await),
        (409, PART_BYTES, false),
        "that one is here"
    );
    server.stop().await;

    let server = Server::start(folder.path()).await;
    let (status, _, body) = fetch(&server, &one, &path(&content), None).await;
    assert_eq!(state((status, serde_json::from_slice(&body).unwrap())), (200, PART_BYTES, false));
    let (_, _, body) = fetch(&server, &two, &path(&content), None).await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["got_bytes"], 0, "another device's upload");
    assert_eq!(state(put_part(&server, &one, &content, 1).await), (202, 2 * PART_BYTES, false));
    let total = content.len() as u64;
    assert_eq!(state(put_part(&server, &one, &content, 2).await), (201, total, true));
    assert_eq!(state(put_part(&server, &one, &content, 2).await), (201, total, true), "the answer was lost");
    assert_eq!(stored_files(&server), 1, "the parts are gone");
    let key = SampleKey { project: project(), device: one.id.clone(), digest: digest(&content) };
    assert_eq!(server.state.blobs.read_sample(&key).await.unwrap().unwrap(), content);
    let mut conn = server.state.store.read().await.unwrap();
    let model = "digits".parse().unwrap();
    let (project, wanted, window) = (project(), Wanted::default(), Window::first(9));
    let page = list(&mut conn, &project, &model, &wanted, &window).await.unwrap();
    assert_eq!((page.total, &page.items[0].key), (1, &key));
    drop(conn);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sample_is_refused_by_name_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let one = server.enroll("one").await;
    let allowed = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let forbidden = publish(&server, "1.1.0", json!({})).await;
    let good = sample("1.0.0", allowed, 100);
    let unknown = Digest::from_bytes([9; 32]);
    let cases: [(&str, Vec<u8>, u16, &str); 5] = [
        ("a release that forbids it", sample("1.1.0", forbidden, 100), 403, "samples_forbidden"),
        ("a release of another version", sample("1.1.0", allowed, 100), 422, "unknown_release"),
        ("a release that nobody knows", sample("1.0.0", unknown, 100), 422, "unknown_release"),
        ("no sample at all", vec![0; 100], 422, "bad_sample"),
        ("a sample that is cut off", good[..good.len() - 1].to_vec(), 422, "bad_sample"),
    ];
    for (what, content, status, name) in cases {
        let (got, answer) = put_part(&server, &one, &content, 0).await;
        assert_eq!((got.as_u16(), code(&answer)), (status, name), "{what}: {answer}");
    }
    let all = format!("bytes 0-{}/{}", good.len() - 1, good.len());
    let (status, answer) = put(&server, &one, &path(b"another name"), &all, &good).await;
    assert_eq!((status.as_u16(), code(&answer)), (422, "wrong_digest"));
    let huge = format!("bytes 0-{}/{}", PART - 1, 1_u64 << 40);
    let (status, answer) = put(&server, &one, &path(&good), &huge, &vec![0; PART]).await;
    assert_eq!((status.as_u16(), code(&answer)), (413, "sample_too_large"));
    for (range, body) in [
        ("bytes 0-99/500000".to_owned(), vec![0; 100]),
        (format!("bytes 5-{}/{}", good.len() - 1, good.len()), good[5..].to_vec()),
        (all.clone(), good[..50].to_vec()),
        (format!("bytes 0-49/{}", good.len()), good[..50].to_vec()),
        ("bytes 0-0/0".into(), vec![]),
        ("bytes=0-1/2".into(), vec![0; 2]),
    ] {
        let (status, answer) = put(&server, &one, &path(&good), &range, &body).await;
        assert_eq!((status.as_u16(), code(&answer)), (400, "bad_part"), "{range}");
    }
    let (status, answer) = put(&server, &one, &path(&good), &all, &vec![0; PART + 1]).await;
    assert_eq!((status.as_u16(), code(&answer)), (400, "upload_broken"), "more than a part");
    let (status, _) = put(&server, &one, "/device/v1/samples/..%2f..%2fetc", &all, &good).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!((stored_files(&server), room(&server, &one).await), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_end_throws_the_parts_away() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let one = server.enroll("one").await;
    let release = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let content = sample("1.0.0", release, PART);
    let other = format!("bytes 0-{}/{}", PART - 1, 4 * PART);
    let (status, _) = put(&server, &one, &path(&content), &other, &content[..PART]).await;
    assert_eq!(status, StatusCode::ACCEPTED, "another size under the same name is given up for this one");
    assert_eq!(put_part(&server, &one, &content, 0).await.0, StatusCode::ACCEPTED);
    assert_eq!(stored_files(&server), 1);
    let range = format!("bytes {PART}-{}/{}", content.len() - 1, content.len());
    let forged = vec![7; content.len() - PART];
    let (status, answer) = put(&server, &one, &path(&content), &range, &forged).await;
    assert_eq!((status.as_u16(), code(&answer)), (422, "wrong_digest"));
    assert_eq!((stored_files(&server), room(&server, &one).await), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_whose_last_part_came_before_a_stop_is_stored_by_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let one = server.enroll("one").await;
    let release = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let content = sample("1.0.0", release, PART + 10);
    assert_eq!(put_part(&server, &one, &content, 0).await.0, StatusCode::ACCEPTED);
    // As the last part leaves it, just before all of it is checked.
    let key = SampleKey { project: project(), device: one.id.clone(), digest: digest(&content) };
    let (last, total) = (Bytes::copy_from_slice(&content[PART..]), content.len() as u64);
    server.state.blobs.put_sample_part(&key, PART_BYTES, last).await.unwrap();
    let mut tx = server.state.store.begin().await.unwrap();
    let now = server.state.clock.now();
    assert!(advance_upload(&mut tx, &key, PART_BYTES, total, now).await.unwrap());
    tx.commit().await.unwrap();
    let (status, answer) = put_part(&server, &one, &content, 0).await;
    assert_eq!((status.as_u16(), &answer["is_stored"]), (201, &json!(true)), "{answer}");
    assert_eq!(server.state.blobs.read_sample(&key).await.unwrap().unwrap(), content);
    assert_eq!(stored_files(&server), 1, "the parts are gone");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_a_bound_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    Server::start(folder.path()).await.stop().await;
    let server = Server::start_with(folder.path(), 0, &[("samples.device_bytes", "20000")]).await;
    let (one, two) = (server.enroll("one").await, server.enroll("two").await);
    let release = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let of = |size| sample("1.0.0", release, size);
    for size in [100, 101, 102, 103] {
        assert_eq!(put_part(&server, &one, &of(size), 0).await.0, StatusCode::CREATED, "{size}");
    }
    let (status, answer) = put_part(&server, &one, &of(104), 0).await;
    assert_eq!((status.as_u16(), code(&answer)), (507, "sample_quota"), "small ones cost too");
    assert_eq!(put_part(&server, &two, &of(104), 0).await.0, StatusCode::CREATED);
    let (status, answer) = put_part(&server, &two, &of(PART), 0).await;
    assert_eq!((status.as_u16(), code(&answer)), (413, "sample_too_large"), "no wait makes room for it");
    server.stop().await;
    let server = Server::start_with(folder.path(), 0, &[("samples.device_bytes", "500000")]).await;
    assert_eq!(put_part(&server, &two, &of(PART), 0).await.0, StatusCode::ACCEPTED);
    let (status, _) = put_part(&server, &two, &of(PART + 1), 0).await;
    assert_eq!(status.as_u16(), 507, "one on its way is counted before it is here");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_deleted_in_time_and_a_release_can_ask_for_less() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let one = server.enroll("one").await;
    let long = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let short = publish(&server, "1.1.0", json!({"may_send_samples": true, "sample_days": 2})).await;
    put_part(&server, &one, &sample("1.0.0", long, 100), 0).await;
    put_part(&server, &one, &sample("1.1.0", short, 100), 0).await;
    let unfinished = sample("1.0.0", long, PART + 1);
    put_part(&server, &one, &unfinished, 0).await;
    assert_eq!(stored_files(&server), 3);
    let now = server.state.clock.now();
    for (days, deleted, files) in [(0, 0, 3), (1, 0, 2), (2, 1, 1), (29, 0, 1), (30, 1, 0)] {
        let mut later = server.state.clone();
        later.clock = Clock::fixed(now.plus_millis(days * DAY_MS + 60_000));
        assert_eq!(samples::delete_old(&later).await.unwrap(), deleted, "after {days} days");
        assert_eq!(stored_files(&server), files, "after {days} days");
    }
    assert_eq!(room(&server, &one).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_goes_on_is_not_given_up_by_who_found_it_stale() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let one = server.enroll("one").await;
    let release = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let content = sample("1.0.0", release, 2 * PART);
    let total = content.len() as u64;
    assert_eq!(put_part(&server, &one, &content, 0).await.0, StatusCode::ACCEPTED);
    let key = SampleKey { project: project(), device: one.id.clone(), digest: digest(&content) };
    let mut later = server.state.clone();
    let now = server.state.clock.now().plus_millis(2 * DAY_MS);
    later.clock = Clock::fixed(now);
    let before = now.plus_millis(-DAY_MS);
    let found = stale_uploads(&mut server.state.store.read().await.unwrap(), before, 10).await.unwrap();
    assert_eq!(found, [(key.clone(), total)]);
    // It goes on after it was found.
    let part = |first: usize| {
        let content = Bytes::copy_from_slice(&content[first..content.len().min(first + PART)]);
        samples::Part { first: first as u64, total, content }
    };
    assert_eq!(samples::take(&later, &key, part(PART)).await.unwrap().got_bytes, 2 * PART_BYTES);
    assert!(!samples::give_up_stale(&later, &key, total, before).await.unwrap());
    assert!(samples::take(&later, &key, part(2 * PART)).await.unwrap().is_stored);
    assert_eq!(server.state.blobs.read_sample(&key).await.unwrap().unwrap(), content);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_and_a_deletion_at_once_leave_all_of_a_sample_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let one = server.enroll("one").await;
    let release = publish(&server, "1.0.0", json!({"may_send_samples": true})).await;
    let mut later = server.state.clone();
    later.clock = Clock::fixed(server.state.clock.now().plus_millis(2 * DAY_MS));
    for size in 100..130 {
        let content = sample("1.0.0", release, size);
        let key = SampleKey { project: project(), device: one.id.clone(), digest: digest(&content) };
        // As a fault after the first note leaves it.
        let mut tx = server.state.store.begin().await.unwrap();
        begin_upload(&mut tx, &key, content.len() as u64, server.state.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let part =
            samples::Part { first: 0, total: content.len() as u64, content: Bytes::from(content.clone()) };
        let (taken, deleted) = tokio::join!(samples::take(&later, &key, part), samples::delete_old(&later));
        deleted.unwrap();
        let bytes = server.state.blobs.read_sample(&key).await.unwrap();
        let found = samples::look(&later, &key).await.unwrap();
        assert_eq!(bytes.is_some(), found.is_stored, "{size}: {taken:?}");
        assert_eq!(taken.is_ok(), found.is_stored, "{size}: {taken:?}");
    }
    server.stop().await;
}
