//! The MQTT client library, wrapped once. Its traps, measured, and what stands against each:
//!
//! - it loses or replays what it holds in memory at a reconnect: a connection is a fresh client, never a resumed
//!   one, with a clean session; what must arrive is kept by the spool and the boot record;
//! - `poll` must not be cancelled: its future is pinned here and survives [`Mqtt::next`] being dropped;
//! - it never backs off and `flush` has no timeout: backoff and a watchdog of 2.5 keep-alives are here;
//! - `publish().await` deadlocks with `poll`: only `try_` calls, with windows below the channel's capacity;
//! - its packet limits of 10 KiB poison a device: both are set; 65,535 in flight: bounded;
//! - a PUBACK can be a refusal: it is looked at;
//! - a proxy's answer is bounded by the time to connect only: the proxy belongs to whoever configures the device.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::topic::{self, Channel, Topic};
use protocol::{DeviceId, ProjectId};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{Proxy, ProxyAuth, ProxyType, TlsConfiguration, Transport};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::tls::about_time;
use crate::config::{self, Proxies};
use crate::retry::{self, Backoff, Policy};

/// Requests that may wait inside the library. Ours stay far below.
const CHANNEL: usize = 128;
/// Publishes in flight inside the library.
const IN_FLIGHT: u16 = 64;
/// Largest packet: the largest batch with room for its head.
const MAX_PACKET_BYTES: u32 = 1024 * 1024;

/// How to connect.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) project: ProjectId,
    pub(super) device: DeviceId,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) keep_alive: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) proxies: Proxies,
    /// The last will on `status`.
    pub(super) will: Vec<u8>,
}

/// Something happened.
#[derive(Debug)]
pub(super) enum Happening {
    /// A fresh session: subscribe is done, nothing of earlier connections is left.
    Connected,
    /// The server said something.
    Message { channel: Channel, payload: Bytes },
    /// The broker refused a publish or subscription.
    Refused(String),
    /// The connection ended; the next one comes after a delay.
    Down(String),
}

/// A connection that has lasted so long was a good one.
const LASTING: Duration = Duration::from_secs(30);
/// So many in a row that were none have a reason that is told.
const MANY_SHORT_ONES: u32 = 5;

pub(super) type Poll = Pin<Box<dyn Future<Output = (EventLoop, Result<Event, ConnectionError>)> + Send>>;

struct Connection {
    client: AsyncClient,
    poll: Poll,
    last_event: Instant,
}

/// One device's MQTT session, which reconnects by itself while [`Mqtt::next`] is called.
pub(super) struct Mqtt {
    options: Options,
    backoff: Backoff,
    connection: Option<Connection>,
    connect_at: Instant,
    is_connected: bool,
    /// Since when, of the last one.
    connected_at: Option<Instant>,
    /// Connections in a row that ended soon after they had come about.
    short_ones: u32,
}

impl Mqtt {
    pub(super) fn new(options: Options, backoff: Backoff) -> Self {
        Self {
            options,
            backoff,
            connection: None,
            connect_at: Instant::now(),
            is_connected: false,
            connected_at: None,
            short_ones: 0,
        }
    }

    /// Other bounds from the next connection on.
    pub(super) fn reconfigure(&mut self, keep_alive: Duration, backoff: Policy) {
        self.options.keep_alive = keep_alive;
        self.backoff.set_policy(backoff);
    }

    /// Spreads the next reconnect over at least `max`.
    pub(super) fn widen(&mut self, max: Duration) {
        self.backoff.widen(max);
    }

    /// Other certificates from the next connection on, which comes at once: what was refused before was refused to
    /// the earlier ones. The current connection ends.
    pub(super) fn replace_tls(&mut self, tls: Arc<ClientConfig>) {
        self.options.tls = tls;
        self.connect_at = Instant::now();
        self.connection = None;
        self.is_connected = false;
    }

    /// Hands a message over; false when there is no connection or too much waits. It may still be lost.
    pub(super) fn publish(&self, channel: Channel, is_retained: bool, payload: Vec<u8>) -> bool {
        let Some(connection) = self.connection.as_ref().filter(|_| self.is_connected) else { return false };
        let topic = self.topic(channel);
        connection.client.try_publish(topic, QoS::AtLeastOnce, is_retained, payload).is_ok()
    }

    /// Says goodbye, so that the last will is not sent, and gives the library a moment to get it out.
    pub(super) async fn disconnect(&mut self, within: Duration) {
        let Some(connection) = self.connection.as_mut() else { return };
        if connection.client.try_disconnect().is_err() {
            return;
        }
        let flush = async {
            while let Some(connection) = self.connection.as_mut() {
                let (event_loop, result) = (&mut connection.poll).await;
                if result.is_err() {
                    return;
                }
                connection.poll = poll(event_loop);
            }
        };
        let _late = tokio::time::timeout(within, flush).await;
        self.connection = None;
    }

