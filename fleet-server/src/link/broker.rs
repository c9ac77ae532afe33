//! The embedded MQTT broker behind our own TLS front.
//!
//! accept -> handshake in its own task, bounded in time and number -> the device that the certificate names ->
//! is its serial current? -> the `mqtt5` crate's handler with an authority that knows only this one device.
//! The broker's own listener is the server's alone: loopback, with a token made at each start. Session data
//! lives in memory, because the database is the truth in both directions (decision 9 of the MQTT study).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mqtt5::MqttError;
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};
use protocol::{DeviceId, ProjectId};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::access::{DeviceAccess, Reach, ServerAccess};
use super::gate::{Gate, Refusal};
use crate::clock::Clock;
use crate::pki::DeviceIdentity;

/// A handshake that takes longer is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; when full, accepting waits and the kernel's backlog fills.
const MAX_HANDSHAKES: usize = 200;
/// Largest MQTT packet: a full telemetry batch with its topic and properties.
const MAX_PACKET_BYTES: usize = protocol::telemetry::MAX_COMPRESSED_BYTES + 64 * 1024;
/// Messages in flight to one subscriber; the server's own subscription needs a wide window.
const OUTBOUND_INFLIGHT: u16 = 1000;
/// Retained messages are device status, which is small.
const MAX_RETAINED_BYTES: usize = 4096;
/// Connections of one device at once; beyond them its oldest end.
const MAX_OF_DEVICE: usize = 4;
/// Messages that wait for one connected client; when full, the oldest is dropped.
const QUEUED_MESSAGES: usize = 10_000;

/// Why the embedded broker can't run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker crate refused its configuration or failed.
    #[error("embedded broker: cannot {what}")]
    Broker {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: MqttError,
    },
    /// The MQTT port can't be used.
    #[error("cannot listen for MQTT on {address}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The running broker. Dropping the last clone of its connections' registry does not end it; its tasks end by
/// the shutdown signal that they were started with.
#[derive(Clone)]
pub struct EmbeddedBroker {
    inner: Arc<Inner>,
}

struct Inner {
    /// A template of a connection: router, storage and statistics are shared by all.
    broker: BrokerParts,
    /// By client id, oldest first. A device has a second one while it comes back before the first has ended.
    connections: Mutex<HashMap<String, Vec<Connection>>>,
    next_connection: AtomicU64,
    loopback: SocketAddr,
    token: String,
    max_connections: usize,
}

struct BrokerParts {
    config: Arc<BrokerConfig>,
    router: Arc<mqtt5::broker::router::MessageRouter>,
    storage: Option<Arc<mqtt5::broker::DynamicStorage>>,
    stats: Arc<mqtt5::broker::sys_topics::BrokerStats>,
    monitor: Arc<mqtt5::broker::ResourceMonitor>,
    shutdown: BrokerShutdownHandle,
}

/// One device's connection, as the registry knows it.
struct Connection {
    number: u64,
    close: broadcast::Sender<()>,
}

impl Connection {
    fn end(&self) {
        // An error means that it is ending already.
        let _ = self.close.send(());
    }
}

/// The broker's own listener and loop; run it as a task.
pub struct BrokerLoop {
    broker: MqttBroker,
}

impl BrokerLoop {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker fails.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let handle = self.broker.shutdown_handle();
        let stop = tokio::spawn(async move {
            shutdown.cancelled().await;
            handle.shutdown();
        });
        let ended = self.broker.run().await.map_err(|source| BrokerError::Broker { what: "run", source });
        stop.abort();
        ended
    }
}

