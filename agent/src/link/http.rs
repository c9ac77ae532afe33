//! HTTP over TLS: small bounded answers, and large transfers that resume where they stopped.
//!
//! A transfer goes to a `.part` file, is hashed while it streams, stops one byte over its bound, and is given up
//! when its average rate over a window is too low (attack D4); what has come so far stays for the next try.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use protocol::Digest;
use release::BlobRef;
use rustls::ClientConfig;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::{Proxies, Proxy};
use crate::durable::{self, DurableError, Readers, cut};

/// Bytes of a transfer that are written at once.
const GATHERED_BYTES: usize = 64 * 1024;

/// What the minimum rate is judged over in use.
pub const RATE_WINDOW: Duration = Duration::from_secs(30);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An address that can't be one.
    #[error("{url} is no usable address")]
    Address {
        /// As given.
        url: String,
    },
    /// No connection, or it broke.
    #[error("cannot fetch {url}: {why}")]
    Network {
        /// What was asked for.
        url: String,
        /// The whole chain of reasons.
        why: String,
    },
    /// No answer in time, or too slow.
    #[error("{url} gave too little within {bound_s} s")]
    TooSlow {
        /// What was asked for.
        url: String,
        /// The time that was exceeded, in seconds.
        bound_s: u64,
    },
    /// An answer that says no.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        text: String,
    },
    /// Longer than allowed or than signed.
    #[error("{url} gave more than {max_bytes} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The bound.
        max_bytes: u64,
    },
    /// Not the signed content; it was thrown away.
    #[error("{url} gave content that was not signed")]
    Content {
        /// What was asked for.
        url: String,
        /// What differs.
        source: release::BlobError,
    },
    /// The disk.
    #[error("cannot keep what {url} gave")]
    Disk {
        /// What was asked for.
        url: String,
        /// Why not.
        source: DurableError,
    },
}

/// A refusal that the server gave a name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Refusal {
    /// Stable code, e.g. `superseded`.
    pub code: String,
    /// Its sentence.
    pub message: String,
}

#[derive(serde::Deserialize)]
struct RefusalBody {
    error: Refusal,
}

impl FetchError {
    /// What the server refused by name: trying again does not help. None for anything else that went wrong.
    pub fn refusal(&self) -> Option<Refusal> {
        let Self::Status { status, text, .. } = self else { return None };
        let is_final = status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS;
        serde_json::from_str::<RefusalBody>(text).ok().filter(|_| is_final).map(|body| body.error)
    }
}

/// Highest average rate of a transfer in bytes per second, 0 for none. All clones are one: a change holds for the transfers
/// under way, too.
#[derive(Debug, Clone, Default)]
pub struct MaxRate(Arc<AtomicU64>);

impl MaxRate {
    /// This one.
    pub fn new(bytes_s: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes_s)))
    }

    /// Another one, from now on.
    pub fn set(&self, bytes_s: u64) {
        self.0.store(bytes_s, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How requests go: their bounds, and the proxy in between.
#[derive(Debug, Clone)]
pub struct Terms {
    /// TCP and TLS together, and the wait for the first byte.
    pub connect: Duration,
    /// Least average rate in bytes per second.
    pub min_rate_bytes_s: u64,
    /// The least rate is judged over this long; a small answer may take twice as long.
    pub rate_window: Duration,
    /// Highest average rate of a transfer.
    pub max_rate: MaxRate,
    /// Which proxy stands before which host.
    pub proxies: Proxies,
}

/// A client for one server. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    client: AnyClient,
    base: Arc<str>,
    terms: Terms,
}

/// Some bytes of something larger. Never empty.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it begins.
    pub first: u64,
    /// Bytes of the whole.
    pub total: u64,
    /// The part.
    pub bytes: Bytes,
}

