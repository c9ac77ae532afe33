//! `flotilla-server backup`: a copy of what a server can't make again, taken while it runs.
//!
//! The database comes first, then blobs and keys: a blob that the copied database names is there already, and one
//! that came meanwhile is only not named. The copy is a data folder that a server starts from. It has its name only
//! when it is whole and on the disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::store::{Dialect, Store, StoreError};

/// The database's file in a copy: where a server without configuration looks for it.
const DATABASE: &str = "flotilla.db";
/// The blobs' folder in a copy.
const BLOBS: &str = "blobs";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing is written over.
    #[error("{0} exists already; name a folder that doesn't")]
    Exists(PathBuf),
    /// It would hold itself.
    #[error("{0} lies in the data folder; name one elsewhere, best on another disk")]
    Inside(PathBuf),
    /// A file.
    #[error("cannot copy to {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database.
    #[error("the database can't be copied")]
    Store(#[from] StoreError),
}

/// What was copied.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Files, the database among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the database is among them; PostgreSQL has tools of its own.
    pub has_database: bool,
}

/// Copies to the new folder `to`.
///
/// # Errors
/// [`BackupError`]; there is no folder `to` then. What was copied so far stays beside it as `to.part`.
pub async fn backup(config: &Config, store: &Store, to: &Path) -> Result<Copied, BackupError> {
    let part = PathBuf::from(format!("{}.part", to.display()));
    for path in [to, &part] {
        if path.exists() {
            return Err(BackupError::Exists(path.to_owned()));
        }
    }
    let file = |source| BackupError::File { path: to.to_owned(), source };
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (parent, data) =
        (parent.canonicalize().map_err(file)?, config.data_dir.canonicalize().map_err(file)?);
    if parent.starts_with(&data) {
        return Err(BackupError::Inside(to.to_owned()));
    }
    fs::create_dir(&part).map_err(file)?;
    let mut copy = Copy { copied: Copied::default(), skip: Vec::new() };
    if store.dialect() == Dialect::Sqlite {
        copy.database(store, &part.join(DATABASE)).await?;
        copy.skip = store.files().await?;
    }
    copy.folder(&data, &part)?;
    let blobs = config.blobs.dir.canonicalize().map_err(file)?;
    if !blobs.starts_with(&data) {
        copy.folder(&blobs, &part.join(BLOBS))?;
    }
    fs::rename(&part, to).and_then(|()| sync(&parent)).map_err(file)?;
    Ok(copy.copied)
}

struct Copy {
    copied: Copied,
    /// Files of the database, which change while they are read.
    skip: Vec<PathBuf>,
}

impl Copy {
    async fn database(&mut self, store: &Store, to: &Path) -> Result<(), BackupError> {
        store.copy_to(to).await?;
        let failed = |source| BackupError::File { path: to.to_owned(), source };
        sync(to).map_err(failed)?;
        self.count(to.metadata().map_err(failed)?.len());
        self.copied.has_database = true;
        Ok(())
    }

    /// Everything below `from`. What is gone before its turn was temporary.
    fn folder(&mut self, from: &Path, to: &Path) -> Result<(), BackupError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::File { path, source }
        };
        if !to.exists() {
            fs::create_dir(to).map_err(failed(to))?;
        }
        for entry in fs::read_dir(from).map_err(failed(to))? {
            let entry = entry.map_err(failed(to))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = match fs::metadata(&source) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                kind => kind.map_err(failed(&target))?,
            };
            if kind.is_dir() {
                self.folder(&source, &target)?;
            } else if kind.is_file() && !self.skip.contains(&source) {
                match fs::copy(&source, &target).and_then(|bytes| sync(&target).map(|()| bytes)) {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    bytes => self.count(bytes.map_err(failed(&target))?),
                }
            }
        }
        sync(to).map_err(failed(to))
    }

    fn count(&mut self, bytes: u64) {
        self.copied.files += 1;
        self.copied.bytes += bytes;
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
