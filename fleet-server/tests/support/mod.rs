//! A whole server for tests: real database, real blob folder, real ports on loopback, a fixed clock.
#![expect(dead_code, reason = "each test binary uses its part of this")]

pub(crate) mod postgres;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use flotilla_server::app::{self, Running};
use flotilla_server::clock::Clock;
use flotilla_server::{api, config};
use http_body_util::BodyExt;
use protocol::UnixMillis;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// When the tests' clock begins.
pub(crate) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// The host that requests are sent to.
const HOST: &str = "localhost:8443";

/// A server and its folder.
pub(crate) struct TestServer {
    /// The running server.
    pub(crate) running: Running,
    /// Moves the server's time.
    pub(crate) clock: Clock,
    router: Router,
    dir: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body; null if it isn't JSON.
    pub(crate) json: Value,
    /// Its body as text.
    pub(crate) text: String,
}

impl Answer {
    /// The error's code.
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }
}

/// How a request proves who asks.
#[derive(Debug, Clone)]
pub(crate) enum As {
    /// Not at all.
    Nobody,
    /// By cookie, from our own page.
    Cookie(String),
    /// By API token.
    Token(String),
}

impl TestServer {
    /// Starts with an empty folder.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir).await
    }

    /// Starts with this folder and the tests' clock.
    pub(crate) async fn start_in(dir: TempDir) -> Self {
        Self::start_with(dir, Clock::fixed(NOW)).await
    }

    /// Starts with the machine's clock, for tests with real TLS.
    pub(crate) async fn start_now() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), Clock::system()).await
    }

    /// Starts with an empty folder on this database.
    pub(crate) async fn start_on(database: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = [("database.url".to_owned(), database.to_owned())];
        Self::start_set(dir, Clock::fixed(NOW), &set).await
    }

    async fn start_with(dir: TempDir, clock: Clock) -> Self {
        Self::start_set(dir, clock, &[]).await
    }

    /// Starts with these settings beside the usual ones.
    pub(crate) async fn start_set(dir: TempDir, clock: Clock, more: &[(String, String)]) -> Self {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut flags = vec![
            set("data_dir", &dir.path().join("data").display().to_string()),
            set("https.listen", "127.0.0.1:0"),
            set("device.listen", "127.0.0.1:0"),
            set("mqtt.listen", "127.0.0.1:0"),
            set("shutdown_s", "3"),
        ];
        flags.extend_from_slice(more);
        let config = config::load(None, [], &flags).unwrap();
        let running = app::start(config, clock.clone()).await.unwrap();
        let router = api::router(running.state.clone());
        Self { running, clock, router, dir }
    }

    /// The data folder.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Ends the server and gives its folder back.
    pub(crate) async fn stop(self) -> TempDir {
        self.running.shutdown_signal().cancel();
        let ending = self.running.run().await;
        assert!(ending.aborted.is_empty(), "still running at the deadline: {:?}", ending.aborted);
        self.dir
    }

    /// Sends a request to the router.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let is_stream = parts.headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "text/event-stream");
        let bytes = if is_stream { bytes::Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
        Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Opens a live stream; `path` begins after `/api/v1`.
    pub(crate) async fn open(&self, who: &As, path: &str) -> Body {
        let request = request(who, Method::GET, &format!("/api/v1{path}"), None);
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    }

    /// Calls the API; `path` begins after `/api/v1`.
    pub(crate) async fn call(&self, who: &As, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(request(who, method, &format!("/api/v1{path}"), body)).await
    }

    /// GET.
    pub(crate) async fn get(&self, who: &As, path: &str) -> Answer {
        self.call(who, Method::GET, path, None).await
    }

    /// POST.
    pub(crate) async fn post(&self, who: &As, path: &str, body: Value) -> Answer {
        self.call(who, Method::POST, path, Some(body)).await
    }

    /// Signs the first admin in and chooses a password.
    pub(crate) async fn admin(&self) -> As {
        let first = self.running.first_admin.clone().unwrap();
        let who = self.sign_in("admin", &first.password).await;
        let body = json!({"old_password": first.password, "new_password": "long enough for tests"});
        let changed = self.post(&who, "/session/password", body).await;
        assert_eq!(changed.status, StatusCode::NO_CONTENT, "{}", changed.text);
        cookie_of(&changed)
    }

    /// Signs in.
    pub(crate) async fn sign_in(&self, username: &str, password: &str) -> As {
        let body = json!({"username": username, "password": password});
        let answer = self.post(&As::Nobody, "/session", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        cookie_of(&answer)
    }

    /// Makes an API token of the admin with this role in this project.
    pub(crate) async fn token(&self, admin: &As, project: &str, role: &str) -> As {
        let answer =
            self.post(admin, "/tokens", json!({"title": "test", "project": project, "role": role})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        As::Token(answer.json["text"].as_str().unwrap().to_owned())
    }
}

/// The session that an answer sets.
pub(crate) fn cookie_of(answer: &Answer) -> As {
    let cookie = answer.headers.get(header::SET_COOKIE).unwrap().to_str().unwrap();
    for part in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie} lacks {part}");
    }
    As::Cookie(cookie.split(';').next().unwrap().to_owned())
}

/// A request as a browser or script would send it.
pub(crate) fn request(who: &As, method: Method, uri: &str, body: Option<Value>) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(uri).header(header::HOST, HOST);
    builder = match who {
        As::Nobody => builder,
        As::Cookie(cookie) => {
            builder.header(header::COOKIE, cookie).header(header::ORIGIN, format!("https://{HOST}"))
        }
        As::Token(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
    };
    match body {
        Some(body) => builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap(),
        None => builder.body(Body::empty()).unwrap(),
    }
}
