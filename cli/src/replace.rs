//! Replacing a file as a whole: who reads it meanwhile, or after a power cut, finds the old content or the new one.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Writes `bytes` to `path`, whose permissions stay if it is there.
///
/// # Errors
/// When it can't be written; what was there stays then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = || format!("cannot write {}", path.display());
    let folder = match path.parent().with_context(shown)? {
        folder if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    // Less what the user's mask takes away, as for any new file.
    let mut builder = tempfile::Builder::new();
    let builder = builder.permissions(Permissions::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).with_context(shown)?;
    if let Ok(old) = fs::metadata(path) {
        file.as_file().set_permissions(old.permissions()).with_context(shown)?;
    }
    file.write_all(bytes).with_context(shown)?;
    file.as_file().sync_all().with_context(shown)?;
    file.persist(path).map_err(|error| error.error).with_context(shown)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_permissions_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        replace(&path, b"one").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(replace(&folder.path().join("absent/x"), b"").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
