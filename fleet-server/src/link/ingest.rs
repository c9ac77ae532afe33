//! From the broker into the database: groups of messages in one transaction, acknowledged only after its commit.
//!
//! A refused message changes nothing and is named in the log, a counter and the device's events. A database that
//! fails delays everything and loses nothing: nothing was acknowledged, and the broker holds the rest back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::message::{Ack, Command, CommandAction, TaskReport};
use protocol::topic::{Channel, Topic};
use protocol::{DeviceId, ProjectId, encode_json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::apply::{Applier, ApplyError, Effects};
use super::counters::LinkCounters;
use super::decode::{self, Message};
use super::reject::Rejection;
use super::session::{Inbound, Outbound};
use crate::bus::{ChangeKind, EventBus};
use crate::clock::Clock;
use crate::downlink::Downlink;
use crate::store::{Store, StoreError, devices, history};
use crate::supervisor::with_causes;

/// Messages in one transaction.
const GROUP: usize = 200;
/// How long the first message of a group waits for more.
const GROUP_WAIT: Duration = Duration::from_millis(5);
/// One refusal of a kind is noted among a device's events in so long; a hostile device can't fill the table.
const NOTE_EVERY: Duration = Duration::from_mins(1);
/// Devices whose last note is remembered; when full, the memory starts anew.
const NOTED: usize = 10_000;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Told of every stored task report, in order, after its commit.
pub type TaskHook = Arc<dyn Fn(ProjectId, DeviceId, TaskReport) -> BoxFuture<'static, ()> + Send + Sync>;

/// Whether the embedded broker holds a connection of a device.
pub(super) type IsConnected = Arc<dyn Fn(&ProjectId, &DeviceId) -> bool + Send + Sync>;

/// Over how many seconds reconnects should be spread now; none while there are few devices.
pub(super) type Spread = Arc<dyn Fn() -> Option<u32> + Send + Sync>;

pub(super) struct Ingest {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) bus: EventBus,
    pub(super) downlink: Downlink,
    pub(super) counters: LinkCounters,
    pub(super) inbound: mpsc::Receiver<Inbound>,
    pub(super) outbound: mpsc::Sender<Outbound>,
    pub(super) on_task: TaskHook,
    pub(super) is_connected: IsConnected,
    pub(super) spread: Spread,
    pub(super) noted: HashMap<(String, &'static str), Noted>,
}

/// The last refusal of a kind by a device that was written down.
pub(super) struct Noted {
    at: Instant,
    /// Refusals like it since then.
    more: u64,
}

type Readable = (Topic, Message);
type Refused = (Topic, Rejection);

impl Ingest {
    /// Runs until `shutdown`; a group that was begun is finished.
    pub(super) async fn run(&mut self, shutdown: CancellationToken) {
        loop {
            let group = tokio::select! {
                () = shutdown.cancelled() => return,
                group = gather(&mut self.inbound) => group,
            };
            if group.is_empty() {
                return;
            }
            self.take(group, &shutdown).await;
        }
    }

    async fn take(&mut self, group: Vec<Inbound>, shutdown: &CancellationToken) {
        self.counters.messages.add(u64::try_from(group.len()).unwrap_or(u64::MAX));
        let (group, readable, mut refused) =
            match tokio::task::spawn_blocking(move || decode_all(group)).await {
                Ok(decoded) => decoded,
                // The messages stay unacknowledged and come again.
                Err(e) => return error!("decoding a group of messages failed: {e}"),
            };
        let Some((effects, more)) = self.store_until_done(&readable, shutdown).await else { return };
        refused.extend(more);
        group.into_iter().for_each(Inbound::ack);
        self.follow_up(effects).await;
        self.note_refused(refused).await;
    }

    /// Tries until the database takes the group; `None` when the server shuts down before that.
    async fn store_until_done(
        &self,
        readable: &[Readable],
        shutdown: &CancellationToken,
    ) -> Option<(Effects, Vec<Refused>)> {
        let mut pause = RETRY_MIN;
        loop {
            let failed = match self.store_group(readable).await {
                Ok(done) => return Some(done),
                Err(e) => e,
            };
            if !failed.is_retryable() && readable.len() > 1 {
                // One message may be what the database can't take: find it, so that the others go on.
                return self.store_one_by_one(readable).await;
            }
            if !failed.is_retryable() {
                error!("a message can't be stored and is dropped: {}", with_causes(&failed));
                return Some((Effects::default(), vec![]));
            }
            error!("messages can't be stored now: {}", with_causes(&failed));
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            }
        }
    }

    async fn store_one_by_one(&self, readable: &[Readable]) -> Option<(Effects, Vec<Refused>)> {
        let (mut effects, mut refused) = (Effects::default(), vec![]);
        for one in readable {
            match self.store_group(std::slice::from_ref(one)).await {
                Ok((more, also_refused)) => {
                    effects.merge(more);
                    refused.extend(also_refused);
                }
                Err(e) => {
                    let Topic { project, device, .. } = &one.0;
                    self.counters.reject("unstorable");
                    error!(%project, %device, "a message can't be stored: {}", with_causes(&e));
                }
            }
        }
        Some((effects, refused))
    }

    async fn store_group(&self, readable: &[Readable]) -> Result<(Effects, Vec<Refused>), StoreError> {
        let mut tx = self.store.begin().await?;
        let is_connected = |project: &ProjectId, device: &DeviceId| (self.is_connected)(project, device);
        let now = self.clock.now();
        let mut applier =
            Applier { conn: &mut tx, now, effects: Effects::default(), is_connected: &is_connected };
        let mut refused = vec![];
        for (topic, message) in readable {
            match applier.apply(topic, message).await {
                Ok(()) => {}
                Err(ApplyError::Rejected(rejection)) => refused.push((topic.clone(), rejection)),
                Err(ApplyError::Store(e)) => return Err(e),
            }
        }
        let effects = applier.effects;
        tx.commit().await?;
        self.counters.commits.add(1);
        Ok((effects, refused))
    }

    async fn follow_up(&self, effects: Effects) {
        self.counters.records.add(effects.records);
        self.counters.duplicates.add(effects.duplicates);
        self.counters.quarantined.add(effects.quarantined);
        for ((project, device, stream), (upto_seq, ahead)) in effects.acks {
            let payload = encode_json(&Ack { stream, upto_seq, ahead });
            let outbound = Outbound { topic: Topic::new(project, device, Channel::Ack), payload };
            if self.outbound.try_send(outbound).is_err() {
                debug!("an acknowledgement was dropped; the next one repeats it");
            }
        }
        for ((project, device), floor) in effects.floors {
            self.command(
                project,
                device,
                format!("report-floor-{floor}"),
                CommandAction::ReportFloor { floor },
            );
        }
        if let Some(max_s) = (self.spread)() {
            for (project, device) in effects.greeted {
                self.command(project, device, "widen-jitter".into(), CommandAction::WidenJitter { max_s });
            }
        }
        for (project, device) in effects.desired {
            self.downlink.desired_changed(project, device);
        }
        for (project, device) in effects.changed {
            self.bus.changed(&project, ChangeKind::Device, device.as_str());
        }
        for (project, device, report) in effects.tasks {
            (self.on_task)(project, device, report).await;
        }
    }

    /// Of the server's own accord: what is lost here is said again after the device's next report.
    fn command(&self, project: ProjectId, device: DeviceId, id: String, action: CommandAction) {
        let command = Command { id, at: self.clock.now(), action };
        if self.downlink.command(project, device, command).is_err() {
            debug!("a command was dropped: the broker doesn't keep up");
        }
    }

    async fn note_refused(&mut self, refused: Vec<Refused>) {
        for (topic, rejection) in refused {
            let (code, why) = (rejection.code(), with_causes(&rejection));
            self.counters.reject(code);
            let key = (format!("{}:{}", topic.project, topic.device), code);
            if let Some(last) = self.noted.get_mut(&key).filter(|last| last.at.elapsed() < NOTE_EVERY) {
                last.more += 1;
                continue;
            }
            if self.noted.len() >= NOTED {
                self.noted.clear();
            }
            let before =
                self.noted.insert(key, Noted { at: Instant::now(), more: 0 }).map_or(0, |last| last.more);
            let (project, device) = (&topic.project, &topic.device);
            warn!(%project, %device, code, before, "message on {topic} refused, {before} like it before: {why}");
            // A repeated delivery is no event of the device's life; an unknown device has no events.
            if !matches!(rejection, Rejection::Replayed { .. } | Rejection::UnknownDevice) {
                self.note(&topic, code, &why).await;
            }
        }
    }

    async fn note(&self, topic: &Topic, code: &str, why: &str) {
        let now = self.clock.now();
        let (name, detail) = match code {
            "state_went_back" => (code.to_owned(), sentence(why)),
            _ => (format!("refused_{code}"), format!("Message on {} refused: {why}", topic.channel.path())),
        };
        let noted = async {
            let mut tx = self.store.begin().await?;
            if devices::get(&mut tx, &topic.project, &topic.device).await?.is_some() {
                history::note(&mut tx, &topic.project, &topic.device, now, &name, &detail).await?;
            }
            tx.commit().await
        };
        if let Err(e) = noted.await {
            warn!("a refused message could not be noted: {}", with_causes(&e));
        }
    }
}