/// Directly, or through a proxy's tunnel; TLS ends at the server either way.
#[derive(Clone)]
enum AnyClient {
    Direct(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Tunnelled(Client<HttpsConnector<Tunnel<HttpConnector>>, Full<Bytes>>),
}

impl AnyClient {
    fn request(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match self {
            Self::Direct(client) => client.request(request),
            Self::Tunnelled(client) => client.request(request),
        }
    }
}

impl Http {
    /// For the server at `base` (`https://host:port`).
    pub fn new(base: &str, tls: &Arc<ClientConfig>, terms: Terms) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(terms.connect));
        tcp.set_nodelay(true);
        let host = super::host_and_port(base).map(|(host, _)| host);
        let proxy = host.and_then(|host| terms.proxies.for_host(&host));
        let client = match proxy.and_then(|proxy| tunnel(proxy, tcp.clone())) {
            Some(tunnel) => AnyClient::Tunnelled(client(tls, tunnel)),
            None => AnyClient::Direct(client(tls, tcp)),
        };
        Self { client, base: base.trim_end_matches('/').into(), terms }
    }

    /// What its transfers keep to, shared with them.
    pub fn max_rate(&self) -> &MaxRate {
        &self.terms.max_rate
    }

    /// The body at `path` (beginning with `/`), or none if the server has no such thing.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, FetchError> {
        let (url, response) = self.send(Method::GET, path, &[], Bytes::new()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = self.expect_success(&url, response).await?;
        self.collect(&url, response, max_bytes).await.map(Some)
    }

    /// Posts JSON and returns the answer's body.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn post_json(&self, path: &str, body: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>, FetchError> {
        let (url, response) = self
            .send(Method::POST, path, &[(header::CONTENT_TYPE, "application/json".to_owned())], body.into())
            .await?;
        let response = self.expect_success(&url, response).await?;
        self.collect(&url, response, max_bytes).await
    }

    /// Sends a part of something and returns the answer, whatever its status.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn put_part(
        &self,
        path: &str,
        part: Part,
        max_bytes: u64,
    ) -> Result<(StatusCode, Vec<u8>), FetchError> {
        let Part { first, total, bytes } = part;
        let last = first + u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_sub(1);
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_RANGE, format!("bytes {first}-{last}/{total}")),
        ];
        let mut pace = Pace::new(self.terms.max_rate.clone());
        let length = bytes.len();
        let (url, response) = self.send(Method::PUT, path, &headers, bytes).await?;
        let status = response.status();
        let answer = self.collect(&url, response, max_bytes).await?;
        pace.wait(length).await;
        Ok((status, answer))
    }

    /// Fetches a blob as it is into `part`, from where an earlier try stopped; synced and verified when it returns.
    ///
    /// # Errors
    /// [`FetchError`]; the part stays for the next try, unless its content is wrong.
    pub async fn fetch_blob(&self, blob: &BlobRef, part: &Path) -> Result<(), FetchError> {
        let path = format!("/blobs/v1/sha256/{}", blob.digest);
        let (got_bytes, digest) = self.fetch_part(&path, blob.size_bytes, part).await?;
        let url = format!("{}{path}", self.base);
        if got_bytes < blob.size_bytes {
            let why = format!("ended after {got_bytes} of {} bytes", blob.size_bytes);
            return Err(FetchError::Network { url, why });
        }
        blob.verify_digest(digest).map_err(|source| {
            let _ = durable::aside(|| fs::remove_file(part));
            FetchError::Content { url, source }
        })
    }

    /// Fetches what lies at `path` into `part`, from where an earlier try stopped; synced when it returns, and
    /// verified by nobody yet. Returns its length and digest.
    ///
    /// # Errors
    /// [`FetchError`]; the part stays for the next try, unless it is too long.
    pub async fn fetch_part(
        &self,
        path: &str,
        max_bytes: u64,
        part: &Path,
    ) -> Result<(u64, Digest), FetchError> {
        let url = format!("{}{path}", self.base);
        let disk = |operation| disk_error(&url, part, operation);
        let mut sink = durable::aside(|| Sink::open(part, max_bytes)).map_err(disk("open"))?;
        if sink.length < max_bytes {
            let from = (sink.length > 0).then_some(sink.length);
            let range = from.map(|from| (header::RANGE, format!("bytes={from}-")));
            let (_, response) = self.send(Method::GET, path, range.as_slice(), Bytes::new()).await?;
            // Nothing is left to come: what is there is the whole, or it will not verify.
            let is_whole = response.status() == StatusCode::RANGE_NOT_SATISFIABLE && from.is_some();
            if !is_whole {
                let response = self.expect_success(&url, response).await?;
                if response.status() != StatusCode::PARTIAL_CONTENT {
                    sink.restart().map_err(disk("truncate"))?;
                } else if !begins_at(&response, sink.length) {
                    // Joined to what is here it would only fail later, and after all of it had come.
                    sink.restart().map_err(disk("truncate"))?;
                    let why = "it answered with another part than was asked for".into();
                    return Err(FetchError::Network { url, why });
                }
                let came = self.stream(&url, response, max_bytes, &mut sink, part).await;
                // What has come of one that broke stays for the next try.
                let kept = sink.write_out().map_err(disk("write"));
                came.and(kept)?;
            }
        }
        durable::aside(|| sink.file.get_ref().sync_all()).map_err(disk("sync"))?;
        Ok((sink.length, sink.digest()))
    }

    async fn stream(
        &self,
        url: &str,
        response: Response<Incoming>,
        size_bytes: u64,
        sink: &mut Sink,
        part: &Path,
    ) -> Result<(), FetchError> {
        let rate_window = self.terms.rate_window;
        let mut pace = Pace::new(self.terms.max_rate.clone());
        let mut body = response.into_body();
        let (mut window, mut at_window) = (Instant::now(), sink.length);
        let least = u64::try_from(self.terms.rate_window.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(self.terms.min_rate_bytes_s)
            / 1000;
        loop {
            let frame = tokio::time::timeout_at(window + rate_window, body.frame()).await;
            if window.elapsed() >= rate_window {
                if sink.length - at_window < least {
                    return Err(FetchError::TooSlow { url: url.into(), bound_s: rate_window.as_secs() });
                }
                (window, at_window) = (Instant::now(), sink.length);
            }
            let Ok(frame) = frame else { continue };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| network(url, &error))?;
            let Some(data) = frame.data_ref() else { continue };
            if sink.length + u64::try_from(data.len()).unwrap_or(u64::MAX) > size_bytes {
                let _ = durable::aside(|| fs::remove_file(part));
                return Err(FetchError::TooLong { url: url.into(), max_bytes: size_bytes });
            }
            sink.write(data).map_err(disk_error(url, part, "write"))?;
            pace.wait(data.len()).await;
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
        body: Bytes,
    ) -> Result<(String, Response<Incoming>), FetchError> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // The body may take as long as the least rate allows.
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let bound = self.terms.connect * 2 + Duration::from_secs(length / self.terms.min_rate_bytes_s.max(1));
        let request = request.body(Full::new(body)).map_err(|_| FetchError::Address { url: url.clone() })?;
        match tokio::time::timeout(bound, self.client.request(request)).await {
            Ok(Ok(response)) => Ok((url, response)),
            Ok(Err(error)) => Err(network(&url, &error)),
            Err(_) => Err(FetchError::TooSlow { url, bound_s: bound.as_secs() }),
        }
    }

    async fn expect_success(
        &self,
        url: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, FetchError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = self.collect(url, response, 4096).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).chars().take(400).collect();
        Err(FetchError::Status { url: url.into(), status, text })
    }

    async fn collect(
        &self,
        url: &str,
        response: Response<Incoming>,
        max_bytes: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        let all = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| network(url, &error))?;
                bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
                if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
                    return Err(FetchError::TooLong { url: url.into(), max_bytes });
                }
            }
            Ok(())
        };
        let bound = self.terms.rate_window * 2;
        match tokio::time::timeout(bound, all).await {
            Ok(result) => result.map(|()| bytes),
            Err(_) => Err(FetchError::TooSlow { url: url.into(), bound_s: bound.as_secs() }),
        }
    }
}

