//! The spool as the rest of the agent sees it: offer, append, read, acknowledge.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use protocol::message::{Loss, LossCause, SpoolState};
use protocol::telemetry::{Kind, MAX_RECORD_BYTES, Record};
use protocol::{StreamId, UnixMillis};
use tokio::sync::{oneshot, watch};

use super::carried::{Losses, listed};
use super::depth::Depth;
use super::opening;
use super::records::{Found, Records};
use super::sync::Durable;
use super::writer::{Heights, Order, Writer};
use crate::config;
use crate::durable::DurableError;
use crate::health::{Clock, Problem, ProblemKind, Pulse};

/// Orders that may wait for the writer. When full: `offer` drops and counts, `append` waits.
const QUEUE_ORDERS: usize = 4096;
/// Bytes that may wait for the writer; the same rule.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// The name under which the writer beats.
const PART: &str = "spool";
/// The database's folder in the state directory.
pub(super) const FOLDER: &str = "spool";

/// Why the spool failed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// sled refused.
    #[error("spool database: cannot {operation}")]
    Sled {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: sled::Error,
    },
    /// What was written may not be on the disk, and a second sync would not tell.
    #[error("what the spool wrote may not be on the disk")]
    Unsynced(#[source] DurableError),
    /// The database takes nothing more until it is written anew.
    #[error("the spool is to be written anew: {0}")]
    Condemned(String),
    /// The system has no randomness to seal a record with.
    #[error("a record can't be sealed")]
    Seal,
    /// A file beside or under sled.
    #[error("spool files")]
    Files(#[source] DurableError),
    /// The record is over the wire's bound; it is counted as lost.
    #[error("a record of {got} bytes, at most {MAX_RECORD_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        got: usize,
    },
    /// The file that should hold the sealing key does not.
    #[error("{path} holds no key of 32 bytes", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// The file that should hold the sealing key can't be read.
    #[error("the spool's key can't be read")]
    KeyFile(#[source] DurableError),
    /// What waits was sealed with another key.
    #[error(
        "the key in {path} is not the one that the telemetry which waits was sealed with; give that one in spool.key_file, \
         or remove the folders spool and samples in the state directory to begin anew without what waits",
        path = path.display()
    )]
    OtherKey {
        /// The file with the key that was tried.
        path: PathBuf,
    },
    /// The writer has ended.
    #[error("the spool is closed")]
    Closed,
    /// Stored metadata of the spool that can't be read.
    #[error("the spool's own entry {0} can't be read")]
    Entry(&'static str),
}

/// What waits of one kind, and how much of it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WaitingKind {
    /// Which.
    pub kind: Kind,
    /// Records that wait for the server's acknowledgement.
    pub records: u64,
    /// Their bodies in bytes, as they lie on disk.
    pub bytes: u64,
    /// Byte bound of the kind.
    pub max_bytes: u64,
}

/// Records to send, in rising order of sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Nothing below this is held any more.
    pub floor_seq: u64,
    /// The records; empty when nothing waits from the asked sequence on.
    pub records: Vec<Record>,
    /// Totals of dropped records.
    pub dropped: Vec<Loss>,
}

/// State that readers see; changed only by the writer, after its commit.
#[derive(Debug)]
pub(super) struct Visible {
    /// What the sequence numbers belong to; a new one until the database is open.
    pub(super) stream: StreamId,
    pub(super) depth: Depth,
    pub(super) floor_seq: u64,
    pub(super) losses: Losses,
    pub(super) problem: Option<Problem>,
    /// What has befallen the database in this run.
    pub(super) mishap: Option<Problem>,
    pub(super) figures: Figures,
    /// Bounds that hold now.
    pub(super) bounds: Bounds,
}

/// Byte bounds as configured.
#[derive(Debug)]
pub(super) struct Bounds {
    all: u64,
    of: [(Kind, u64); Kind::ALL.len()],
}

impl Bounds {
    pub(super) fn new(config: &config::Spool) -> Self {
        Self { all: config.max_bytes, of: Kind::ALL.map(|kind| (kind, config.bound(kind))) }
    }
}

/// What the spool counts beside depth and losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Panes that went into wider ones since the start.
    pub merged_panes: u64,
    /// Bytes that the agent has written to flash today (UTC), blobs included.
    pub written_today_bytes: u64,
    /// What may be written in a day; 0: no bound.
    pub write_bytes_per_day: u64,
    /// Whether commits are rarer because of it.
    pub is_over_budget: bool,
    /// Whether new records are encrypted at rest.
    pub is_encrypted: bool,
    /// Records that were accepted and are not on disk yet.
    #[serde(default)]
    pub in_memory_records: u64,
}

