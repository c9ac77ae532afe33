//! The folder of trusted metadata: un-versioned names, byte for byte as accepted, each file replaced as a whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use trust::Stored;

/// Longest file that is read back; the longest that is accepted is shorter.
const MAX_BYTES: u64 = 64_000_000;
const ROOT: &str = "root.json";

/// The folder.
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if it isn't there.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// All that is stored; a root must be.
    ///
    /// # Errors
    /// When there is no root, or a file can't be read.
    pub(crate) fn load(&self) -> Result<Stored> {
        let Some(root) = read(&self.folder.join(ROOT))? else {
            bail!("{} holds no {ROOT}; begin with: init TRUSTED_ROOT", self.folder.display());
        };
        let mut stored = Stored::new(root);
        let shown = || format!("cannot list {}", self.folder.display());
        for entry in fs::read_dir(&self.folder).with_context(shown)? {
            let path = entry.with_context(shown)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.extension().is_some_and(|extension| extension == "json")
                && name != ROOT
                && path.is_file()
                && let Some(bytes) = read(&path)?
            {
                stored.put(trust::File { name, bytes });
            }
        }
        Ok(stored)
    }

    /// Stores a file.
    ///
    /// # Errors
    /// When the disk fails; the earlier file stays then.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = begin(&self.folder)?;
        file.write_all(bytes).with_context(|| format!("cannot write {name}"))?;
        commit(file, &self.folder.join(name))
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            Ok(()) => sync(&self.folder),
            Err(_) => Ok(()),
        }
    }
}

/// A file beside the others that vanishes unless it is committed.
///
/// # Errors
/// When the disk fails.
pub(crate) fn begin(folder: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".part-").permissions(fs::Permissions::from_mode(0o644));
    builder.tempfile_in(folder).with_context(|| format!("cannot write into {}", folder.display()))
}

/// Gives a finished file its name, durably.
///
/// # Errors
/// When the disk fails.
pub(crate) fn commit(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let shown = || format!("cannot write {}", path.display());
    file.as_file().sync_all().with_context(shown)?;
    file.persist(path).map_err(|error| error.error).with_context(shown)?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot sync {}", folder.display()))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let shown = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(shown)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(shown)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES) {
        return Ok(Some(bytes));
    }
    bail!("{} is longer than {MAX_BYTES} bytes", path.display())
}
