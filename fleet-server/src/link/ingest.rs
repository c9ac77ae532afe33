//! From the broker into the database: groups of messages in one transaction, acknowledged only after its commit.
//!
//! A refused message changes nothing and is named in the log, a counter and the device's events. A database that
//! fails delays everything and loses nothing: nothing was acknowledged, and the broker holds the rest back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::message::{Ack, Command, CommandAction, TaskReport};
use protocol::topic::{Channel, Topic};
use protocol::{DeviceId, ProjectId, encode_json, text};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::access::Reach;
use super::apply::{Applier, ApplyError, Effects, Records, SetAside};
use super::budget::Budgets;
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
    /// From the embedded broker; an external one tells nothing.
    pub(super) reaches: mpsc::Receiver<Reach>,
    pub(super) outbound: mpsc::Sender<Outbound>,
    pub(super) on_task: TaskHook,
    pub(super) is_connected: IsConnected,
    pub(super) spread: Spread,
    pub(super) noted: HashMap<(String, &'static str), Noted>,
    pub(super) budgets: Budgets,
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
            let first = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(reach) = self.reaches.recv() => {
                    self.note_reach(reach).await;
                    continue;
                }
                first = self.inbound.recv() => first,
            };
            let Some(first) = first else { return };
            let group = gather(first, &mut self.inbound).await;
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
        let (readable, over) = self.within_budget(readable);
        refused.extend(over);
        let Some((mut effects, more)) = self.store_until_done(&readable, shutdown).await else { return };
        refused.extend(more);
        group.into_iter().for_each(Inbound::ack);
        let quarantined = std::mem::take(&mut effects.quarantined);
        self.follow_up(effects).await;
        self.note_set_aside(quarantined).await;
        self.note_refused(refused).await;
    }

    fn within_budget(&mut self, group: Vec<Readable>) -> (Vec<Readable>, Vec<Refused>) {
        let (mut readable, mut refused) = (Vec::with_capacity(group.len()), vec![]);
        let now = self.clock.now();
        for (topic, message) in group {
            let taken = match &message {
                Message::Telemetry(batch) => self.budgets.take(now, &topic.project, &topic.device, batch),
                Message::Hello(_) | Message::Task(_) | Message::Status(_) => {
                    self.budgets.take_message(now, &topic.project, &topic.device)
                }
            };
            match taken {
                Ok(()) => readable.push((topic, message)),
                Err(rejection) => refused.push((topic, rejection)),
            }
        }
        (readable, refused)
    }

    /// Tries until the database takes the group; `None` when the server shuts down before that.
    async fn store_until_done(
        &self,
        readable: &[Readable],
        shutdown: &CancellationToken,
    ) -> Option<(Effects, Vec<Refused>)> {
        match self.store_patiently(readable, Records::Together, shutdown).await? {
            Ok(done) => Some(done),
            // One message may be what the database can't take: find it, so that the others go on.
            Err(_) => self.store_one_by_one(readable, shutdown).await,
        }
    }

    /// Each message in its own transaction, and of a batch each record by itself.
    async fn store_one_by_one(
        &self,
        readable: &[Readable],
        shutdown: &CancellationToken,
    ) -> Option<(Effects, Vec<Refused>)> {
        let (mut effects, mut refused) = (Effects::default(), vec![]);
        for one in readable {
            match self.store_patiently(std::slice::from_ref(one), Records::Apart, shutdown).await? {
                Ok((more, also_refused)) => {
                    effects.merge(more);
                    refused.extend(also_refused);
                }
                Err(e) => refused.push((one.0.clone(), Rejection::Unstorable(e))),
            }
        }
        Some((effects, refused))
    }

    /// Tries again as long as that can help; `None` when the server shuts down before that.
    async fn store_patiently(
        &self,
        readable: &[Readable],
        records: Records,
        shutdown: &CancellationToken,
    ) -> Option<Result<(Effects, Vec<Refused>), StoreError>> {
        let mut pause = RETRY_MIN;
        loop {
            let failed = match self.store_group(readable, records).await {
                Err(e) if e.is_retryable() => e,
                done => return Some(done),
            };
            error!("messages can't be stored now: {}", with_causes(&failed));
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            }
        }
    }

    async fn store_group(
        &self,
        readable: &[Readable],
        records: Records,
    ) -> Result<(Effects, Vec<Refused>), StoreError> {
        let mut tx = self.store.begin().await?;
        let is_connected = |project: &ProjectId, device: &DeviceId| (self.is_connected)(project, device);
        let now = self.clock.now();
        let mut applier =
            Applier { conn: &mut tx, now, records, effects: Effects::default(), is_connected: &is_connected };
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
            let why = with_causes(&rejection);
            let said = match &rejection {
                Rejection::WentBack { .. } => sentence(&why),
                _ => format!("Message on {} refused: {why}", topic.channel.path()),
            };
            self.note_refusal(&topic.project, &topic.device, &rejection, &said).await;
        }
    }

    async fn note_reach(&mut self, Reach { project, device, topic }: Reach) {
        let rejection = Rejection::ForeignTopic { topic };
        self.note_refusal(&project, &device, &rejection, &sentence(&rejection.to_string())).await;
    }

    async fn note_refusal(
        &mut self,
        project: &ProjectId,
        device: &DeviceId,
        rejection: &Rejection,
        said: &str,
    ) {
        let code = rejection.code();
        self.counters.reject(code);
        let Some(before) = self.note_is_due(project, device, code) else { return };
        warn!(%project, %device, code, before, "{said} ({before} like it before)");
        let name = match rejection {
            // A repeated delivery is no event of the device's life; an unknown device has no events.
            Rejection::Replayed { .. } | Rejection::UnknownDevice => return,
            Rejection::WentBack { .. } => code.to_owned(),
            _ => format!("refused_{code}"),
        };
        self.note(project, device, &name, said).await;
    }

    async fn note_set_aside(&mut self, quarantined: BTreeMap<(ProjectId, DeviceId), SetAside>) {
        for ((project, device), SetAside { records, kind, why }) in quarantined {
            self.counters.quarantined.add(records);
            let Some(before) = self.note_is_due(&project, &device, "quarantined") else { continue };
            warn!(%project, %device, records, kind, before, "{records} records quarantined, a {kind} first: {why}");
            let detail = format!(
                "Records that can't be stored were set aside: {records} now, and {before} times since the last such \
                 event. The first is of kind {kind}: {why}"
            );
            self.note(&project, &device, "quarantined", &detail).await;
        }
    }

    /// Whether one like this of the device is to be noted again, and then how many like it there were meanwhile.
    fn note_is_due(&mut self, project: &ProjectId, device: &DeviceId, code: &'static str) -> Option<u64> {
        let key = (format!("{project}:{device}"), code);
        if let Some(last) = self.noted.get_mut(&key).filter(|last| last.at.elapsed() < NOTE_EVERY) {
            last.more += 1;
            return None;
        }
        if self.noted.len() >= NOTED {
            self.noted.clear();
        }
        Some(self.noted.insert(key, Noted { at: Instant::now(), more: 0 }).map_or(0, |last| last.more))
    }

    async fn note(&self, project: &ProjectId, device: &DeviceId, name: &str, detail: &str) {
        let now = self.clock.now();
        let detail = text::one_line(detail, 4000);
        let noted = async {
            let mut tx = self.store.begin().await?;
            if devices::get(&mut tx, project, device).await?.is_some() {
                history::note(&mut tx, project, device, now, name, &detail).await?;
            }
            tx.commit().await
        };
        if let Err(e) = noted.await {
            warn!(%project, %device, "the event {name} could not be noted: {}", with_causes(&e));
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

/// Waits a little for more messages after the first.
async fn gather(first: Inbound, inbound: &mut mpsc::Receiver<Inbound>) -> Vec<Inbound> {
    let mut group = Vec::with_capacity(GROUP);
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
