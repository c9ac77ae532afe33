//! The conversation with the server: hello and task reports up, telemetry through the window, Desired, commands and
//! acknowledgements down. Everything is level-triggered: after each connect the whole state is said again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::message::{Ack, Command, CommandAction, Hello, Status, TaskReport};
use protocol::telemetry::{Batch, MAX_BATCH_RECORDS};
use protocol::topic::Channel;
use protocol::{ModelName, UnixMillis, WIRE_VERSION, decode_json, encode_json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::mqtt::{Happening, Mqtt, Options};
use super::pump::{Lane, Pump};
use super::renew::Links;
use super::report::{Raised, Reporter};
use crate::config;
use crate::health::{Clock, Pulse};
use crate::retry::Backoff;
use crate::store::SpoolHandle;

/// Plain bytes of records in one batch; incompressible ones still fit the wire.
const BATCH_BYTES: usize = 384 * 1024;
/// Changes within this time make one hello.
const HELLO_QUIET: Duration = Duration::from_millis(300);

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Downlink {
    /// A Desired, not yet verified.
    Desired(Vec<u8>),
    /// Do something once.
    Command(Command),
}

/// The connection as `status` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkState {
    /// Whether there is one.
    pub is_online: bool,
    /// Since when it is so, by the device's clock; none before the first attempt has ended.
    pub since: Option<UnixMillis>,
    /// Why there is none.
    pub why: Option<String>,
}

/// What the session draws from and feeds.
pub struct Inputs {
    /// Identity, TLS and HTTP as they are now.
    pub links: watch::Receiver<Arc<Links>>,
    /// Signs reports.
    pub reporter: Reporter,
    /// The telemetry spool.
    pub spool: SpoolHandle,
    /// Makes a hello of now.
    pub hello: Box<dyn Fn() -> Hello + Send + Sync>,
    /// Changes when something that hello says has changed.
    pub changed: watch::Receiver<()>,
    /// The last task report of each model, said again after each connect.
    pub tasks: watch::Receiver<BTreeMap<ModelName, TaskReport>>,
    /// Task reports as they happen.
    pub reports: mpsc::Receiver<TaskReport>,
    /// Where Desired and commands go. When full they are dropped: the next hello brings them again.
    pub downlink: mpsc::Sender<Downlink>,
    /// Whether the server is connected, for `status`.
    pub state: watch::Sender<LinkState>,
    /// Random id of this boot.
    pub boot_id: String,
    /// Bounded time.
    pub clock: Clock,
    /// Fed by this loop.
    pub pulse: Pulse,
    /// `[link]`
    pub config: config::Link,
    /// The same, when the configuration was read again.
    pub config_changes: watch::Receiver<config::Link>,
}

/// The running conversation.
pub struct Session {
    inputs: Inputs,
    mqtt: Mqtt,
    pump: Pump,
    hello_at: Option<Instant>,
    is_down_said: bool,
}

impl Session {
    /// Prepares the session; connects when it runs.
    ///
    /// # Errors
    /// When the identity's MQTT address can't be one.
    pub fn new(inputs: Inputs) -> Result<Self, super::http::FetchError> {
        let links = inputs.links.borrow().clone();
        let url = &links.identity.mqtt_url;
        let (host, port) =
            host_and_port(url).ok_or_else(|| super::http::FetchError::Address { url: url.clone() })?;
        let offline = Status { is_online: false, boot_id: inputs.boot_id.clone() };
        let options = Options {
            host,
            port,
            project: links.identity.project.clone(),
            device: links.identity.device.clone(),
            tls: links.tls.clone(),
            keep_alive: inputs.config.keep_alive,
            connect_timeout: inputs.config.connect_timeout,
            proxies: inputs.config.proxies.clone(),
            will: encode_json(&offline),
        };
        let mqtt = Mqtt::new(options, Backoff::new(inputs.config.backoff));
        let pump = Pump::new(inputs.config.window_batches, inputs.config.ack_timeout, Instant::now());
        Ok(Self { inputs, mqtt, pump, hello_at: None, is_down_said: false })
    }

