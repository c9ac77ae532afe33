//! Crash states: the disk as it may be after a cut. What was flushed is there; of what was written since, a disk may
//! have kept nothing, all, any part, and one request only up to some sector.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::device::Told;
use super::disk::{FILE_SYSTEM_BYTES, Recording};
use super::log::{Entry, SECTOR};
use super::marks;
use super::work::Promise;

const BLOCK: usize = 4096;

/// What the disk kept of the requests after the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// None of them.
    Nothing,
    /// All of them.
    All,
    /// Some of them.
    Some,
    /// Some, and one only up to some sector.
    Torn,
}

pub(super) const KEPT: [Kept; 4] = [Kept::Nothing, Kept::All, Kept::Some, Kept::Torn];

/// Walks the recording forward from cut to cut.
pub(super) struct Walker<'a> {
    recording: &'a Recording,
    /// The disk up to the last flush.
    flushed: Vec<u8>,
    /// Blocks of it that are not empty.
    blocks: BTreeSet<usize>,
    /// Entries that `flushed` holds.
    applied: usize,
    /// Entries that were looked at.
    at: usize,
    promise: Promise,
    told: Told,
}

impl<'a> Walker<'a> {
    pub(super) fn new(recording: &'a Recording) -> Self {
        let flushed = recording.before.clone();
        let is_used = |block: &&[u8]| block.iter().any(|byte| *byte != 0);
        let used = flushed.chunks(BLOCK).enumerate().filter(|(_, block)| is_used(block));
        let blocks = used.map(|(number, _)| number).collect();
        Self {
            recording,
            flushed,
            blocks,
            applied: 0,
            at: 0,
            promise: Promise::default(),
            told: Told::default(),
        }
    }

    /// Goes on to the cut after `at` entries.
    pub(super) fn go_to(&mut self, at: usize) -> Result<()> {
        while self.at < at {
            let entry = self.recording.log.entries[self.at];
            self.at += 1;
            let data = self.recording.log.data(&entry);
            match entry.at {
                marks::WORK => self.promise = marks::read(data)?,
                marks::DEVICE => self.told = marks::read(data)?,
                _ => {}
            }
            if entry.is_flush {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// What the program was told to be durable before the cut.
    pub(super) fn promise(&self) -> &Promise {
        &self.promise
    }

    /// What the device had said of itself before the cut.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// Writes the disk of one crash state to `image`.
    pub(super) fn image(&self, image: &Path, kept: Kept, random: &mut Random) -> Result<()> {
        let file = File::create(image).with_context(|| format!("cannot make {}", image.display()))?;
        file.set_len(FILE_SYSTEM_BYTES)?;
        for block in &self.blocks {
            let from = block * BLOCK;
            file.write_all_at(&self.flushed[from..from + BLOCK], u64::try_from(from)?)?;
        }
        let pending: Vec<&Entry> = self.recording.log.entries[self.applied..self.at]
            .iter()
            .filter(|entry| is_write(entry))
            .collect();
        let torn = (kept == Kept::Torn && !pending.is_empty()).then(|| random.below(pending.len()));
        for (number, entry) in pending.into_iter().enumerate() {
            let data = self.recording.log.data(entry);
            let is_kept = match kept {
                Kept::Nothing => entry.is_forced,
                Kept::All => true,
                Kept::Some | Kept::Torn => entry.is_forced || random.below(2) == 0,
            };
            // The superblock's block is not torn: no file system of one group comes back from that, whatever is kept on it.
            if torn == Some(number) && !entry.is_forced && entry.at >= BLOCK as u64 {
                let sectors = random.below(data.len() / SECTOR);
                file.write_all_at(&data[..sectors * SECTOR], entry.at)?;
            } else if is_kept {
                file.write_all_at(data, entry.at)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for number in self.applied..self.at {
            let entry = self.recording.log.entries[number];
            if !is_write(&entry) {
                continue;
            }
            let (from, data) = (usize::try_from(entry.at)?, self.recording.log.data(&entry));
            self.flushed[from..from + data.len()].copy_from_slice(data);
            self.blocks.extend(from / BLOCK..(from + data.len()).div_ceil(BLOCK));
        }
        self.applied = self.at;
        Ok(())
    }
}

/// Entries after which a cut makes another disk than before: those that write to the file system.
pub(super) fn cuts(recording: &Recording, from: usize) -> Vec<usize> {
    let entries = recording.log.entries.iter().enumerate().skip(from);
    entries.filter(|(_, entry)| is_write(entry)).map(|(number, _)| number + 1).collect()
}

/// What the device had said of itself in the end.
pub(super) fn last_told(recording: &Recording) -> Result<Told> {
    let last = recording.log.entries.iter().rfind(|entry| entry.at == marks::DEVICE && entry.has_data());
    marks::read(recording.log.data(last.context("the device has said nothing")?))
}

/// The first entry after the first mark: from there on the file system is mounted and the program at work.
pub(super) fn begin(recording: &Recording) -> Option<usize> {
    recording.log.entries.iter().position(is_mark)
}

fn is_mark(entry: &Entry) -> bool {
    entry.at >= FILE_SYSTEM_BYTES
}

fn is_write(entry: &Entry) -> bool {
    entry.has_data() && !is_mark(entry)
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`; 0 where the bound is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(number).unwrap_or(usize::MAX) % bound.max(1)
    }
}
