//! Secrets on disk: mode 0600, and durable before anybody relies on them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::PkiError;

/// Largest secret file that is read; a bigger one is not ours.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Writes `bytes` under `path` with mode 0600: temporary file, fsync, rename, fsync of the folder. After a power
/// cut either the old or the new content stands there.
///
/// # Errors
/// [`PkiError::Write`] names the file; nothing changed then.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let failed = |source| PkiError::Write { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads a secret; `None` when there is none.
///
/// # Errors
/// [`PkiError::Read`] when the file is there but can't be read.
pub fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    let failed = |source| PkiError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_readable_only_by_its_owner_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/secret");
        assert_eq!(read_secret(&path).unwrap(), None);
        write_secret(&path, b"one").unwrap();
        write_secret(&path, b"two").unwrap();
        assert_eq!(read_secret(&path).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
