//! The way to the server, one stage after the other, so that the first one that fails is the one to repair: name,
//! TCP, TLS with this device's certificate, an answer, the server's time. Plain blocking sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use protocol::UnixMillis;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, StreamOwned};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::finding::Report;
use super::local;
use crate::config::{Config, Proxies, Proxy};
use crate::health::{Clock, ProblemKind};
use crate::link::{Identity, client_config_at};
use crate::shown::duration;

/// A refusal of our certificate comes after the handshake: so long is listened for it.
const AFTERMATH: Duration = Duration::from_millis(700);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
/// A difference to the server's clock that is worth a word.
const SKEW_MS: u64 = 5 * 60 * 1000;

/// Returns the time that the server says it is, if it was heard.
pub(super) fn reach(
    report: &mut Report,
    config: &Config,
    identity: &Identity,
    clock: &Clock,
) -> Option<UnixMillis> {
    let tls = local::tls(report, identity, clock)?;
    let bound = config.link.connect_timeout;
    let proxies = &config.link.proxies;
    let device = Way { check: "server", url: &identity.device_url, tls: &tls, bound, proxies };
    let heard = match device.open(report) {
        Some(Ok(mut stream)) => device.ask(report, &mut stream, identity),
        Some(Err(error)) => {
            let heard = holds_at(&error).and_then(|at| device.time_at(identity, at));
            device.tls_failed(report, &error, heard);
            heard
        }
        None => None,
    };
    if let Some(server) = heard {
        skew(report, clock, server);
    }
    let mqtt = Way { check: "mqtt", url: &identity.mqtt_url, tls: &tls, bound, proxies };
    match mqtt.open(report).map(|opened| opened.and_then(|mut stream| linger(&mut stream))) {
        Some(Ok(())) => report.ok("mqtt", format!("{} accepts this device's certificate", mqtt.url)),
        Some(Err(error)) => mqtt.tls_failed(report, &error, heard),
        None => {}
    }
    heard
}

/// When the certificate does hold that this clock refuses.
fn holds_at(error: &std::io::Error) -> Option<UnixTime> {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(*not_after)
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => Some(*not_before),
        _ => None,
    }
}

