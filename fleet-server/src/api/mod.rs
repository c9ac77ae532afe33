//! REST under `/api/v1`: one file per resource; handlers extract, authorise, call domain or store, and map.
//!
//! The OpenAPI document is generated from the handlers; `tests/openapi.rs` fails when `docs/openapi.json` is stale.
//! Access is decided by the extractors in [`extract`] only.

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use self::error::ApiError;
use self::known_query::KnownQuery;
use crate::app::AppState;

pub mod alerts;
pub mod audit;
pub mod blobs;
mod common_answers;
pub mod console;
pub mod device_body;
pub mod devices;
pub mod drift;
pub mod enrollment_tokens;
pub mod error;
pub mod extract;
pub mod health;
pub mod history;
mod known_query;
pub mod logs;
pub mod measurements;
pub mod models;
pub mod overview;
pub mod projects;
pub mod publications;
pub mod quarantine;
pub mod rollout_body;
pub mod rollouts;
pub mod sample_uploads;
pub mod samples;
pub mod session;
pub mod stream;
pub mod stream_places;
pub mod tokens;
pub mod types;
pub mod users;

/// Where the API begins.
pub const PREFIX: &str = "/api/v1";

/// Head of the OpenAPI document.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Flotilla", description = "REST API of flotilla-server; see docs/API.md.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    security(("session" = []), ("token" = []))
)]
struct Document;

/// Every documented route.
pub fn documented() -> OpenApiRouter<AppState> {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(extract::SESSION_COOKIE)));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    components.add_security_scheme("session", cookie);
    components.add_security_scheme("token", bearer);
    let resources = OpenApiRouter::new()
        .merge(session::router())
        .merge(users::router())
        .merge(tokens::router())
        .merge(projects::router())
        .merge(overview::router())
        .merge(devices::router())
        .merge(history::router())
        .merge(logs::router())
        .merge(quarantine::router())
        .merge(enrollment_tokens::router())
        .merge(models::router())
        .merge(measurements::router())
        .merge(publications::router())
        .merge(rollouts::router())
        .merge(drift::router())
        .merge(samples::router())
        .merge(alerts::router())
        .merge(audit::router())
        .merge(stream::router());
    let mut router = OpenApiRouter::with_openapi(document).nest(PREFIX, resources.merge(blobs::router()));
    common_answers::CommonAnswers.modify(router.get_openapi_mut());
    router
}

/// The whole `https` port.
pub fn router(state: AppState) -> Router {
    let (documented, document) = documented().split_for_parts();
    let known = KnownQuery::of(&document);
    documented
        .route_layer(middleware::from_fn_with_state(known, known_query::refuse_unknown))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(DefaultBodyLimit::max(state.config.limits.json_bytes))
        .merge(crate::pki::enroll::router())
        .merge(health::router())
        .merge(console::router())
        .layer(middleware::from_fn_with_state(state.clone(), around))
        .with_state(state)
}

/// The OpenAPI document as committed in `docs/openapi.json`.
pub fn openapi_json() -> String {
    let mut text =
        documented().into_openapi().to_pretty_json().expect("our own document has only string keys");
    text.push('\n');
    text
}

/// Whether the browser calls this machine by a name that all its programs share: a rule for this port would take
/// the others, such as an agent's, away for a year.
fn is_local(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

const KNOWN_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Headers that every answer carries, and the count of answers.
async fn around(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let path = request.extensions().get::<MatchedPath>().map_or("console", |path| path.as_str()).to_owned();
    let method = request.method().clone();
    let is_local = is_local(&request);
    // A model may take long on a thin line; everything else is small.
    let is_upload = method == Method::PUT && path.contains("/blobs/");
    let answer = next.run(request);
    let mut response = if is_upload {
        answer.await
    } else {
        let late = |_| ApiError::too_slow().into_response();
        tokio::time::timeout(state.config.limits.request, answer).await.unwrap_or_else(late)
    };
    let status = response.status().as_u16().to_string();
    // Anybody can invent a method; only known ones become a series of their own.
    let method = if KNOWN_METHODS.contains(&method) { method.as_str() } else { "other" };
    let labels = [("method", method), ("path", path.as_str()), ("status", status.as_str())];
    state.metrics.counter("flotilla_http_requests_total", "Answers of the https port.", &labels).add(1);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if !is_local {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if is_api && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
