//! Opening the spool: the good case, the first start, and a database that can't be read.
//!
//! A corrupt database is moved aside (one is kept for inspection), and a new stream begins. sled may also panic on
//! damage, and a release build aborts then: a marker file counts openings that did not come back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use protocol::StreamId;
use protocol::message::Loss;

use super::carried::Losses;
use super::depth::{Amount, Depth};
use super::layout;
use super::records::Records;
use super::rescue::{self, Meta};
use super::samples;
use super::seal::{self, Seal};
use super::spool::SpoolError;
use super::sync::Durable;
use super::writer::MIN_ROOM_BYTES;
use crate::{config, durable};

/// Openings that did not come back before the database is moved aside unopened.
const MAX_LOST_OPENINGS: u8 = 2;

/// sled's own settings take a few hundred bytes.
const MAX_CONF_BYTES: u64 = 64 * 1024;
/// A snapshot tells where each page lies: a small part of what the spool may hold.
const MIN_SNAPSHOT_BYTES: u64 = 64 << 20;
/// sled's folder for large values, beside its files.
const BLOBS: &str = "blobs";
/// Longest file in there: sled begins one for a leaf above 128 KiB, and the layout makes no leaf that is as large.
const MAX_BLOB_BYTES: u64 = 16 << 20;
/// How many times as long as the spool's bound a database may be that is mostly holes. One without may be longer: the
/// bound was lowered.
const DB_FACTOR: u64 = 8;
/// What a block of a file has, whatever its file system's blocks have.
const BLOCK_BYTES: u64 = 512;

pub(super) struct Opened {
    pub(super) durable: Arc<Durable>,
    pub(super) stream: StreamId,
    pub(super) next_seq: u64,
    pub(super) depth: Depth,
    pub(super) floor_seq: u64,
    pub(super) losses: Losses,
    /// The highest number that may have been sent.
    pub(super) sent: u64,
    /// Day and bytes of flash writes.
    pub(super) written: (i64, u64),
    /// What happened, as one sentence, if anything did.
    pub(super) report: Option<String>,
}

/// Opens the database in `dir`, or moves it aside and makes a new one.
pub(super) fn open(dir: &Path, config: &config::Spool) -> Result<Opened, SpoolError> {
    check_room(dir.parent().unwrap_or(dir), MIN_ROOM_BYTES, "open the spool in")?;
    rescue::switch(dir)?;
    let marker = dir.with_extension("opening");
    let lost = lost_openings(&marker)?;
    if lost >= MAX_LOST_OPENINGS {
        let why = format!("{lost} openings in a row ended the process");
        return quarantine_and_open(dir, &marker, &why, config);
    }
    if dir.exists() && !dir.is_dir() {
        return quarantine_and_open(dir, &marker, "it is no folder", config);
    }
    if let Some(why) = unlike_sled(dir, config.max_bytes) {
        return quarantine_and_open(dir, &marker, &why, config);
    }
    durable::make_dir(dir).map_err(SpoolError::Files)?;
    durable::write_atomic(&marker, &[lost + 1]).map_err(SpoolError::Files)?;
    match std::panic::catch_unwind(|| open_and_scan(dir, config)) {
        Ok(Ok(opened)) => {
            let opened = written_anew_if_marked(opened, dir, config);
            remove(&marker)?;
            opened
        }
        Ok(Err(error)) if is_damage(&error) => {
            quarantine_and_open(dir, &marker, &crate::chain(&error), config)
        }
        Ok(Err(error)) => {
            if let SpoolError::Unsynced(_) = &error {
                rescue::mark(dir, u64::MAX)?;
            }
            remove(&marker)?;
            Err(error)
        }
        Err(_panic) => quarantine_and_open(dir, &marker, "the database's reader panicked", config),
    }
}

/// What the marker says; one that is no file says nothing and makes room for a new one.
fn lost_openings(marker: &Path) -> Result<u8, SpoolError> {
    match durable::read_bounded(marker, 8) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| bytes.first().copied()).unwrap_or(0)),
        Err(error) if error.is_damage() => {
            if marker.is_dir() {
                fs::remove_dir_all(marker)
                    .map_err(|source| durable::DurableError::Io {
                        operation: "remove",
                        path: marker.to_owned(),
                        source,
                    })
                    .map_err(SpoolError::Files)?;
            } else {
                remove(marker)?;
            }
            Ok(0)
        }
        Err(error) => Err(SpoolError::Files(error)),
    }
}

