//! Walks every documented route and proves who may pass: nobody without signing in, nobody into another project,
//! nobody below the route's role. A new route without a line in [`LEAST`] fails here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use support::postgres::Postgres;
use support::{As, TestServer};

/// What each operation asks for at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Least {
    /// Open to everybody.
    Nobody,
    /// Any signed-in user.
    Anyone,
    /// A role in the project of the path.
    InProject(&'static str),
    /// A role over all projects.
    Everywhere(&'static str),
}

use Least::{Anyone, Everywhere, InProject, Nobody};

const LEAST: &[(&str, Least)] = &[
    ("signIn", Nobody),
    ("showSession", Anyone),
    ("signOut", Anyone),
    ("changePassword", Anyone),
    ("listTokens", Anyone),
    ("createToken", Anyone),
    ("deleteToken", Anyone),
    ("listProjects", Anyone),
    ("createProject", Everywhere("admin")),
    ("listUsers", Everywhere("admin")),
    ("createUser", Everywhere("admin")),
    ("updateUser", Everywhere("admin")),
    ("deleteUser", Everywhere("admin")),
    ("listServerAudit", Everywhere("admin")),
    ("showProject", InProject("viewer")),
    ("showOverview", InProject("viewer")),
    ("listDevices", InProject("viewer")),
    ("showDevice", InProject("viewer")),
    ("updateDevice", InProject("operator")),
    ("decommissionDevice", InProject("operator")),
    ("whyDevice", InProject("viewer")),
    ("commandDevice", InProject("operator")),
    ("listDeviceTasks", InProject("viewer")),
    ("listDeviceEvents", InProject("viewer")),
    ("listDeviceResources", InProject("viewer")),
    ("listDeviceLogs", InProject("operator")),
    ("listEnrollmentTokens", InProject("operator")),
    ("createEnrollmentToken", InProject("operator")),
    ("deleteEnrollmentToken", InProject("operator")),
    ("listModels", InProject("viewer")),
    ("showModel", InProject("viewer")),
    ("listReleases", InProject("viewer")),
    ("showRelease", InProject("viewer")),
    ("listMeasurements", InProject("viewer")),
    ("listAlerts", InProject("viewer")),
    ("acknowledgeAlert", InProject("operator")),
    ("listAudit", InProject("viewer")),
    ("listSamples", InProject("viewer")),
    ("downloadSamples", InProject("publisher")),
    ("stream", InProject("viewer")),
];

/// Every role below another.
fn below(role: &str) -> &'static [&'static str] {
    match role {
        "viewer" => &[],
        "operator" => &["viewer"],
        "publisher" => &["viewer", "operator"],
        "admin" => &["viewer", "operator", "publisher"],
        other => panic!("{other} is no role"),
    }
}

struct Operation {
    id: String,
    method: Method,
    path: String,
}

impl Operation {
    /// The path with something in each place; nothing of it exists, except the project.
    fn address(&self, project: &str) -> String {
        let filled = self.path.replace("{project}", project).replace("{digest}", &"0".repeat(64));
        let filled = filled.replace("{version}", "1.0.0").replace("{file}", "root.json");
        let mut address = String::new();
        let mut rest = filled.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (_, after) = after.split_once('}').unwrap();
            address.push_str(before);
            address.push_str("none");
            rest = after;
        }
        address + rest
    }
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&flotilla_server::api::openapi_json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let method = method.to_uppercase().parse().unwrap();
            operations.push(Operation { id: id.to_owned(), method, path: path.clone() });
        }
    }
    operations
}

async fn send(server: &TestServer, who: &As, operation: &Operation, project: &str) -> support::Answer {
    let body = (operation.method != Method::GET && operation.method != Method::DELETE).then(|| json!({}));
    let uri = operation.address(project);
    server.send(support::request(who, operation.method.clone(), &uri, body)).await
}

