//! A database that can't be believed any more is written anew: what of it can be read goes into a fresh folder, number
//! by number, and only when that is durable the folders change places. After a failed sync the kernel may have dropped
//! what it could not write while it still shows it; what is copied while it shows is safe, a second sync is not.
//!
//! Ladder: mark the old one (`spool.unsynced`), fill `spool.rescuing`, rename it to `spool.rescued`, put the old one aside,
//! rename to `spool`, remove the mark. Whatever rung a power cut hits, the next opening goes on from there. Tests:
//! `fault_tests`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::StreamId;
use protocol::message::LossCause;

use super::carried::{Losses, add, listed};
use super::depth::{Amount, Depth};
use super::layout::{self, Head};
use super::opening::check_room;
use super::spool::SpoolError;
use super::sync::{Durable, sync_tree};
use super::writer::MIN_ROOM_BYTES;
use crate::config;
use crate::durable::{self, DurableError};

/// Bytes of records that go into one commit of the copy.
const COMMIT_BYTES: usize = 1024 * 1024;
/// Bytes of disk that a byte of records may take while they are copied.
const ROOM_FACTOR: u64 = 2;
/// How long a database that was dropped may take to close.
const CLOSING: Duration = Duration::from_secs(10);
/// Numbers behind one that can't be read that are tried one by one; behind them the steps double.
const SINGLE_STEPS: u32 = 1024;

/// What is said of a database that was written anew.
pub(super) const WHAT_HAPPENED: &str =
    "the telemetry spool could not be made durable or read, and what could be read was written anew";

/// What the new database knows beside its records.
pub(super) struct Meta {
    pub(super) stream: StreamId,
    /// Records from this number on are not copied: nobody was promised them.
    pub(super) next_seq: u64,
    pub(super) sent: u64,
    pub(super) losses: Losses,
    pub(super) written: (i64, u64),
}

/// Notes that the database in `dir` is not to be believed, and the first number that nobody was promised; one that is
/// noted already stays.
pub(super) fn mark(dir: &Path, next_seq: u64) -> Result<(), SpoolError> {
    let path = marker(dir);
    if path.is_file() {
        return Ok(());
    }
    durable::write_atomic(&path, &next_seq.to_be_bytes()).map_err(SpoolError::Files)
}

/// Whether the database in `dir` is marked, and from which number on nobody was promised anything.
pub(super) fn marked(dir: &Path) -> Option<u64> {
    match durable::read_bounded(&marker(dir), 8) {
        Ok(bytes) => bytes.map(|bytes| bytes.try_into().map_or(u64::MAX, u64::from_be_bytes)),
        Err(_) => Some(u64::MAX),
    }
}

/// The database in `dir` is another one now.
pub(super) fn unmark(dir: &Path) -> Result<(), SpoolError> {
    clear(&marker(dir))?;
    durable::sync_dir(dir.parent().unwrap_or(dir)).map_err(SpoolError::Files)
}

/// Copies what can be read of `old`, whose folder is `dir`, to a database beside it, durably. Of `expected` what is not
/// found is counted there as lost. [`switch`] puts it in the old one's place. Returns how many are lost.
pub(super) fn copy(
    old: &Durable,
    dir: &Path,
    config: &config::Spool,
    meta: &Meta,
    expected: &Depth,
) -> Result<u64, SpoolError> {
    let rescuing = dir.with_extension("rescuing");
    clear(&rescuing)?;
    let room = MIN_ROOM_BYTES.saturating_add(expected.total().bytes.saturating_mul(ROOM_FACTOR));
    check_room(dir.parent().unwrap_or(dir), room, "write the spool anew in")?;
    durable::make_dir(&rescuing).map_err(SpoolError::Files)?;
    let new = Durable::open(&rescuing, config)?;
    let mut pouring =
        Pouring { old, new: &new, batch: sled::Batch::default(), bytes: 0, found: Depth::default() };
    pouring.pour(meta.next_seq)?;
    let missing = missing(expected, &pouring.found);
    let mut losses = meta.losses.clone();
    add(&mut losses, &missing);
    pouring.finish(meta, &losses)?;
    drop(new);
    wait_until_closed(&rescuing)?;
    sync_tree(&rescuing)?;
    let rescued = dir.with_extension("rescued");
    clear(&rescued)?;
    durable::rename(&rescuing, &rescued).map_err(SpoolError::Files)?;
    Ok(missing.values().sum())
}

/// Puts a complete copy in the place of the old database, which must be closed. Without a copy nothing happens.
pub(super) fn switch(dir: &Path) -> Result<(), SpoolError> {
    let rescued = dir.with_extension("rescued");
    if !rescued.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        wait_until_closed(dir)?;
        put_aside(dir)?;
    }
    durable::rename(&rescued, dir).map_err(SpoolError::Files)?;
    unmark(dir)
}

