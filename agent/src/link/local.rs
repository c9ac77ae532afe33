//! A broker on the device or its own network, for applications that speak MQTT: requests come on one topic, answers go
//! to another. The same library and the same traps as in `mqtt`, without TLS and without a session: what comes while
//! there is no connection is not seen.
//!
//! Two connections, because the library reads whenever it writes: requests come on one, which is not read while there is
//! no room for more, so that TCP holds back a broker that sends more than it was told it may (mosquitto 2.0.11 does);
//! answers leave by the other one, which never waits. A request with QoS 1 is acknowledged when its answer has been
//! handed over; an answer counts as taken when the broker has acknowledged it.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::time::Instant;

use super::mqtt::{Poll, poll};
use crate::config;
use crate::retry::{self, Backoff, Policy};

mod receipts;

pub use receipts::Receipt;
use receipts::Receipts;

/// Answers or acknowledgements that may wait inside the library. Full: not handed over, which [`ROOM`] prevents for
/// answers; acknowledgements are tried again.
const CHANNEL: usize = 128;
/// Answers that the broker has not acknowledged above which no more requests are read.
const ROOM: usize = 64;
/// Requests with QoS 1 that the broker may send before one is acknowledged.
const RECEIVE_MAXIMUM: u16 = 16;
/// Largest message that is taken at least, and the largest that MQTT has.
const PACKET_BYTES: [u32; 2] = [16 << 20, 268_435_455];
/// What stands around topic, correlation data and payload of a message, at most.
const HEAD_BYTES: usize = 32;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Of the connection that is not always read: longer than any request takes. A dead broker is found by the other one.
const KEEP_ALIVE_UNREAD: Duration = Duration::from_hours(1);
const BACKOFF: Policy = Policy { min: Duration::from_millis(500), max: Duration::from_secs(30) };

/// What the broker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The topic is subscribed, and answers can leave.
    Up,
    /// A message on it.
    Message(Message),
    /// The broker refuses one answer.
    Refused(String),
    /// The connection ended, or the broker refuses it; the next attempt comes after a delay.
    Down {
        /// What happened.
        why: String,
        /// Answers that had been handed over and were not acknowledged.
        lost: usize,
    },
}

/// Why an answer was not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The broker takes no message of more than so many bytes.
    TooLarge {
        /// All of the packet.
        max: u32,
    },
    /// There is no connection, or too much waits.
    NoRoom,
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

/// One connection.
struct Line {
    client: AsyncClient,
    poll: Poll,
    last_event: Instant,
    keep_alive: Duration,
}

impl Line {
    fn open(config: &config::Mqtt, keep_alive: Duration, max_packet: u32) -> Self {
        // The broker gives a name; two agents on one broker never push each other out.
        let mut options = MqttOptions::new("", config.host.clone(), config.port);
        options.set_keep_alive(keep_alive);
        options.set_clean_start(true);
        options.set_max_packet_size(Some(max_packet));
        options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
        options.set_manual_acks(true);
        let (client, event_loop) = AsyncClient::new(options, CHANNEL);
        Self { client, poll: poll(event_loop), last_event: Instant::now(), keep_alive }
    }

    /// Waits for the next event. Safe to drop and call again.
    async fn next(&mut self) -> Result<Event, String> {
        let deadline = self.last_event + self.keep_alive * 5 / 2;
        let polled = tokio::time::timeout_at(deadline, &mut self.poll).await;
        let (event_loop, result) = polled.map_err(|_| "no sign of life".to_owned())?;
        self.poll = poll(event_loop);
        self.last_event = Instant::now();
        result.map_err(|error| crate::chain(&error))
    }
}

/// Both connections.
struct Lines {
    requests: Line,
    answers: Line,
    number: u64,
    is_subscribed: bool,
    can_answer: bool,
    /// Largest packet that the broker takes.
    max_packet: u32,
    /// Answers that the broker has not acknowledged.
    waiting: usize,
    receipts: Receipts,
}

impl Lines {
    fn open(config: &config::Mqtt, number: u64, max_packet: u32) -> Self {
        Self {
            requests: Line::open(config, KEEP_ALIVE_UNREAD, max_packet),
            answers: Line::open(config, KEEP_ALIVE, max_packet),
            number,
            is_subscribed: false,
            can_answer: false,
            max_packet: u32::MAX,
            waiting: 0,
            receipts: Receipts::default(),
        }
    }

    fn settle(&mut self) {
        let client = &self.requests.client;
        self.receipts.settle(|packet| {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
            publish.pkid = packet;
            client.try_ack(&publish).is_ok()
        });
    }

    fn message(&mut self, publish: Publish) -> Message {
        let receipt = (publish.qos != QoS::AtMostOnce).then(|| {
            self.receipts.came(publish.pkid);
            Receipt { connection: self.number, packet: publish.pkid }
        });
        let correlation = publish.properties.and_then(|properties| properties.correlation_data);
        Message { payload: publish.payload, correlation, receipt }
    }

    /// The next thing that is heard; of requests only if there is room for one.
    async fn next(&mut self, may_ask: bool) -> Heard {
        // Nothing comes before the subscription.
        let may_ask = !self.is_subscribed || (may_ask && self.waiting < ROOM);
        let (event, of_requests) = tokio::select! {
            event = self.requests.next(), if may_ask => (event, true),
            event = self.answers.next() => (event, false),
        };
        if of_requests {
            self.settle();
        }
        match event {
            Ok(Event::Incoming(packet)) if of_requests => Heard::Requests(packet),
            Ok(Event::Incoming(packet)) => Heard::Answers(packet),
            Ok(Event::Outgoing(_)) => Heard::Nothing,
            Err(why) => Heard::End(why),
        }
    }
}

