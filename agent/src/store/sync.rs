//! The one place that makes sled durable. Its `flush()` on Linux calls `sync_file_range`, which survives no power
//! cut, and it never syncs its `conf` file. The remedy, proven by crash states: after creation fsync every file,
//! the directory and its parent; after every `flush()` call `sync_data` on the `db` file.
//!
//! A sync that fails is never tried again: the kernel may have dropped what it could not write, and the next sync of the
//! same file succeeds without it. Such a database takes nothing more; [`super::rescue`] writes it anew.

use std::borrow::Cow;
use std::fs::{self, File};
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::telemetry::Kind;

use super::patience::PatientChildren;
use super::seal::{OVERHEAD_BYTES, Seal};
use super::spool::SpoolError;
use crate::config;
use crate::durable::{self, cut};

/// Pages of the tree that sled keeps in memory.
const CACHE_BYTES: u64 = 1024 * 1024;

/// An open database whose commits survive a power cut.
pub(super) struct Durable {
    pub(super) db: Database,
    /// Opens sealed records; none when there is no key.
    pub(super) seal: Option<Seal>,
    is_sealing: bool,
    file: File,
    flushing: Mutex<()>,
    /// Whether every sync has succeeded.
    is_sound: AtomicBool,
    #[cfg(test)]
    dir: PathBuf,
}

/// sled's handle. Its end syncs once more, and panics where that fails: on a failing disk that must end no thread.
pub(super) struct Database(Option<sled::Db>);

impl Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("it is taken only by drop")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let db = self.0.take();
        if std::panic::catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("the spool's database could not be closed in order");
        }
    }
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
        let db = Database(Some(db));
        db.flush().map_err(|source| SpoolError::Sled { operation: "flush", source })?;
        drop(patient);
        sync_tree(dir)?;
        durable::sync_dir(dir.parent().unwrap_or(dir)).map_err(SpoolError::Unsynced)?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(|source| SpoolError::Files(io("open", path, source)))?;
        Ok(Self {
            db,
            seal,
            is_sealing,
            file,
            flushing: Mutex::new(()),
            is_sound: AtomicBool::new(true),
            #[cfg(test)]
            dir: dir.to_owned(),
        })
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
                let sealed = seal.seal(seq, kind, body).ok_or(SpoolError::Seal)?;
                Ok((sealed.into(), true))
            }
        }
    }

    /// How much longer than a record's body is what is stored of it.
    pub(super) fn overhead_bytes(&self) -> usize {
        if self.seal.is_some() && self.is_sealing { OVERHEAD_BYTES } else { 0 }
    }

    /// Everything applied before is durable when this returns.
    ///
    /// # Errors
    /// [`SpoolError`]; from then on every commit fails.
    pub(super) fn commit(&self) -> Result<(), SpoolError> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !self.is_sound.load(Ordering::Relaxed) {
            return Err(SpoolError::Condemned("an earlier sync failed".into()));
        }
        let done = self.flush_and_sync();
        self.is_sound.store(done.is_ok(), Ordering::Relaxed);
        done
    }

    fn flush_and_sync(&self) -> Result<(), SpoolError> {
        self.db.flush().map_err(|source| SpoolError::Sled { operation: "flush", source })?;
        cut::written();
        #[cfg(test)]
        super::faults::before_sync(&self.dir)
            .map_err(|source| SpoolError::Unsynced(io("sync", "db".into(), source)))?;
        self.file.sync_data().map_err(|source| SpoolError::Unsynced(io("sync", "db".into(), source)))?;
        cut::written();
        Ok(())
    }
}

/// Makes a folder and all that is in it durable.
pub(super) fn sync_tree(dir: &Path) -> Result<(), SpoolError> {
    let listed = |source| SpoolError::Files(io("list", dir.to_owned(), source));
    for entry in fs::read_dir(dir).map_err(listed)? {
        let path = entry.map_err(listed)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|source| SpoolError::Unsynced(io("sync", path, source)))?;
        }
    }
    durable::sync_dir(dir).map_err(SpoolError::Unsynced)
}

fn io(operation: &'static str, path: PathBuf, source: std::io::Error) -> durable::DurableError {
    durable::DurableError::Io { operation, path, source }
}
