//! The console, built into the binary: files of `console/dist`, the page itself for every other address, so that
//! deep links work.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::ApiError;
use crate::app::AppState;

/// What Vite built, or the placeholder that says how to build it.
#[derive(RustEmbed)]
#[folder = "console/dist"]
struct Files;

/// No script, style, font or connection from anywhere but this server; no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

/// Everything that no other route takes.
pub fn router() -> Router<AppState> {
    Router::new().fallback(file)
}

async fn file(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") || path.starts_with("/enroll/") {
        return ApiError::not_found("address").into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = "Only GET is possible here.";
        return ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response();
    }
    let name = path.trim_start_matches('/');
    if let Some(file) = Files::get(name) {
        return respond(&request, file, name.starts_with("assets/"));
    }
    // A missing file with an extension is a mistake, not a page of the console.
    if name.rsplit('/').next().is_some_and(|last| last.contains('.')) && name.starts_with("assets/") {
        return ApiError::not_found("file").into_response();
    }
    match Files::get("index.html").or_else(|| Files::get("placeholder.html")) {
        Some(page) => respond(&request, page, false),
        None => ApiError::not_found("console").into_response(),
    }
}

fn respond(request: &Request, file: EmbeddedFile, is_named_by_content: bool) -> Response {
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let cache = if is_named_by_content { "public, max-age=31536000, immutable" } else { "no-cache" };
    let is_known =
        request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let content_type = file.metadata.mimetype().to_owned();
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::body::Bytes::from(file.data.into_owned()).into_response()
    };
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, &content_type);
    set(header::ETAG, &etag);
    set(header::CACHE_CONTROL, cache);
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    response
}
