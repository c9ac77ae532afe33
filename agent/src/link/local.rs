//! A broker on the device or its own network, for applications that speak MQTT: requests come on one topic, answers go
//! to another. The same library and the same traps as in `mqtt`, without TLS and without a session: what comes while
//! there is no connection is not seen, and an answer without a connection is lost.
//!
//! A request with QoS 1 is acknowledged when its answer has been handed over, and the broker is told how many it may
//! send before that. A broker that honours it keeps the others; mosquitto 2.0.11 was seen to send more.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::time::Instant;

use super::mqtt::{Poll, poll};
use crate::config;
use crate::retry::{self, Backoff, Policy};

/// Answers and acknowledgements that may wait inside the library. Full: not handed over, which [`ROOM`] prevents.
const CHANNEL: usize = 128;
/// Answers that wait inside the library above which no more should be asked for.
const ROOM: usize = 64;
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
    Message(Message),
    /// The connection ended, or the broker refuses; the next attempt comes after a delay.
    Down {
        /// What happened.
        why: String,
        /// Answers that had been handed over and did not leave.
        lost: usize,
    },
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What was sent.
    pub payload: Bytes,
    /// MQTT 5's correlation data; whoever sent it wants to see it at the answer.
    pub correlation: Option<Bytes>,
    /// What [`LocalBroker::acknowledge`] takes; none with QoS 0.
    pub receipt: Option<Receipt>,
}

/// A message that is to be acknowledged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    connection: u64,
    packet: u16,
}

struct Connection {
    client: AsyncClient,
    poll: Poll,
    last_event: Instant,
    number: u64,
    /// Answers inside the library.
    waiting: usize,
    receipts: Receipts,
}

/// Messages that came and whether each may be acknowledged: in the order in which they came (MQTT 5, 4.6).
#[derive(Debug, Default)]
struct Receipts(VecDeque<(Publish, bool)>);

impl Receipts {
    fn came(&mut self, publish: &Publish) {
        // What acknowledges it needs its number alone.
        self.0.push_back((Publish { payload: Bytes::new(), properties: None, ..publish.clone() }, false));
    }

    fn done(&mut self, packet: u16) {
        if let Some(entry) = self.0.iter_mut().find(|(publish, _)| publish.pkid == packet) {
            entry.1 = true;
        }
    }

    /// Acknowledges what is due by `ack`, until that says no.
    fn settle(&mut self, ack: impl Fn(&Publish) -> bool) {
        while self.0.front().is_some_and(|(publish, is_done)| *is_done && ack(publish)) {
            self.0.pop_front();
        }
    }
}

impl Connection {
    fn settle(&mut self) {
        self.receipts.settle(|publish| self.client.try_ack(publish).is_ok());
    }
}

/// A connection that comes back by itself while [`LocalBroker::next`] is called.
pub struct LocalBroker {
    config: config::Mqtt,
    at_once: u16,
    connections: u64,
    backoff: Backoff,
    connection: Option<Connection>,
    connect_at: Instant,
}

impl LocalBroker {
    /// Connects at the first [`LocalBroker::next`]. The broker sends at most `at_once` messages with QoS 1 that are not
    /// acknowledged.
    pub fn new(config: config::Mqtt, at_once: u16) -> Self {
        let backoff = Backoff::new(BACKOFF);
        Self { config, at_once, connections: 0, backoff, connection: None, connect_at: Instant::now() }
    }

    /// Hands an answer over, with the correlation data of its request; false when there is no connection or too much
    /// waits.
    pub fn publish(&mut self, answer: Vec<u8>, correlation: Option<Bytes>) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let (topic, client) = (self.config.topic_out.clone(), &connection.client);
        let sent = match correlation {
            None => client.try_publish(topic, QoS::AtLeastOnce, false, answer),
            Some(data) => {
                let properties =
                    PublishProperties { correlation_data: Some(data), ..PublishProperties::default() };
                client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, answer, properties)
            }
        };
        connection.waiting += usize::from(sent.is_ok());
        sent.is_ok()
    }

    /// Lets the broker send another message in this one's place. One of an earlier connection is ignored: the broker
    /// has forgotten it.
    pub fn acknowledge(&mut self, receipt: Receipt) {
        let current = self.connection.as_mut().filter(|connection| connection.number == receipt.connection);
        if let Some(connection) = current {
            connection.receipts.done(receipt.packet);
            connection.settle();
        }
    }

    /// Whether answers leave about as fast as they come.
    pub fn has_room(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.waiting < ROOM)
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
            connection.settle();
            match result {
                Ok(Event::Incoming(packet)) => {
                    if let Some(said) = self.understand(packet) {
                        return said;
                    }
                }
                Ok(Event::Outgoing(Outgoing::Publish(_))) => {
                    connection.waiting = connection.waiting.saturating_sub(1);
                }
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return self.down(crate::chain(&error)),
            }
        }
    }

    fn connect(&mut self) -> Connection {
        // The broker gives a name; two agents on one broker never push each other out.
        let mut options = MqttOptions::new("", self.config.host.clone(), self.config.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_start(true);
        options.set_max_packet_size(Some(MAX_PACKET_BYTES));
        options.set_receive_maximum(Some(self.at_once));
        options.set_manual_acks(true);
        let (client, event_loop) = AsyncClient::new(options, CHANNEL);
        self.connections += 1;
        Connection {
            client,
            poll: poll(event_loop),
            last_event: Instant::now(),
            number: self.connections,
            waiting: 0,
            receipts: Receipts::default(),
        }
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
            Packet::Publish(publish) => self.message(publish).map(Said::Message),
            Packet::Disconnect(end) => {
                Some(self.down(format!("it ended the session: {:?}", end.reason_code)))
            }
            _ => None,
        }
    }

    fn message(&mut self, publish: Publish) -> Option<Message> {
        let connection = self.connection.as_mut()?;
        let receipt = (publish.qos != QoS::AtMostOnce).then(|| {
            connection.receipts.came(&publish);
            Receipt { connection: connection.number, packet: publish.pkid }
        });
        let correlation = publish.properties.and_then(|properties| properties.correlation_data);
        Some(Message { payload: publish.payload, correlation, receipt })
    }

    fn down(&mut self, why: String) -> Said {
        let lost = self.connection.take().map_or(0, |connection| connection.waiting);
        self.connect_at = Instant::now() + self.backoff.next_delay(retry::random());
        Said::Down { why, lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn messages_are_acknowledged_in_the_order_in_which_they_came() {
        let mut receipts = Receipts::default();
        for packet in 1..=4 {
            let mut publish = Publish::new("a", QoS::AtLeastOnce, "x", None);
            publish.pkid = packet;
            receipts.came(&publish);
        }
        let acked = RefCell::new(Vec::new());
        let ack = |publish: &Publish| {
            acked.borrow_mut().push(publish.pkid);
            true
        };
        receipts.done(2);
        receipts.settle(ack);
        assert!(acked.borrow().is_empty(), "1 is still being asked");
        receipts.done(1);
        receipts.settle(|_| false);
        receipts.done(4);
        receipts.done(9);
        receipts.settle(ack);
        assert_eq!(*acked.borrow(), [1, 2], "what the library had no room for comes with the next ones");
        receipts.done(3);
        receipts.settle(ack);
        assert_eq!(*acked.borrow(), [1, 2, 3, 4]);
    }
}