/// Whether a partial answer says that it begins at this byte.
fn begins_at(response: &Response<Incoming>, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()) == Some(from)
}

fn client<C>(tls: &Arc<ClientConfig>, connector: C) -> Client<HttpsConnector<C>, Full<Bytes>>
where
    HttpsConnector<C>: Connect + Clone,
{
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(ClientConfig::clone(tls))
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(10))
        .pool_max_idle_per_host(1)
        .build(connector)
}

/// None only for a proxy whose text a request can't carry; the configuration refuses those.
fn tunnel(proxy: &Proxy, tcp: HttpConnector) -> Option<Tunnel<HttpConnector>> {
    let tunnel = Tunnel::new(proxy.to_string().parse().ok()?, tcp);
    match proxy.authorization() {
        Some(text) => Some(tunnel.with_auth(text.parse().ok()?)),
        None => Some(tunnel),
    }
}

fn network(url: &str, error: &dyn std::error::Error) -> FetchError {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        why = format!("{why}: {inner}");
        source = inner.source();
    }
    FetchError::Network { url: url.into(), why }
}

fn disk_error(
    url: &str,
    path: &Path,
    operation: &'static str,
) -> impl FnOnce(io::Error) -> FetchError + use<> {
    let (url, path) = (url.to_owned(), path.to_owned());
    move |source| FetchError::Disk { url, source: DurableError::Io { operation, path, source } }
}