impl EmbeddedBroker {
    /// Prepares the broker. Devices are let in by [`EmbeddedBroker::serve`]; the server's own client connects to
    /// [`EmbeddedBroker::loopback`] with [`EmbeddedBroker::token`].
    ///
    /// # Errors
    /// [`BrokerError`] when its loopback listener can't be bound.
    pub async fn new(max_connections: usize) -> Result<(Self, BrokerLoop), BrokerError> {
        let token = crate::ids::secret_text("");
        let failed = |source| BrokerError::Broker { what: "bind its loopback listener", source };
        let broker = MqttBroker::with_config(config(max_connections)).await.map_err(failed)?;
        let broker = broker.with_auth_provider(Arc::new(ServerAccess::new(&token)));
        let loopback = broker.local_addr().ok_or(BrokerError::Broker {
            what: "find its loopback address",
            source: MqttError::InvalidState("no listener".into()),
        })?;
        let parts = BrokerParts {
            config: Arc::new(config(max_connections)),
            router: broker.router(),
            storage: broker.storage(),
            stats: broker.stats(),
            monitor: broker.resource_monitor(),
            shutdown: broker.shutdown_handle(),
        };
        let inner = Inner {
            broker: parts,
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            loopback,
            token,
            max_connections,
        };
        Ok((Self { inner: Arc::new(inner) }, BrokerLoop { broker }))
    }

    /// Where the server's own client connects.
    pub fn loopback(&self) -> SocketAddr {
        self.inner.loopback
    }

    /// The token that only this process knows.
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// Devices connected now.
    pub fn connected(&self) -> usize {
        self.registry().values().map(Vec::len).sum()
    }

    /// Whether this device is connected now.
    pub fn is_connected(&self, project: &ProjectId, device: &DeviceId) -> bool {
        self.registry().contains_key(&protocol::topic::client_id(project, device))
    }

    /// Ends a device's connection, for instance because it was decommissioned.
    pub fn disconnect(&self, project: &ProjectId, device: &DeviceId) {
        let id = protocol::topic::client_id(project, device);
        self.registry().get(&id).into_iter().flatten().for_each(Connection::end);
    }

    /// Accepts devices at `door` until `shutdown`, then ends their connections.
    pub async fn serve(&self, door: Door, shutdown: CancellationToken) {
        let Door { listener, tls, gate, clock, is_heard, reaches } = door;
        let acceptor = TlsAcceptor::from(tls);
        let front = Front { broker: self.clone(), acceptor, gate, clock, is_heard, reaches };
        let front = Arc::new(front);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = front.accept_all(listener) => {}
        }
        self.registry().values().flatten().for_each(Connection::end);
        self.inner.broker.shutdown.shutdown();
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Connection>>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, client_id: &str) -> (u64, broadcast::Sender<()>) {
        let number = self.inner.next_connection.fetch_add(1, Ordering::Relaxed);
        let (close, _) = broadcast::channel(1);
        let mut registry = self.registry();
        let of_device = registry.entry(client_id.to_owned()).or_default();
        of_device.push(Connection { number, close: close.clone() });
        let spare = of_device.len().saturating_sub(MAX_OF_DEVICE);
        of_device.iter().take(spare).for_each(Connection::end);
        (number, close)
    }

    fn unregister(&self, client_id: &str, number: u64) {
        let mut registry = self.registry();
        if let Some(of_device) = registry.get_mut(client_id) {
            of_device.retain(|connection| connection.number != number);
            if of_device.is_empty() {
                registry.remove(client_id);
            }
        }
    }
}

/// Where devices come in.
pub struct Door {
    /// The bound MQTT port.
    pub listener: TcpListener,
    /// TLS that asks for a device certificate.
    pub tls: Arc<ServerConfig>,
    /// Who may come in.
    pub gate: Arc<dyn Gate>,
    /// Certificates end by it.
    pub clock: Clock,
    /// Whether the server's own session is subscribed. Devices wait outside until it is: what they say as soon as
    /// they are in would reach nobody.
    pub is_heard: watch::Receiver<bool>,
    /// Told of devices that reach for topics of others.
    pub(super) reaches: mpsc::Sender<Reach>,
}

/// What a connection passes before it meets the broker.
struct Front {
    broker: EmbeddedBroker,
    acceptor: TlsAcceptor,
    gate: Arc<dyn Gate>,
    clock: Clock,
    is_heard: watch::Receiver<bool>,
    reaches: mpsc::Sender<Reach>,
}