/// Moves the folder aside; one is kept for inspection. Returns where it is then.
pub(super) fn put_aside(dir: &Path) -> Result<PathBuf, SpoolError> {
    let aside = dir.with_extension("quarantined");
    clear(&aside)?;
    match durable::rename(dir, &aside) {
        Err(DurableError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(aside),
        renamed => renamed.map(|()| aside).map_err(SpoolError::Files),
    }
}

/// Removes what was put aside: everything in it was copied.
pub(super) fn discard(dir: &Path) {
    if let Err(error) = clear(&dir.with_extension("quarantined")) {
        tracing::warn!(error = crate::chain(&error), "the old spool can't be removed");
    }
}

/// What was expected and not found, as losses.
pub(super) fn missing(expected: &Depth, found: &Depth) -> Losses {
    let gone = |(kind, amount): (_, Amount)| {
        let gone = amount.records.saturating_sub(found.of(kind).records);
        (gone > 0).then_some(((kind, LossCause::Storage), gone))
    };
    expected.iter().filter_map(gone).collect()
}

/// sled closes its files on threads of its own; until then it may write to its folder, whatever is called so by then.
fn wait_until_closed(dir: &Path) -> Result<(), SpoolError> {
    let path = dir.join("db");
    let deadline = Instant::now() + CLOSING;
    let io = |source| SpoolError::Files(DurableError::Io { operation: "close", path: path.clone(), source });
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
            Err(fs::TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(io(ErrorKind::ResourceBusy.into()));
            }
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn marker(dir: &Path) -> PathBuf {
    dir.with_extension("unsynced")
}

/// Removes what lies there, if anything does.
fn clear(path: &Path) -> Result<(), SpoolError> {
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            let path = path.to_owned();
            Err(SpoolError::Files(DurableError::Io { operation: "remove", path, source }))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Records on their way from one database to the other, piece by piece as they lie there: sealed ones stay sealed.
struct Pouring<'a> {
    old: &'a Durable,
    new: &'a Durable,
    batch: sled::Batch,
    /// Of the records that wait for a commit.
    bytes: usize,
    found: Depth,
}

/// One record whose pieces are being gathered.
struct Gathered {
    seq: u64,
    head: Head,
    length: usize,
    pieces: Vec<(sled::IVec, sled::IVec)>,
}

impl Gathered {
    fn first_unread(&self) -> u64 {
        if self.length == self.head.length { self.seq.saturating_add(1) } else { self.seq }
    }
}

impl Pouring<'_> {
    /// Everything below a number, around what can't be read.
    fn pour(&mut self, below: u64) -> Result<(), SpoolError> {
        let (mut from, mut failures) = (0, 0_u32);
        while from < below {
            let Some(unread) = self.pour_from(from, below)? else { return Ok(()) };
            if unread > from {
                (from, failures) = (unread, 0);
            } else {
                from = from.saturating_add(1 << (failures / SINGLE_STEPS).min(62));
                failures = failures.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Up to the first entry that can't be read. Returns the first number that is not copied then.
    fn pour_from(&mut self, from: u64, below: u64) -> Result<Option<u64>, SpoolError> {
        let mut entries = self.old.db.range(layout::key(from, 0)..layout::key(below, 0));
        let mut open: Option<Gathered> = None;
        loop {
            // sled may panic on damage.
            let read = std::panic::catch_unwind(AssertUnwindSafe(|| entries.next()));
            let (key, value) = match read {
                Ok(Some(Ok(entry))) => entry,
                Ok(None) => {
                    self.put(open)?;
                    return Ok(None);
                }
                Ok(Some(Err(_))) | Err(_) => {
                    let unread = open.as_ref().map_or(from, Gathered::first_unread);
                    self.put(open)?;
                    return Ok(Some(unread));
                }
            };
            match (layout::parse_key(&key), &mut open) {
                (Some((seq, 0)), _) => {
                    self.put(open.take())?;
                    let head = layout::head(&value).map(|(head, body)| (head, body.len()));
                    let pieces = vec![(key, value)];
                    open = head.map(|(head, length)| Gathered { seq, head, length, pieces });
                }
                (Some((seq, _)), Some(gathered)) if gathered.seq == seq => {
                    gathered.length += value.len();
                    gathered.pieces.push((key, value));
                }
                // A piece without its beginning belongs to nothing.
                (Some(_) | None, _) => {}
            }
        }
    }

    /// A record of which something is missing is left out.
    fn put(&mut self, gathered: Option<Gathered>) -> Result<(), SpoolError> {
        let Some(Gathered { head, length, pieces, .. }) = gathered else { return Ok(()) };
        if length != head.length {
            return Ok(());
        }
        for (key, value) in pieces {
            self.batch.insert(key, value);
        }
        self.found.add(head.kind, Amount::record(length));
        self.bytes += length;
        if self.bytes >= COMMIT_BYTES { self.commit() } else { Ok(()) }
    }

    fn finish(mut self, meta: &Meta, losses: &Losses) -> Result<(), SpoolError> {
        self.batch.insert(layout::STREAM, meta.stream.as_str().as_bytes());
        self.batch.insert(layout::NEXT_SEQ, &meta.next_seq.to_be_bytes());
        self.batch.insert(layout::SENT, &meta.sent.to_be_bytes());
        self.batch.insert(layout::LOSSES, encode(&listed(losses))?);
        self.batch.insert(layout::WRITTEN, encode(&meta.written)?);
        if let Ok(Some(proof)) = self.old.db.get(layout::SEAL) {
            self.batch.insert(layout::SEAL, proof);
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<(), SpoolError> {
        self.bytes = 0;
        let written = self.new.db.apply_batch(std::mem::take(&mut self.batch));
        written.map_err(|source| SpoolError::Sled { operation: "copy", source })?;
        self.new.commit()
    }
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, SpoolError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|_| SpoolError::Entry("losses"))?;
    Ok(bytes)
}