impl Visible {
    /// Before the database is open.
    fn closed(config: &config::Spool) -> Result<Self, SpoolError> {
        let stream = opening::new_stream()?;
        Ok(Self {
            stream,
            depth: Depth::default(),
            floor_seq: 0,
            losses: Losses::new(),
            problem: None,
            mishap: None,
            figures: Figures::default(),
            bounds: Bounds::new(config),
        })
    }
}

pub(super) struct Shared {
    pub(super) visible: Mutex<Visible>,
    /// The open database; none before it could be opened and while it is being reopened after an error.
    pub(super) durable: Mutex<Option<Arc<Durable>>>,
    pub(super) queued_bytes: AtomicUsize,
    pub(super) queued_records: AtomicUsize,
    /// Whether the spool is to close, also for a writer that is too far behind to take the order.
    pub(super) is_closing: AtomicBool,
    /// Whether the link may hand records over now.
    pub(super) is_sending: AtomicBool,
    /// Where the writer says that it is alive, once somebody looks.
    pulse: OnceLock<Pulse>,
}

/// While it lives, the writer is at one thing; dropped, nobody waits for it to beat.
pub(super) struct AtWork(Arc<Shared>);

impl AtWork {
    /// The writer begins something that may take so long.
    pub(super) fn begin(shared: &Arc<Shared>, longest: Duration) -> Self {
        shared.beat(longest);
        Self(Arc::clone(shared))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(pulse) = self.0.pulse.get() {
            pulse.retire(PART);
        }
    }
}

impl Shared {
    /// The writer is alive, and its next step may take so long.
    pub(super) fn beat(&self, longest: Duration) {
        if let Some(pulse) = self.pulse.get() {
            pulse.beat_beside(PART, longest);
        }
    }

    pub(super) fn visible<T>(&self, look: impl FnOnce(&mut Visible) -> T) -> T {
        look(&mut self.visible.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count_loss(&self, kind: Kind, cause: LossCause) {
        self.visible(|v| *v.losses.entry((kind, cause)).or_default() += 1);
    }
}

/// The spool with its writer thread. Dropping it commits what was offered and ends the thread.
pub struct Spool {
    handle: SpoolHandle,
    thread: Option<JoinHandle<()>>,
}

/// What other parts hold. Cheap to clone.
#[derive(Clone)]
pub struct SpoolHandle {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
    durable_seq: watch::Receiver<u64>,
    sendable_seq: watch::Receiver<u64>,
    clock: Clock,
}

impl Spool {
    /// Opens the spool under `state_dir`. A database that can't be read is moved aside, counted and reported; the
    /// agent goes on with a new stream. While the disk takes none, records wait in memory within bounds, what is
    /// over them is dropped and counted, and opening is tried again. Returns what there is to report.
    ///
    /// # Errors
    /// [`SpoolError::OtherKey`]: nothing was changed then; and when its thread can't be started.
    pub fn open(
        state_dir: &Path,
        config: &config::Spool,
        clock: &Clock,
    ) -> Result<(Self, Option<String>), SpoolError> {
        let dir: PathBuf = state_dir.join(FOLDER);
        let shared = Arc::new(Shared {
            visible: Mutex::new(Visible::closed(config)?),
            durable: Mutex::new(None),
            queued_bytes: AtomicUsize::new(0),
            queued_records: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            is_sending: AtomicBool::new(false),
            pulse: OnceLock::new(),
        });
        let (orders, inbox) = mpsc::sync_channel(QUEUE_ORDERS);
        let (durable_tx, durable_seq) = watch::channel(0);
        let (sendable_tx, sendable_seq) = watch::channel(0);
        let heights = Heights { durable: durable_tx, sendable: sendable_tx };
        let mut writer = Writer::new(dir, config.clone(), clock.clone(), shared.clone(), heights);
        let report = match writer.open() {
            Err(error @ SpoolError::OtherKey { .. }) => return Err(error),
            opened => opened.unwrap_or_default(),
        };
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || writer.run(&inbox));
        let thread = thread.map_err(|source| {
            SpoolError::Files(DurableError::Io {
                operation: "start the thread of",
                path: "spool".into(),
                source,
            })
        })?;
        let handle = SpoolHandle { orders, shared, durable_seq, sendable_seq, clock: clock.clone() };
        Ok((Self { handle, thread: Some(thread) }, report))
    }

    /// A handle for another part.
    pub fn handle(&self) -> SpoolHandle {
        self.handle.clone()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.handle.shared.is_closing.store(true, Ordering::Relaxed);
        // Wakes a writer that waits for work; one that has work sees the mark.
        let _busy = self.handle.orders.try_send(Order::Close);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the spool's thread ended by a panic");
        }
    }
}