/// What lies in the folder that sled never put there: it opens and reads by name, whatever and however long it is, and a
/// pipe would hold it up for ever.
fn unlike_sled(dir: &Path, spool_bytes: u64) -> Option<String> {
    let spool_bytes = spool_bytes.max(MIN_SNAPSHOT_BYTES);
    let blobs = dir.join(BLOBS);
    if blobs.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
        return Some(format!("its {BLOBS} is no folder"));
    }
    entries(dir).chain(entries(&blobs)).find_map(|(name, is_blob, meta)| match &*name {
        BLOBS if !is_blob => None,
        _ if !meta.is_file() => Some(format!("its {name} is no file")),
        // Every part of it is looked at, holes too.
        "db" if is_hollow(&meta) => too_long(&name, &meta, spool_bytes.saturating_mul(DB_FACTOR)),
        // These are read as a whole.
        "conf" => too_long(&name, &meta, MAX_CONF_BYTES),
        _ if is_blob => too_long(&name, &meta, MAX_BLOB_BYTES),
        _ if name.starts_with("snap.") => too_long(&name, &meta, spool_bytes),
        _ => None,
    })
}

/// Name in the database's folder, whether it is one of a blob, and what lies there.
fn entries(dir: &Path) -> impl Iterator<Item = (String, bool, fs::Metadata)> {
    let is_blob = dir.ends_with(BLOBS);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if is_blob { format!("{BLOBS}/{name}") } else { name };
        Some((name, is_blob, entry.metadata().ok()?))
    })
}

/// Whether it is longer than twice what it takes of the disk.
fn is_hollow(meta: &fs::Metadata) -> bool {
    meta.len() / 2 > meta.blocks().saturating_mul(BLOCK_BYTES)
}

fn too_long(name: &str, meta: &fs::Metadata, max: u64) -> Option<String> {
    (meta.len() > max).then(|| format!("its {name} has {} bytes, at most {max} can be", meta.len()))
}

/// An earlier run could not sync it, and ended before it was written anew.
fn written_anew_if_marked(opened: Opened, dir: &Path, config: &config::Spool) -> Result<Opened, SpoolError> {
    let Some(unpromised) = rescue::marked(dir) else { return Ok(opened) };
    let next_seq = opened.next_seq.min(unpromised);
    let (expected, _) = scan(&opened.durable, next_seq)?;
    let Opened { durable, stream, losses, sent, written, .. } = opened;
    let sent = sent.min(next_seq.saturating_sub(1));
    let lost =
        rescue::copy(&durable, dir, config, &Meta { stream, next_seq, sent, losses, written }, &expected)?;
    drop(durable);
    rescue::switch(dir)?;
    if lost == 0 {
        rescue::discard(dir);
    }
    let mut opened = open_and_scan(dir, config)?;
    opened.report = Some(format!("{}; {lost} of its records are lost, and counted", rescue::WHAT_HAPPENED));
    Ok(opened)
}

/// sled must not meet a full disk: it may end the process, and with it what serves.
pub(super) fn check_room(on: &Path, bytes: u64, operation: &'static str) -> Result<(), SpoolError> {
    let free = crate::health::free_bytes(on).map_err(SpoolError::Files)?;
    #[cfg(test)]
    let free = super::faults::room_left(on, free);
    if free >= bytes {
        return Ok(());
    }
    let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
    Err(SpoolError::Files(durable::DurableError::Io { operation, path: on.to_owned(), source }))
}

fn quarantine_and_open(
    dir: &Path,
    marker: &Path,
    why: &str,
    config: &config::Spool,
) -> Result<Opened, SpoolError> {
    let aside = rescue::put_aside(dir)?;
    rescue::unmark(dir)?;
    durable::make_dir(dir).map_err(SpoolError::Files)?;
    remove(marker)?;
    let mut opened = open_and_scan(dir, config)?;
    opened.report = Some(format!(
        "the telemetry spool could not be read ({why}); it was moved to {} and a new stream began",
        aside.display()
    ));
    Ok(opened)
}

/// Whether moving the database aside can help: a full or failing disk is no damage of the database.
fn is_damage(error: &SpoolError) -> bool {
    match error {
        SpoolError::Sled { source, .. } => match source {
            sled::Error::Corruption { .. }
            | sled::Error::ReportableBug(_)
            | sled::Error::Unsupported(_)
            | sled::Error::CollectionNotFound(_) => true,
            sled::Error::Io(io) => {
                matches!(
                    io.kind(),
                    std::io::ErrorKind::InvalidData
                        | std::io::ErrorKind::UnexpectedEof
                        | std::io::ErrorKind::InvalidInput
                        | std::io::ErrorKind::Other
                ) && !io.to_string().contains("could not acquire lock")
            }
        },
        SpoolError::Entry(_) => true,
        SpoolError::Files(_)
        | SpoolError::Unsynced(_)
        | SpoolError::Condemned(_)
        | SpoolError::Seal
        | SpoolError::Key { .. }
        | SpoolError::KeyFile(_)
        | SpoolError::OtherKey { .. }
        | SpoolError::TooLarge { .. }
        | SpoolError::Closed => false,
    }
}

