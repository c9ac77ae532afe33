//! The spool's one writing thread: group commit, deletion of what the server has, bound and age, and recovery
//! when the disk fails. A group that could not be committed is kept and tried again, so a full disk loses nothing
//! that was accepted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use protocol::UnixMillis;
use protocol::message::LossCause;
use protocol::telemetry::Kind;
use tokio::sync::{oneshot, watch};

use super::layout;
use super::opening::{self, Opened};
use super::spool::{Shared, SpoolError, is_expired, losses};
use super::sync::Durable;
use crate::config;
use crate::health::Clock;

/// Records of one group at most; bounds the memory of a commit.
const MAX_GROUP: usize = 512;
/// Records deleted in one batch.
const DELETE_BATCH: usize = 1000;
/// No record is committed when the disk has less room than this: sled must not meet a full disk.
pub(super) const MIN_ROOM_BYTES: u64 = 8 * 1024 * 1024;
/// Pause before a failed commit is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Kinds in the order in which they are dropped when the spool is full: last in line is kept longest.
const DROP_ORDER: [Kind; 5] = [Kind::Log, Kind::Sample, Kind::Resources, Kind::Event, Kind::Pane];

/// What the writer is asked for.
pub(super) enum Order {
    Record { kind: Kind, at: UnixMillis, body: Vec<u8>, done: Option<oneshot::Sender<u64>> },
    Acknowledged(u64),
    Close,
}

struct Waiting {
    kind: Kind,
    at: UnixMillis,
    body: Vec<u8>,
    done: Option<oneshot::Sender<u64>>,
}

