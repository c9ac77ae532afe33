//! What the spool held last, noted beside it after each change. sled takes damage in its log for the log's end and
//! forgets what lay behind it; a database that is moved aside can't be asked any more. Without the note nobody would
//! know that there was more.
//!
//! The note is one block, written over in place and never synced: it costs the flash next to nothing, outlives the
//! process, and after a power cut tells of an earlier time. So it is believed only where the database tells of a time
//! before that, or of another stream.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use protocol::message::{Loss, LossCause};
use protocol::telemetry::Kind;
use protocol::{StreamId, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::carried::{Losses, beyond, listed};
use super::depth::Depth;
use super::opening::Opened;
use crate::durable::{self, cut};

/// One block of the disk; its room is taken once.
const BLOCK_BYTES: usize = 4096;
const SUM_BYTES: usize = 32;

/// What is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    pub(super) stream: StreamId,
    pub(super) next_seq: u64,
    /// Records by kind.
    held: Vec<(Kind, u64)>,
    /// Those that the database knew.
    losses: Vec<Loss>,
    /// Day and bytes of flash writes.
    pub(super) written: (i64, u64),
    /// The time by which records age.
    pub(super) lived: UnixMillis,
}

/// What the database lacks of what was noted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Losses that it has forgotten, and the records that it lacks as new ones.
    pub(super) losses: Losses,
    /// Records that it lacks.
    pub(super) records: u64,
}

impl Noted {
    pub(super) fn new(
        stream: &StreamId,
        next_seq: u64,
        depth: &Depth,
        losses: &Losses,
        written: (i64, u64),
        lived: UnixMillis,
    ) -> Self {
        let held = depth.iter().map(|(kind, amount)| (kind, amount.records)).collect();
        Self { stream: stream.clone(), next_seq, held, losses: listed(losses), written, lived }
    }

    /// What is gone, if the database tells of a time before this, or of another stream. Records that were deleted
    /// since the database's time count as well where their kind lacks some: never too few.
    pub(super) fn missing_in(&self, opened: &Opened) -> Option<Missing> {
        let is_same = self.stream == opened.stream;
        if is_same && self.next_seq <= opened.next_seq {
            return None;
        }
        let noted: Losses = self.losses.iter().map(|loss| ((loss.kind, loss.cause), loss.count)).collect();
        let known = if is_same { opened.losses.clone() } else { Losses::new() };
        let mut losses = beyond(&noted, &known);
        let there = |kind| if is_same { opened.depth.of(kind).records } else { 0 };
        let gone: BTreeMap<Kind, u64> =
            self.held.iter().map(|(kind, records)| (*kind, records.saturating_sub(there(*kind)))).collect();
        for (kind, records) in gone.iter().filter(|(_, records)| **records > 0) {
            *losses.entry((*kind, LossCause::Storage)).or_default() += records;
        }
        Some(Missing { losses, records: gone.values().sum() })
    }
}

/// The file beside the spool.
pub(super) struct Note {
    file: File,
    last: Option<Noted>,
}

impl Note {
    /// Opens or makes it, and what it says; nothing where it is damaged.
    pub(super) fn open(spool: &Path) -> std::io::Result<(Self, Option<Noted>)> {
        let path = spool.with_extension("noted");
        let noted = durable::read_bounded(&path, BLOCK_BYTES as u64).ok().flatten();
        let noted = noted.and_then(|bytes| parse(&bytes));
        let is_other = std::fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file());
        if is_other {
            // A pipe would hold up who opens it, a link leads to a file of somebody else.
            std::fs::remove_file(&path)?;
        }
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        Ok((Self { file: open?, last: None }, noted))
    }

    /// Notes this, if it is new. What doesn't fit or can't be written leaves the note as it was: it only ever tells
    /// too little.
    pub(super) fn write(&mut self, noted: Noted) {
        if self.last.as_ref() == Some(&noted) {
            return;
        }
        let mut body = Vec::new();
        let is_whole = ciborium::into_writer(&noted, &mut body).is_ok();
        let mut block = Sha256::digest(&body).to_vec();
        block.extend_from_slice(&body);
        if !is_whole || block.len() > BLOCK_BYTES {
            return;
        }
        block.resize(BLOCK_BYTES, 0);
        match self.file.write_all_at(&block, 0) {
            Ok(()) => {
                cut::written();
                self.last = Some(noted);
            }
            Err(error) => tracing::debug!(%error, "what the spool holds could not be noted"),
        }
    }
}

fn parse(block: &[u8]) -> Option<Noted> {
    let (sum, body) = block.split_at_checked(SUM_BYTES)?;
    let mut rest = body;
    let noted = ciborium::from_reader(&mut rest).ok()?;
    let body = &body[..body.len() - rest.len()];
    (Sha256::digest(body).as_slice() == sum).then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::super::depth::Amount;
    use super::*;

    fn noted(next_seq: u64) -> Noted {
        let mut depth = Depth::default();
        (0..7).for_each(|_| depth.add(Kind::Pane, Amount::record(10)));
        let losses = Losses::from([((Kind::Log, LossCause::Full), 3)]);
        Noted::new(&StreamId::new("s1").unwrap(), next_seq, &depth, &losses, (20_000, 99), UnixMillis(7))
    }

    #[test]
    fn a_note_is_read_again_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        let (mut note, before) = Note::open(&spool).unwrap();
        assert_eq!(before, None);
        note.write(noted(5));
        note.write(noted(8));
        assert_eq!(Note::open(&spool).unwrap().1, Some(noted(8)));
        let path = spool.with_extension("noted");
        let good = std::fs::read(&path).unwrap();
        assert_eq!(good.len(), BLOCK_BYTES);
        for place in 0..good.iter().rposition(|byte| *byte != 0).unwrap() {
            let mut bad = good.clone();
            bad[place] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(Note::open(&spool).unwrap().1, None, "byte {place}");
        }
        std::fs::write(&path, &good[..100]).unwrap();
        assert_eq!(Note::open(&spool).unwrap().1, None);
    }
}
