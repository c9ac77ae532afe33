//! Where a request comes from: the peer of the connection, or whom a trusted proxy names. What anybody else writes into
//! these headers is a claim and counts for nothing.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use crate::api::error::{ApiError, ApiResult};
use crate::app::AppState;
use crate::config::Network;
use crate::listener::Peer;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address; `None` where there is no connection, as in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl FromRequestParts<AppState> for ClientAddress {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        let trusted = &state.config.https.trusted_proxies;
        Ok(Self(peer.map(|ConnectInfo(peer)| client_of(peer.address.ip(), &parts.headers, trusted))))
    }
}

/// The peer, or behind trusted proxies the right-most address that is none of them: what stands left of it, its sender
/// may have invented.
fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let by_list = chain(headers, X_FORWARDED_FOR).map(|chain| walk(peer, chain, trusted));
    let by_standard = chain(headers, header::FORWARDED.as_str())
        .map(|chain| walk(peer, chain.into_iter().map(named_for).collect(), trusted));
    match (by_list, by_standard) {
        (Some(client), None) | (None, Some(client)) => client,
        (Some(one), Some(other)) if one == other => one,
        // A proxy writes one of the two and passes the other on as it came: nobody knows which one is invented.
        (Some(_), Some(_)) | (None, None) => peer,
    }
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The elements of a header's lists, all its lines joined in order (RFC 9110, 5.3); `None` without such a header.
fn chain<'a>(headers: &'a HeaderMap, name: &str) -> Option<Vec<&'a str>> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    // A line that is no text can't be told apart from an unknown hop.
    let texts = lines.map(|line| line.to_str().unwrap_or_default());
    Some(texts.flat_map(|line| line.split(',')).map(str::trim).collect())
}

/// From the right: each trusted hop vouches for the one before it; a hop that can't be read hides what lies left of it.
fn walk(peer: IpAddr, chain: Vec<&str>, trusted: &[Network]) -> IpAddr {
    let mut client = peer;
    for hop in chain.into_iter().rev() {
        let Some(address) = address_in(hop) else { break };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// The value of `for=` in an element of `Forwarded` (RFC 7239, 4); empty if there is none.
fn named_for(element: &str) -> &str {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let value = pairs.find_map(|(name, value)| name.trim().eq_ignore_ascii_case("for").then_some(value));
    value.unwrap_or_default().trim().trim_matches('"')
}

/// An address, alone or with a port; in brackets or not.
fn address_in(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let alone = text.parse().ok().or_else(bare);
    let address: IpAddr =
        alone.or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client of a request from `peer` with these headers; 10.0.0.0/8 and fd00::/8 are trusted.
    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted: Vec<Network> = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client_of(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    const XFF: &str = X_FORWARDED_FOR;

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let forged = [(XFF, "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(client("203.0.113.9", &forged), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &forged), "192.0.2.1");
        assert_eq!(client("::ffff:10.0.0.1", &forged), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_right_most_untrusted_address_counts() {
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1, 203.0.113.9")]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1, 203.0.113.9, 10.0.0.2")]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1"), (XFF, "203.0.113.9")]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[(XFF, "10.0.0.3,10.0.0.2")]), "10.0.0.3", "all are proxies");
    }

    #[test]
    fn what_cannot_be_read_hides_what_lies_left_of_it() {
        for broken in ["192.0.2.1, unknown", "192.0.2.1, ", "192.0.2.1, 10.0.0", "192.0.2.1, _hidden"] {
            assert_eq!(client("10.0.0.1", &[(XFF, broken)]), "10.0.0.1", "{broken}");
        }
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[(XFF, "")]), "10.0.0.1");
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let forwarded = |text: &str| client("fd00::1", &[("forwarded", text)]);
        assert_eq!(forwarded("for=192.0.2.1;proto=https, for=203.0.113.9;by=10.0.0.2"), "203.0.113.9");
        assert_eq!(forwarded(r#"For="[2001:db8::7]:4711";proto=https"#), "2001:db8::7");
        assert_eq!(forwarded("for=203.0.113.9:80, for=\"[fd00::2]\""), "203.0.113.9");
        assert_eq!(forwarded("proto=https"), "fd00::1");
    }

    #[test]
    fn two_headers_that_disagree_name_nobody() {
        let both =
            |standard: &'static str| client("10.0.0.1", &[(XFF, "192.0.2.1"), ("forwarded", standard)]);
        assert_eq!(both("for=192.0.2.1"), "192.0.2.1");
        assert_eq!(both("for=203.0.113.9"), "10.0.0.1");
    }
}
