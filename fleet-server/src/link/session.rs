//! The server's own MQTT session: the same for the embedded broker (loopback, per-start token) and an external
//! one, so that both have the same ingest. A new client is built for each connection: acknowledgements of an
//! old connection go nowhere instead of to the wrong message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::topic::{Channel, Topic, server_filters};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::access::SERVER_USER;
use super::counters::LinkCounters;

/// Unacknowledged messages that the broker may have on the way to us.
const RECEIVE_MAXIMUM: u16 = 1000;
/// Messages between the session and the ingest: room for the window before and after a reconnect. When full,
/// the message is given back unread and counted; devices repeat what the server didn't acknowledge.
pub(super) const INBOUND: usize = 4096;
/// Acknowledgements and publications on their way to the broker.
const REQUESTS: usize = 8192;
/// Largest packet in either direction.
const MAX_PACKET_BYTES: u32 = 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// No event for so long means a dead peer; rumqttc's flush has no timeout of its own.
const WATCHDOG: Duration = Duration::from_secs(40);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Which broker the server connects to.
#[derive(Clone)]
pub enum Upstream {
    /// The embedded one.
    Loopback {
        /// Its loopback listener.
        address: SocketAddr,
        /// The token of this start.
        token: String,
    },
    /// Any MQTT 5 broker.
    External {
        /// Host name.
        host: String,
        /// Port.
        port: u16,
        /// TLS, with the server's client certificate if the broker asks for one; `None` for plain TCP.
        tls: Option<Arc<rustls::ClientConfig>>,
        /// Client id of this replica; must be unique among replicas.
        client_id: String,
        /// User name and password, if the broker wants them.
        credentials: Option<(String, String)>,
        /// Whether replicas share the subscription (`$share`).
        is_shared: bool,
    },
}

/// A message from a device.
pub(super) struct Inbound {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    publish: Publish,
    client: AsyncClient,
}

impl Inbound {
    /// Tells the broker that the message is stored. After a reconnect this goes nowhere, and the broker repeats.
    pub(super) fn ack(self) {
        if self.publish.qos != QoS::AtMostOnce && self.client.try_ack(&self.publish).is_err() {
            debug!("an MQTT acknowledgement was dropped; the broker will repeat the message");
        }
    }
}

/// A message to a device. Safe to lose: Desired and acknowledgements are repeated by their senders.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) topic: Topic,
    pub(super) payload: Vec<u8>,
}

/// Why one connection to the broker ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection broke or was refused.
    #[error("MQTT connection failed")]
    Connection(#[source] Box<ConnectionError>),
    /// Nothing was heard for too long.
    #[error("no sign of life from the broker for {} s", WATCHDOG.as_secs())]
    Silent,
    /// The broker did not grant a subscription.
    #[error("the broker refused the subscription {filter}")]
    Subscription {
        /// Which filter.
        filter: String,
    },
    /// The request channel of a fresh client can't take the subscription.
    #[error("cannot ask for subscriptions")]
    Request(#[source] Box<rumqttc::v5::ClientError>),
}

pub(super) struct Session {
    pub(super) upstream: Upstream,
    pub(super) inbound: mpsc::Sender<Inbound>,
    pub(super) outbound: mpsc::Receiver<Outbound>,
    pub(super) is_ready: watch::Sender<bool>,
    pub(super) counters: LinkCounters,
}

impl Session {
    /// Connects and reconnects until `shutdown`.
    pub(super) async fn run(&mut self, shutdown: CancellationToken) {
        let mut pause = BACKOFF_MIN;
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => break,
                ended = self.connected_once() => ended,
            };
            self.is_ready.send_replace(false);
            warn!("MQTT session ended: {}", crate::supervisor::with_causes(&ended));
            pause = if began.elapsed() > BACKOFF_MAX { BACKOFF_MIN } else { (pause * 2).min(BACKOFF_MAX) };
            let jittered = pause.mul_f64(0.5 + f64::from(crate::ids::random_bytes::<1>()[0]) / 512.0);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(jittered) => {}
            }
        }
        self.is_ready.send_replace(false);
    }

    async fn connected_once(&mut self) -> SessionError {
        let (client, mut events) = AsyncClient::new(options(&self.upstream), REQUESTS);
        let is_shared = matches!(self.upstream, Upstream::External { is_shared: true, .. });
        let mut reader = Reader {
            client: client.clone(),
            inbound: &self.inbound,
            is_ready: &self.is_ready,
            counters: &self.counters,
            filters: filters(is_shared),
        };
        tokio::select! {
            ended = reader.read(&mut events) => ended,
            () = forward(&client, &mut self.outbound) => std::future::pending().await,
        }
    }
}

