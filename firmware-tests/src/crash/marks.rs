//! Marks: what was told to be durable, written to the same disk beyond its file system, so that the log ties both
//! together without a clock. Each program at work has a sector of its own.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::FILE_SYSTEM_BYTES;
use super::log::SECTOR;

/// Where the worker's mark lies.
pub(super) const WORK: u64 = FILE_SYSTEM_BYTES;
/// Where the device's mark lies.
pub(super) const DEVICE: u64 = FILE_SYSTEM_BYTES + SECTOR as u64;

/// One program's marks.
pub(super) struct Marks<T> {
    disk: File,
    at: u64,
    pub(super) promise: T,
}

impl<T: Serialize + Default> Marks<T> {
    /// Nothing is promised yet.
    pub(super) fn open(disk: &Path, at: u64) -> Result<Self> {
        let disk = File::options().write(true).open(disk).context("cannot open the disk for marks")?;
        Ok(Self { disk, at, promise: T::default() })
    }

    pub(super) fn write(&mut self, change: impl FnOnce(&mut T)) -> Result<()> {
        change(&mut self.promise);
        let mut sector = serde_json::to_vec(&self.promise)?;
        ensure!(sector.len() < SECTOR, "a mark of {} bytes", sector.len());
        sector.resize(SECTOR, 0);
        self.disk.write_all_at(&sector, self.at).context("cannot write a mark")
    }
}

/// What stands in such a sector.
pub(super) fn read<T: DeserializeOwned>(sector: &[u8]) -> Result<T> {
    let end = sector.iter().position(|byte| *byte == 0).unwrap_or(sector.len());
    serde_json::from_slice(&sector[..end]).context("a mark can't be read")
}
