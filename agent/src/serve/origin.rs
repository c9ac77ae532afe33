//! Web pages keep out: a page of another site that is open on the device must neither post images and labels nor read
//! what this device is. A browser says for whom it asks in `Origin`, but not where a page asks its own site; so a site
//! whose name was pointed at this machine (DNS rebinding) is known by `Host`.

use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Who can reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This machine alone, by a name of its own.
    Loopback,
    /// Others too, by names that nobody knows here.
    Network,
    /// Who may open a unix socket, which no browser does and no name leads to.
    Socket,
}

/// Refuses requests that a browser sends for a page of another machine, and those to this machine by a name that is not
/// its own. Applications send no `Origin`.
pub(super) async fn check(reach: Reach, request: Request<Body>, next: Next) -> Response {
    if let Err(error) = check_host(reach, request.version(), request.uri().authority(), request.headers()) {
        return error.into_response();
    }
    match request.headers().get(header::ORIGIN) {
        Some(origin) if !is_local(origin) => {
            ApiError::ForeignOrigin(shown(&String::from_utf8_lossy(origin.as_bytes()))).into_response()
        }
        _ => next.run(request).await,
    }
}

/// RFC 9112, section 3.2: one name, which is well formed, and none only before HTTP/1.1. Of two, somebody in between may
/// have taken the other one. The one in the request's own line (`absolute`), as proxies are asked, counts as well.
fn check_host(
    reach: Reach,
    version: Version,
    absolute: Option<&Authority>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    if let Some(absolute) = absolute {
        check_name(reach, absolute.as_str())?;
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(ApiError::DoubleHost),
        (None, _) if version == Version::HTTP_11 => return Err(ApiError::NoHost),
        (None, _) => return Ok(()),
        (Some(host), None) => host,
    };
    // Clients of a unix socket have no name to send.
    if reach == Reach::Socket && host.is_empty() {
        return Ok(());
    }
    check_name(reach, &String::from_utf8_lossy(host.as_bytes()))
}

fn check_name(reach: Reach, host: &str) -> Result<(), ApiError> {
    match name_in(host) {
        None => Err(ApiError::GarbledHost(shown(host))),
        Some(name) if reach == Reach::Loopback && !is_this_machine(&name) => {
            Err(ApiError::ForeignHost(shown(host)))
        }
        Some(_) => Ok(()),
    }
}

/// The name in `host`, which may be followed by a port; none where it is no name, or an empty one.
fn name_in(host: &str) -> Option<String> {
    let named = host.parse::<Authority>().ok()?;
    let port = named.as_str().strip_prefix(named.host())?;
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
    };
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    (!named.host().is_empty() && has_port).then(|| named.host().to_owned())
}

fn shown(value: &str) -> String {
    value.chars().take(80).collect()
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

    /// The status of the refusal; 200 for none.
    fn told(reach: Reach, version: Version, hosts: &[&'static str]) -> u16 {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        check_host(reach, version, None, &headers)
            .map_or_else(|error| error.into_response().status().as_u16(), |()| 200)
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for own in
            ["localhost", "localhost:8500", "127.0.0.1:8500", "[::1]:8500", "LocalHost:1", "localhost:"]
        {
            assert_eq!(told(Reach::Loopback, Version::HTTP_11, &[own]), 200, "{own}");
        }
        for other in ["evil.example", "evil.example:8500", "localhost.evil.example", "10.0.0.1:8500"] {
            assert_eq!(told(Reach::Loopback, Version::HTTP_11, &[other]), 403, "{other}");
            assert_eq!(told(Reach::Network, Version::HTTP_11, &[other]), 200, "{other}");
        }
    }

    #[test]
    fn a_name_in_the_request_line_counts_as_that_in_host_does() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        for (absolute, reach, status) in [
            ("localhost:8500", Reach::Loopback, 200),
            ("evil.example", Reach::Loopback, 403),
            ("evil.example", Reach::Network, 200),
            ("localhost:99999", Reach::Network, 400),
        ] {
            let absolute = Authority::from_static(absolute);
            let told = check_host(reach, Version::HTTP_11, Some(&absolute), &headers)
                .map_or_else(|error| error.into_response().status().as_u16(), |()| 200);
            assert_eq!(told, status, "{absolute} {reach:?}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused_and_only_before_http_1_1_none_is_needed() {
        for reach in [Reach::Loopback, Reach::Network, Reach::Socket] {
            let told = |version, hosts: &[&'static str]| told(reach, version, hosts);
            assert_eq!((told(Version::HTTP_11, &[]), told(Version::HTTP_10, &[])), (400, 200), "{reach:?}");
            assert_eq!(told(Version::HTTP_11, &["localhost", "localhost"]), 400, "{reach:?}");
            for garbled in [
                "a b",
                "me@localhost",
                "localhost:x",
                "localhost:99999",
                ":8500",
                "[::1",
                "localhost/v2",
                "http://localhost",
            ] {
                assert_eq!(told(Version::HTTP_11, &[garbled]), 400, "{reach:?} {garbled}");
                assert_eq!(told(Version::HTTP_10, &[garbled]), 400, "{reach:?} {garbled}");
            }
            let empty = if reach == Reach::Socket { 200 } else { 400 };
            assert_eq!(told(Version::HTTP_11, &[""]), empty, "{reach:?}");
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
