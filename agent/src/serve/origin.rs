//! Web pages keep out: a page of another site that is open on the device must not post images and labels.

use axum::body::Body;
use axum::http::{HeaderValue, Request, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Refuses requests that a browser sends for a page of another machine. Applications send no `Origin`.
pub(super) async fn check(request: Request<Body>, next: Next) -> Response {
    match request.headers().get(header::ORIGIN) {
        Some(origin) if !is_local(origin) => {
            ApiError::ForeignOrigin(String::from_utf8_lossy(origin.as_bytes()).chars().take(80).collect())
                .into_response()
        }
        _ => next.run(request).await,
    }
}

fn is_local(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let Some(host) = uri.as_ref().and_then(Uri::host) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

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