    /// Talks until `stop`.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let mut sendable = self.inputs.spool.sendable_seq();
        let mut beat = tokio::time::interval(crate::health::BEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_hello = Instant::now();
        loop {
            let hello_at = self.hello_at.unwrap_or(last_hello + self.inputs.config.hello_every);
            let resend_at = self.pump.deadline().unwrap_or_else(far);
            tokio::select! {
                () = stop.cancelled() => break,
                happening = self.mqtt.next() => self.happened(happening),
                Some(report) = self.inputs.reports.recv() => self.report(&report),
                Ok(()) = self.inputs.changed.changed() => self.hello_soon(),
                Ok(()) = self.inputs.links.changed() => self.relink(),
                Ok(()) = self.inputs.config_changes.changed() => self.reconfigure(),
                Ok(()) = sendable.changed() => {}
                () = tokio::time::sleep_until(hello_at) => {
                    self.say_hello();
                    last_hello = Instant::now();
                }
                () = tokio::time::sleep_until(resend_at) => self.pump.stalled(Instant::now()),
                _ = beat.tick() => self.inputs.pulse.beat("link"),
            }
            let highest = *sendable.borrow_and_update();
            self.pump_telemetry(highest).await;
        }
        self.say_goodbye().await;
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Connected => {
                tracing::info!("connected to the server");
                self.is_down_said = false;
                self.set_online();
                self.inputs.spool.set_sending(true);
                self.pump.restart(*self.inputs.spool.durable_seq().borrow(), Instant::now());
                let online = Status { is_online: true, boot_id: self.inputs.boot_id.clone() };
                self.mqtt.publish(Channel::Status, true, encode_json(&online));
                self.say_everything();
            }
            Happening::Message { channel, payload } => self.heard(channel, &payload),
            Happening::Refused(why) => tracing::warn!(why, "the broker refused"),
            Happening::Down(why) => {
                // Said once; further attempts are only for who looks closer.
                if self.set_offline(&why) || !self.is_down_said {
                    tracing::warn!(why, "no connection to the server; trying again");
                } else {
                    tracing::debug!(why, "still no connection to the server");
                }
                self.is_down_said = true;
            }
        }
    }

    fn is_online(&self) -> bool {
        self.inputs.state.borrow().is_online
    }

    fn set_online(&self) {
        let since = Some(self.inputs.clock.now());
        self.inputs.state.send_replace(LinkState { is_online: true, since, why: None });
    }

    /// Returns whether there was a connection.
    fn set_offline(&self, why: &str) -> bool {
        let before = self.inputs.state.borrow().clone();
        let since = if before.is_online { None } else { before.since };
        let since = since.or_else(|| Some(self.inputs.clock.now()));
        self.inputs.state.send_replace(LinkState { is_online: false, since, why: Some(why.to_owned()) });
        self.inputs.spool.set_sending(false);
        before.is_online
    }

    fn heard(&mut self, channel: Channel, payload: &[u8]) {
        match channel {
            Channel::Ack => match decode_json::<Ack>(payload) {
                Ok(ack) if ack.stream == self.inputs.spool.stream() => {
                    self.pump.acknowledged(ack.upto_seq, &ack.ahead, Instant::now());
                    self.inputs.spool.acknowledge_ranges(ack.upto_seq, ack.ahead);
                }
                Ok(ack) => tracing::debug!(stream = %ack.stream, "an acknowledgement of an earlier stream"),
                Err(error) => tracing::warn!(error = %error, "an acknowledgement can't be read"),
            },
            Channel::Desired => self.pass_on(Downlink::Desired(payload.to_vec())),
            Channel::Command => match decode_json::<Command>(payload) {
                Ok(command) => self.obey(command),
                Err(error) => tracing::warn!(error = %error, "a command can't be read"),
            },
            Channel::Hello | Channel::Task | Channel::Telemetry | Channel::Status => {}
        }
    }

    fn obey(&mut self, command: Command) {
        match &command.action {
            CommandAction::WidenJitter { max_s } => {
                tracing::debug!(max_s, "the server asks to spread the next reconnect");
                self.mqtt.widen(Duration::from_secs(u64::from(*max_s).min(24 * 3600)));
            }
            CommandAction::ReportFloor { floor } => self.go_on_from(*floor),
            CommandAction::Refresh => {
                self.hello_soon();
                self.pass_on(Downlink::Command(command));
            }
            CommandAction::CollectLogs { .. }
            | CommandAction::FlushPanes { .. }
            | CommandAction::Measure { .. }
            | CommandAction::Unknown => self.pass_on(Downlink::Command(command)),
        }
    }

    /// The server refused a report, because it knows a higher counter than this device's state does.
    fn go_on_from(&mut self, floor: u64) {
        match self.inputs.reporter.raise(floor) {
            Raised::From(last) => {
                tracing::warn!(
                    last,
                    floor,
                    "the server has seen later reports of this device than its state knows: the state went back, \
                     e.g. to a restored image; reports go on above the server's counter"
                );
                self.say_everything();
            }
            Raised::NotNeeded => tracing::debug!(floor, "the report counter is above the server's already"),
            Raised::TooHigh => {
                tracing::warn!(floor, "the server asks for a report counter that nothing can have reached");
            }
        }
    }

    /// The whole state: nothing that was said before is relied on.
    fn say_everything(&mut self) {
        self.say_hello();
        let tasks: Vec<_> = self.inputs.tasks.borrow_and_update().values().cloned().collect();
        for task in &tasks {
            self.report(task);
        }
    }

    fn pass_on(&self, downlink: Downlink) {
        if self.inputs.downlink.try_send(downlink).is_err() {
            tracing::warn!(
                "the agent is busy; what the server said is dropped and comes again with the next hello"
            );
        }
    }

    fn hello_soon(&mut self) {
        let soon = Instant::now() + HELLO_QUIET;
        self.hello_at = Some(self.hello_at.map_or(soon, |at| at.min(soon)));
    }

    fn say_hello(&mut self) {
        self.hello_at = None;
        let hello = (self.inputs.hello)();
        self.send_signed(Channel::Hello, &encode_json(&hello));
    }

    fn report(&mut self, report: &TaskReport) {
        self.send_signed(Channel::Task, &encode_json(report));
    }

    /// Not connected: nothing is lost, the whole state is said after the next connect.
    fn send_signed(&mut self, channel: Channel, payload: &[u8]) {
        if !self.is_online() {
            return;
        }
        match self.inputs.reporter.sign(channel, payload) {
            Ok(bytes) => {
                if !self.mqtt.publish(channel, false, bytes) {
                    tracing::debug!(channel = channel.path(), "a report could not be handed over");
                }
            }
            Err(error) => tracing::error!(error = crate::chain(&error), "nothing can be reported"),
        }
    }

    fn relink(&mut self) {
        let links = self.inputs.links.borrow_and_update().clone();
        tracing::info!("reconnecting with the renewed certificate");
        self.mqtt.replace_tls(links.tls.clone());
        self.set_offline("reconnecting with the renewed certificate");
    }

    /// What the next connection needs is used then; the current one stays.
    fn reconfigure(&mut self) {
        let config = self.inputs.config_changes.borrow_and_update().clone();
        self.mqtt.reconfigure(config.keep_alive, config.backoff);
        self.pump.reconfigure(config.window_batches, config.ack_timeout);
        self.inputs.config = config;
    }

    async fn pump_telemetry(&mut self, sendable: u64) {
        while self.is_online() {
            let Some(lane) = self.pump.next(sendable) else { return };
            let spool = self.inputs.spool.clone();
            match tokio::task::spawn_blocking(move || pack(&spool, lane)).await {
                Ok(Ok(Some(packed))) => {
                    if !self.mqtt.publish(Channel::Telemetry, false, packed.bytes) {
                        return;
                    }
                    self.pump.sent(lane, packed.last_seq, Instant::now());
                }
                Ok(Ok(None)) => self.pump.exhausted(lane),
                Ok(Err(Unpackable)) | Err(_) => return,
            }
        }
    }

    async fn say_goodbye(&mut self) {
        if self.is_online() {
            let offline = Status { is_online: false, boot_id: self.inputs.boot_id.clone() };
            self.mqtt.publish(Channel::Status, true, encode_json(&offline));
            self.mqtt.disconnect(Duration::from_secs(2)).await;
        }
        self.set_offline("the agent stops");
        self.inputs.pulse.retire("link");
    }
}

