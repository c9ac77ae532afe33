//! The REST API over the real router with a real database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use flotilla_server::bus::ChangeKind;
use flotilla_server::domain::users::{self, UserError};
use flotilla_server::store::quarantine::{self, Quarantined};
use flotilla_server::store::{alerts, devices, history, measurements, releases};
use protocol::{Counter, DeviceId, Digest, ModelName, ProjectId, StreamId, UnixMillis, Version};
use serde_json::{Value, json};
use support::{As, NOW, TestServer};

const DEFAULT: &str = "/projects/default";

async fn add_device(server: &TestServer, name: &str) {
    let new = devices::NewDevice {
        project: ProjectId::new("default").unwrap(),
        device: DeviceId::new(name).unwrap(),
        report_key: vec![1; 32],
        certificate_serial: name.to_owned(),
        certificate_expires: NOW,
        labels: [("site".to_owned(), "lab".to_owned())].into(),
        created_at: NOW,
    };
    let mut tx = server.running.state.store.begin().await.unwrap();
    devices::insert(&mut tx, &new).await.unwrap();
    history::note(&mut tx, &new.project, &new.device, NOW, "enrolled", "by token").await.unwrap();
    tx.commit().await.unwrap();
}

async fn add_release(server: &TestServer, model: &str, version: &str) {
    let release = releases::Release {
        model: ModelName::new(model).unwrap(),
        version: Version::new(version).unwrap(),
        digest: Digest::from_bytes([1; 32]),
        counter: Counter(1),
        manifest: br#"{"variants":[{"name":"int8"}]}"#.to_vec(),
        state: releases::ReleaseState::Published,
        published_at: NOW,
        published_by: "test".into(),
    };
    let mut tx = server.running.state.store.begin().await.unwrap();
    releases::insert(&mut tx, &ProjectId::new("default").unwrap(), &release).await.unwrap();
    tx.commit().await.unwrap();
}

async fn raise_alert(server: &TestServer, device: &str) {
    let alert = alerts::NewAlert {
        key: "drift:digits".into(),
        kind: "drift".into(),
        severity: alerts::Severity::Warning,
        device: Some(DeviceId::new(device).unwrap()),
        model: None,
        rollout: None,
        message: "drifts".into(),
        details: json!({}),
    };
    let mut tx = server.running.state.store.begin().await.unwrap();
    alerts::raise(&mut tx, &ProjectId::new("default").unwrap(), &alert, NOW).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_first_admin_must_choose_a_password() {
    let server = TestServer::start().await;
    let first = server.running.first_admin.clone().unwrap();
    let file = server.data_dir().join("first-admin-password");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), first.password);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let who = server.sign_in("admin", &first.password).await;
    assert_eq!(server.get(&who, "/session").await.json["must_change_password"], true);
    let refused = server.get(&who, "/projects").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "password_change_required"));
    let change = |new: &str| json!({"old_password": first.password.clone(), "new_password": new});
    for weak in ["short", "my-admin-password", &first.password] {
        let answer = server.post(&who, "/session/password", change(weak)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{weak}");
    }
    let changed = server.post(&who, "/session/password", change("long enough for tests")).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    assert!(!file.exists(), "the one-time password opens nothing any more");
    assert_eq!(server.get(&who, "/session").await.code(), "session_expired", "old sessions end");
    let who = support::cookie_of(&changed);
    assert_eq!(server.get(&who, "/projects").await.json["items"][0]["project"], "default");
    let dir = server.stop().await;
    let again = TestServer::start_in(dir).await;
    assert!(again.running.first_admin.is_none(), "a second start makes no second admin");
    again.sign_in("admin", "long enough for tests").await;
    again.stop().await;
}

