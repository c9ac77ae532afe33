//! The block log of a recording, in dm-log-writes' format as QEMU's `blklogwrites` node writes it: a super block, then
//! per entry a head of one sector and its data.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// Unit of everything in the log.
pub(super) const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request that reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// First byte on the disk.
    pub(super) at: u64,
    /// Where its data lies in the log, and how much of it; empty for a bare flush.
    data: (usize, usize),
    /// Everything before it is durable once it is.
    pub(super) is_flush: bool,
    /// Durable by itself.
    pub(super) is_forced: bool,
}

impl Entry {
    pub(super) fn has_data(&self) -> bool {
        self.data.1 > 0
    }
}

/// A whole log in memory.
pub(super) struct Log {
    bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

impl Log {
    /// # Errors
    /// When the file is no such log, or holds what this reader can't replay.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let entries = parse(&bytes).with_context(|| format!("{} is no whole block log", path.display()))?;
        Ok(Self { bytes, entries })
    }

    /// What an entry writes.
    pub(super) fn data(&self, entry: &Entry) -> &[u8] {
        let (from, length) = entry.data;
        &self.bytes[from..from + length]
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>> {
    ensure!(word(bytes, 0)? == MAGIC, "the magic number is another one");
    ensure!(word(bytes, 8)? == 1, "version {}, expected 1", word(bytes, 8)?);
    let count = usize::try_from(word(bytes, 16)?)?;
    let sector = u32::try_from(word(bytes, 24)? & u64::from(u32::MAX))?;
    ensure!(usize::try_from(sector)? == SECTOR, "sectors of {sector} bytes, expected {SECTOR}");
    let (mut entries, mut from) = (Vec::new(), SECTOR);
    for number in 0..count {
        let flags = word(bytes, from + 16)?;
        if flags & DISCARD != 0 {
            bail!("entry {number} is a discard: mount with nodiscard");
        }
        let length = usize::try_from(word(bytes, from + 8)?)? * SECTOR;
        let data = (from + SECTOR, length);
        ensure!(data.0 + length <= bytes.len(), "entry {number} of {count} goes beyond the end");
        entries.push(Entry {
            at: word(bytes, from)? * u64::try_from(SECTOR)?,
            data,
            is_flush: flags & FLUSH != 0,
            is_forced: flags & FUA != 0,
        });
        from = data.0 + length;
    }
    Ok(entries)
}

fn word(bytes: &[u8], at: usize) -> Result<u64> {
    let word = bytes.get(at..at + 8).with_context(|| format!("ends before byte {at}"))?;
    Ok(u64::from_le_bytes(word.try_into()?))
}