struct Packed {
    last_seq: u64,
    bytes: Vec<u8>,
}

/// The spool can't be read now.
struct Unpackable;

/// The next batch of a lane, ready for the wire; none when nothing waits in it.
fn pack(spool: &SpoolHandle, lane: Lane) -> Result<Option<Packed>, Unpackable> {
    let Lane { from, before, .. } = lane;
    let read = spool.read_before(from, before, MAX_BATCH_RECORDS, BATCH_BYTES);
    let chunk = read.map_err(|error| {
        // Its writer says so once, and mends it.
        tracing::debug!(error = crate::chain(&error), "the spool can't be read");
        Unpackable
    })?;
    let (Some(first), Some(last)) = (chunk.records.first(), chunk.records.last()) else { return Ok(None) };
    let (first_seq, last_seq) = (first.seq, last.seq);
    // Everything before the first record of a batch that is read from the floor is gone: say so.
    let floor_seq = if from <= chunk.floor_seq { first_seq } else { chunk.floor_seq.min(first_seq) };
    let batch = Batch {
        v: WIRE_VERSION,
        stream: spool.stream(),
        floor_seq,
        from_seq: from.min(first_seq),
        records: chunk.records,
        dropped: chunk.dropped,
    };
    match zstd::bulk::compress(&batch.encode(), 1) {
        Ok(bytes) => Ok(Some(Packed { last_seq, bytes })),
        Err(error) => {
            tracing::error!(error = %error, "a batch can't be compressed");
            Err(Unpackable)
        }
    }
}

/// `mqtts://host:port` or `https://host:port` in its parts; an IPv6 address loses its brackets.
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("mqtts://").or_else(|| url.strip_prefix("https://"))?.trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
}

fn far() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_others_refused() {
        assert_eq!(host_and_port("mqtts://edge.example:8883"), Some(("edge.example".into(), 8883)));
        assert_eq!(host_and_port("mqtts://[::1]:8883"), Some(("::1".into(), 8883)));
        for bad in ["mqtt://h:1", "mqtts://h", "mqtts://:1", "mqtts://h:99999"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