/// Keeps a transfer at or below a rate.
struct Pace {
    begun: Instant,
    got_bytes: u64,
    bytes_s: u64,
    max_rate: MaxRate,
}

impl Pace {
    fn new(max_rate: MaxRate) -> Self {
        Self { begun: Instant::now(), got_bytes: 0, bytes_s: max_rate.get(), max_rate }
    }

    /// Until so many more bytes may have come. The sender waits too, as soon as the buffers between are full.
    async fn wait(&mut self, more_bytes: usize) {
        if let Some(since_begin) = self.due(more_bytes) {
            tokio::time::sleep_until(self.begun + since_begin).await;
        }
    }

    fn due(&mut self, more_bytes: usize) -> Option<Duration> {
        let bytes_s = self.max_rate.get();
        if bytes_s != self.bytes_s {
            (self.begun, self.got_bytes, self.bytes_s) = (Instant::now(), 0, bytes_s);
        }
        self.got_bytes = self.got_bytes.saturating_add(u64::try_from(more_bytes).unwrap_or(u64::MAX));
        let millis = self.got_bytes.saturating_mul(1000).checked_div(self.bytes_s);
        millis.map(Duration::from_millis)
    }
}

/// A `.part` file that knows the hash of what it holds. What comes in small pieces is gathered first: each write goes
/// [aside](durable::aside), which costs some microseconds. Dropped, it writes what it has.
struct Sink {
    file: BufWriter<File>,
    length: u64,
    hash: Sha256,
}

impl Sink {
    /// Goes on with what lies there, if that can be the beginning of so much.
    fn open(part: &Path, max_bytes: u64) -> io::Result<Self> {
        let is_beginning = |meta: fs::Metadata| meta.is_file() && meta.len() <= max_bytes;
        if fs::symlink_metadata(part).is_ok_and(|meta| !is_beginning(meta)) {
            durable::clear(Readers::Owner, part)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(part)?;
        let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 {
                return Ok(Self { file: BufWriter::with_capacity(GATHERED_BYTES, file), length, hash });
            }
            hash.update(&buffer[..got]);
            length += u64::try_from(got).unwrap_or(u64::MAX);
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        use std::io::Seek;
        (self.length, self.hash) = (0, Sha256::new());
        durable::aside(|| {
            self.file.rewind()?;
            self.file.get_ref().set_len(0)?;
            cut::written();
            Ok(())
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if self.file.buffer().len() + data.len() < self.file.capacity() {
            self.file.write_all(data)?;
        } else {
            durable::aside(|| self.file.write_all(data))?;
            cut::written();
        }
        self.hash.update(data);
        self.length += u64::try_from(data.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        durable::aside(|| self.file.flush())?;
        cut::written();
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }
}

#[cfg(test)]
pub(crate) mod origin;
#[cfg(test)]
mod tests;