#[tokio::test]
async fn a_forgotten_password_is_reset_beside_the_running_server() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let store = &server.running.state.store;
    let password = users::reset_password(store, "admin", NOW).await.unwrap();
    assert_eq!(server.get(&admin, "/session").await.code(), "session_expired", "old sessions end");
    let who = server.sign_in("admin", &password).await;
    assert_eq!(server.get(&who, "/session").await.json["must_change_password"], true);
    let unknown = users::reset_password(store, "nobody", NOW).await.unwrap_err();
    assert!(matches!(unknown, UserError::Unknown(name) if name == "nobody"));
    server.stop().await;
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let server = TestServer::start().await;
    server.admin().await;
    let guess = json!({"username": "admin", "password": "guess"});
    for _ in 0..10 {
        let answer = server.post(&As::Nobody, "/session", guess.clone()).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "wrong_password"));
    }
    let answer = server.post(&As::Nobody, "/session", guess).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    server.clock.set(NOW.plus_millis(61_000));
    let who = server.sign_in("admin", "long enough for tests").await;
    let rows = server.get(&who, "/audit").await.json;
    let refused = |row: &&Value| row["action"] == "session.refused" && row["object"] == "admin";
    assert_eq!(rows["items"].as_array().unwrap().iter().filter(refused).count(), 10, "{rows}");
    server.stop().await;
}

#[tokio::test]
async fn sessions_end_by_sign_out_and_by_time() {
    let server = TestServer::start().await;
    let who = server.admin().await;
    server.call(&who, Method::DELETE, "/session", None).await;
    assert_eq!(server.get(&who, "/session").await.status, StatusCode::UNAUTHORIZED);
    let who = server.sign_in("admin", "long enough for tests").await;
    server.clock.set(NOW.plus_millis(13 * 3600 * 1000));
    assert_eq!(server.get(&who, "/session").await.code(), "session_expired");
    server.stop().await;
}

#[tokio::test]
async fn users_are_made_changed_and_removed() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let ana = json!({"username": "ana", "grants": [{"project": "default", "role": "operator"}]});
    let made = server.post(&admin, "/users", ana.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(server.post(&admin, "/users", ana).await.code(), "user_exists");
    let unknown = json!({"username": "bob", "grants": [{"project": "nowhere", "role": "viewer"}]});
    assert_eq!(server.post(&admin, "/users", unknown).await.code(), "unknown_project");
    let password = made.json["one_time_password"].as_str().unwrap();
    let who = server.sign_in("ana", password).await;
    let disabled = server.call(&admin, Method::PATCH, "/users/ana", Some(json!({"is_disabled": true}))).await;
    assert_eq!(disabled.json["user"]["is_disabled"], true, "{}", disabled.text);
    assert_eq!(server.get(&who, "/session").await.status, StatusCode::UNAUTHORIZED);
    for change in [json!({"is_disabled": true}), json!({"grants": []})] {
        let answer = server.call(&admin, Method::PATCH, "/users/admin", Some(change)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, "last_admin"));
    }
    assert_eq!(server.call(&admin, Method::DELETE, "/users/admin", None).await.code(), "last_admin");
    assert_eq!(server.call(&admin, Method::DELETE, "/users/ana", None).await.status, StatusCode::NO_CONTENT);
    let audit = server.get(&admin, "/audit").await;
    let actions: Vec<_> =
        audit.json["items"].as_array().unwrap().iter().map(|r| r["action"].clone()).collect();
    assert_eq!(actions[..3], [json!("user.delete"), json!("user.update"), json!("session.create")]);
    assert!(!audit.text.contains("argon2") && !audit.text.contains(password), "a secret stands in the audit");
    server.stop().await;
}