impl SpoolHandle {
    /// From now on the writer beats in `pulse` whenever it begins to write, and is waited for until that is done: a disk
    /// that never answers is told.
    pub fn beat_in(&self, pulse: Pulse) {
        let _first_stays = self.shared.pulse.set(pulse);
    }

    /// Puts a record in without waiting. It is lost, and counted, when the writer is too far behind; what is
    /// accepted is durable within the configured commit time.
    pub fn offer(&self, kind: Kind, body: Vec<u8>) {
        if body.len() > MAX_RECORD_BYTES {
            return self.shared.count_loss(kind, LossCause::TooLarge);
        }
        if self.try_send(kind, body, None).is_err() {
            let is_broken = self.problem().is_some();
            self.shared.count_loss(kind, if is_broken { LossCause::Storage } else { LossCause::Full });
        }
    }

    /// Puts a record in and waits until it is durable. Returns its sequence number.
    ///
    /// # Errors
    /// [`SpoolError::TooLarge`] and [`SpoolError::Closed`].
    pub async fn append(&self, kind: Kind, mut body: Vec<u8>) -> Result<u64, SpoolError> {
        if body.len() > MAX_RECORD_BYTES {
            self.shared.count_loss(kind, LossCause::TooLarge);
            return Err(SpoolError::TooLarge { got: body.len() });
        }
        let (mut done, mut is_done) = oneshot::channel();
        loop {
            match self.try_send(kind, body, Some(done)) {
                Ok(()) => return (&mut is_done).await.map_err(|_| SpoolError::Closed),
                Err(Refused::Closed) => return Err(SpoolError::Closed),
                Err(Refused::Full(returned)) => body = returned,
            }
            (done, is_done) = oneshot::channel();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn try_send(&self, kind: Kind, body: Vec<u8>, done: Option<oneshot::Sender<u64>>) -> Result<(), Refused> {
        let bytes = body.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.queued_records.fetch_add(1, Ordering::Relaxed);
        let undo = || {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.queued_records.fetch_sub(1, Ordering::Relaxed);
        };
        if queued > QUEUE_BYTES {
            undo();
            return Err(Refused::Full(body));
        }
        match self.orders.try_send(Order::Record { kind, at: self.clock.now(), body, done }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Order::Record { body, .. })) => {
                undo();
                Err(Refused::Full(body))
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                undo();
                Err(Refused::Closed)
            }
        }
    }

    /// The server has stored everything up to `upto_seq`: it may be deleted. Idempotent; never waits, because the
    /// next acknowledgement repeats this one.
    pub fn acknowledge(&self, upto_seq: u64) {
        self.acknowledge_ranges(upto_seq, Vec::new());
    }

    /// The same, and the server has these ranges above it too.
    pub fn acknowledge_ranges(&self, upto_seq: u64, ahead: Vec<(u64, u64)>) {
        let _full = self.orders.try_send(Order::Acknowledged(upto_seq, ahead));
    }

    /// Up to `max_records` durable records from `from_seq` on, whose bodies have about `max_bytes` in all (at
    /// least one record is returned if any waits). Reads the disk: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`SpoolError`]; the records stay.
    pub fn read(&self, from_seq: u64, max_records: usize, max_bytes: usize) -> Result<Chunk, SpoolError> {
        self.read_before(from_seq, u64::MAX, max_records, max_bytes)
    }

