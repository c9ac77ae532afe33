//! Where the API listens, and what a connection may cost: it is bounded in number, in the time that a request's head
//! takes, and in the time that its peer leaves an answer lying.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::origin::Reach;
use super::routes;
use super::thread;
use super::unread::Unread;
use super::work::{Api, Full};
use crate::config;
use crate::health::Pulse;

/// Connections that are being refused at once.
const REFUSALS: usize = 32;
/// Time that a refused connection has to read why.
const REFUSAL_TIME: std::time::Duration = std::time::Duration::from_millis(500);

/// The name under which its thread beats.
const PART: &str = "api";

/// Why the API can't listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place}")]
pub struct ListenError {
    /// Address or path.
    pub place: String,
    /// Why not.
    pub source: std::io::Error,
}

/// Everything that the API listens on.
#[derive(Debug)]
pub struct Listening {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

impl Listening {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// [`ListenError`] names the address or path.
    pub async fn open(config: &config::Serve) -> Result<Self, ListenError> {
        let tcp = match config.listen {
            None => None,
            Some(address) => {
                let place = address.to_string();
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| ListenError { place, source })?)
            }
        };
        let unix = match &config.unix {
            None => None,
            Some(path) => {
                let place = path.display().to_string();
                let bound = open_socket(path, config.unix_mode).await;
                Some((bound.map_err(|source| ListenError { place, source })?, path.clone()))
            }
        };
        Ok(Self { tcp, unix })
    }

    /// Address and path for people.
    pub fn places(&self) -> String {
        let tcp = self.address().map(|address| address.to_string());
        let unix = self.unix.as_ref().map(|(_, path)| path.display().to_string());
        tcp.into_iter().chain(unix).collect::<Vec<_>>().join(" and ")
    }

    /// The TCP address, with the port that the system chose for port 0.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// Serves, on a thread of its own, until `stop`, then lets requests in flight finish; the future ends then. Dropped,
    /// it cuts them off. The thread beats in `pulse` until it has ended in order.
    ///
    /// # Errors
    /// [`ListenError`] when the system has no thread for it.
    pub fn start(
        self,
        api: Api,
        pulse: Pulse,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send, ListenError> {
        let place = self.places();
        let (unix, path) = self.unix.unzip();
        let moved = || {
            let tcp = self.tcp.map(TcpListener::into_std).transpose()?;
            let unix = unix.map(UnixListener::into_std).transpose()?;
            thread::start(move || {
                let tcp = tcp.map(TcpListener::from_std).transpose()?;
                let unix = unix.map(UnixListener::from_std).transpose()?;
                Ok(Self { tcp, unix: unix.zip(path) }.alive(api, pulse, stop))
            })
        };
        moved().map_err(|source| ListenError { place, source })
    }

    /// A request that this thread answers itself may hold it up for as long as any may take.
    async fn alive(self, api: Api, pulse: Pulse, stop: CancellationToken) {
        let (longest, shared) = (api.limits.timeout, api.clone());
        tokio::select! {
            () = self.run(api, stop) => {}
            () = shared.leftover.give_back() => {}
            () = pulse.beats(PART, longest) => {}
        }
        pulse.retire(PART);
    }

    async fn run(self, api: Api, stop: CancellationToken) {
        let is_loopback = self.address().is_some_and(|address| address.ip().is_loopback());
        let reach = if is_loopback { Reach::Loopback } else { Reach::Network };
        let tcp = async {
            if let Some(tcp) = self.tcp {
                // A small answer must not wait for the peer's acknowledgement of the one before.
                let tcp = tcp.tap_io(|stream| {
                    let _unsupported = stream.set_nodelay(true);
                });
                run(tcp, reach, api.clone(), stop.clone()).await;
            }
        };
        let unix = async {
            if let Some((unix, path)) = self.unix {
                run(unix, Reach::Socket, api.clone(), stop.clone()).await;
                let _gone = std::fs::remove_file(path);
            }
        };
        tokio::join!(tcp, unix);
    }
}

/// Opens a unix socket. One that a dead process left behind is replaced; anything else at the path is not touched.
async fn open_socket(path: &Path, mode: u32) -> std::io::Result<UnixListener> {
    if let Ok(there) = std::fs::symlink_metadata(path) {
        let kind = there.file_type();
        if !kind.is_socket() {
            let what = if kind.is_dir() { "a folder" } else { "a file" };
            let why = format!(
                "{what} that is no socket lies there and is not replaced; set serve.unix to a path of its own"
            );
            return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, why));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves one listener until `stop`, then lets requests in flight finish. Works on a TCP and on a unix listener.
async fn run<L: Listener>(mut listener: L, reach: Reach, api: Api, stop: CancellationToken) {
    let router = routes::router(api.clone(), reach);
    let tasks = TaskTracker::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    loop {
        let (io, _) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match Arc::clone(&api.connections).try_acquire_owned() {
            Ok(place) => {
                let connection = connection(io, router.clone(), api.clone(), stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(_) => match Arc::clone(&refusals).try_acquire_owned() {
                Ok(place) => {
                    let refusal = refuse(io, api.clone());
                    tasks.spawn(async move {
                        refusal.await;
                        drop(place);
                    });
                }
                // Dropped: the peer sees a closed connection.
                Err(_) => drop(io),
            },
        }
    }
    drop(listener);
    api.stopping.cancel();
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    api: Api,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(api.limits.header_timeout);
    let busy = Arc::new(());
    let io = Unread::new(io, api.limits.timeout, stop.clone(), Arc::clone(&busy));
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request| {
        let (held, answer) = (Arc::clone(&busy), router.call(request));
        async move {
            let answer = answer.await;
            drop(held);
            answer
        }
    });
    let connection = http.serve_connection(TokioIo::new(io), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A peer that goes away in the middle is no fault of ours.
    if let Err(error) = ended {
        tracing::debug!(error = crate::chain(&error), "a local connection ended early");
    }
}

/// Answers a connection that is one too many. What it sends is thrown away for a moment: closed with bytes unread,
/// the connection would be reset and the answer might never be seen.
async fn refuse(mut io: impl AsyncRead + AsyncWrite + Unpin, api: Api) {
    let error = api.overloaded(Full::Connections);
    let body = serde_json::json!({ "error": error.to_string() }).to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n";
    let answer = format!("{head}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _gone = io.write_all(answer.as_bytes()).await;
    let _gone = io.shutdown().await;
    let mut thrown_away = tokio::io::sink();
    let rest = tokio::io::copy(&mut io, &mut thrown_away);
    let _late = tokio::time::timeout(REFUSAL_TIME, rest).await;
}