fn sentence(why: &str) -> String {
    let mut letters = why.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

/// Waits for a message, then a little for more of them. Empty only when the session is gone.
async fn gather(inbound: &mut mpsc::Receiver<Inbound>) -> Vec<Inbound> {
    let mut group = Vec::with_capacity(GROUP);
    let Some(first) = inbound.recv().await else { return group };
    group.push(first);
    let until = Instant::now() + GROUP_WAIT;
    while group.len() < GROUP {
        match tokio::time::timeout_at(until, inbound.recv()).await {
            Ok(Some(next)) => group.push(next),
            Ok(None) | Err(_) => break,
        }
    }
    group
}

fn decode_all(group: Vec<Inbound>) -> (Vec<Inbound>, Vec<Readable>, Vec<Refused>) {
    let (mut readable, mut refused) = (vec![], vec![]);
    for message in &group {
        let topic = match decode::topic(&message.topic) {
            Ok(topic) => topic,
            Err(rejection) => {
                // It names no device, so it can stand among no device's events.
                warn!(code = rejection.code(), "message refused: {}", with_causes(&rejection));
                continue;
            }
        };
        match decode::message(topic.channel, &message.payload) {
            Ok(decoded) => readable.push((topic, decoded)),
            Err(rejection) => refused.push((topic, rejection)),
        }
    }
    (group, readable, refused)
}

impl Effects {
    fn merge(&mut self, other: Self) {
        self.acks.extend(other.acks);
        self.desired.extend(other.desired);
        self.greeted.extend(other.greeted);
        self.changed.extend(other.changed);
        self.floors.extend(other.floors);
        self.tasks.extend(other.tasks);
        self.records += other.records;
        self.duplicates += other.duplicates;
        self.quarantined += other.quarantined;
    }
}