enum Heard {
    Requests(Packet),
    Answers(Packet),
    Nothing,
    End(String),
}

/// A connection that comes back by itself while [`LocalBroker::next`] is called.
pub struct LocalBroker {
    config: config::Mqtt,
    /// Largest message that the broker may send.
    max_packet: u32,
    connections: u64,
    backoff: Backoff,
    lines: Option<Lines>,
    connect_at: Instant,
}

impl LocalBroker {
    /// Connects at the first [`LocalBroker::next`]. Requests have at most `max_request_bytes`; of longer ones those up to
    /// a quarter more are heard, so that they can be answered. What is longer still the broker keeps to itself (MQTT 5,
    /// 3.1.2.11.4).
    pub fn new(config: config::Mqtt, max_request_bytes: usize) -> Self {
        let heard = max_request_bytes.saturating_add(max_request_bytes / 4);
        let [least, most] = PACKET_BYTES;
        let max_packet = u32::try_from(heard).unwrap_or(most).clamp(least, most);
        let backoff = Backoff::new(BACKOFF);
        Self { config, max_packet, connections: 0, backoff, lines: None, connect_at: Instant::now() }
    }

    /// Hands an answer over, with the correlation data of its request.
    ///
    /// # Errors
    /// [`Unsent`]: one that the broker would not take, on which the library would end the connection, or one for which
    /// there is no room.
    pub fn publish(&mut self, answer: Bytes, correlation: Option<Bytes>) -> Result<(), Unsent> {
        let Some(lines) = &mut self.lines else { return Err(Unsent::NoRoom) };
        let about = self.config.topic_out.len() + correlation.as_ref().map_or(0, Bytes::len) + HEAD_BYTES;
        if u32::try_from(answer.len() + about).map_or(true, |bytes| bytes > lines.max_packet) {
            return Err(Unsent::TooLarge { max: lines.max_packet });
        }
        let (topic, client) = (self.config.topic_out.clone(), &lines.answers.client);
        let sent = match correlation {
            None => client.try_publish(topic, QoS::AtLeastOnce, false, answer),
            Some(data) => {
                let properties =
                    PublishProperties { correlation_data: Some(data), ..PublishProperties::default() };
                client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, answer, properties)
            }
        };
        lines.waiting += usize::from(sent.is_ok());
        sent.map_err(|_| Unsent::NoRoom)
    }

    /// Lets the broker send another message in this one's place. One of an earlier connection is ignored: the broker
    /// has forgotten it.
    pub fn acknowledge(&mut self, receipt: Receipt) {
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.number == receipt.connection) {
            lines.receipts.done(receipt.packet);
            lines.settle();
        }
    }

    /// Whether answers are on their way that the broker has not acknowledged.
    pub fn holds_answers(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.waiting > 0)
    }

    /// Waits for the next thing that is said; for a request only if `may_ask`, else the broker keeps it. Safe to drop
    /// and call again.
    pub async fn next(&mut self, may_ask: bool) -> Said {
        loop {
            let Some(lines) = &mut self.lines else {
                tokio::time::sleep_until(self.connect_at).await;
                self.connections += 1;
                self.lines = Some(Lines::open(&self.config, self.connections, self.max_packet));
                continue;
            };
            let said = match lines.next(may_ask).await {
                Heard::Requests(packet) => self.of_requests(packet),
                Heard::Answers(packet) => self.of_answers(&packet),
                Heard::Nothing => None,
                Heard::End(why) => Some(self.down(why)),
            };
            if let Some(said) = said {
                return said;
            }
        }
    }

    fn of_requests(&mut self, packet: Packet) -> Option<Said> {
        let lines = self.lines.as_mut()?;
        match packet {
            Packet::ConnAck(_) => {
                let asked =
                    lines.requests.client.try_subscribe(self.config.topic_in.clone(), QoS::AtLeastOnce);
                asked.err().map(|error| self.down(error.to_string()))
            }
            Packet::SubAck(ack) => {
                let is_taken = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                if !ack.return_codes.iter().all(is_taken) {
                    return Some(self.down(format!("it refuses the topic {}", self.config.topic_in)));
                }
                lines.is_subscribed = true;
                self.up()
            }
            Packet::Publish(publish) => Some(Said::Message(lines.message(publish))),
            other => self.ended(&other),
        }
    }

    fn of_answers(&mut self, packet: &Packet) -> Option<Said> {
        let lines = self.lines.as_mut()?;
        match packet {
            Packet::ConnAck(ack) => {
                lines.can_answer = true;
                let max = ack.properties.as_ref().and_then(|properties| properties.max_packet_size);
                lines.max_packet = max.unwrap_or(u32::MAX);
                self.up()
            }
            Packet::PubAck(ack) => {
                lines.waiting = lines.waiting.saturating_sub(1);
                match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                    reason => Some(Said::Refused(format!("{reason:?}"))),
                }
            }
            other => self.ended(other),
        }
    }

    fn up(&mut self) -> Option<Said> {
        let is_up = self.lines.as_ref().is_some_and(|lines| lines.is_subscribed && lines.can_answer);
        is_up.then(|| {
            self.backoff.reset();
            Said::Up
        })
    }

    fn ended(&mut self, packet: &Packet) -> Option<Said> {
        let Packet::Disconnect(end) = packet else { return None };
        Some(self.down(format!("it ended the session: {:?}", end.reason_code)))
    }

    fn down(&mut self, why: String) -> Said {
        let lost = self.lines.take().map_or(0, |lines| lines.waiting);
        self.connect_at = Instant::now() + self.backoff.next_delay(retry::random());
        Said::Down { why, lost }
    }
}
