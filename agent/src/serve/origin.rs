//! Web pages keep out: a page of another site that is open on the device must neither post images and labels nor read
//! what this device is. A browser says for whom it asks in `Origin`, but not where a page asks its own site; so a site
//! whose name was pointed at this machine (DNS rebinding) is known by `Host`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Who can reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This machine alone, by a name of its own.
    Loopback,
    /// Others too, by names that nobody knows here; or a unix socket, which no browser opens.
    Any,
}

/// Refuses requests that a browser sends for a page of another machine. Applications send no `Origin`.
pub(super) async fn check(request: Request<Body>, next: Next) -> Response {
    if is_twice(request.headers()) {
        return ApiError::DoubleHost.into_response();
    }
    match request.headers().get(header::ORIGIN) {
        Some(origin) if !is_local(origin) => ApiError::ForeignOrigin(shown(origin)).into_response(),
        _ => next.run(request).await,
    }
}

/// Refuses requests to this machine by a name that is not its own.
pub(super) async fn check_host(request: Request<Body>, next: Next) -> Response {
    match request.headers().get(header::HOST) {
        Some(_) if is_twice(request.headers()) => ApiError::DoubleHost.into_response(),
        Some(host) if !is_own_name(host) => ApiError::ForeignHost(shown(host)).into_response(),
        _ => next.run(request).await,
    }
}

/// Somebody in between may have taken the other one (RFC 9112, section 3.2).
fn is_twice(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().nth(1).is_some()
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(80).collect()
}

/// A host with or without a port. Unix clients of HTTP often send an empty one.
fn is_own_name(host: &HeaderValue) -> bool {
    let Ok(text) = host.to_str() else { return false };
    text.is_empty()
        || text.parse::<axum::http::uri::Authority>().is_ok_and(|named| is_this_machine(named.host()))
}

fn is_local(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let Some(host) = uri.as_ref().and_then(Uri::host) else { return false };
    is_this_machine(host)
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let is_own = |text: &'static str| is_own_name(&HeaderValue::from_static(text));
        for own in ["localhost", "localhost:8500", "127.0.0.1:8500", "[::1]:8500", "LocalHost:1", ""] {
            assert!(is_own(own), "{own}");
        }
        for other in ["evil.example", "evil.example:8500", "localhost.evil.example", "10.0.0.1:8500", "a b"] {
            assert!(!is_own(other), "{other}");
        }
    }

    #[test]
    fn only_pages_of_this_machine_may_ask() {
        let is_allowed = |text: &'static str| is_local(&HeaderValue::from_static(text));
        for local in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:80", "https://LOCALHOST"] {
            assert!(is_allowed(local), "{local}");
        }
        for foreign in ["null", "http://evil.example", "http://localhost.evil.example", "http://10.0.0.1", ""]
        {
            assert!(!is_allowed(foreign), "{foreign}");
        }
    }
}
