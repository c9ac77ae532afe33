//! A broker on the device or its own network, for applications that speak MQTT: requests come on one topic, answers go
//! to another. The same library and the same traps as in `mqtt`, without TLS and without a session: what comes while
//! there is no connection is not seen, and an answer without a connection is lost.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::time::Instant;

use super::mqtt::{Poll, poll};
use crate::config;
use crate::retry::{self, Backoff, Policy};

/// Answers that may wait inside the library.
const CHANNEL: usize = 64;
/// Largest message.
const MAX_PACKET_BYTES: u32 = 16 * 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const BACKOFF: Policy = Policy { min: Duration::from_millis(500), max: Duration::from_secs(30) };

/// What the broker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The topic is subscribed.
    Up,
    /// A message on it.
    Message(Bytes),
    /// The connection ended, or the broker refuses; the next attempt comes after a delay.
    Down(String),
}

struct Connection {
    client: AsyncClient,
    poll: Poll,
    last_event: Instant,
}

/// A connection that comes back by itself while [`LocalBroker::next`] is called.
pub struct LocalBroker {
    config: config::Mqtt,
    backoff: Backoff,
    connection: Option<Connection>,
    connect_at: Instant,
}

impl LocalBroker {
    /// Connects at the first [`LocalBroker::next`].
    pub fn new(config: config::Mqtt) -> Self {
        Self { config, backoff: Backoff::new(BACKOFF), connection: None, connect_at: Instant::now() }
    }

    /// Hands an answer over; false when there is no connection or too much waits.
    pub fn publish(&self, answer: Vec<u8>) -> bool {
        let Some(connection) = &self.connection else { return false };
        let topic = self.config.topic_out.clone();
        connection.client.try_publish(topic, QoS::AtLeastOnce, false, answer).is_ok()
    }

    /// Waits for the next thing that is said. Safe to drop and call again.
    pub async fn next(&mut self) -> Said {
        loop {
            if self.connection.is_none() {
                tokio::time::sleep_until(self.connect_at).await;
                self.connection = Some(self.connect());
            }
            let Some(connection) = self.connection.as_mut() else { continue };
            let deadline = connection.last_event + KEEP_ALIVE * 5 / 2;
            let Ok((event_loop, result)) = tokio::time::timeout_at(deadline, &mut connection.poll).await
            else {
                return self.down("no sign of life".into());
            };
            connection.poll = poll(event_loop);
            connection.last_event = Instant::now();
            match result {
                Ok(Event::Incoming(packet)) => {
                    if let Some(said) = self.understand(packet) {
                        return said;
                    }
                }
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return self.down(crate::chain(&error)),
            }
        }
    }

    fn connect(&self) -> Connection {
        // The broker gives a name; two agents on one broker never push each other out.
        let mut options = MqttOptions::new("", self.config.host.clone(), self.config.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_start(true);
        options.set_max_packet_size(Some(MAX_PACKET_BYTES));
        let (client, event_loop) = AsyncClient::new(options, CHANNEL);
        Connection { client, poll: poll(event_loop), last_event: Instant::now() }
    }

    fn understand(&mut self, packet: Packet) -> Option<Said> {
        match packet {
            Packet::ConnAck(_) => {
                let topic = self.config.topic_in.clone();
                let client = &self.connection.as_ref()?.client;
                match client.try_subscribe(topic, QoS::AtLeastOnce) {
                    Ok(()) => None,
                    Err(error) => Some(self.down(error.to_string())),
                }
            }
            Packet::SubAck(ack) => {
                let is_refused =
                    ack.return_codes.iter().any(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if is_refused {
                    return Some(self.down(format!("it refuses the topic {}", self.config.topic_in)));
                }
                self.backoff.reset();
                Some(Said::Up)
            }
            Packet::Publish(publish) => Some(Said::Message(publish.payload)),
            Packet::Disconnect(end) => {
                Some(self.down(format!("it ended the session: {:?}", end.reason_code)))
            }
            _ => None,
        }
    }

    fn down(&mut self, why: String) -> Said {
        self.connection = None;
        self.connect_at = Instant::now() + self.backoff.next_delay(retry::random());
        Said::Down(why)
    }
}
