//! Blobs that nothing names go; those that somebody names, or is about to, stay. On both databases.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Method, Request};
use flotilla_server::domain::orphans::{self, Removed};
use flotilla_server::store::releases::{Release, ReleaseState};
use flotilla_server::store::{blobs, projects, releases};
use protocol::{Digest, ProjectId, UnixMillis};
use release::DraftManifest;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use support::postgres::Postgres;
use support::{As, TestServer};

const DAY_MS: i64 = 24 * 3600 * 1000;

struct Place {
    server: TestServer,
    publisher: As,
    project: ProjectId,
}

fn digest(content: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(content).into())
}

/// A release all of whose blobs are this one.
fn release(blob: &Digest) -> Release {
    let blob = json!({"digest": blob.to_hex(), "size_bytes": 5, "media_type": "application/onnx"});
    let text = json!({
        "format": 1, "model": "digits", "version": "1.0.0", "counter": 1, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "hardware": {"arch": ["x86_64"]},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [], "post": [{"kind": "softmax"}],
        "variants": [{"name": "int8", "precision": "int8", "model": blob, "peak_memory_bytes": 1000}],
        "labels": ["a", "b"], "reference": blob, "golden": blob, "card": blob,
        "budgets": {"latency_p95_us": 50000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        "fallback": [],
    });
    let manifest = DraftManifest::parse_unsigned(&serde_json::to_vec(&text).unwrap()).unwrap();
    let named = manifest.release_ref();
    Release {
        model: manifest.model.clone(),
        version: named.version,
        digest: named.digest,
        counter: named.counter,
        manifest: manifest.bytes().to_vec(),
        state: ReleaseState::Withdrawn,
        published_at: UnixMillis(0),
        published_by: "test".into(),
    }
}

impl Place {
    async fn start(database: Option<&str>) -> Self {
        let server = match database {
            Some(url) => TestServer::start_on(url).await,
            None => TestServer::start().await,
        };
        let admin = server.admin().await;
        let made = server.post(&admin, "/projects", json!({"project": "acme", "title": "Acme"})).await;
        assert_eq!(made.status, 201);
        let publisher = server.token(&admin, "acme", "publisher").await;
        Self { server, publisher, project: ProjectId::new("acme").unwrap() }
    }

    async fn ask(&self, method: Method, blob: &[u8]) -> u16 {
        let uri = format!("/api/v1/projects/acme/blobs/{}", digest(blob));
        let body = if method == Method::PUT { Body::from(blob.to_vec()) } else { Body::empty() };
        let (head, _) = support::request(&self.publisher, method, &uri, None).into_parts();
        self.server.send(Request::from_parts(head, body)).await.status.as_u16()
    }

    /// Makes the bytes look as if they had been written long ago.
    fn age(&self, blob: &[u8]) {
        let hex = digest(blob).to_hex();
        let path: PathBuf = self.server.data_dir().join("blobs/sha256").join(&hex[..2]).join(&hex);
        // It may be removed this very moment.
        if let Ok(file) = std::fs::File::options().append(true).open(path) {
            file.set_modified(SystemTime::now() - Duration::from_hours(48)).unwrap();
        }
    }

    fn pass(&self, days: i64) {
        self.server.clock.set(self.server.clock.now().plus_millis(days * DAY_MS));
    }

    /// What the job does, with the default of seven days.
    async fn remove(&self) -> Removed {
        let before = self.server.clock.now().plus_millis(-7 * DAY_MS);
        orphans::remove(&self.server.running.state, before).await.unwrap()
    }

    async fn is_here(&self, blob: &[u8]) -> bool {
        self.server.running.state.blobs.size(&digest(blob)).await.unwrap().is_some()
    }

    async fn is_claimed(&self, blob: &[u8]) -> bool {
        let mut conn = self.server.running.state.store.read().await.unwrap();
        blobs::asked_at(&mut conn, &self.project, &digest(blob)).await.unwrap().is_some()
    }

    async fn insert(&self, release: &Release) {
        let mut tx = self.server.running.state.store.begin().await.unwrap();
        releases::insert(&mut tx, &self.project, release).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn only_what_nothing_names_is_removed(place: &Place) {
    for blob in [&b"named"[..], b"asked", b"other"] {
        assert_eq!(place.ask(Method::PUT, blob).await, 201);
        place.age(blob);
    }
    // A crash between the bytes and their row.
    place.server.running.state.blobs.put_bytes(&digest(b"found"), "found".into()).await.unwrap();
    place.age(b"found");
    place.insert(&release(&digest(b"named"))).await;
    place.pass(5);
    assert_eq!(place.ask(Method::HEAD, b"asked").await, 200);
    assert_eq!(place.remove().await.blobs, 0, "five days are not seven");
    place.pass(3);
    assert_eq!(place.remove().await.blobs, 1);
    assert_eq!(place.ask(Method::HEAD, b"other").await, 404);
    assert!(!place.is_here(b"other").await && place.is_here(b"found").await);
    assert!(place.is_here(b"named").await && place.is_here(b"asked").await);
    assert_eq!(place.ask(Method::PUT, b"other").await, 201, "it may come again");
    place.pass(8);
    // The bytes of "other" were written a moment ago by the machine's clock.
    assert_eq!(place.remove().await.blobs, 2);
    assert!(!place.is_here(b"found").await && !place.is_here(b"asked").await);
    assert!(place.is_here(b"named").await && place.is_here(b"other").await);
    assert_eq!(place.remove().await, Removed::default());
}

/// A publication that has checked its blobs holds the project until it is stored.
async fn a_publication_under_way_keeps_its_blobs(place: &Place) {
    assert_eq!(place.ask(Method::PUT, b"newer").await, 201);
    place.age(b"newer");
    place.pass(30);
    let state = &place.server.running.state;
    let mut tx = state.store.begin().await.unwrap();
    projects::lock(&mut tx, &place.project).await.unwrap();
    assert_eq!(blobs::size(&mut tx, &place.project, &digest(b"newer")).await.unwrap(), Some(5));
    let publishing = async {
        // Long enough for the removal to stand at the lock.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let newer =
            Release { version: protocol::Version::new("1.1.0").unwrap(), ..release(&digest(b"newer")) };
        releases::insert(&mut tx, &place.project, &newer).await.unwrap();
        tx.commit().await.unwrap();
    };
    let ((), removed) = tokio::join!(publishing, place.remove());
    assert_eq!(removed.blobs, 0);
    assert!(place.is_claimed(b"newer").await && place.is_here(b"newer").await);
}

/// Whatever meets whatever: what was acknowledged is here.
async fn an_upload_and_the_removal_do_not_meet(place: &Place) {
    for round in 0..20 {
        let blob = b"again";
        place.pass(30);
        place.age(blob);
        let (status, _) = tokio::join!(place.ask(Method::PUT, blob), place.remove());
        assert!([201, 204, 503].contains(&status), "round {round}: {status}");
        if status != 503 {
            assert!(place.is_claimed(blob).await && place.is_here(blob).await, "round {round}");
        }
        assert!(place.is_here(blob).await || !place.is_claimed(blob).await, "round {round}");
    }
}

async fn all(place: Place) {
    only_what_nothing_names_is_removed(&place).await;
    a_publication_under_way_keeps_its_blobs(&place).await;
    an_upload_and_the_removal_do_not_meet(&place).await;
    place.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_nothing_names_go_on_sqlite() {
    all(Place::start(None).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_nothing_names_go_on_postgresql() {
    let server = Postgres::start();
    all(Place::start(Some(&server.database("orphans", None))).await).await;
}