    /// The same, and none from `before_seq` on. A record that can't be read is left out, deleted and counted as lost.
    ///
    /// # Errors
    /// [`SpoolError`]; the writer hears of it, and writes what can be read to a new database.
    pub fn read_before(
        &self,
        from_seq: u64,
        before_seq: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Chunk, SpoolError> {
        let (floor_seq, dropped) = self.shared.visible(|v| (v.floor_seq, listed(&v.losses)));
        let durable = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut chunk = Chunk { floor_seq, records: Vec::new(), dropped };
        let (mut bytes, last) = (0_usize, before_seq.saturating_sub(1).min(*self.durable_seq.borrow()));
        let Some(durable) = durable else {
            // Who reads nothing takes it that nothing is left.
            return if last == 0 { Ok(chunk) } else { Err(SpoolError::Closed) };
        };
        for found in Records::new(&durable, from_seq.max(floor_seq), last) {
            let Found { seq, record, .. } = found.inspect_err(|error| {
                let why = crate::chain(error);
                let _busy = self.orders.try_send(Order::Damaged(Arc::downgrade(&durable), why));
            })?;
            let Some(record) = record else {
                let _busy = self.orders.try_send(Order::Unreadable(seq));
                continue;
            };
            bytes += record.body.len();
            if bytes > max_bytes && !chunk.records.is_empty() {
                break;
            }
            chunk.records.push(record);
            if chunk.records.len() >= max_records {
                break;
            }
        }
        Ok(chunk)
    }

    /// Other bounds from now on; whether and with which key records are sealed stays. False when the writer is too busy.
    pub fn reconfigure(&self, config: config::Spool) -> bool {
        self.orders.try_send(Order::Configure(Box::new(config))).is_ok()
    }

    /// The link begins or ends to hand records over. What is durable becomes sendable with the writer's next commit,
    /// which notes it: what may have been sent is never merged.
    pub fn set_sending(&self, is_sending: bool) {
        self.shared.is_sending.store(is_sending, Ordering::Relaxed);
        let _busy = self.orders.try_send(Order::Look);
    }

    /// The highest sequence number that may be sent; changes wake the link.
    pub fn sendable_seq(&self) -> watch::Receiver<u64> {
        self.sendable_seq.clone()
    }

    /// Merged panes and flash writes.
    pub fn figures(&self) -> Figures {
        let waiting = self.shared.queued_records.load(Ordering::Relaxed);
        let in_memory_records = u64::try_from(waiting).unwrap_or(u64::MAX);
        self.shared.visible(|v| Figures { in_memory_records, ..v.figures })
    }

    /// The highest durable sequence number.
    pub fn durable_seq(&self) -> watch::Receiver<u64> {
        self.durable_seq.clone()
    }

    /// The stream that the sequence numbers belong to.
    pub fn stream(&self) -> StreamId {
        self.shared.visible(|v| v.stream.clone())
    }

    /// For hello: stream, depth and losses.
    pub fn state(&self) -> SpoolState {
        self.shared.visible(|v| {
            let depth = v.depth.total();
            SpoolState {
                stream: v.stream.clone(),
                depth_records: depth.records,
                depth_bytes: depth.bytes,
                dropped: listed(&v.losses),
            }
        })
    }

    /// What waits, kind by kind. Samples have a store of their own and stand here only if one came all the same.
    pub fn waiting(&self) -> Vec<WaitingKind> {
        self.shared.visible(|v| {
            let bounds = v.bounds.of;
            let of = |(kind, max_bytes)| {
                let held = v.depth.of(kind);
                WaitingKind { kind, records: held.records, bytes: held.bytes, max_bytes }
            };
            bounds
                .into_iter()
                .map(of)
                .filter(|waiting| waiting.kind != Kind::Sample || waiting.records > 0)
                .collect()
        })
    }

    /// The byte bound of all that waits.
    pub fn max_bytes(&self) -> u64 {
        self.shared.visible(|v| v.bounds.all)
    }

    /// What has befallen the spool's database in this run.
    pub fn mishap(&self) -> Option<Problem> {
        self.shared.visible(|v| v.mishap.clone())
    }

    /// What is wrong with the spool now.
    pub fn problem(&self) -> Option<Problem> {
        self.shared.visible(|v| v.problem.clone())
    }
}

impl SpoolError {
    /// Whether it is the key that is missing or another one; the disk is well.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::Key { .. } | Self::KeyFile(_) | Self::OtherKey { .. })
    }

    /// Whether the database is at fault, or can't be believed any more.
    pub(super) fn is_of_database(&self) -> bool {
        match self {
            Self::Unsynced(_) | Self::Sled { .. } | Self::Entry(_) | Self::Condemned(_) => true,
            Self::Seal
            | Self::Files(_)
            | Self::Key { .. }
            | Self::KeyFile(_)
            | Self::OtherKey { .. }
            | Self::TooLarge { .. }
            | Self::Closed => false,
        }
    }

    /// As the agent's problem.
    pub fn problem(&self) -> Problem {
        let kind = if self.is_of_key() { ProblemKind::SpoolKey } else { ProblemKind::SpoolUnwritable };
        Problem::new(kind, format!("telemetry can't be stored: {}", crate::chain(self)))
    }
}

enum Refused {
    Full(Vec<u8>),
    Closed,
}

/// Whether a record made at `at` is older than `ttl`. A clock that went back makes nothing old.
pub(super) fn is_expired(at: UnixMillis, now: UnixMillis, ttl: Duration) -> bool {
    u128::try_from(now.millis_since(at)).is_ok_and(|age| age > ttl.as_millis())
}