#[tokio::test]
async fn a_token_may_never_more_than_its_maker() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let viewer = server.token(&admin, "default", "viewer").await;
    let wider = [("default", "operator"), ("*", "viewer")];
    for (project, role) in wider {
        let body = json!({"title": "x", "project": project, "role": role});
        assert_eq!(server.post(&viewer, "/tokens", body).await.code(), "more_than_own", "{project} {role}");
    }
    let expiring =
        json!({"title": "x", "project": "*", "role": "admin", "expires_at": "2026-09-21T14:13:30Z"});
    let made = server.post(&admin, "/tokens", expiring).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let token = As::Token(made.json["text"].as_str().unwrap().to_owned());
    assert_eq!(server.get(&token, "/users").await.status, StatusCode::OK);
    server.clock.set(UnixMillis(1_790_000_011_000));
    assert_eq!(server.get(&token, "/users").await.code(), "token_invalid");
    let listed = server.get(&admin, "/tokens").await;
    assert!(!listed.text.contains("flt_"), "a token's text is shown again");
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_ends_makes_none_that_outlives_it() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let end = "2026-09-22T00:00:00Z";
    let parent = json!({"title": "ci", "project": "*", "role": "viewer", "expires_at": end});
    let made = server.post(&admin, "/tokens", parent).await;
    let parent = As::Token(made.json["text"].as_str().unwrap().to_owned());
    let child = |end: Value| json!({"title": "child", "project": "*", "role": "viewer", "expires_at": end});
    let made = server.post(&parent, "/tokens", child(Value::Null)).await;
    assert_eq!(
        made.json["token"]["expires_at"],
        server.get(&parent, "/tokens").await.json["items"][0]["expires_at"]
    );
    let later = server.post(&parent, "/tokens", child("2026-09-23T00:00:00Z".into())).await;
    assert_eq!(later.code(), "bad_expiry", "{}", later.text);
    server.stop().await;
}

#[tokio::test]
async fn a_narrow_token_sees_and_ends_only_what_it_includes() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let mut made = std::collections::BTreeMap::new();
    for (project, role) in [("*", "admin"), ("default", "operator"), ("default", "viewer")] {
        let body = json!({"title": role, "project": project, "role": role});
        let answer = server.post(&admin, "/tokens", body).await;
        let text = answer.json["text"].as_str().unwrap().to_owned();
        made.insert(role, (As::Token(text), answer.json["token"]["id"].as_str().unwrap().to_owned()));
    }
    let (operator, own) = &made["operator"];
    let seen = server.get(operator, "/tokens").await;
    let titles: Vec<&str> =
        seen.json["items"].as_array().unwrap().iter().filter_map(|t| t["title"].as_str()).collect();
    assert_eq!(titles, ["operator", "viewer"], "{}", seen.text);
    let end =
        async |id: &str| server.call(operator, Method::DELETE, &format!("/tokens/{id}"), None).await.status;
    assert_eq!(end(&made["admin"].1).await, StatusCode::NOT_FOUND);
    assert_eq!(end(&made["viewer"].1).await, StatusCode::NO_CONTENT);
    assert_eq!(end(own).await, StatusCode::NO_CONTENT, "it may end itself: that is signing out");
    server.stop().await;
}

