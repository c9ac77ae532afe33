//! Every change writes an audit row: what changes something by the API is named here with its row, and a new route without
//! a line fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use flotilla_server::store::{alerts, devices};
use protocol::{DeviceId, ProjectId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{As, NOW, TestServer};

/// Where it is proved that an operation writes its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// Here: the action's name.
    Here(&'static str),
    /// In the tests of that room, which have what such a call needs.
    Elsewhere,
    /// It changes nothing.
    None,
}

use Row::{Elsewhere, Here};

const ROWS: &[(&str, Row)] = &[
    ("createProject", Here("project.create")),
    ("acknowledgeAlert", Here("alert.acknowledge")),
    ("putBlob", Here("blob.create")),
    ("updateDevice", Here("device.labels")),
    ("commandDevice", Here("device.command")),
    ("decommissionDevice", Here("device.decommission")),
    ("createEnrollmentToken", Here("enrollment_token.create")),
    ("deleteEnrollmentToken", Here("enrollment_token.delete")),
    ("signIn", Here("session.create")),
    ("signOut", Here("session.end")),
    ("changePassword", Here("user.password")),
    ("createToken", Here("token.create")),
    ("deleteToken", Here("token.delete")),
    ("createUser", Here("user.create")),
    ("updateUser", Here("user.update")),
    ("deleteUser", Here("user.delete")),
    // tests/api.rs
    ("downloadSamples", Elsewhere),
    // tests/link/publication.rs
    ("createPublication", Elsewhere),
    // tests/rollouts
    ("createRollout", Elsewhere),
    ("abortRollout", Elsewhere),
    ("approveRollout", Elsewhere),
    ("denyRollout", Elsewhere),
    ("pauseRollout", Elsewhere),
    ("resumeRollout", Elsewhere),
    ("rollBackRollout", Elsewhere),
    ("dryRunRollout", Row::None),
];

#[test]
fn every_operation_that_changes_something_is_named() {
    let document: Value = serde_json::from_str(&flotilla_server::api::openapi_json()).unwrap();
    let mut changing = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for method in ["post", "put", "patch", "delete"] {
            changing.extend(item[method]["operationId"].as_str().map(str::to_owned));
        }
    }
    let named: BTreeSet<_> = ROWS.iter().map(|(operation, _)| (*operation).to_owned()).collect();
    assert_eq!(changing, named);
}

#[tokio::test]
async fn every_change_writes_its_row() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    change_everything(&server, &admin).await;
    let mut actions = BTreeSet::new();
    for path in ["/audit?limit=500", "/projects/default/audit?limit=500", "/projects/porto/audit?limit=500"] {
        let rows = server.get(&admin, path).await.json;
        for row in rows["items"].as_array().unwrap() {
            assert!(row["actor"].as_str().is_some_and(|actor| !actor.is_empty()), "{row}");
            actions.insert(row["action"].as_str().unwrap().to_owned());
        }
    }
    for (operation, row) in ROWS {
        if let Here(action) = row {
            assert!(actions.contains(*action), "{operation} wrote no {action}: {actions:?}");
        }
    }
    server.stop().await;
}

/// Each of them once, so that it succeeds.
async fn change_everything(server: &TestServer, admin: &As) {
    let call = async |method: Method, path: &str, body: Option<Value>| {
        let answer = server.call(admin, method, path, body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answer.json
    };
    prepare(server).await;
    call(Method::POST, "/projects", Some(json!({"project": "porto", "title": "Porto"}))).await;
    let alert = call(Method::GET, "/projects/default/alerts", None).await;
    let alert = format!("/projects/default/alerts/{}/acknowledge", alert["items"][0]["id"].as_str().unwrap());
    call(Method::POST, &alert, Some(json!({}))).await;
    store_blob(server, admin).await;
    let cam = "/projects/default/devices/cam";
    call(Method::PATCH, cam, Some(json!({"labels": {"site": "porto"}}))).await;
    call(Method::POST, &format!("{cam}/commands"), Some(json!({"type": "refresh"}))).await;
    call(Method::DELETE, cam, None).await;
    let tokens = "/projects/default/enrollment-tokens";
    let token = call(Method::POST, tokens, Some(json!({}))).await;
    call(Method::DELETE, &format!("{tokens}/{}", token["token"]["id"].as_str().unwrap()), None).await;
    let body = json!({"title": "ci", "project": "default", "role": "viewer"});
    let token = call(Method::POST, "/tokens", Some(body)).await;
    call(Method::DELETE, &format!("/tokens/{}", token["token"]["id"].as_str().unwrap()), None).await;
    call(Method::POST, "/users", Some(json!({"username": "ana"}))).await;
    call(Method::PATCH, "/users/ana", Some(json!({"is_disabled": true}))).await;
    call(Method::DELETE, "/users/ana", None).await;
    let who = server.sign_in("admin", "long enough for tests").await;
    assert_eq!(server.call(&who, Method::DELETE, "/session", None).await.status, StatusCode::NO_CONTENT);
}

/// A device and an alert about it.
async fn prepare(server: &TestServer) {
    let (project, device) = (ProjectId::new("default").unwrap(), DeviceId::new("cam").unwrap());
    let new = devices::NewDevice {
        project: project.clone(),
        device: device.clone(),
        report_key: vec![1; 32],
        certificate_serial: "cam".into(),
        certificate_expires: NOW,
        labels: [].into(),
        created_at: NOW,
    };
    let alert = alerts::NewAlert {
        key: "drift:digits".into(),
        kind: "drift".into(),
        severity: alerts::Severity::Warning,
        device: Some(device),
        model: None,
        rollout: None,
        message: "drifts".into(),
        details: json!({}),
    };
    let mut tx = server.running.state.store.begin().await.unwrap();
    devices::insert(&mut tx, &new).await.unwrap();
    alerts::raise(&mut tx, &project, &alert, NOW).await.unwrap();
    tx.commit().await.unwrap();
}

/// Twice: only the first one changes something.
async fn store_blob(server: &TestServer, admin: &As) {
    let bytes = b"a model".to_vec();
    let digest = hex::encode(Sha256::digest(&bytes));
    let uri = format!("/api/v1/projects/default/blobs/{digest}");
    for expected in [StatusCode::CREATED, StatusCode::NO_CONTENT] {
        let mut request = support::request(admin, Method::PUT, &uri, None);
        *request.body_mut() = Body::from(bytes.clone());
        assert_eq!(server.send(request).await.status, expected);
    }
    let rows = server.get(admin, "/projects/default/audit?action=blob.").await.json;
    assert_eq!(rows["total"], 1, "{rows}");
    assert_eq!(
        (&rows["items"][0]["object"], &rows["items"][0]["after"]["size_bytes"]),
        (&json!(digest), &json!(7))
    );
}
