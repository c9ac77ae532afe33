//! A query parameter that a path doesn't know is refused by name, on every path.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{As, TestServer};

/// Each documented operation with an address of which nothing exists but the project, and its query parameters.
fn operations() -> Vec<(Method, String, Vec<String>)> {
    let document: Value = serde_json::from_str(&flotilla_server::api::openapi_json()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let places = operation["parameters"].as_array().cloned().unwrap_or_default();
            let names = |place: &str| {
                let found = places.iter().filter(|p| p["in"] == place);
                found.map(|p| p["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let fill = |address: String, name: &String| {
                let value = if name == "project" { "default" } else { "none" };
                address.replace(&format!("{{{name}}}"), value)
            };
            let address = names("path").iter().fold(path.clone(), fill);
            all.push((method, address, names("query")));
        }
    }
    assert!(all.len() > 40, "only {} operations", all.len());
    all
}

fn refusal(answer: &support::Answer) -> (StatusCode, &str) {
    (answer.status, answer.code())
}

#[tokio::test]
async fn no_path_passes_over_a_parameter_that_it_does_not_know() {
    let server = TestServer::start().await;
    let unknown = (StatusCode::BAD_REQUEST, "unknown_parameter");
    for (method, address, known) in operations() {
        let uri = format!("{address}?labl=site:lab");
        let answer = server.send(support::request(&As::Nobody, method.clone(), &uri, None)).await;
        if method == Method::HEAD {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
            continue;
        }
        assert_eq!(refusal(&answer), unknown, "{method} {uri}: {}", answer.text);
        let details = &answer.json["error"]["details"];
        assert_eq!(details, &json!({"parameter": "labl", "known": known}), "{method} {uri}");
        for name in known {
            let uri = format!("{address}?{name}=1");
            let answer = server.send(support::request(&As::Nobody, method.clone(), &uri, None)).await;
            assert_ne!(refusal(&answer), unknown, "{method} {uri}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_refusal_names_the_parameter_and_what_is_known() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let said = |answer: &support::Answer| answer.json["error"]["message"].as_str().unwrap().to_owned();
    let answer = server.get(&admin, "/projects/default/devices?limit=5&Label=site:lab").await;
    let expected = r#"There is no query parameter "Label"; this path knows q, online, label, model, version, limit, cursor."#;
    assert_eq!((answer.status, said(&answer).as_str()), (StatusCode::BAD_REQUEST, expected));
    let answer = server.get(&admin, "/users?limit=5").await;
    assert_eq!(said(&answer), r#"There is no query parameter "limit"; this path takes none."#);
    let long = format!("/projects?{}%1b[2J=1", "x".repeat(200));
    let answer = server.get(&admin, &long).await;
    assert!(answer.status == StatusCode::BAD_REQUEST && answer.text.len() < 400, "{}", answer.text);
    for fine in
        ["/projects/default/devices", "/projects/default/devices?", "/projects/default/devices?q=a&limit=5"]
    {
        assert_eq!(server.get(&admin, fine).await.status, StatusCode::OK, "{fine}");
    }
    server.stop().await;
}
