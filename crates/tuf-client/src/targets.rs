//! Fetching targets (5.7), one after the other, into one folder.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use trust::TargetInfo;

use crate::args::Wanted;
use crate::http::Base;
use crate::store::{begin, commit};
use crate::update::Update;

/// Longest name of a file on the file systems of Linux.
const LONGEST_NAME: usize = 255;
const PIECE_BYTES: usize = 64 * 1024;

/// Refreshes, then fetches and verifies each target in turn; the first that is refused ends it.
///
/// # Errors
/// What was refused or failed.
pub(crate) fn download(mut update: Update, wanted: &Wanted<'_>) -> Result<()> {
    update.refresh()?;
    fs::create_dir_all(wanted.folder).with_context(|| format!("cannot make {}", wanted.folder.display()))?;
    let base = Base::new(wanted.base_url);
    for name in wanted.names {
        let repository = update.find(name)?;
        let info = repository.find_target(name)?;
        let path = place(wanted.folder, name);
        if !is_there(&path, info)? {
            fetch(&base, info, wanted.folder, &path)?;
        }
    }
    Ok(())
}

/// The target's path as one name that can't leave the folder; one that no file can have becomes its hash.
fn place(folder: &Path, target: &str) -> PathBuf {
    let name = trust::file_name_of(target);
    if (1..=LONGEST_NAME).contains(&name.len()) && name != "." && name != ".." {
        folder.join(name)
    } else {
        folder.join(hex::encode(Sha256::digest(target)))
    }
}

/// Whether this very content is there already.
fn is_there(path: &Path, info: &TargetInfo) -> Result<bool> {
    let shown = || format!("cannot read {}", path.display());
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.with_context(shown)?,
    };
    let mut check = info.check();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = file.read(&mut piece).with_context(shown)?;
        if length == 0 {
            return Ok(check.finish().is_ok());
        }
        if check.update(&piece[..length]).is_err() {
            return Ok(false);
        }
    }
}

/// Nothing is left under any name unless the whole content is what was signed.
fn fetch(base: &Base, info: &TargetInfo, folder: &Path, path: &Path) -> Result<()> {
    for address in info.fetch_paths() {
        let mut file = begin(folder)?;
        let mut check = info.check();
        let is_offered = base.pieces(&address, info.length().saturating_add(1), |piece| {
            check.update(piece)?;
            file.write_all(piece).with_context(|| format!("cannot write into {}", folder.display()))
        })?;
        if is_offered {
            check.finish()?;
            return commit(file, path);
        }
    }
    bail!("the repository does not have the target {:?}", info.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_target_paths_cannot_leave_the_folder() {
        for target in ["", ".", "..", "../x", "/etc/passwd", "a/../../b", "a\0b", &"x".repeat(999)] {
            let path = place(Path::new("/o"), target);
            let name = path.strip_prefix("/o").unwrap().to_str().unwrap();
            assert!(!name.is_empty() && name != "." && name != ".." && name.len() <= 255, "{target:?}");
            assert!(!name.contains(['/', '\0']), "{target:?} becomes {name:?}");
        }
        assert_eq!(place(Path::new("/o"), "a/b c"), Path::new("/o/a%2Fb%20c"));
    }
}
