//! What one message changes in the database, and what follows from it once that is committed.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{Hello, MAX_ACK_RANGES, Status, TaskReport};
use protocol::report::SignedReport;
use protocol::telemetry::{Batch, Kind};
use protocol::topic::{Channel, Topic};
use protocol::{DeviceId, ProjectId, Revision, StreamId, UnixMillis, decode_json};
use trust::PublicKey;

use super::decode::Message;
use super::records::{self, Place, Stored};
use super::reject::Rejection;
use super::sequence::{Insert, Range, Received};
use super::words;
use crate::store::devices::{self, Device};
use crate::store::tasks::{self, StoredReport};
use crate::store::telemetry::{self, StreamPosition};
use crate::store::{Conn, StoreError, quarantine};

/// Why a message was not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// The message is refused; the transaction goes on without it.
    #[error("the message is refused")]
    Rejected(#[source] Rejection),
    /// The database failed; the whole transaction is void.
    #[error("the message can't be stored")]
    Store(#[from] StoreError),
}

impl From<Rejection> for ApplyError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

type Key = (ProjectId, DeviceId);

/// What to do after the commit.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// What is stored of each stream that sent something: the highest contiguous number and the ranges above it.
    pub(super) acks: BTreeMap<(ProjectId, DeviceId, StreamId), (u64, Vec<Range>)>,
    /// Devices whose accepted Desired is not the stored one.
    pub(super) desired: BTreeSet<Key>,
    /// Devices that said hello.
    pub(super) greeted: BTreeSet<Key>,
    /// Devices that changed, for the console.
    pub(super) changed: BTreeSet<Key>,
    /// Devices whose own reports have counters that were taken before, and the highest counter taken.
    pub(super) floors: BTreeMap<Key, u64>,
    /// Transitions of update machines, in order.
    pub(super) tasks: Vec<(ProjectId, DeviceId, TaskReport)>,
    pub(super) records: u64,
    pub(super) duplicates: u64,
    /// Devices with records that went into quarantine.
    pub(super) quarantined: BTreeMap<Key, SetAside>,
}

/// Records of a device that went into quarantine.
#[derive(Debug)]
pub(super) struct SetAside {
    pub(super) records: u64,
    /// What the first of them said it was, and why it isn't.
    pub(super) kind: &'static str,
    pub(super) why: String,
}

/// How the records of a batch are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    /// One that the database refuses voids the transaction; the usual way.
    Together,
    /// One that the database refuses goes into quarantine; slower.
    Apart,
}

impl Effects {
    fn set_aside(&mut self, project: &ProjectId, device: &DeviceId, kind: Kind, why: String) {
        let first = SetAside { records: 0, kind: records::kind_text(kind), why };
        self.quarantined.entry((project.clone(), device.clone())).or_insert(first).records += 1;
    }

    /// Adds what follows from another transaction.
    pub(super) fn merge(&mut self, other: Self) {
        self.acks.extend(other.acks);
        self.desired.extend(other.desired);
        self.greeted.extend(other.greeted);
        self.changed.extend(other.changed);
        self.floors.extend(other.floors);
        self.tasks.extend(other.tasks);
        self.records += other.records;
        self.duplicates += other.duplicates;
        for (key, more) in other.quarantined {
            let records = more.records;
            let known = self.quarantined.entry(key).or_insert(SetAside { records: 0, ..more });
            known.records += records;
        }
    }
}

/// Applies messages inside one transaction.
pub(super) struct Applier<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) now: UnixMillis,
    pub(super) records: Records,
    pub(super) effects: Effects,
    /// Whether the embedded broker holds a connection of this device.
    pub(super) is_connected: &'a (dyn Fn(&ProjectId, &DeviceId) -> bool + Sync),
}