    /// Waits for the next happening. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Happening {
        loop {
            if self.connection.is_none() {
                tokio::time::sleep_until(self.connect_at).await;
                self.connection = Some(self.connect());
            }
            let bound = self.silence_bound();
            let Some(connection) = self.connection.as_mut() else { continue };
            let deadline = connection.last_event + bound;
            let Ok((event_loop, result)) = tokio::time::timeout_at(deadline, &mut connection.poll).await
            else {
                return self.down(format!("no sign of life for {} s", bound.as_secs()));
            };
            connection.poll = poll(event_loop);
            connection.last_event = Instant::now();
            match result {
                Ok(event) => {
                    if let Some(happening) = self.understand(event) {
                        return happening;
                    }
                }
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// A dead peer is found within this: 2.5 keep-alives, never less than two attempts to connect.
    fn silence_bound(&self) -> Duration {
        (self.options.keep_alive * 5 / 2).max(self.options.connect_timeout * 2)
    }

    fn connect(&self) -> Connection {
        let Options { host, port, project, device, tls, keep_alive, connect_timeout, proxies, will } =
            self.options.clone();
        let proxy = proxies.for_host(&host).cloned();
        let mut options = MqttOptions::new(topic::client_id(&project, &device), host, port);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
        if let Some(proxy) = proxy {
            options.set_proxy(through(proxy));
        }
        options.set_keep_alive(keep_alive);
        options.set_connection_timeout(connect_timeout.as_secs().max(1));
        options.set_clean_start(true);
        options.set_max_packet_size(Some(MAX_PACKET_BYTES));
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        options.set_last_will(LastWill::new(self.topic(Channel::Status), will, QoS::AtLeastOnce, true, None));
        let (client, event_loop) = AsyncClient::new(options, CHANNEL);
        Connection { client, poll: poll(event_loop), last_event: Instant::now() }
    }

    fn understand(&mut self, event: Event) -> Option<Happening> {
        let Event::Incoming(packet) = event else { return None };
        match packet {
            Packet::ConnAck(_) => Some(self.connected()),
            Packet::Publish(publish) => {
                let topic = Topic::parse(std::str::from_utf8(&publish.topic).ok()?).ok()?;
                let is_ours = topic.project == self.options.project && topic.device == self.options.device;
                is_ours.then_some(Happening::Message { channel: topic.channel, payload: publish.payload })
            }
            Packet::PubAck(ack) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                reason => Some(Happening::Refused(format!("the broker refused a message: {reason:?}"))),
            },
            Packet::SubAck(ack) => {
                let refused =
                    ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)))?;
                Some(Happening::Refused(format!("the broker refused a subscription: {refused:?}")))
            }
            Packet::Disconnect(end) => {
                Some(self.down(format!("the broker ended the session: {:?}", end.reason_code)))
            }
            _ => None,
        }
    }

    fn connected(&mut self) -> Happening {
        self.backoff.arrived();
        self.is_connected = true;
        self.connected_at = Some(Instant::now());
        for channel in Channel::DOWN {
            let topic = self.topic(channel);
            let is_asked = self
                .connection
                .as_ref()
                .is_some_and(|c| c.client.try_subscribe(topic, QoS::AtLeastOnce).is_ok());
            if !is_asked {
                return self.down("the subscriptions could not be asked for".into());
            }
        }
        Happening::Connected
    }

    fn failed(&mut self, error: &ConnectionError) -> Happening {
        if matches!(error, ConnectionError::ConnectionRefused(_)) {
            // Refused by name: the answer won't change within seconds.
            self.backoff.jump_to_max();
        }
        self.down(about_time(error).map_or_else(|| error.to_string(), str::to_owned))
    }

    fn down(&mut self, why: String) -> Happening {
        self.connection = None;
        self.is_connected = false;
        let why = self.judged(why);
        let delay = self.backoff.next_delay(retry::random());
        tracing::debug!("the next attempt to connect comes after delay_ms={}", delay.as_millis());
        self.connect_at = Instant::now() + delay;
        Happening::Down(why)
    }

    /// Delays begin anew only after a connection that has lasted: of two devices with one identity, as cards that were
    /// copied have it, each ends the other's connection as soon as it has come about.
    fn judged(&mut self, why: String) -> String {
        let Some(connected_at) = self.connected_at.take() else { return why };
        if connected_at.elapsed() >= LASTING {
            self.backoff.lasted();
            self.short_ones = 0;
            return why;
        }
        self.short_ones = self.short_ones.saturating_add(1);
        if self.short_ones < MANY_SHORT_ONES {
            return why;
        }
        let (count, limit) = (self.short_ones, LASTING.as_secs());
        format!(
            "{why}; {count} connections in a row ended within {limit} s: does another device use this identity?"
        )
    }

    fn topic(&self, channel: Channel) -> String {
        Topic::new(self.options.project.clone(), self.options.device.clone(), channel).to_string()
    }
}

fn through(proxy: config::Proxy) -> Proxy {
    let auth = match proxy.credentials {
        Some((username, password)) => ProxyAuth::Basic { username, password },
        None => ProxyAuth::None,
    };
    Proxy { ty: ProxyType::Http, auth, addr: proxy.host, port: proxy.port }
}

pub(super) fn poll(mut event_loop: EventLoop) -> Poll {
    Box::pin(async move {
        let result = event_loop.poll().await;
        (event_loop, result)
    })
}