fn millis(at: UnixTime) -> UnixMillis {
    UnixMillis(i64::try_from(at.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

struct Way<'a> {
    check: &'static str,
    url: &'a str,
    tls: &'a Arc<ClientConfig>,
    bound: Duration,
    proxies: &'a Proxies,
}

impl Way<'_> {
    /// None when it is told already why there is no connection.
    fn open(&self, report: &mut Report) -> Option<std::io::Result<Stream>> {
        let Some((host, port)) = crate::link::host_and_port(self.url) else {
            report.fail(self.check, format!("{} is no usable address", self.url), "enrol this device again");
            return None;
        };
        let tcp = match self.proxies.for_host(&host) {
            Some(proxy) => self.tunnel(report, proxy, (&host, port))?,
            None => self.reach(report, (&host, port), self.url)?,
        };
        let name = ServerName::try_from(host).ok()?;
        let mut session = ClientConnection::new(self.tls.clone(), name).ok()?;
        let mut tcp = tcp;
        while session.is_handshaking() {
            if let Err(error) = session.complete_io(&mut tcp) {
                return Some(Err(error));
            }
        }
        Some(Ok(StreamOwned::new(session, tcp)))
    }

    /// The time that the server says it is, where its certificate holds at another time than this clock says.
    fn time_at(&self, identity: &Identity, at: UnixTime) -> Option<UnixMillis> {
        let tls = client_config_at(identity, at).ok()?;
        let way = Way { tls: &tls, ..*self };
        way.ask(&mut Report::default(), &mut way.open(&mut Report::default())?.ok()?, identity)
    }

    /// Through the proxy: its own name and TCP first, then what it answers.
    fn tunnel(&self, report: &mut Report, proxy: &Proxy, (host, port): (&str, u16)) -> Option<TcpStream> {
        let place = (proxy.host.trim_matches(['[', ']']), proxy.port);
        let mut tcp = self.reach(report, place, &proxy.to_string())?;
        match ask_for_tunnel(&mut tcp, proxy, host, port) {
            Ok(200) => Some(tcp),
            Ok(407) => {
                let todo = "give user and password: link.proxy = \"http://USER:PASSWORD@HOST:PORT\"";
                report.fail(self.check, format!("the proxy {proxy} asks who this is (407)"), todo);
                None
            }
            Ok(status) => {
                let todo = "allow this place in the proxy, or name it in link.no_proxy";
                let what = format!("the proxy {proxy} answers {status} when asked for {host}:{port}");
                report.fail(self.check, what, todo);
                None
            }
            Err(error) => {
                let todo = "is that an HTTP proxy? look at link.proxy and at HTTPS_PROXY";
                report.fail(self.check, format!("the proxy {proxy} gives no answer: {error}"), todo);
                None
            }
        }
    }

    fn reach(&self, report: &mut Report, place: (&str, u16), shown: &str) -> Option<TcpStream> {
        let addresses: Vec<SocketAddr> = match place.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let todo = "check the device's DNS, or the name in the server's settings";
                report.fail(self.check, format!("the name {} can't be resolved: {error}", place.0), todo);
                return None;
            }
        };
        self.connect(report, &addresses, shown)
    }

    fn connect(&self, report: &mut Report, addresses: &[SocketAddr], shown: &str) -> Option<TcpStream> {
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(address, self.bound) {
                Ok(tcp) => {
                    let bounded = tcp.set_read_timeout(Some(self.bound));
                    return bounded.and_then(|()| tcp.set_write_timeout(Some(self.bound))).ok().map(|()| tcp);
                }
                Err(error) => last = Some((address, error)),
            }
        }
        let (what, kind) = match last {
            Some((address, error)) => (format!("{shown} ({address}): {error}"), error.kind()),
            None => (format!("{shown}: its name has no address"), ErrorKind::NotFound),
        };
        let todo = match kind {
            ErrorKind::ConnectionRefused => {
                "the machine answers, but no server listens there: start it, or check the port"
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                "nothing answers: a firewall in between, or the machine is off"
            }
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
                "this device has no route there: check its network"
            }
            _ => "check the device's network",
        };
        report.fail(self.check, what, todo);
        None
    }

    fn tls_failed(&self, report: &mut Report, error: &std::io::Error, heard: Option<UnixMillis>) {
        let todo = match tls_error(error) {
            Some(rustls::Error::AlertReceived(alert)) => match alert {
                AlertDescription::CertificateExpired => {
                    "this device's certificate has expired: enrol it again with a new token"
                }
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                    "something in between changes TLS: look for a proxy or firewall that inspects it"
                }
                _ => {
                    "the server does not let this device in: was it decommissioned or enrolled anew elsewhere?"
                }
            },
            Some(rustls::Error::InvalidCertificate(why)) => match why {
                CertificateError::ExpiredContext { not_after, .. }
                    if heard.is_some_and(|at| at <= millis(*not_after)) =>
                {
                    "by the server's clock its certificate holds: set this device's clock first"
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "look at this device's clock first; if it is right, the server's certificate has expired: restart the \
                     server, it renews its own"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "the server's certificate begins later than this device's clock: set the clock"
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "the server's certificate lacks this name: add it to the server's names and restart it"
                }
                _ => {
                    "that is not the fleet's server, or a proxy in between breaks TLS open: the fleet's CA did not sign it"
                }
            },
            _ => "the connection broke in the handshake: is that really the server's port?",
        };
        report.fail(self.check, format!("{}: TLS: {error}", self.url), todo);
    }

    fn ask(&self, report: &mut Report, stream: &mut Stream, identity: &Identity) -> Option<UnixMillis> {
        let path = format!("/tuf/v1/{}/timestamp.json", identity.project);
        let head = match request(stream, &path) {
            Ok(head) => head,
            Err(error) => {
                self.tls_failed(report, &error, None);
                return None;
            }
        };
        let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        match status {
            200 | 404 => report.ok(self.check, format!("{} answers this device", self.url)),
            401 | 403 | 410 => report.fail(
                self.check,
                format!("{} answers {status}", self.url),
                ProblemKind::NotAdmitted.advice(),
            ),
            _ => report.warn(
                self.check,
                format!("{} answers {status}", self.url),
                "the server is in trouble: look at its log",
            ),
        }
        let date = head.lines().find_map(|line| {
            Some(line.split_once(':')?).filter(|(name, _)| name.eq_ignore_ascii_case("date"))
        });
        date.and_then(|(_, text)| http_date(text.trim()))
    }
}

fn skew(report: &mut Report, clock: &Clock, server: UnixMillis) {
    let ahead = clock.now().millis_since(server);
    let apart = duration(i64::try_from(ahead.unsigned_abs()).unwrap_or(i64::MAX));
    if ahead.unsigned_abs() > SKEW_MS {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let todo = "give the device a time server; or the server's clock is wrong";
        report.warn("clock", format!("{apart} {side} the server's clock"), todo);
    } else {
        report.ok("clock", format!("agrees with the server's within {apart}"));
    }
}

/// Returns the status of the proxy's answer.
fn ask_for_tunnel(tcp: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> std::io::Result<u16> {
    let authorization = proxy.authorization().map(|text| format!("Proxy-Authorization: {text}\r\n"));
    let authorization = authorization.unwrap_or_default();
    write!(tcp, "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n")?;
    let head = read_head(tcp)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, "that is not HTTP"))
}

/// HTTP/1.0, and only the answer's head is read.
fn request(stream: &mut Stream, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    read_head(stream)
}