fn remove(path: &Path) -> Result<(), SpoolError> {
    fs::remove_file(path)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(|source| {
            SpoolError::Files(durable::DurableError::Io {
                operation: "remove",
                path: path.to_owned(),
                source,
            })
        })
}

fn open_and_scan(dir: &Path, config: &config::Spool) -> Result<Opened, SpoolError> {
    let durable = Durable::open(dir, config)?;
    check_seal(&durable, dir.parent().unwrap_or(dir), config)?;
    // For those that look on; a disk that is full must not keep the spool from opening.
    if let Err(error) = seal::publish_proof(dir, get(&durable, layout::SEAL)?.as_deref()) {
        tracing::warn!(error = crate::chain(&error), "doctor may take the spool's key for another one");
    }
    let stream = match get(&durable, layout::STREAM)? {
        Some(bytes) => stream_from(&bytes).ok_or(SpoolError::Entry("stream"))?,
        None => begin_stream(&durable)?,
    };
    let next_seq = match get(&durable, layout::NEXT_SEQ)? {
        Some(bytes) => u64::from_be_bytes(bytes.as_ref().try_into().map_err(|_| SpoolError::Entry("next"))?),
        None => 1,
    };
    let losses: Vec<Loss> = match get(&durable, layout::LOSSES)? {
        Some(bytes) => ciborium::from_reader(bytes.as_ref()).map_err(|_| SpoolError::Entry("losses"))?,
        None => Vec::new(),
    };
    let sent = get(&durable, layout::SENT)?
        .and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
    let written =
        get(&durable, layout::WRITTEN)?.and_then(|bytes| ciborium::from_reader(bytes.as_ref()).ok());
    let (depth, floor) = scan(&durable, u64::MAX)?;
    Ok(Opened {
        durable: Arc::new(durable),
        stream,
        next_seq,
        depth,
        floor_seq: floor.unwrap_or(next_seq),
        // Before the mark was kept, anything may have been sent.
        sent: sent.unwrap_or(next_seq.saturating_sub(1)),
        written: written.unwrap_or_default(),
        losses: losses.into_iter().map(|loss| ((loss.kind, loss.cause), loss.count)).collect(),
        report: None,
    })
}

/// The key must be the one that sealed what waits here. Where nothing waits that another one sealed, the first use of a
/// key leaves its proof.
fn check_seal(durable: &Durable, state_dir: &Path, config: &config::Spool) -> Result<(), SpoolError> {
    let proof = get(durable, layout::SEAL)?;
    let is_mine = |proof: &sled::IVec| durable.seal.as_ref().is_some_and(|seal| seal.has_made(proof));
    if proof.as_ref().is_some_and(is_mine) {
        return Ok(());
    }
    if does_not_open(durable)? || (proof.is_some() && samples::any_sealed(state_dir)) {
        let seal = durable.seal.as_ref();
        return Err(seal.map_or_else(|| seal::no_key(config, state_dir), Seal::refusal));
    }
    let written = match &durable.seal {
        None if proof.is_none() => return Ok(()),
        None => durable.db.remove(layout::SEAL),
        Some(seal) => {
            seal.keep()?;
            durable.db.insert(layout::SEAL, seal.proof().ok_or(SpoolError::Seal)?)
        }
    };
    written.map_err(|source| SpoolError::Sled { operation: "write", source })?;
    durable.commit()
}

/// Whether the first sealed record that is whole needs another key: what sled gives has its checksum.
fn does_not_open(durable: &Durable) -> Result<bool, SpoolError> {
    for found in Records::new(durable, 0, u64::MAX) {
        let found = found?;
        if found.head.is_sealed && found.is_whole {
            return Ok(found.record.is_none());
        }
    }
    Ok(false)
}

fn get(durable: &Durable, key: &[u8]) -> Result<Option<sled::IVec>, SpoolError> {
    durable.db.get(key).map_err(|source| SpoolError::Sled { operation: "read", source })
}

