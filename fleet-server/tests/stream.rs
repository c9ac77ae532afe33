//! Live streams: who gets them, how many, and how long.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use flotilla_server::bus::ChangeKind;
use flotilla_server::clock::Clock;
use http_body_util::BodyExt;
use protocol::ProjectId;
use serde_json::json;
use support::{As, NOW, TestServer};

const STREAM: &str = "/projects/default/stream";
/// Far more than any wait here should take.
const DEADLINE: Duration = Duration::from_secs(20);

async fn start(set: &[(&str, &str)]) -> TestServer {
    let set: Vec<_> = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    TestServer::start_set(tempfile::tempdir().unwrap(), Clock::fixed(NOW), &set).await
}

/// The next event's text; `None` when the stream has ended. Comments are passed over.
async fn next(stream: &mut Body) -> Option<String> {
    loop {
        let frame = tokio::time::timeout(DEADLINE, stream.frame()).await.unwrap();
        let text = String::from_utf8(frame?.unwrap().into_data().unwrap().to_vec()).unwrap();
        if !text.starts_with(':') {
            return Some(text);
        }
    }
}

fn tell(server: &TestServer, id: &str) {
    server.running.state.bus.changed(&ProjectId::new("default").unwrap(), ChangeKind::Device, id);
}

/// A user with this role in the project, signed in.
async fn user(server: &TestServer, admin: &As, name: &str) -> As {
    let body = json!({"username": name, "grants": [{"project": "default", "role": "viewer"}]});
    let made = server.post(admin, "/users", body).await;
    let password = made.json["one_time_password"].as_str().unwrap();
    let who = server.sign_in(name, password).await;
    let change = json!({"old_password": password, "new_password": "long enough for tests"});
    support::cookie_of(&server.post(&who, "/session/password", change).await)
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_it() {
    let server = start(&[("limits.stream_check_s", "1")]).await;
    let admin = server.admin().await;
    let made = json!({"title": "x", "project": "default", "role": "viewer"});
    let token = server.post(&admin, "/tokens", made).await.json;
    let by_token = As::Token(token["text"].as_str().unwrap().to_owned());
    let (disabled, ungranted) = (user(&server, &admin, "ana").await, user(&server, &admin, "bob").await);
    let signed_out = server.sign_in("admin", "long enough for tests").await;
    let readers = [&by_token, &disabled, &ungranted, &signed_out];
    let mut streams = Vec::new();
    for who in readers {
        streams.push(server.open(who, STREAM).await);
    }
    let mut stays = server.open(&admin, STREAM).await;
    tell(&server, "cam-1");
    for stream in &mut streams {
        assert!(next(stream).await.unwrap().contains("cam-1"));
    }

    let gone = [
        (&admin, Method::DELETE, format!("/tokens/{}", token["token"]["id"].as_str().unwrap()), None),
        (&admin, Method::PATCH, "/users/ana".to_owned(), Some(json!({"is_disabled": true}))),
        (&admin, Method::PATCH, "/users/bob".to_owned(), Some(json!({"grants": []}))),
        (&signed_out, Method::DELETE, "/session".to_owned(), None),
    ];
    for (who, method, path, body) in gone {
        let answer = server.call(who, method, &path, body).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
    }
    for stream in &mut streams {
        assert_eq!(next(stream).await, None);
    }
    assert!(next(&mut stays).await.unwrap().contains("cam-1"), "others go on");
    tell(&server, "cam-2");
    assert!(next(&mut stays).await.unwrap().contains("cam-2"), "others go on");
    // A session that is over by time, with nobody to take it away.
    server.clock.set(NOW.plus_millis(13 * 3600 * 1000));
    assert_eq!(next(&mut stays).await, None);
    server.stop().await;
}

#[tokio::test]
async fn one_user_has_a_bound_of_streams() {
    let server = start(&[("limits.streams_per_user", "2"), ("limits.streams", "3")]).await;
    let admin = server.admin().await;
    let token = server.token(&admin, "default", "viewer").await;
    let first = server.open(&admin, STREAM).await;
    let _second = server.open(&token, STREAM).await;
    for who in [&admin, &token] {
        let refused = server.get(who, STREAM).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "a token's streams are its owner's");
        assert!(refused.headers.contains_key(header::RETRY_AFTER));
    }
    let (ana, bob) = (user(&server, &admin, "ana").await, user(&server, &admin, "bob").await);
    let _third = server.open(&ana, STREAM).await;
    let refused = server.get(&bob, STREAM).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams"));
    drop(first);
    drop(server.open(&bob, STREAM).await);
    server.stop().await;
}