fn read_head(stream: &mut impl Read) -> std::io::Result<String> {
    let (mut head, mut buffer) = (Vec::new(), [0; 2048]);
    while head.len() < MAX_HEAD_BYTES && !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => break,
            got => head.extend_from_slice(&buffer[..got]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Listens for a refusal; silence is consent.
fn linger(stream: &mut Stream) -> std::io::Result<()> {
    stream.sock.set_read_timeout(Some(AFTERMATH))?;
    match stream.read(&mut [0; 64]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        Ok(0) => Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the server ended the connection")),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn http_date(text: &str) -> Option<UnixMillis> {
    let at = time::PrimitiveDateTime::parse(text, HTTP_DATE).ok()?;
    Some(UnixMillis(OffsetDateTime::unix_timestamp(at.assume_utc()).saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};
    use serde_json::json;
    use time::ext::NumericalDuration as _;

    use super::*;
    use crate::config::RawConfig;
    use crate::doctor::{Finding, Level, examine};

    /// A server whose certificate, which is the device's as well, holds about this time: it says that it is this time.
    fn server_at(now: OffsetDateTime) -> (String, serde_json::Value) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        (params.not_before, params.not_after) = (now - 10.days(), now + 20.days());
        let certificate = params.self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], der).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let head = format!("HTTP/1.1 200 OK\r\nDate: {}\r\n\r\n", now.format(HTTP_DATE).unwrap());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket);
                // Those that refuse the certificate, or only shake hands, ask for nothing.
                let _gone = read_head(&mut stream).and_then(|_| stream.write_all(head.as_bytes()));
            }
        });
        let identity = json!({
            "project": "p",
            "device": "d",
            "certificate": certificate.pem(),
            "key": key.serialize_pem(),
            "ca": certificate.pem(),
            "report_seed": "A".repeat(43) + "=",
            "root_pin": null,
        });
        (address, identity)
    }

    /// What is found about the device's certificate, the server and the clock.
    fn found(address: &str, mut identity: serde_json::Value) -> Vec<Finding> {
        let dir = tempfile::tempdir().unwrap();
        identity["device_url"] = format!("https://{address}").into();
        identity["mqtt_url"] = format!("mqtts://{address}").into();
        serde_json::from_value::<Identity>(identity).unwrap().store(dir.path()).unwrap();
        let state_dir = format!("state_dir={}", dir.path().display());
        let config =
            RawConfig::default().with_flags([state_dir.as_str(), "serve.listen=127.0.0.1:0"].into_iter());
        let mut checks = examine(&config.check()).checks;
        checks.retain(|one| ["certificate", "server", "clock"].contains(&one.check));
        checks
    }

    fn todo<'a>(checks: &'a [Finding], check: &str, part: &str) -> &'a str {
        let found = checks.iter().find(|one| one.check == check && one.what.contains(part));
        found.and_then(|one| one.todo.as_deref()).unwrap_or_else(|| panic!("{check} {part:?}: {checks:#?}"))
    }

    #[test]
    fn a_clock_that_is_far_ahead_is_to_be_set_before_anything_is_enrolled_or_restarted() {
        let (address, identity) = server_at(OffsetDateTime::now_utc() - 400.days());
        let checks = found(&address, identity.clone());
        assert!(todo(&checks, "clock", "400 d 0 h ahead of the server's").contains("time server"));
        let certificate = todo(&checks, "certificate", "but not by the server's");
        assert!(certificate.starts_with("set the clock") && !certificate.contains("enrol"), "{certificate}");
        assert!(todo(&checks, "server", "TLS").contains("set this device's clock first"));
        // Nobody is there to compare it with.
        let checks = found("127.0.0.1:1", identity);
        assert!(todo(&checks, "certificate", "by its clock it is").starts_with("look at the device's clock"));
    }

    #[test]
    fn a_certificate_that_has_expired_by_the_servers_clock_too_takes_a_new_one() {
        let now = OffsetDateTime::now_utc();
        let (address, mut identity) = server_at(now - 400.days());
        for url in ["device_url", "mqtt_url"] {
            identity[url] = format!("https://{address}").into();
        }
        let identity: Identity = serde_json::from_value(identity).unwrap();
        let mut report = Report::default();
        let server = UnixMillis(now.unix_timestamp() * 1000);
        local::certificates(&mut report, &identity, server, Some(server));
        assert_eq!(report.worst(), Level::Fail);
        assert!(todo(&report.checks, "certificate", "expired").contains("enroll --force"));
    }

    #[test]
    fn an_identity_that_lies_in_one_place_only_is_told_before_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut identity) = server_at(OffsetDateTime::now_utc());
        for url in ["device_url", "mqtt_url"] {
            identity[url] = "https://127.0.0.1:1".into();
        }
        let identity: Identity = serde_json::from_value(identity).unwrap();
        identity.store(dir.path()).unwrap();
        let found = || {
            let mut report = Report::default();
            local::identity(&mut report, &identity, dir.path());
            report
        };
        assert_eq!(found().worst(), Level::Ok);
        std::fs::write(dir.path().join("identity.copy.json"), "{").unwrap();
        let report = found();
        assert_eq!(report.worst(), Level::Warn);
        assert!(todo(&report.checks, "identity", "identity.copy.json is damaged").starts_with("restart"));
    }

    #[test]
    fn the_servers_date_is_read() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:01:00 GMT"), Some(UnixMillis(60_000)));
        assert_eq!(http_date("yesterday"), None);
    }
}