/// The half that polls the connection. It never waits for the ingest, else acknowledgements and pings would stop.
struct Reader<'a> {
    client: AsyncClient,
    inbound: &'a mpsc::Sender<Inbound>,
    is_ready: &'a watch::Sender<bool>,
    counters: &'a LinkCounters,
    filters: Vec<String>,
}

impl Reader<'_> {
    async fn read(&mut self, events: &mut EventLoop) -> SessionError {
        loop {
            // On a timeout the whole client is dropped: cancelling `poll` harms nothing then.
            let event = match tokio::time::timeout(WATCHDOG, events.poll()).await {
                Ok(Ok(event)) => event,
                Ok(Err(e)) => return SessionError::Connection(Box::new(e)),
                Err(_) => return SessionError::Silent,
            };
            let Event::Incoming(packet) = event else { continue };
            if let Err(e) = self.take(packet) {
                return e;
            }
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), SessionError> {
        match packet {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                let filters = self.filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
                self.client.try_subscribe_many(filters).map_err(|e| SessionError::Request(Box::new(e)))?;
            }
            Packet::SubAck(ack) => {
                let is_granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                if let Some(at) = ack.return_codes.iter().position(|code| !is_granted(code)) {
                    let filter = self.filters.get(at).cloned().unwrap_or_default();
                    return Err(SessionError::Subscription { filter });
                }
                info!("MQTT session is up");
                self.is_ready.send_replace(true);
            }
            Packet::Publish(publish) => self.hand_over(publish),
            _ => {}
        }
        Ok(())
    }

    fn hand_over(&self, publish: Publish) {
        let client = self.client.clone();
        let inbound =
            Inbound { topic: publish.topic.clone(), payload: publish.payload.clone(), publish, client };
        if let Err(full) = self.inbound.try_send(inbound) {
            self.counters.overloaded.add(1);
            full.into_inner().ack();
        }
    }
}

/// Publishes what the rest of the server wants to say.
async fn forward(client: &AsyncClient, outbound: &mut mpsc::Receiver<Outbound>) {
    while let Some(Outbound { topic, payload }) = outbound.recv().await {
        let qos = if topic.channel == Channel::Ack { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        if let Err(e) = client.publish(topic.to_string(), qos, false, payload).await {
            warn!(project = %topic.project, device = %topic.device, "cannot publish: {e}");
        }
    }
}

fn options(upstream: &Upstream) -> MqttOptions {
    let mut options = match upstream {
        Upstream::Loopback { address, token } => {
            let mut options = MqttOptions::new(SERVER_USER, address.ip().to_string(), address.port());
            options.set_credentials(SERVER_USER, token);
            options.set_clean_start(true);
            options
        }
        Upstream::External { host, port, tls, client_id, credentials, .. } => {
            let mut options = MqttOptions::new(client_id, host, *port);
            if let Some(tls) = tls {
                options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
            }
            if let Some((user, password)) = credentials {
                options.set_credentials(user, password);
            }
            // The broker keeps what arrives while this replica restarts.
            options.set_clean_start(false);
            options.set_session_expiry_interval(Some(3600));
            options
        }
    };
    options.set_keep_alive(KEEP_ALIVE);
    options.set_manual_acks(true);
    options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
    options.set_max_packet_size(Some(MAX_PACKET_BYTES));
    options.set_outgoing_inflight_upper_limit(RECEIVE_MAXIMUM);
    options
}

/// Status is never shared: its retained messages come only with a subscription of one's own.
fn filters(is_shared: bool) -> Vec<String> {
    let share = |filter: String| {
        if is_shared && !filter.ends_with(Channel::Status.path()) {
            format!("$share/fleet/{filter}")
        } else {
            filter
        }
    };
    server_filters().into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_share_everything_but_status() {
        assert!(filters(false).iter().all(|filter| !filter.starts_with('$')));
        let shared = filters(true);
        assert_eq!(
            shared.iter().filter(|filter| filter.starts_with("$share/fleet/")).count(),
            shared.len() - 1
        );
    }
}