impl Front {
    async fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut is_heard = self.is_heard.clone();
        while let Ok(permit) = handshakes.clone().acquire_owned().await {
            // An error means that the session's task is gone, which is shutdown.
            let _ = is_heard.wait_for(|is_heard| *is_heard).await;
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Most likely no file descriptors are left; trying at once would only burn CPU.
                    warn!("cannot accept an MQTT connection: {e}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let front = Arc::clone(&self);
            tokio::spawn(async move {
                let admitted = tokio::time::timeout(HANDSHAKE_TIMEOUT, front.admit(stream)).await;
                drop(permit);
                match admitted {
                    Ok(Ok((stream, identity))) => front.serve_device(stream, address, identity).await,
                    Ok(Err(refusal)) => {
                        debug!(peer = %address, code = refusal.code(), "MQTT connection refused: {refusal}");
                        front.gate.refused(&refusal);
                    }
                    Err(_) => debug!(peer = %address, "MQTT handshake took too long"),
                }
            });
        }
    }

    async fn admit(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, DeviceIdentity), Refusal> {
        if self.broker.connected() >= self.broker.inner.max_connections {
            return Err(Refusal::TooManyConnections);
        }
        stream.set_nodelay(true).map_err(Refusal::Handshake)?;
        let tls = self.acceptor.accept(stream).await.map_err(Refusal::Handshake)?;
        let certificate =
            tls.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?;
        let identity = DeviceIdentity::from_certificate(certificate).map_err(Refusal::NotADevice)?;
        self.gate.admit(&identity).await?;
        Ok((tls, identity))
    }

    async fn serve_device(
        &self,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        identity: DeviceIdentity,
    ) {
        let client_id = protocol::topic::client_id(&identity.project, &identity.device);
        let (number, close) = self.broker.register(&client_id);
        info!(project = %identity.project, device = %identity.device, peer = %address, "device connected");
        let parts = &self.broker.inner.broker;
        let remaining = identity.not_after.millis_since(self.clock.now()).max(0);
        let (project, device) = (identity.project.clone(), identity.device.clone());
        let access = Arc::new(DeviceAccess::new(project, device, self.reaches.clone()));
        let handler = ClientHandler::new(
            BrokerTransport::tls(TlsStreamWrapper::new(stream)),
            address,
            Arc::clone(&parts.config),
            Arc::clone(&parts.router),
            access,
            parts.storage.clone(),
            Arc::clone(&parts.stats),
            Arc::clone(&parts.monitor),
            close.subscribe(),
        );
        let ended = run_until_expiry(handler, &close, Duration::from_millis(remaining.unsigned_abs())).await;
        self.broker.unregister(&client_id, number);
        let why = ended.err().map_or_else(|| "closed".to_owned(), |e| e.to_string());
        info!(project = %identity.project, device = %identity.device, "device disconnected: {why}");
    }
}

/// A connection doesn't outlive the certificate that opened it.
async fn run_until_expiry(
    handler: ClientHandler,
    close: &broadcast::Sender<()>,
    remaining: Duration,
) -> Result<(), MqttError> {
    let mut running = std::pin::pin!(handler.run());
    tokio::select! {
        ended = &mut running => ended,
        () = tokio::time::sleep(remaining) => {
            let _ = close.send(());
            running.await
        }
    }
}

fn config(max_connections: usize) -> BrokerConfig {
    let storage = StorageConfig::new()
        .with_backend(StorageBackend::Memory)
        .with_max_queued_messages_per_client(QUEUED_MESSAGES);
    BrokerConfig::new()
        .with_bind_address((Ipv4Addr::LOCALHOST, 0))
        .with_storage(storage)
        .with_max_clients(max_connections.saturating_add(16))
        .with_max_packet_size(MAX_PACKET_BYTES)
        .with_maximum_qos(1)
        .with_max_outbound_inflight(OUTBOUND_INFLIGHT)
        .with_max_subscriptions_per_client(16)
        .with_max_retained_message_size(MAX_RETAINED_BYTES)
        .with_session_expiry(Duration::from_hours(1))
        .with_sys_topics_enabled(false)
}