#[tokio::test]
async fn devices_are_listed_labelled_and_decommissioned() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    for name in ["cam-1", "cam-2", "cam-3"] {
        add_device(&server, name).await;
    }
    let first = server.get(&admin, &format!("{DEFAULT}/devices?limit=2")).await;
    assert_eq!((first.json["total"].clone(), first.json["items"].as_array().unwrap().len()), (json!(3), 2));
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let second = server.get(&admin, &format!("{DEFAULT}/devices?limit=2&cursor={cursor}")).await;
    assert_eq!(second.json["items"][0]["device"], "cam-3");
    assert_eq!(second.json["next_cursor"], Value::Null);
    let foreign = server.get(&admin, &format!("{DEFAULT}/devices?cursor=AAAA")).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::BAD_REQUEST, "bad_cursor"));
    let path = format!("{DEFAULT}/devices/cam-1");
    let mut changes = server.running.state.bus.subscribe();
    let labels = json!({"labels": {"site": "roof"}});
    let changed = server.call(&admin, Method::PATCH, &path, Some(labels)).await;
    assert_eq!(changed.json["labels"]["site"], "roof", "{}", changed.text);
    assert_eq!(changes.recv().await.unwrap().kind, ChangeKind::Device);
    let found = server.get(&admin, &format!("{DEFAULT}/devices?label=site:roof")).await;
    assert_eq!(found.json["total"], 1);
    let more = json!({"labels": {"line": "4", "zone": "a"}});
    server.call(&admin, Method::PATCH, &path, Some(more)).await;
    let less = json!({"labels": {"zone": null, "never": null}});
    let changed = server.call(&admin, Method::PATCH, &path, Some(less)).await;
    assert_eq!(changed.json["labels"], json!({"line": "4", "site": "roof"}), "the others stay");
    let bad = server.call(&admin, Method::PATCH, &path, Some(json!({"labels": {"a b": "x"}}))).await;
    assert_eq!((bad.status, bad.code()), (StatusCode::UNPROCESSABLE_ENTITY, "bad_label"));
    let why = server.get(&admin, &format!("{path}/why?model=digits")).await;
    assert_eq!(why.json["answer"], "nothing_desired", "{}", why.text);
    let events = server.get(&admin, &format!("{path}/events")).await;
    assert_eq!(events.json["items"][0]["name"], "enrolled");
    raise_alert(&server, "cam-1").await;
    assert_eq!(server.call(&admin, Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    let open = server.get(&admin, &format!("{DEFAULT}/alerts?open=true")).await;
    assert_eq!(open.json["total"], 0, "nothing about it can change any more: {}", open.text);
    assert_eq!(server.call(&admin, Method::DELETE, &path, None).await.code(), "decommissioned");
    assert_eq!(server.get(&admin, &path).await.json["decommissioned_at"], "2026-09-21T14:13:20.000Z");
    let overview = server.get(&admin, &format!("{DEFAULT}/overview")).await;
    assert_eq!(overview.json["devices"], json!({"total": 2, "online": 0, "offline": 2, "with_problems": 0}));
    server.stop().await;
}

#[tokio::test]
async fn a_misspelt_model_is_no_empty_answer() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    add_device(&server, "cam-1").await;
    let unknown = [
        ("models/digts/drift", "There is no such model."),
        ("models/digts/drift/devices", "There is no such model."),
        ("models/digts/drift/distribution?feature=level", "There is no such model."),
        ("devices?model=digts", "There is no such model."),
        ("devices?model=digts&version=1.0.0", "There is no such model."),
        ("devices?version=9.9.9", "There is no such release."),
    ];
    for (path, message) in unknown {
        let answer = server.get(&admin, &format!("{DEFAULT}/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.text);
        assert_eq!(answer.json["error"]["message"], message, "{path}");
    }
    add_release(&server, "digits", "1.0.0").await;
    for path in ["models/digits/drift/devices", "devices?model=digits&version=1.0.0", "devices?version=1.0.0"]
    {
        let answer = server.get(&admin, &format!("{DEFAULT}/{path}")).await;
        assert_eq!((answer.status, &answer.json["items"]), (StatusCode::OK, &json!([])), "{path}");
    }
    let other = server.get(&admin, &format!("{DEFAULT}/devices?model=digits&version=2.0.0")).await;
    assert_eq!(other.json["error"]["message"], "There is no such release.");
    server.stop().await;
}

#[tokio::test]
async fn enrolment_tokens_are_shown_once() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let path = format!("{DEFAULT}/enrollment-tokens");
    let made = server.post(&admin, &path, json!({"device": "cam-1", "labels": {"a": "b"}})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(made.json["text"].as_str().unwrap().starts_with("flt1."));
    let listed = server.get(&admin, &path).await;
    assert_eq!(listed.json["items"][0]["state"], "unused");
    assert!(!listed.text.contains("flt1."));
    server.clock.set(NOW.plus_millis(25 * 3600 * 1000));
    let admin = server.sign_in("admin", "long enough for tests").await;
    assert_eq!(server.get(&admin, &path).await.json["items"][0]["state"], "expired");
    let id = made.json["token"]["id"].as_str().unwrap();
    let token = format!("{path}/{id}");
    let delete = || server.call(&admin, Method::DELETE, &token, None);
    assert_eq!(delete().await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete().await.status, StatusCode::NOT_FOUND);
    let too_long = server.post(&admin, &path, json!({"validity_s": 99_999_999})).await;
    assert_eq!(too_long.code(), "bad_validity");
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_get_the_envelope() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let cases = [
        ("/projects/default/devices?limit=0", StatusCode::BAD_REQUEST, "bad_limit"),
        ("/projects/default/devices?limit=x", StatusCode::BAD_REQUEST, "bad_query"),
        ("/projects/default/devices?cursor=%21", StatusCode::BAD_REQUEST, "bad_cursor"),
        ("/projects/default/devices?label=x", StatusCode::BAD_REQUEST, "bad_label"),
        ("/projects/default/devices/A..B", StatusCode::BAD_REQUEST, "bad_path"),
        ("/projects/default/devices/none", StatusCode::NOT_FOUND, "not_found"),
        ("/projects/default/models/none", StatusCode::NOT_FOUND, "not_found"),
        ("/nothing/here", StatusCode::NOT_FOUND, "not_found"),
    ];
    for (path, status, code) in cases {
        let answer = server.get(&admin, path).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path}: {}", answer.text);
    }
    let raw = |body: &str| {
        let mut request = support::request(&admin, Method::POST, "/api/v1/projects", Some(json!({})));
        *request.body_mut() = body.to_owned().into();
        server.send(request)
    };
    assert_eq!(raw("{").await.code(), "bad_body");
    assert_eq!(raw("{}").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let deep = "[".repeat(100_000);
    assert!(raw(&deep).await.status.is_client_error());
    let huge = format!("{{\"title\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(raw(&huge).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    server.stop().await;
}

#[tokio::test]
async fn the_console_takes_deep_links_and_says_what_may_run() {
    let server = TestServer::start().await;
    for uri in ["/", "/projects/default/devices/cam-1", "/login"] {
        let answer = server.send(support::request(&As::Nobody, Method::GET, uri, None)).await;
        assert_eq!(answer.status, StatusCode::OK, "{uri}");
        assert!(answer.text.contains("<html"), "{uri}");
        let policy = answer.headers.get(header::CONTENT_SECURITY_POLICY).unwrap().to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(answer.headers.get(header::CACHE_CONTROL).unwrap(), "no-cache");
    }
    let missing = server.send(support::request(&As::Nobody, Method::GET, "/assets/none.js", None)).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let page = server.send(support::request(&As::Nobody, Method::GET, "/", None)).await;
    let mut again = support::request(&As::Nobody, Method::GET, "/", None);
    again.headers_mut().insert(header::IF_NONE_MATCH, page.headers[header::ETAG].clone());
    assert_eq!(server.send(again).await.status, StatusCode::NOT_MODIFIED);
    server.stop().await;
}

#[tokio::test]
async fn quarantined_records_can_be_looked_at() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    add_device(&server, "cam-1").await;
    let (project, cam) = (ProjectId::new("default").unwrap(), DeviceId::new("cam-1").unwrap());
    let stream = StreamId::new("s1").unwrap();
    let mut tx = server.running.state.store.begin().await.unwrap();
    for seq in 1..=3 {
        let why = "the record's body is no pane".to_owned();
        let record = Quarantined::new((&stream, seq), "pane", why, b"junk", NOW);
        quarantine::add(&mut tx, &project, &cam, &record).await.unwrap();
    }
    tx.commit().await.unwrap();
    let path = format!("{DEFAULT}/devices/cam-1");
    assert_eq!(server.get(&admin, &path).await.json["quarantined_records"], 3);
    let viewer = server.token(&admin, "default", "viewer").await;
    let first = server.get(&viewer, &format!("{path}/quarantine?limit=2")).await.json;
    let one = &first["items"][0];
    let shown = json!([one["seq"], one["kind"], one["why"], one["size_bytes"], one["body_start"]]);
    assert_eq!(shown, json!([3, "pane", "the record's body is no pane", 4, "anVuaw=="]));
    assert_eq!(one["body_sha256"].as_str().unwrap().len(), 64);
    let next = first["next_cursor"].as_str().unwrap();
    let rest = server.get(&viewer, &format!("{path}/quarantine?limit=2&cursor={next}")).await.json;
    assert_eq!((rest["items"][0]["seq"].clone(), rest["total"].clone()), (json!(1), json!(3)));
    let unknown = server.get(&viewer, &format!("{DEFAULT}/devices/none/quarantine")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn health_needs_no_sign_in_and_metrics_a_viewer_of_everything() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    add_device(&server, "cam-1").await;
    let get = |uri: &'static str| server.send(support::request(&As::Nobody, Method::GET, uri, None));
    assert_eq!(get("/healthz").await.text, "ok\n");
    assert_eq!(get("/readyz").await.text, "ready\n");
    assert_eq!(get("/metrics").await.status, StatusCode::UNAUTHORIZED);
    let prometheus = server.token(&admin, "*", "viewer").await;
    let metrics = server.send(support::request(&prometheus, Method::GET, "/metrics", None)).await.text;
    assert!(metrics.contains("\nflotilla_devices 1\n"), "{metrics}");
    let free = metrics.lines().find_map(|line| line.strip_prefix("flotilla_data_disk_free_bytes ")).unwrap();
    assert!(free.parse::<u64>().unwrap() > 0, "{free}");
    assert!(
        metrics.contains("flotilla_http_requests_total{method=\"GET\",path=\"/healthz\",status=\"200\"} 1")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_ends_with_the_server_and_shutdown_is_graceful() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start_now().await;
    let admin = server.admin().await;
    let As::Token(token) = server.token(&admin, "default", "viewer").await else { panic!("no token") };
    let state = server.running.state.clone();
    let tls = flotilla_server::pki::client_config(state.authority.certificate(), None).unwrap();
    let tcp = tokio::net::TcpStream::connect(server.running.bound.https).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect(name, tcp).await.unwrap();
    let request = format!(
        "GET /api/v1/projects/default/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !seen.contains("cam-9") {
        // Told again until the reader has subscribed.
        state.bus.changed(&ProjectId::new("other").unwrap(), ChangeKind::Device, "secret-1");
        state.bus.changed(&ProjectId::new("default").unwrap(), ChangeKind::Device, "cam-9");
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
            seen.push_str(&String::from_utf8_lossy(&buffer[..read.unwrap()]));
        }
        assert!(tokio::time::Instant::now() < deadline, "no event within 20 s: {seen}");
    }
    assert!(seen.contains("event: device") && seen.contains("text/event-stream"), "{seen}");
    assert!(!seen.contains("secret-1"), "another project's event leaked");
    server.stop().await;
}

#[tokio::test]
async fn samples_are_listed_for_viewers_and_each_download_is_written_down() {
    use flotilla_server::store::samples::{Sample, SampleKey, insert};
    use protocol::sample::{Said, SampleHead, SampleInput, Strategy};
    let server = TestServer::start().await;
    let admin = server.admin().await;
    add_device(&server, "cam-1").await;
    let state = &server.running.state;
    for number in 1..=3_u8 {
        let input =
            SampleInput { name: "x".into(), datatype: "UINT8".into(), shape: vec![1, 1], size_bytes: 1 };
        let head = SampleHead {
            id: number.to_string(),
            model: "digits".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            release: protocol::Digest::from_bytes([1; 32]),
            at: NOW,
            strategy: if number == 3 { Strategy::Contradiction } else { Strategy::Uncertainty },
            probability: 0.1,
            answer: Said { label: Some("a".into()), confidence: Some(0.5), value: None },
            beside: None,
            feature: None,
            label: None,
            inputs: vec![input],
        };
        let (project, device) = (ProjectId::new("default").unwrap(), DeviceId::new("cam-1").unwrap());
        let key = SampleKey { project, device, digest: protocol::Digest::from_bytes([number; 32]) };
        state.blobs.put_sample(&key, head.join(&[vec![number]]).into()).await.unwrap();
        // The last one does not fit into a page with another one.
        let size_bytes = if number == 1 { 8 << 20 } else { 200 };
        let (sample_id, received_at) = (number.to_string(), NOW);
        let sample = Sample { sample_id, key, head, size_bytes, received_at, expires_at: NOW.plus_millis(1) };
        let mut tx = state.store.begin().await.unwrap();
        insert(&mut tx, &sample).await.unwrap();
        tx.commit().await.unwrap();
    }
    let viewer = server.token(&admin, "default", "viewer").await;
    let path = format!("{DEFAULT}/models/digits/samples");
    let list = server.get(&viewer, &format!("{path}?strategy=uncertainty")).await.json;
    assert_eq!((&list["total"], &list["items"][0]["inference"]), (&json!(2), &json!("2")));
    assert!(list["items"][0].get("content").is_none());
    let refused = server.get(&viewer, &format!("{path}?strategy=boredom")).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "bad_query"));
    let download = format!("{path}/download");
    assert_eq!(server.post(&viewer, &download, json!({})).await.status, StatusCode::FORBIDDEN);
    let publisher = server.token(&admin, "default", "publisher").await;
    let mut ids = Vec::new();
    let mut uri = download.clone();
    loop {
        let page = server.post(&publisher, &uri, json!({})).await.json;
        for item in page["items"].as_array().unwrap() {
            use base64::Engine;
            let content = item["content"].as_str().unwrap();
            let content = base64::engine::general_purpose::STANDARD.decode(content).unwrap();
            ids.push(SampleHead::split(&content).unwrap().0.id);
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("{download}?cursor={cursor}");
    }
    assert_eq!(ids, ["3", "2", "1"]);
    let rows = server.get(&admin, &format!("{DEFAULT}/audit")).await.json;
    let rows = rows["items"].as_array().unwrap();
    let told: Vec<_> = rows.iter().filter(|row| row["action"] == "sample.download").collect();
    assert_eq!((told.len(), &told[1]["after"]["samples"]), (2, &json!(2)));
}

#[tokio::test]
async fn a_release_is_measured_on_a_device_by_name_of_a_variant_that_it_has() {
    let server = TestServer::start().await;
    let who = server.admin().await;
    add_device(&server, "cam").await;
    add_release(&server, "digits", "1.0.0").await;
    let path = format!("{DEFAULT}/devices/cam/commands");
    let ask = |version: &str, variant: &str, max_s: u32| json!({ "type": "measure", "model": "digits", "version": version, "variant": variant, "max_s": max_s });
    let refused = [
        (ask("2.0.0", "int8", 60), StatusCode::NOT_FOUND, "not_found"),
        (ask("1.0.0", "int4", 60), StatusCode::UNPROCESSABLE_ENTITY, "bad_variant"),
        (ask("1.0.0", "int8", 0), StatusCode::UNPROCESSABLE_ENTITY, "bad_max_s"),
        (ask("1.0.0", "int8", 601), StatusCode::UNPROCESSABLE_ENTITY, "bad_max_s"),
    ];
    for (body, status, code) in refused {
        let answer = server.post(&who, &path, body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
    }
    let answer = server.post(&who, &path, ask("1.0.0", "int8", 60)).await;
    assert_eq!((answer.status, &answer.json["is_online"]), (StatusCode::ACCEPTED, &json!(false)));
    let measurements = format!("{DEFAULT}/models/digits/releases/1.0.0/measurements");
    assert_eq!(server.get(&who, &measurements).await.json["items"], json!([]));

    let project = ProjectId::new("default").unwrap();
    let failed = json!({ "command_id": "c", "model": "digits", "variant": "int8", "agent_version": "0.1.0",
        "release": { "version": "1.0.0", "digest": "01".repeat(32), "counter": 1 },
        "outcome": { "failed": { "kind": "too_big", "detail": "no room" } } });
    let row = measurements::Measured {
        device: DeviceId::new("cam").unwrap(),
        hardware_class: "rpi4".into(),
        received_at: NOW,
        measurement: serde_json::from_value(failed).unwrap(),
    };
    let mut tx = server.running.state.store.begin().await.unwrap();
    measurements::put(&mut tx, &project, &row).await.unwrap();
    tx.commit().await.unwrap();
    let found = server.get(&who, &measurements).await.json["items"][0].clone();
    assert_eq!((&found["hardware_class"], &found["figures"]), (&json!("rpi4"), &Value::Null), "{found}");
    assert_eq!(found["failure"], json!({ "kind": "too_big", "detail": "no room" }));
    server.stop().await;
}
