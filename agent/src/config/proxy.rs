//! The proxy on the way to the server, and who is reached without it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Other programs' variables that mean the same, the preferred first; the keys of our own configuration win.
pub(super) const USUAL: [(&str, &str); 6] = [
    ("https_proxy", PROXY),
    ("HTTPS_PROXY", PROXY),
    ("all_proxy", PROXY),
    ("ALL_PROXY", PROXY),
    ("no_proxy", NO_PROXY),
    ("NO_PROXY", NO_PROXY),
];
const PROXY: &str = "link.proxy";
const NO_PROXY: &str = "link.no_proxy";
const DEFAULT_PORT: u16 = 80;

/// Which hosts are reached through which proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// The proxy; none: everything is reached directly.
    pub proxy: Option<Proxy>,
    /// Who is reached without it, beside this machine itself.
    pub except: Vec<Exception>,
}

impl Proxies {
    /// `except` is a list with commas or spaces between.
    pub(super) fn new(chosen: Chosen, except: &str) -> Self {
        let parts = except.split([',', ' ']).filter(|part| !part.is_empty());
        Self { proxy: chosen.0, except: parts.map(Exception::of).collect() }
    }

    /// The proxy for a host (an IPv6 address without brackets). None for this machine itself, for an exception, and
    /// for an IPv6 address in figures, which not every proxy can tell from its port.
    pub fn for_host(&self, host: &str) -> Option<&Proxy> {
        let address = host.parse::<IpAddr>().ok();
        let is_direct = match address {
            Some(address) => address.is_loopback() || address.is_ipv6(),
            None => host.eq_ignore_ascii_case("localhost"),
        };
        let is_excepted = || self.except.iter().any(|exception| exception.covers(host, address));
        self.proxy.as_ref().filter(|_| !is_direct && !is_excepted())
    }
}

/// An HTTP proxy that opens tunnels (CONNECT).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address; an IPv6 address keeps its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, when it asks for them.
    pub credentials: Option<(String, String)>,
}

impl Proxy {
    /// The value of `Proxy-Authorization`, when there are credentials.
    pub fn authorization(&self) -> Option<String> {
        let (user, password) = self.credentials.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Without the credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// Why a text names no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no proxy of the form http://[USER:PASSWORD@]HOST[:PORT]")]
pub struct NoProxy;

impl FromStr for Proxy {
    type Err = NoProxy;

    fn from_str(text: &str) -> Result<Self, NoProxy> {
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| NoProxy)?),
            _ => (place, DEFAULT_PORT),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || !host.chars().all(is_host) || (host.contains(':') && !is_bracketed) {
            return Err(NoProxy);
        }
        let credentials = credentials.map(|credentials| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            Some((decoded(user)?, decoded(password)?))
        });
        let credentials = credentials.map(|pair| pair.ok_or(NoProxy)).transpose()?;
        Ok(Self { host: host.to_owned(), port, credentials })
    }
}

/// Undoes `%XX`; none if that is malformed or hides a control character.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Who is reached without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    /// Everybody.
    All,
    /// Addresses that begin with these bits.
    Net(IpAddr, u8),
    /// This name and everything below it.
    Name(String),
}

impl Exception {
    fn of(text: &str) -> Self {
        if text == "*" {
            return Self::All;
        }
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(address), Ok(bits)) => Self::Net(address, bits),
            (Ok(address), Err(_)) if bits.is_empty() => Self::Net(address, u8::MAX),
            _ => Self::Name(text.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase()),
        }
    }

    fn covers(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Net(net, bits) => address.is_some_and(|address| is_in(address, *net, *bits)),
            Self::Name(name) => {
                let host = host.to_ascii_lowercase();
                host.strip_suffix(name.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            }
        }
    }
}

fn is_in(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u8| {
        let skipped = u32::from(width.saturating_sub(bits));
        a.checked_shr(skipped).unwrap_or(0) == b.checked_shr(skipped).unwrap_or(0)
    };
    match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// A proxy, or `off`.
#[derive(Default)]
pub(super) struct Chosen(Option<Proxy>);

impl FromStr for Chosen {
    type Err = NoProxy;

    fn from_str(text: &str) -> Result<Self, NoProxy> {
        if text == "off" { Ok(Self(None)) } else { text.parse().map(|proxy| Self(Some(proxy))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_others_refused() {
        let read = |text: &str| text.parse::<Proxy>().map(|p| (p.host, p.port, p.credentials));
        assert_eq!(read("http://proxy.lan:3128/"), Ok(("proxy.lan".into(), 3128, None)));
        assert_eq!(read("10.0.0.1"), Ok(("10.0.0.1".into(), 80, None)));
        assert_eq!(read("http://[fd00::1]"), Ok(("[fd00::1]".into(), 80, None)));
        let credentials = Some(("dev".into(), "p@ss:1".into()));
        assert_eq!(read("http://dev:p%40ss%3a1@h:1"), Ok(("h".into(), 1, credentials)));
        for bad in ["", "https://h:1", "socks5://h:1", "http://h:x", "http://a b", "u:%0d%0a@h", "fd00::1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let proxy: Proxy = "http://dev:secret@h:1".parse().unwrap();
        assert_eq!(format!("{proxy} {proxy:?}"), "http://h:1 Proxy(http://h:1)");
    }

    #[test]
    fn this_machine_and_exceptions_are_reached_directly() {
        let texts = ["corp.example", ".lan", "10.0.0.0/8", "192.0.2.7"];
        let except = texts.into_iter().map(Exception::of).collect();
        let proxies = Proxies { proxy: Some("http://h:1".parse().unwrap()), except };
        let direct = |host: &str| proxies.for_host(host).is_none();
        for host in [
            "localhost",
            "127.0.0.1",
            "::1",
            "corp.example",
            "a.CORP.example",
            "x.lan",
            "10.9.9.9",
            "192.0.2.7",
        ] {
            assert!(direct(host), "{host}");
        }
        for host in ["notcorp.example", "11.0.0.1", "192.0.2.8", "fleet.example"] {
            assert!(!direct(host), "{host}");
        }
        let all = Proxies { except: vec![Exception::of("*")], ..proxies.clone() };
        assert!(all.for_host("fleet.example").is_none());
    }
}
