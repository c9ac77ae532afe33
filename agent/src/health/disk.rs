//! How much room the disk has, and what of it we use.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::problem::{Problem, ProblemKind};
use crate::durable::DurableError;

/// Bytes that this user may still write to the file system of `path`.
///
/// # Errors
/// [`DurableError::Io`] when the system does not say.
pub fn free_bytes(path: &Path) -> Result<u64, DurableError> {
    let stat = rustix::fs::statvfs(path).map_err(|error| DurableError::Io {
        operation: "ask for the free space of",
        path: path.to_owned(),
        source: error.into(),
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// That the state directory takes no writes from this user now, as far as the system says without one being tried: its
/// disk is read-only, or it belongs to somebody else. A full disk is told by its own problem.
pub fn unwritable(state_dir: &Path) -> Option<Problem> {
    let may_write = rustix::fs::access(state_dir, rustix::fs::Access::WRITE_OK);
    let why = std::io::Error::from(may_write.err()?);
    let detail = format!("the state directory {} takes no writes: {why}", state_dir.display());
    Some(Problem::new(ProblemKind::StateUnwritable, detail))
}

/// Bytes of all files under `path`, without their holes; what can't be read counts as nothing.
pub fn used_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => used_bytes(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |meta| meta.len().min(meta.blocks() * 512)),
        Ok(_) | Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Runs the last work on a disk, which may never answer. Says whether that has ended within the bound; what hangs goes with
/// the process.
pub async fn ends_within(bound: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    tokio::time::timeout(bound, tokio::task::spawn_blocking(work)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_counts_files_in_all_folders() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/x"), [0; 10]).unwrap();
        std::fs::write(dir.path().join("y"), [0; 5]).unwrap();
        std::fs::File::create(dir.path().join("hollow")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(used_bytes(dir.path()), 15);
        assert!(free_bytes(dir.path()).unwrap() > 0);
    }
}