pub(super) struct Writer {
    dir: PathBuf,
    config: config::Spool,
    clock: Clock,
    shared: Arc<Shared>,
    next_seq: u64,
    durable_seq: watch::Sender<u64>,
    group: Vec<Waiting>,
    acknowledged: Option<u64>,
    committed_losses: u64,
    /// Whether the database of this run is known: its stream, its next sequence number and what it holds.
    is_opened: bool,
    is_closing: bool,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        config: config::Spool,
        clock: Clock,
        shared: Arc<Shared>,
        durable_seq: watch::Sender<u64>,
    ) -> Self {
        Self {
            dir,
            config,
            clock,
            shared,
            next_seq: 1,
            durable_seq,
            group: Vec::new(),
            acknowledged: None,
            committed_losses: 0,
            is_opened: false,
            is_closing: false,
        }
    }

    /// Opens the database and takes over what it holds. Where the disk takes none this is said, and tried again
    /// when there is something to store. Returns what there is to report.
    pub(super) fn open(&mut self) -> Option<String> {
        let Opened { durable, stream, next_seq, depth, floor_seq, losses, report } =
            match opening::open(&self.dir) {
                Ok(opened) => opened,
                Err(error) => {
                    self.say_problem(&error);
                    return None;
                }
            };
        self.committed_losses = losses.values().sum();
        (self.next_seq, self.is_opened) = (next_seq, true);
        self.shared.visible(|v| {
            (v.stream, v.depth, v.floor_seq, v.problem) = (stream, depth, floor_seq, None);
            // What was dropped until now counts too.
            for (key, count) in losses {
                *v.losses.entry(key).or_default() += count;
            }
        });
        *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(durable);
        self.durable_seq.send_replace(next_seq.saturating_sub(1));
        report
    }

    /// Works until the spool closes; the database is closed then, whoever still holds a handle.
    pub(super) fn run(mut self, inbox: &Receiver<Order>) {
        self.work_until_closed(inbox);
        *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn work_until_closed(&mut self, inbox: &Receiver<Order>) {
        while !self.is_closing || !self.group.is_empty() {
            self.gather(inbox);
            match self.work() {
                Ok(()) => self.shared.visible(|v| v.problem = None),
                Err(error) if self.is_closing => {
                    tracing::error!(error = %error, records = self.group.len(), "the spool closes with records it could not keep");
                    return;
                }
                Err(error) => self.recover(&error),
            }
        }
    }

    /// Waits for work, then gathers a group: at once when someone waits for durability, else for the commit time.
    fn gather(&mut self, inbox: &Receiver<Order>) {
        if self.group.is_empty() {
            match inbox.recv() {
                Ok(order) => self.take(order),
                Err(_) => self.is_closing = true,
            }
        }
        let until = Instant::now() + self.config.commit_after;
        while !self.is_closing && self.group.len() < MAX_GROUP {
            let is_urgent = self.group.iter().any(|w| w.done.is_some()) || self.group.is_empty();
            let wait =
                if is_urgent { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            match inbox.recv_timeout(wait) {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.is_closing = true,
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Record { kind, at, body, done } => self.group.push(Waiting { kind, at, body, done }),
            Order::Acknowledged(upto) => self.acknowledged = self.acknowledged.max(Some(upto)),
            Order::Close => self.is_closing = true,
        }
    }

    fn work(&mut self) -> Result<(), SpoolError> {
        let durable = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(durable) = durable else { return Err(SpoolError::Closed) };
        if let Some(upto) = self.acknowledged {
            self.delete_upto(&durable, upto)?;
            self.acknowledged = None;
        }
        self.make_room(&durable)?;
        if !self.group.is_empty() {
            self.check_disk()?;
        }
        self.commit(&durable)
    }

    /// Applies the group as one atomic batch and makes it durable; only then anyone hears of it.
    fn commit(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        let mut batch = sled::Batch::default();
        let mut seq = self.next_seq;
        for waiting in &self.group {
            let pieces = layout::pieces(waiting.kind, waiting.at, &waiting.body).unwrap_or_default();
            for (number, piece) in pieces.into_iter().enumerate() {
                batch.insert(&layout::key(seq, u16::try_from(number).unwrap_or(u16::MAX)), piece);
            }
            seq += 1;
        }
        let is_lossy = self.add_losses(&mut batch);
        if seq == self.next_seq && !is_lossy {
            return Ok(());
        }
        batch.insert(layout::NEXT_SEQ, &seq.to_be_bytes());
        durable.db.apply_batch(batch).map_err(|source| SpoolError::Sled { operation: "write", source })?;
        durable.commit()?;
        self.announce(seq);
        Ok(())
    }

    fn add_losses(&mut self, batch: &mut sled::Batch) -> bool {
        let (total, losses) = self.shared.visible(|v| (v.losses.values().sum::<u64>(), losses(v)));
        if total == self.committed_losses {
            return false;
        }
        let mut bytes = Vec::new();
        if ciborium::into_writer(&losses, &mut bytes).is_ok() {
            batch.insert(layout::LOSSES, bytes);
            self.committed_losses = total;
        }
        true
    }

    fn announce(&mut self, next_seq: u64) {
        let group = std::mem::take(&mut self.group);
        let bytes: usize = group.iter().map(|w| w.body.len()).sum();
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.visible(|v| {
            v.depth.records += next_seq - self.next_seq;
            v.depth.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        });
        let first = self.next_seq;
        self.next_seq = next_seq;
        self.durable_seq.send_replace(next_seq - 1);
        for (seq, waiting) in (first..).zip(group) {
            if let Some(done) = waiting.done {
                let _gone = done.send(seq);
            }
        }
    }

    fn delete_upto(&mut self, durable: &Durable, upto: u64) -> Result<(), SpoolError> {
        let upto = upto.min(self.next_seq.saturating_sub(1));
        self.delete(durable, None, |seq, _, _| if seq <= upto { Verdict::Delete } else { Verdict::Stop })?;
        self.shared.visible(|v| v.floor_seq = v.floor_seq.max(upto + 1));
        Ok(())
    }

    /// Expires old records, then drops the least important ones while the bound is exceeded.
    fn make_room(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        let (now, ttl) = (self.clock.now(), self.config.ttl);
        let is_old = |at| is_expired(at, now, ttl);
        self.delete(durable, Some(LossCause::Expired), |_, _, at| {
            if is_old(at) { Verdict::Delete } else { Verdict::Stop }
        })?;
        let coming: u64 = self.group.iter().map(|w| u64::try_from(w.body.len()).unwrap_or(u64::MAX)).sum();
        let held = |writer: &Self| writer.shared.visible(|v| v.depth.bytes);
        if held(self) + coming <= self.config.max_bytes {
            return Ok(());
        }
        // A sixteenth more than needed, so that a full spool doesn't scan for every record.
        let target = (self.config.max_bytes - self.config.max_bytes / 16).saturating_sub(coming);
        for kind in DROP_ORDER {
            let mut excess = held(self).saturating_sub(target);
            if excess == 0 {
                break;
            }
            self.delete_sized(durable, LossCause::Full, |_, head| {
                if excess == 0 {
                    return Verdict::Stop;
                }
                if head.kind != kind {
                    return Verdict::Keep;
                }
                excess = excess.saturating_sub(u64::try_from(head.length).unwrap_or(u64::MAX).max(1));
                Verdict::Delete
            })?;
        }
        Ok(())
    }

    fn delete(
        &mut self,
        durable: &Durable,
        cause: Option<LossCause>,
        mut judge: impl FnMut(u64, Kind, UnixMillis) -> Verdict,
    ) -> Result<(), SpoolError> {
        self.delete_where(durable, cause, |seq, head| judge(seq, head.kind, head.at))
    }

    fn delete_sized(
        &mut self,
        durable: &Durable,
        cause: LossCause,
        judge: impl FnMut(u64, layout::Head) -> Verdict,
    ) -> Result<(), SpoolError> {
        self.delete_where(durable, Some(cause), judge)
    }

    /// Deletes records from the oldest on, in bounded atomic batches; each batch carries the loss counters that it
    /// changes, so that a power cut can't lose a record without counting it.
    fn delete_where(
        &mut self,
        durable: &Durable,
        cause: Option<LossCause>,
        mut judge: impl FnMut(u64, layout::Head) -> Verdict,
    ) -> Result<(), SpoolError> {
        let mut from = layout::key(0, 0);
        loop {
            let mut found = Deletion::default();
            let mut is_end = true;
            for entry in durable.db.range(from..) {
                let (key, value) = entry.map_err(|source| SpoolError::Sled { operation: "read", source })?;
                let Some((seq, piece)) = layout::parse_key(&key) else { break };
                if piece == 0 {
                    if found.records >= DELETE_BATCH {
                        (from, is_end) = (layout::key(seq, 0), false);
                        break;
                    }
                    let Some((head, _)) = layout::head(&value) else {
                        return Err(SpoolError::Entry("record"));
                    };
                    match judge(seq, head) {
                        Verdict::Delete => found.count(head),
                        Verdict::Keep => found.is_deleting = false,
                        Verdict::Stop => break,
                    }
                }
                if found.is_deleting {
                    found.batch.remove(key);
                }
            }
            self.apply(durable, cause, found)?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn apply(
        &mut self,
        durable: &Durable,
        cause: Option<LossCause>,
        found: Deletion,
    ) -> Result<(), SpoolError> {
        let Deletion { mut batch, records, bytes, by_kind, .. } = found;
        if records == 0 {
            return Ok(());
        }
        let before = self.shared.visible(|v| v.losses.clone());
        if let Some(cause) = cause {
            self.shared.visible(|v| {
                for (kind, n) in &by_kind {
                    *v.losses.entry((*kind, cause)).or_default() += n;
                }
            });
        }
        self.add_losses(&mut batch);
        let applied =
            durable.db.apply_batch(batch).map_err(|source| SpoolError::Sled { operation: "delete", source });
        if let Err(error) = applied.and_then(|()| durable.commit()) {
            self.shared.visible(|v| v.losses = before);
            return Err(error);
        }
        self.shared.visible(|v| {
            v.depth.records = v.depth.records.saturating_sub(u64::try_from(records).unwrap_or(u64::MAX));
            v.depth.bytes = v.depth.bytes.saturating_sub(bytes);
        });
        self.refresh_floor(durable)
    }

    fn refresh_floor(&self, durable: &Durable) -> Result<(), SpoolError> {
        let first = durable.db.range(layout::key(0, 0)..).next().transpose();
        let first = first.map_err(|source| SpoolError::Sled { operation: "read", source })?;
        let floor = first.and_then(|(key, _)| layout::parse_key(&key)).map_or(self.next_seq, |(seq, _)| seq);
        self.shared.visible(|v| v.floor_seq = v.floor_seq.max(floor));
        Ok(())
    }

    fn check_disk(&self) -> Result<(), SpoolError> {
        let room = crate::health::disk::free_bytes(&self.dir).map_err(SpoolError::Files)?;
        if room >= MIN_ROOM_BYTES {
            return Ok(());
        }
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(SpoolError::Files(crate::durable::DurableError::Io {
            operation: "commit records to",
            path: self.dir.clone(),
            source,
        }))
    }

    /// After an error: say it, wait, and open the database anew if sled itself failed.
    fn recover(&mut self, error: &SpoolError) {
        if self.is_opened {
            self.say_problem(error);
        }
        std::thread::sleep(RETRY);
        if !self.is_opened {
            if let Some(report) = self.open() {
                tracing::warn!("{report}");
            }
            return;
        }
        if matches!(error, SpoolError::Files(_)) {
            return;
        }
        let mut slot = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner);
        // The old handle must be gone before the lock file can be taken again.
        *slot = None;
        match Durable::open(&self.dir) {
            Ok(durable) => *slot = Some(Arc::new(durable)),
            Err(error) => tracing::debug!(error = %error, "the spool could not be opened again yet"),
        }
    }

    fn say_problem(&self, error: &SpoolError) {
        let why = crate::chain(error);
        let is_new =
            self.shared.visible(|v| v.problem.replace(format!("telemetry can't be stored: {why}")).is_none());
        if is_new {
            tracing::error!(why, "the spool can't store records; they wait in memory within bounds");
        }
    }
}

enum Verdict {
    Delete,
    Keep,
    Stop,
}

#[derive(Default)]
struct Deletion {
    batch: sled::Batch,
    records: usize,
    bytes: u64,
    by_kind: BTreeMap<Kind, u64>,
    is_deleting: bool,
}

impl Deletion {
    fn count(&mut self, head: layout::Head) {
        self.is_deleting = true;
        self.records += 1;
        self.bytes += u64::try_from(head.length).unwrap_or(u64::MAX);
        *self.by_kind.entry(head.kind).or_default() += 1;
    }
}
