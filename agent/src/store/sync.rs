//! The one place that makes sled durable. Its `flush()` on Linux calls `sync_file_range`, which survives no power
//! cut, and it never syncs its `conf` file. The remedy, proven by crash states: after creation fsync every file,
//! the directory and its parent; after every `flush()` call `sync_data` on the `db` file.

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use protocol::telemetry::Kind;

use super::patience::PatientChildren;
use super::seal::{OVERHEAD_BYTES, Seal};
use super::spool::SpoolError;
use crate::{config, durable};

/// Pages of the tree that sled keeps in memory.
const CACHE_BYTES: u64 = 1024 * 1024;

/// An open database whose commits survive a power cut.
pub(super) struct Durable {
    pub(super) db: sled::Db,
    /// Opens sealed records; none when there is no key.
    pub(super) seal: Option<Seal>,
    is_sealing: bool,
    file: File,
    flushing: Mutex<()>,
}

impl Durable {
    /// Opens or creates the database in `dir`; all of its files are durable when this returns.
    /// New records are sealed when the configuration says so.
    pub(super) fn open(dir: &Path, config: &config::Spool) -> Result<Self, SpoolError> {
        let seal = Seal::load(config, dir.parent().unwrap_or(dir), config.encrypt)?;
        let is_sealing = config.encrypt;
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let patient = PatientChildren::begin();
        let db = config.open().map_err(|source| SpoolError::Sled { operation: "open", source })?;
        db.flush().map_err(|source| SpoolError::Sled { operation: "flush", source })?;
        drop(patient);
        sync_tree(dir)?;
        durable::sync_dir(dir.parent().unwrap_or(dir)).map_err(SpoolError::Files)?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(|source| io("open", path, source))?;
        Ok(Self { db, seal, is_sealing, file, flushing: Mutex::new(()) })
    }

    /// A record's body as it is to be stored, and whether it is sealed.
    pub(super) fn stored<'a>(
        &self,
        seq: u64,
        kind: Kind,
        body: &'a [u8],
    ) -> Result<(Cow<'a, [u8]>, bool), SpoolError> {
        match self.seal.as_ref().filter(|_| self.is_sealing) {
            None => Ok((body.into(), false)),
            Some(seal) => {
                let sealed = seal.seal(seq, kind, body).ok_or(SpoolError::Entry("sealed record"))?;
                Ok((sealed.into(), true))
            }
        }
    }

    /// How much longer than a record's body is what is stored of it.
    pub(super) fn overhead_bytes(&self) -> usize {
        if self.seal.is_some() && self.is_sealing { OVERHEAD_BYTES } else { 0 }
    }

    /// Everything applied before is durable when this returns.
    pub(super) fn commit(&self) -> Result<(), SpoolError> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.db.flush().map_err(|source| SpoolError::Sled { operation: "flush", source })?;
        self.file.sync_data().map_err(|source| io("sync", "db".into(), source))
    }
}

fn sync_tree(dir: &Path) -> Result<(), SpoolError> {
    for entry in fs::read_dir(dir).map_err(|source| io("list", dir.to_owned(), source))? {
        let path = entry.map_err(|source| io("list", dir.to_owned(), source))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(|source| io("sync", path, source))?;
        }
    }
    durable::sync_dir(dir).map_err(SpoolError::Files)
}

fn io(operation: &'static str, path: PathBuf, source: std::io::Error) -> SpoolError {
    SpoolError::Files(durable::DurableError::Io { operation, path, source })
}
