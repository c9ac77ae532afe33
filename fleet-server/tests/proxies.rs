//! Whose wrong passwords are counted: a client's own, also behind a proxy that is trusted; and nobody talks himself out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::extract::ConnectInfo;
use axum::http::{Method, StatusCode};
use flotilla_server::clock::Clock;
use flotilla_server::listener::Peer;
use serde_json::json;
use support::{As, NOW, TestServer};

/// Ours, as the tests' servers trust it.
const PROXY: &str = "10.0.0.1";

async fn behind_proxies() -> TestServer {
    let set = [("https.trusted_proxies".to_owned(), "10.0.0.0/24, fd00::/8".to_owned())];
    TestServer::start_set(tempfile::tempdir().unwrap(), Clock::fixed(NOW), &set).await
}

/// A try to sign in over a connection from `peer`, with these headers.
async fn sign_in(
    server: &TestServer,
    (user, password): (&str, &str),
    peer: &str,
    headers: &[(&'static str, &str)],
) -> StatusCode {
    let body = json!({"username": user, "password": password});
    let mut request = support::request(&As::Nobody, Method::POST, "/api/v1/session", Some(body));
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let address = format!("{peer}:40000").parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(Peer { address, certificates: [].into() }));
    server.send(request).await.status
}

async fn guess(server: &TestServer, user: &str, peer: &str, forwarded_for: &str) -> StatusCode {
    sign_in(server, (user, "guess"), peer, &[("x-forwarded-for", forwarded_for)]).await
}

const WRONG: StatusCode = StatusCode::UNAUTHORIZED;
const WAIT: StatusCode = StatusCode::TOO_MANY_REQUESTS;

#[tokio::test]
async fn who_forgot_a_password_does_not_lock_out_the_office() {
    let server = TestServer::start().await;
    server.admin().await;
    let office = "203.0.113.9";
    for _ in 0..10 {
        assert_eq!(guess(&server, "ana", office, "").await, WRONG);
    }
    assert_eq!(guess(&server, "ana", office, "").await, WAIT);
    let admin = ("admin", "long enough for tests");
    assert_eq!(sign_in(&server, admin, office, &[]).await, StatusCode::OK, "others go on");
    // Over all names the address may err five times as often.
    for name in 0..40 {
        assert_eq!(guess(&server, &format!("name{name}"), office, "").await, WRONG, "{name}");
    }
    assert_eq!(guess(&server, "another", office, "").await, WAIT, "guessing stays bounded");
    assert_eq!(sign_in(&server, admin, "203.0.113.10", &[]).await, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_counts_for_itself() {
    let server = behind_proxies().await;
    for _ in 0..10 {
        assert_eq!(guess(&server, "ana", PROXY, "198.51.100.1").await, WRONG);
    }
    assert_eq!(guess(&server, "ana", PROXY, "198.51.100.1").await, WAIT);
    assert_eq!(guess(&server, "ana", PROXY, "198.51.100.2").await, WRONG);
    let admin = server.admin().await;
    let audit = server.get(&admin, "/audit?action=session.refused&limit=1").await.json;
    assert_eq!(audit["items"][0]["actor"], "198.51.100.2", "the audit names the client");
    server.stop().await;
}

#[tokio::test]
async fn invented_headers_give_no_further_tries() {
    // Who is no proxy of ours is believed nothing.
    let server = TestServer::start().await;
    for host in 0..10 {
        assert_eq!(guess(&server, "ana", "203.0.113.9", &format!("198.51.100.{host}")).await, WRONG);
    }
    assert_eq!(guess(&server, "ana", "203.0.113.9", "198.51.100.99").await, WAIT);
    server.stop().await;

    // Behind one, what stands left of the proxy's own entry is not believed, and neither is the header it doesn't write.
    let server = behind_proxies().await;
    for host in 0..10 {
        let invented = format!("198.51.100.{host}, 203.0.113.9");
        assert_eq!(guess(&server, "ana", PROXY, &invented).await, WRONG);
    }
    assert_eq!(guess(&server, "ana", PROXY, "198.51.100.99, 203.0.113.9").await, WAIT);
    for (host, expected) in (0..11).map(|host| (host, if host < 10 { WRONG } else { WAIT })) {
        let invented = format!("for=198.51.100.{host}");
        let headers = [("x-forwarded-for", "203.0.113.9"), ("forwarded", invented.as_str())];
        assert_eq!(sign_in(&server, ("ana", "guess"), PROXY, &headers).await, expected, "{host}");
    }
    server.stop().await;
}

#[test]
fn a_list_of_proxies_that_is_none_is_refused_by_name() {
    let set = [("https.trusted_proxies".to_owned(), "10.0.0.0/8, proxy.lan".to_owned())];
    let said = flotilla_server::config::load(None, [], &set).unwrap_err().to_string();
    assert!(said.contains("https.trusted_proxies") && said.contains("proxy.lan"), "{said}");
}
