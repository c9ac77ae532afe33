//! HTTP over TLS on one port: handshakes run beside the accept loop, and a peer that is slow, silent or one too many
//! delays nobody but itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

/// A handshake that takes longer is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head that takes longer, the silence before it included, ends its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one port at once; when full, accepting waits and the kernel's backlog fills.
const MAX_CONNECTIONS: usize = 8192;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate chain that TLS verified; empty where no client certificate is asked for.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A bound port that speaks TLS (ALPN should name `http/1.1`).
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    tls: Arc<ServerConfig>,
}

impl TlsListener {
    /// The port with this TLS configuration.
    pub fn new(tcp: TcpListener, tls: Arc<ServerConfig>) -> Self {
        Self { tcp, tls }
    }

    /// Serves until `stop`, then lets requests in flight finish.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let acceptor = TlsAcceptor::from(self.tls);
        let (places, tasks) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
        while let Ok(place) = places.clone().acquire_owned().await {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.tcp.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Most likely no file descriptors are left; trying at once would only burn CPU.
                    warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            tasks.spawn(async move {
                if let Some((tls, peer)) = handshake(&acceptor, stream, address).await {
                    connection(tls, peer, router, stop).await;
                }
                drop(place);
            });
        }
        drop(self.tcp);
        tasks.close();
        tasks.wait().await;
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    let shaken = async {
        stream.set_nodelay(true)?;
        acceptor.accept(stream).await
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken).await {
        Ok(Ok(tls)) => {
            let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = certificates.iter().map(|c| c.clone().into_owned()).collect();
            Some((tls, Peer { address, certificates }))
        }
        Ok(Err(e)) => {
            debug!(peer = %address, "TLS handshake failed: {e}");
            None
        }
        Err(_) => {
            debug!(peer = %address, "TLS handshake took too long");
            None
        }
    }
}

async fn connection(tls: TlsStream<TcpStream>, peer: Peer, router: Router, stop: CancellationToken) {
    let address = peer.address;
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(tls), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A peer that goes away in the middle is no fault of ours.
    if let Err(e) = ended {
        debug!(peer = %address, "a connection ended early: {e}");
    }
}