fn stream_from(bytes: &[u8]) -> Option<StreamId> {
    StreamId::new(std::str::from_utf8(bytes).ok()?).ok()
}

pub(super) fn new_stream() -> Result<StreamId, SpoolError> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|_| SpoolError::Entry("stream"))?;
    StreamId::new(format!("s{}", hex::encode(random))).map_err(|_| SpoolError::Entry("stream"))
}

fn begin_stream(durable: &Durable) -> Result<StreamId, SpoolError> {
    let stream = new_stream()?;
    durable
        .db
        .insert(layout::STREAM, stream.as_str().as_bytes())
        .map_err(|source| SpoolError::Sled { operation: "write", source })?;
    durable.commit()?;
    Ok(stream)
}

/// What lies there below a number, and the lowest.
fn scan(durable: &Durable, below: u64) -> Result<(Depth, Option<u64>), SpoolError> {
    let (mut depth, mut floor) = (Depth::default(), None);
    for entry in durable.db.range(layout::key(0, 0)..layout::key(below, 0)) {
        let (key, value) = entry.map_err(|source| SpoolError::Sled { operation: "read", source })?;
        if let Some((seq, 0)) = layout::parse_key(&key) {
            let (head, _) = layout::head(&value).ok_or(SpoolError::Entry("record"))?;
            depth.add(head.kind, Amount::record(head.length));
            floor = floor.or(Some(seq));
        }
    }
    Ok((depth, floor))
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use protocol::telemetry::Kind;

    use super::*;

    /// A spool with one record that is sealed with the key in the file, and nothing that proves the key: as a kill before
    /// the proof leaves it, or damage.
    fn sealed_without_proof(dir: &Path, config: &config::Spool) {
        let opened = open(dir, config).unwrap();
        let (body, is_sealed) = opened.durable.stored(1, Kind::Event, b"secret").unwrap();
        let pieces = layout::pieces(Kind::Event, UnixMillis(0), &body, is_sealed).unwrap();
        let db = &opened.durable.db;
        db.insert(layout::key(1, 0), pieces[0].as_slice()).unwrap();
        db.insert(layout::NEXT_SEQ, &2_u64.to_be_bytes()).unwrap();
        db.remove(layout::SEAL).unwrap();
        opened.durable.commit().unwrap();
    }

    #[test]
    fn without_a_proof_the_records_tell_whether_the_key_is_theirs() {
        let state = tempfile::tempdir().unwrap();
        let (dir, key) = (state.path().join("spool"), state.path().join("key"));
        let config = config::Spool { encrypt: true, key_file: Some(key.clone()), ..config::Spool::default() };
        fs::write(&key, [7; 32]).unwrap();
        sealed_without_proof(&dir, &config);
        let plain = config::Spool { encrypt: false, ..config.clone() };
        let refused = |config| matches!(open(&dir, config), Err(error) if error.is_of_key());
        fs::write(&key, [8; 32]).unwrap();
        assert!(refused(&config) && refused(&plain));
        fs::remove_file(&key).unwrap();
        assert!(refused(&config) && refused(&plain), "no key at all");
        fs::write(&key, [7; 32]).unwrap();
        let opened = open(&dir, &config).unwrap();
        assert_eq!((opened.depth.total().records, opened.report), (1, None));
        assert!(opened.durable.db.get(layout::SEAL).unwrap().is_some(), "from now on it is proven");
    }

    #[test]
    fn another_key_than_the_spools_is_seen_without_opening_it() {
        let state = tempfile::tempdir().unwrap();
        let (dir, key) = (state.path().join("spool"), state.path().join("key"));
        let config = config::Spool { encrypt: true, key_file: Some(key.clone()), ..config::Spool::default() };
        let plain = config::Spool { encrypt: false, ..config.clone() };
        let seen = |config| seal::check_key(config, state.path());
        fs::write(&key, [7; 32]).unwrap();
        assert!(seen(&config).is_ok(), "no spool yet");
        let opened = open(&dir, &config).unwrap();
        assert!(seen(&config).is_ok(), "also while the agent runs");
        fs::write(&key, [8; 32]).unwrap();
        for config in [&config, &plain] {
            assert!(matches!(seen(config), Err(SpoolError::OtherKey { .. })));
        }
        drop(opened);
        // Nothing waits that the key before has sealed: the agent takes this one, and it is the spool's from now on.
        drop(open(&dir, &config).unwrap());
        assert!(seen(&config).is_ok());
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&key, [7; 32]).unwrap();
        assert!(seen(&config).is_ok(), "whoever begins anew takes the proof away with the folder");
    }
}
