//! TCP with TLS for axum: handshakes run beside the accept loop, so that a slow or hostile peer delays nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

/// A handshake that takes longer is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; when full, accepting waits and the kernel's backlog fills.
const MAX_HANDSHAKES: usize = 512;
/// Connections that are ready and not yet served; when full, handshakes wait.
const READY: usize = 64;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate chain that TLS verified; empty where no client certificate is asked for.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A bound port that speaks TLS.
#[derive(Debug)]
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    /// Accepts connections from `tcp` with this TLS configuration (ALPN should name `http/1.1`).
    ///
    /// # Errors
    /// When the bound address can't be read.
    pub fn new(tcp: TcpListener, tls: Arc<ServerConfig>) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let (sender, ready) = mpsc::channel(READY);
        let accepting = tokio::spawn(accept_all(tcp, TlsAcceptor::from(tls), sender));
        Ok(Self { ready, address, accepting })
    }

    /// The address that it is bound to; the port is the real one if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, Peer)>,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Ok(permit) = handshakes.clone().acquire_owned().await {
        let (stream, address) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // Most likely no file descriptors are left; trying at once would only burn CPU.
                warn!("cannot accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(&acceptor, stream, address)).await;
            drop(permit);
            match shaken {
                // An error means that the server is shutting down.
                Ok(Ok(connection)) => drop(ready.send(connection).await),
                Ok(Err(e)) => debug!(peer = %address, "TLS handshake failed: {e}"),
                Err(_) => debug!(peer = %address, "TLS handshake took too long"),
            }
        });
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|c| c.clone().into_owned()).collect();
    Ok((tls, Peer { address, certificates }))
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accept loop ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address, certificates: Arc::new([]) })
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}