fn least(operation: &Operation) -> Least {
    let known: BTreeMap<_, _> = LEAST.iter().copied().collect();
    if let Some(least) = known.get(operation.id.as_str()) {
        return *least;
    }
    // Rooms that register their own routes: their role follows from the method, and is proved below all the same.
    assert!(operation.path.contains("{project}"), "{} stands in no table and in no project", operation.id);
    let reads = operation.method == Method::GET || operation.method == Method::HEAD;
    match (reads, operation.path.as_str()) {
        (_, path) if path.ends_with("/online-keys") || path.ends_with("/publications") => {
            InProject("publisher")
        }
        (false, path) if path.contains("/blobs/") => InProject("publisher"),
        (true, _) => InProject("viewer"),
        (false, path) if path.contains("/rollouts") => InProject("operator"),
        (false, path) => panic!("{} {path} needs a line in LEAST", operation.id),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_stands_behind_its_role() {
    walk(TestServer::start().await).await;
}

/// The same walk, which also proves that every route's SQL is PostgreSQL's too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_works_on_postgresql() {
    let database = Postgres::start();
    walk(TestServer::start_on(&database.database("walk", None)).await).await;
}

async fn walk(server: TestServer) {
    let admin = server.admin().await;
    for project in ["own", "other"] {
        let made = server.post(&admin, "/projects", json!({"project": project, "title": project})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }
    let mut tokens = BTreeMap::new();
    for role in ["viewer", "operator", "publisher", "admin"] {
        tokens.insert(role, server.token(&admin, "own", role).await);
    }
    let everywhere = server.token(&admin, "*", "admin").await;
    let almost = server.token(&admin, "*", "publisher").await;
    let operations = operations();
    assert!(operations.len() >= LEAST.len(), "only {} operations", operations.len());
    for operation in &operations {
        let what = format!("{} {}", operation.method, operation.path);
        let least = least(operation);
        let nobody = send(&server, &As::Nobody, operation, "own").await.status;
        let stranger = send(&server, &As::Token("flt_forged".into()), operation, "own").await.status;
        if least != Nobody {
            assert_eq!(nobody, StatusCode::UNAUTHORIZED, "{what} without signing in");
            assert_eq!(stranger, StatusCode::UNAUTHORIZED, "{what} with a forged token");
        }
        match least {
            Nobody | Anyone => {}
            Everywhere(_) => {
                for who in [&tokens["admin"], &almost] {
                    let answer = send(&server, who, operation, "own").await;
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what} with a narrower grant");
                }
                passes(&what, &send(&server, &everywhere, operation, "own").await);
            }
            InProject(role) => {
                for low in below(role) {
                    let answer = send(&server, &tokens[low], operation, "own").await;
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what} as {low}");
                }
                passes(&what, &send(&server, &tokens[role], operation, "own").await);
                for place in ["other", "nowhere", "Not-A-Name"] {
                    let answer = send(&server, &tokens["admin"], operation, place).await;
                    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{what} in {place}");
                    if operation.method != Method::HEAD {
                        assert_eq!(
                            answer.json["error"]["message"], "There is no such project.",
                            "{what} in {place}"
                        );
                    }
                }
            }
        }
    }
    server.stop().await;
}

/// Whatever else may be wrong with an empty request: the door is open.
fn passes(what: &str, answer: &support::Answer) {
    let is_open = answer.status != StatusCode::UNAUTHORIZED && answer.status != StatusCode::FORBIDDEN;
    assert!(is_open && !answer.status.is_server_error(), "{what}: {} {}", answer.status, answer.text);
}

#[tokio::test]
async fn a_cookie_works_only_from_our_own_page() {
    let server = TestServer::start().await;
    let As::Cookie(cookie) = server.admin().await else { panic!("no cookie") };
    let with_origin = |origin: Option<&str>| {
        let body = json!({"project": "x", "title": "x"});
        let mut request = support::request(&As::Nobody, Method::POST, "/api/v1/projects", Some(body));
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        request
    };
    for origin in [None, Some("https://evil.example"), Some("null"), Some("http://localhost:8443")] {
        let answer = server.send(with_origin(origin)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "wrong_origin"), "{origin:?}");
    }
    let answer = server.send(with_origin(Some("https://localhost:8443"))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    server.stop().await;
}