impl Applier<'_> {
    pub(super) async fn apply(&mut self, topic: &Topic, message: &Message) -> Result<(), ApplyError> {
        let Topic { project, device, .. } = topic;
        let row = devices::get(self.conn, project, device).await?.ok_or(Rejection::UnknownDevice)?;
        if row.decommissioned_at.is_some() {
            return Err(Rejection::Decommissioned.into());
        }
        match message {
            Message::Hello(report) => self.hello(&row, report).await,
            Message::Task(report) => self.task(&row, report).await,
            Message::Telemetry(batch) => self.telemetry(topic, batch).await,
            Message::Status(status) => self.status(topic, status).await,
        }
    }

    async fn hello(&mut self, row: &Device, report: &SignedReport) -> Result<(), ApplyError> {
        let payload = self.verified(row, Channel::Hello, report)?;
        let mut hello: Hello = decode_json(&payload).map_err(Rejection::Decode)?;
        if hello.desired_revision > Revision::MAX {
            return Err(Rejection::Revision(hello.desired_revision).into());
        }
        words::clean_hello(&mut hello);
        if report.counter <= row.report_counter {
            return Err(stale_hello(row, report.counter, &hello).into());
        }
        self.raise_counter(row, report.counter).await?;
        devices::set_hello(self.conn, &row.project, &row.device, &hello, self.now).await?;
        devices::set_online(self.conn, &row.project, &row.device, true, self.now).await?;
        let key = (row.project.clone(), row.device.clone());
        // A device that knows a higher revision than a restored database gets one above it.
        if hello.desired_revision != row.desired_revision {
            self.effects.desired.insert(key.clone());
        }
        self.effects.greeted.insert(key.clone());
        self.effects.changed.insert(key);
        Ok(())
    }

    async fn task(&mut self, row: &Device, report: &SignedReport) -> Result<(), ApplyError> {
        let payload = self.verified(row, Channel::Task, report)?;
        if report.counter <= row.report_counter {
            return Err(Rejection::Replayed { floor: row.report_counter, got: report.counter }.into());
        }
        let mut task: TaskReport = decode_json(&payload).map_err(Rejection::Decode)?;
        words::clean_task(&mut task);
        self.raise_counter(row, report.counter).await?;
        let stored = StoredReport { counter: report.counter, received_at: self.now, report: task.clone() };
        tasks::insert(self.conn, &row.project, &row.device, &stored).await?;
        self.effects.tasks.push((row.project.clone(), row.device.clone(), task));
        self.effects.changed.insert((row.project.clone(), row.device.clone()));
        Ok(())
    }

    /// The row is changed only if the counter still rises, so that two replicas can't both take one report.
    async fn raise_counter(&mut self, row: &Device, counter: u64) -> Result<(), ApplyError> {
        if devices::raise_report_counter(self.conn, &row.project, &row.device, counter).await? {
            return Ok(());
        }
        Err(Rejection::Replayed { floor: row.report_counter, got: counter }.into())
    }

    /// The payload, whose signature is this device's. Its counter may be one that was taken before; then nothing of it
    /// is believed, but the device is told the floor, which it can only rise to.
    fn verified(
        &mut self,
        row: &Device,
        channel: Channel,
        report: &SignedReport,
    ) -> Result<Vec<u8>, ApplyError> {
        let key = <[u8; 32]>::try_from(row.report_key.as_slice());
        let Some(key) = key.ok().and_then(|key| PublicKey::ed25519(&key).ok()) else {
            let column = "report_key".to_owned();
            return Err(StoreError::Corrupt { column, why: "not an ed25519 key".into() }.into());
        };
        let floor = row.report_counter.min(report.counter.saturating_sub(1));
        let verified = trust::report::verify(report, &row.project, &row.device, channel, &key, floor);
        let payload = verified.map_err(Rejection::Untrusted)?;
        if report.counter <= row.report_counter {
            self.effects.floors.insert((row.project.clone(), row.device.clone()), row.report_counter);
        }
        Ok(payload)
    }

    async fn status(&mut self, topic: &Topic, status: &Status) -> Result<(), ApplyError> {
        let Topic { project, device, .. } = topic;
        // The will of an old connection may come after the device is back.
        if !status.is_online && (self.is_connected)(project, device) {
            return Ok(());
        }
        if devices::set_online(self.conn, project, device, status.is_online, self.now).await? {
            self.effects.changed.insert((project.clone(), device.clone()));
        }
        Ok(())
    }

    async fn telemetry(&mut self, topic: &Topic, batch: &Batch) -> Result<(), ApplyError> {
        let Topic { project, device, .. } = topic;
        let place = Place { project, device, stream: &batch.stream, now: self.now };
        telemetry::open_stream(self.conn, project, device, &batch.stream, self.now).await?;
        let position = telemetry::position(self.conn, project, device, &batch.stream).await?;
        if position.as_ref().is_none_or(StreamPosition::is_new) {
            telemetry::trim_streams(self.conn, project, device).await?;
        }
        let (upto, ahead) = position.map_or((0, vec![]), |position| (position.upto_seq, position.ahead));
        let mut received = Received::new(upto, ahead);
        received.raise_floor(batch.floor_seq);
        let (mut next, mut set_aside) = (batch.from_seq, 0);
        for record in &batch.records {
            // The device says what is complete: the numbers in between never come.
            if batch.from_seq > 0 && next < record.seq {
                received.skip(next, record.seq - 1);
            }
            next = record.seq.saturating_add(1);
            match received.insert(record.seq) {
                Insert::Duplicate => self.effects.duplicates += 1,
                Insert::NoRoom => {}
                Insert::New => match records::store(self.conn, place, record, self.records).await? {
                    Stored::InItsTable => self.effects.records += 1,
                    Stored::InQuarantine { why } => {
                        set_aside += 1;
                        self.effects.set_aside(project, device, record.kind, why);
                    }
                },
            }
        }
        if set_aside > 0 {
            quarantine::trim(self.conn, project, device).await?;
        }
        let upto_seq = received.upto();
        let dropped = batch.dropped.clone();
        let position = StreamPosition { upto_seq, ahead: received.ahead().to_vec(), dropped };
        telemetry::set_position(self.conn, project, device, &batch.stream, &position, self.now).await?;
        let ahead = received.ahead();
        let newest = ahead[ahead.len().saturating_sub(MAX_ACK_RANGES)..].to_vec();
        let key = (project.clone(), device.clone(), batch.stream.clone());
        self.effects.acks.insert(key, (upto_seq, newest));
        Ok(())
    }
}

/// A repeated delivery speaks of a start of the device that is known. One of another start can't be a replay of what
/// was taken last: the device itself lags behind.
fn stale_hello(row: &Device, got: u64, hello: &Hello) -> Rejection {
    let floor = row.report_counter;
    match &row.hello {
        Some(known) if known.boot_id != hello.boot_id => Rejection::WentBack { floor, got },
        Some(_) | None => Rejection::Replayed { floor, got },
    }
}
