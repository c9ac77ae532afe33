//! Faults of the disk, for tests: each is a file in the state directory that holds how often it is still to happen.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The next syncs of a database fail.
pub(super) const SYNC: &str = "fault.sync";
/// With the next sync that fails, what was written since the last good one is gone from the disk.
pub(super) const FORGET: &str = "fault.forget";
/// The disk is full as long as the file is there.
pub(super) const FULL: &str = "fault.full";
/// No sync returns as long as the file is there.
pub(super) const HANG: &str = "fault.hang";
/// The next work panics.
pub(super) const PANIC: &str = "fault.panic";

pub(super) fn set(state_dir: &Path, fault: &str, times: u32) {
    fs::write(state_dir.join(fault), times.to_string()).unwrap();
}

/// How often it is still to happen.
pub(super) fn left(state_dir: &Path, fault: &str) -> u32 {
    fs::read_to_string(state_dir.join(fault)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn strikes(state_dir: &Path, fault: &str) -> bool {
    let left = left(state_dir, fault);
    if left > 0 {
        set(state_dir, fault, left - 1);
    }
    left > 0
}

/// Between sled's flush and the sync.
pub(super) fn before_sync(dir: &Path) -> io::Result<()> {
    let state_dir = dir.parent().unwrap();
    let (db, synced) = (dir.join("db"), dir.with_extension("synced"));
    while left(state_dir, HANG) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    if strikes(state_dir, SYNC) {
        if strikes(state_dir, FORGET) {
            forget(&db, &synced)?;
        }
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    if left(state_dir, FORGET) > 0 {
        fs::copy(&db, &synced)?;
    }
    Ok(())
}

/// In place, under whoever has it open.
fn forget(db: &Path, synced: &Path) -> io::Result<()> {
    let (bytes, length) = (fs::read(synced)?, fs::metadata(db)?.len());
    fs::OpenOptions::new().write(true).open(db)?.set_len(length.min(u64::try_from(bytes.len()).unwrap()))?;
    let file = fs::OpenOptions::new().write(true).open(db)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0)?;
    file.set_len(length)
}

pub(super) fn room_left(on: &Path, free: u64) -> u64 {
    let folders: [Option<PathBuf>; 2] = [Some(on.into()), on.parent().map(Into::into)];
    let is_full = folders.iter().flatten().any(|folder| folder.join(FULL).exists());
    if is_full { 0 } else { free }
}

pub(super) fn before_work(dir: &Path) {
    assert!(!strikes(dir.parent().unwrap(), PANIC), "a fault of the test");
}
