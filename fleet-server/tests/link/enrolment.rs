//! One-time tokens: each wrong use has its name and leaves nothing behind.

use flotilla_server::store::devices;
use serde_json::{Value, json};

use crate::support::*;

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_and_gives_a_working_identity() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let token = server.token(None, 60_000).await;
    let mut device = Device::new("one");
    let (status, body) = device.try_enroll(&server, &token.secret).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["project"], &body["device"]), (&json!("acme"), &json!("one")));
    assert!(body["mqtt_url"].as_str().unwrap().starts_with("mqtts://"));
    assert!(!body["root"].as_str().unwrap().is_empty());
    device.certificate = body["certificate"].as_str().unwrap().to_owned();
    device.connect(&server).await;
    let row = server.row(&device).await;
    assert_eq!(row.labels["line"], "3");

    let (status, body) = Device::new("two").try_enroll(&server, &token.secret).await;
    assert_eq!((status.as_u16(), code(&body)), (410, "token_used"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_enrolments_at_once_with_one_token_exactly_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let token = server.token(None, 60_000).await;
    let tries = (0..8).map(|n| {
        let (server, secret) = (&server, token.secret.clone());
        async move { Device::new(&format!("d{n}")).try_enroll(server, &secret).await.0 }
    });
    let results = futures_util::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|status| status.as_u16() == 200).count(), 1, "{results:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_and_requests_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = Device::new("one");
    let check = async |body: &Value| {
        let (status, body) = post(&server, "/enroll/v1", body).await;
        (status.as_u16(), code(&body).to_owned())
    };
    let expect = |status: u16, code: &str| (status, code.to_owned());

    assert_eq!(check(&device.enrolment("never given out")).await, expect(401, "token_unknown"));
    let expired = server.token(None, -1).await;
    assert_eq!(check(&device.enrolment(&expired.secret)).await, expect(410, "token_expired"));

    let token = server.token(None, 60_000).await;
    let with = |key: &str, value: Value| {
        let mut body = device.enrolment(&token.secret);
        body[key] = value;
        body
    };
    assert_eq!(check(&with("csr", json!("garbage"))).await, expect(422, "bad_csr"));
    assert_eq!(check(&with("report_key", json!("AAAA"))).await, expect(422, "bad_report_key"));
    assert_eq!(check(&with("device", Value::Null)).await, expect(422, "device_required"));
    assert_eq!(check(&with("device", json!("../../etc"))).await, expect(422, "bad_body"));
    assert_eq!(check(&with("csr", json!("x".repeat(100_000)))).await, expect(413, "too_large"));
    let (status, _) = post(&server, "/enroll/v1", &json!("not an object")).await;
    assert_eq!(status, 422);

    let fixed = server.token(Some("two"), 60_000).await;
    assert_eq!(check(&device.enrolment(&fixed.secret)).await, expect(422, "device_mismatch"));
    // After all of that the token is still good: a refusal uses nothing up.
    assert_eq!(device.try_enroll(&server, &token.secret).await.0, 200);
    let again = server.token(None, 60_000).await;
    assert_eq!(check(&device.enrolment(&again.secret)).await, expect(409, "device_exists"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_out_of_service_is_enrolled_again_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let first = server.enroll("one").await;
    let token = server.token(Some("one"), 60_000).await;
    let device = Device::new("one");
    let (status, body) = device.try_enroll(&server, &token.secret).await;
    assert_eq!((status.as_u16(), code(&body)), (409, "device_exists"), "it is in service");

    let mut tx = server.state.store.begin().await.unwrap();
    devices::raise_report_counter(&mut tx, &project(), &first.id, 41).await.unwrap();
    devices::decommission(&mut tx, &project(), &first.id, server.state.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    let open = server.token(None, 60_000).await;
    let (status, body) = device.try_enroll(&server, &open.secret).await;
    assert_eq!(
        (status.as_u16(), code(&body)),
        (409, "device_exists"),
        "only a token for this name gives it anew"
    );
    let (status, body) = device.try_enroll(&server, &token.secret).await;
    assert_eq!((status.as_u16(), &body["report_counter"]), (200, &json!(41)), "{body}");
    let row = server.row(&device).await;
    assert!(row.decommissioned_at.is_none() && row.certificate_expires > server.state.clock.now());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_signed_root_no_device_is_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_bare(folder.path(), 0).await;
    server.add_project(&project()).await;
    let token = server.token(None, 60_000).await;
    let device = Device::new("one");
    let (status, body) = device.try_enroll(&server, &token.secret).await;
    assert_eq!((status.as_u16(), code(&body)), (409, "project_not_ready"));
    server.publish_root(&project()).await;
    assert_eq!(device.try_enroll(&server, &token.secret).await.0, 200, "the same token works then");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_keeps_failing_must_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let device = Device::new("one");
    let mut last = (200, String::new());
    for _ in 0..80 {
        let (status, body) = device.try_enroll(&server, "guess").await;
        last = (status.as_u16(), code(&body).to_owned());
    }
    assert_eq!(last, (429, "too_many_requests".to_owned()));
    server.stop().await;
}
