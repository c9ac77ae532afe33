//! An HTTPS server for tests, on a real socket, that misbehaves as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{Http, MaxRate, RATE_WINDOW, Terms};
use crate::config::Proxies;

/// How the next request for something that is there is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// The whole, or from where the range begins.
    Serve,
    /// So many bytes of what was promised, then the connection breaks.
    CutAfter(usize),
    /// So many bytes, then an orderly end; no length was promised.
    EndAfter(usize),
    /// So many bytes at once, then one after the other until the client goes away.
    DripAfter(usize),
    /// Even the head of the answer drips.
    DripAll,
    /// The whole, whatever range was asked for.
    IgnoreRange,
    /// From the beginning, said as a partial answer.
    OtherRange,
}

/// Long for a machine under load, short for a test.
pub(crate) const SHORT: Duration = Duration::from_secs(1);

type Stream = StreamOwned<ServerConnection, TcpStream>;

#[derive(Default)]
struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    /// What has come of samples.
    samples: BTreeMap<String, Vec<u8>>,
    manners: VecDeque<Manner>,
    asked: Vec<(String, usize)>,
}

/// The server.
pub(crate) struct Origin {
    address: String,
    certificate: CertificateDer<'static>,
    shared: Arc<Mutex<Shared>>,
}

impl Origin {
    /// Serves nothing yet.
    pub(crate) fn begin() -> Self {
        Self::begin_on("127.0.0.1:0").unwrap()
    }

    /// The same on another address of this machine, where it has that.
    pub(crate) fn begin_on(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "::1".into()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let shared = Arc::<Mutex<Shared>>::default();
        let (config, seen) = (Arc::new(config), shared.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let tls = ServerConnection::new(config.clone()).unwrap();
                let shared = seen.clone();
                // A client that went away is no fault of the server's.
                std::thread::spawn(move || drop(answer(StreamOwned::new(tls, socket), &shared)));
            }
        });
        Ok(Self { address, certificate, shared })
    }

    /// Serves this at a path.
    pub(crate) fn put(&self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.shared.lock().unwrap().files.insert(path.into(), content.into());
    }

    /// How the next requests are answered; the ones after them as they should be.
    pub(crate) fn answers(&self, manners: impl IntoIterator<Item = Manner>) {
        self.shared.lock().unwrap().manners = manners.into_iter().collect();
    }

    /// What has come of the sample at a path.
    pub(crate) fn sample(&self, path: &str) -> Vec<u8> {
        self.shared.lock().unwrap().samples.get(path).cloned().unwrap_or_default()
    }

    /// Paths that were asked for since this was asked last, each with the byte that its range began at.
    pub(crate) fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.shared.lock().unwrap().asked)
    }

    /// A client that judges rates over the window in use, which no test lives to see.
    pub(crate) fn client(&self) -> Http {
        self.client_with(RATE_WINDOW, RATE_WINDOW)
    }

    /// A client that waits so long for a connection, twice that for an answer, and judges rates over this window.
    pub(crate) fn client_with(&self, connect: Duration, rate_window: Duration) -> Http {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let terms = Terms {
            connect,
            min_rate_bytes_s: 10_000,
            rate_window,
            max_rate: MaxRate::default(),
            proxies: Proxies::default(),
        };
        Http::new(&self.address, &Arc::new(config), terms)
    }
}

fn answer(mut stream: Stream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let (path, from, part) = request(&mut stream);
    if path.contains("/samples/") {
        return stream.write_all(take(&mut shared.lock().unwrap(), path, from, part).as_bytes());
    }
    let (content, manner) = {
        let mut shared = shared.lock().unwrap();
        shared.asked.push((path.clone(), from));
        let content = shared.files.get(&path).cloned();
        let manner = content.is_some().then(|| shared.manners.pop_front()).flatten();
        (content, manner.unwrap_or(Manner::Serve))
    };
    let Some(content) = content else {
        return stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (from, is_part) = match manner {
        Manner::IgnoreRange => (0, false),
        Manner::OtherRange => (0, true),
        _ => (from.min(content.len()), from > 0),
    };
    let body = &content[from..];
    let head = head(manner, is_part, from, content.len());
    let limit = |most: usize| most.min(body.len());
    match manner {
        Manner::Serve | Manner::IgnoreRange | Manner::OtherRange => {
            stream.write_all(&[head.as_bytes(), body].concat())?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        Manner::CutAfter(most) => stream.write_all(&[head.as_bytes(), &body[..limit(most)]].concat()),
        Manner::EndAfter(most) => {
            stream.write_all(&[head.as_bytes(), &body[..limit(most)]].concat())?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        Manner::DripAfter(most) => {
            stream.write_all(&[head.as_bytes(), &body[..limit(most)]].concat())?;
            drip(&mut stream, &body[limit(most)..])
        }
        Manner::DripAll => drip(&mut stream, &[head.as_bytes(), body].concat()),
    }
}

/// Keeps a part of a sample, if it is the one that is due, or breaks off; and says what has come.
fn take(shared: &mut Shared, path: String, first: usize, part: Option<(usize, Vec<u8>)>) -> String {
    shared.asked.push((path.clone(), first));
    let is_cut = part.is_some() && matches!(shared.manners.pop_front(), Some(Manner::CutAfter(_)));
    let got = shared.samples.entry(path).or_default();
    let total = part.as_ref().map_or(usize::MAX, |(total, _)| *total);
    if let Some((_, part)) = part.filter(|_| !is_cut && got.len() == first) {
        got.extend_from_slice(&part);
    }
    let text = format!(r#"{{"got_bytes":{},"is_stored":{}}}"#, got.len(), got.len() == total);
    let answer =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    if is_cut { String::new() } else { answer }
}

/// Path, where the range begins, and what comes with it: a part, and how long the whole is.
fn request(stream: &mut Stream) -> (String, usize, Option<(usize, Vec<u8>)>) {
    let mut reader = BufReader::new(stream);
    let lines = reader.by_ref().lines().map_while(Result::ok);
    let head: Vec<String> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let number = |text: &str| text.parse::<usize>().ok();
    let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let asked = value("range: bytes=").and_then(|range| number(range.strip_suffix('-')?));
    let sent = value("content-range: bytes ").and_then(|range| {
        let (part, total) = range.split_once('/')?;
        Some((number(part.split_once('-')?.0)?, number(total)?))
    });
    let part = sent.map(|(_, total)| {
        let mut body = vec![0; value("content-length: ").and_then(number).unwrap_or(0)];
        let is_whole = reader.read_exact(&mut body).is_ok();
        (total, if is_whole { body } else { Vec::new() })
    });
    (path, asked.or(sent.map(|(first, _)| first)).unwrap_or(0), part)
}

fn head(manner: Manner, is_part: bool, from: usize, whole: usize) -> String {
    let status = if is_part { "206 Partial Content" } else { "200 OK" };
    let range = format!("Content-Range: bytes {from}-{}/{whole}\r\n", whole.saturating_sub(1));
    let length = format!("Content-Length: {}\r\n", whole - from);
    let range = if is_part { &range } else { "" };
    let length = if matches!(manner, Manner::EndAfter(_)) { "" } else { &length };
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{range}{length}\r\n")
}

fn drip(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte])?;
        stream.flush()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
