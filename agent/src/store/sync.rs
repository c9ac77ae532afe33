//! The one place that makes sled durable. Its `flush()` on Linux calls `sync_file_range`, which survives no power
//! cut, and it never syncs its `conf` file. The remedy, proven by crash states: after creation fsync every file,
//! the directory and its parent; after every `flush()` call `sync_data` on the `db` file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::spool::SpoolError;
use crate::durable;

/// Pages of the tree that sled keeps in memory.
const CACHE_BYTES: u64 = 1024 * 1024;

/// An open database whose commits survive a power cut.
pub(super) struct Durable {
    pub(super) db: sled::Db,
    file: File,
    flushing: Mutex<()>,
}

impl Durable {
    /// Opens or creates the database in `dir`; all of its files are durable when this returns.
    pub(super) fn open(dir: &Path) -> Result<Self, SpoolError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = config.open().map_err(|source| SpoolError::Sled { operation: "open", source })?;
        db.flush().map_err(|source| SpoolError::Sled { operation: "flush", source })?;
        sync_tree(dir)?;
        durable::sync_dir(dir.parent().unwrap_or(dir)).map_err(SpoolError::Files)?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(|source| io("open", path, source))?;
        Ok(Self { db, file, flushing: Mutex::new(()) })
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
