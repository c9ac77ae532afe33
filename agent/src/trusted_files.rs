//! The folder of trusted metadata, byte for byte as accepted. What one refresh accepted becomes visible as a whole:
//! it is written into `staged/`, made durable, renamed to `accepted/` (the commit point), and moved from there into
//! its place. After a power cut opening finishes a commit that had reached that point and drops one
//! that had not, so that timestamp, snapshot and targets on disk always belong together.
//!
//! The root is the one file that nobody can bring back but a new enrolment: it is kept in two copies with checksums.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use protocol::UnixMillis;
use trust::{File, Limits, Session, Stored, TrustError, director};

use crate::durable::{self, DurableError, TwoCopies};

/// Longest file that is read back; the longest that trust accepts is shorter.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// The root of trust's name.
pub(crate) const ROOT: &str = "root.json";
/// What the two copies of the root are called, without their letters.
const ROOT_COPIES: &str = "root";
const STAGED: &str = "staged";
const ACCEPTED: &str = "accepted";

/// Where trusted files lie under the state directory.
pub fn trusted_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("trusted")
}

/// Keeps the root that enrolment brought. A newer one that is already there stays, unless it is damaged.
///
/// # Errors
/// [`DurableError`].
pub fn keep_first_root(state_dir: &Path, root: &[u8]) -> Result<(), DurableError> {
    let files = TrustedFiles::open(trusted_dir(state_dir))?;
    match files.read(ROOT) {
        Ok(Some(kept)) if check_root(&kept).is_ok() => Ok(()),
        Ok(Some(_)) | Err(DurableError::Corrupt { .. }) => {
            tracing::warn!("the trusted root was damaged; the one that enrolment brought takes its place");
            files.keep(ROOT, root)
        }
        Ok(None) => files.keep(ROOT, root),
        Err(error) => Err(error),
    }
}

/// Whether it is a root at all, signed by its own keys. Its expiry is judged when it is used.
pub(crate) fn check_root(bytes: &[u8]) -> Result<(), TrustError> {
    let stored = Stored::new(bytes.to_vec());
    Session::new(stored, [director::TARGET], UnixMillis(0), &Limits::default()).map(drop)
}

/// The folder.
#[derive(Debug, Clone)]
pub struct TrustedFiles {
    dir: PathBuf,
}

impl TrustedFiles {
    /// Opens the folder and ends what a power cut interrupted.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn open(dir: PathBuf) -> Result<Self, DurableError> {
        durable::make_dir(&dir)?;
        let files = Self { dir };
        files.roll_forward(&mut always_on)?;
        remove_dir(&files.dir.join(STAGED))?;
        Ok(files)
    }

    /// Where a file of this folder lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Everything that is trusted; none before there is a root.
    ///
    /// # Errors
    /// [`DurableError`]; a file that can't be read is an error, never "absent".
    pub fn load(&self) -> Result<Option<Stored>, DurableError> {
        self.roll_forward(&mut always_on)?;
        let Some(root) = self.read(ROOT)? else { return Ok(None) };
        let mut stored = Stored::new(root);
        for name in names(&self.dir)? {
            let is_metadata = Path::new(&name).extension().is_some_and(|extension| extension == "json");
            if is_metadata
                && name != ROOT
                && let Some(bytes) = self.read(&name)?
            {
                stored.put(File { name, bytes });
            }
        }
        Ok(Some(stored))
    }

    /// One file; none if it isn't there.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DurableError> {
        if name == ROOT
            && let Some(found) = TwoCopies::open(&self.path(ROOT_COPIES))?.1
        {
            return Ok(Some(found.body));
        }
        durable::read_bounded(&self.path(name), MAX_FILE_BYTES)
    }

    /// Replaces one file that stands for itself, such as a new root.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), DurableError> {
        if name != ROOT {
            return durable::write_atomic(&self.path(name), bytes);
        }
        let path = self.path(ROOT_COPIES);
        let mut copies = match TwoCopies::open(&path) {
            Ok((copies, _)) => copies,
            Err(DurableError::Corrupt { .. }) => TwoCopies::begin_anew(&path),
            Err(error) => return Err(error),
        };
        // Into both: were the newer one damaged alone, an older root would be back.
        copies.write(bytes)?;
        copies.write(bytes)?;
        // Earlier versions kept it in this one file.
        durable::remove(&self.path(ROOT))
    }

    /// Whether one copy of the root is damaged and the other is whole.
    ///
    /// # Errors
    /// [`DurableError::Corrupt`] when both are damaged; [`DurableError::Io`].
    pub fn is_root_halved(&self) -> Result<bool, DurableError> {
        let (_, found) = TwoCopies::open(&self.path(ROOT_COPIES))?;
        Ok(found.is_some_and(|found| found.is_other_damaged))
    }

    /// Makes both copies of the root whole again, and two of one that an earlier version has left in a single file.
    /// Returns whether one was damaged.
    ///
    /// # Errors
    /// [`DurableError`] as [`is_root_halved`](Self::is_root_halved), or when nothing can be written.
    pub fn mend_root(&self) -> Result<bool, DurableError> {
        let is_halved = self.is_root_halved()?;
        if (is_halved || self.path(ROOT).exists())
            && let Some(root) = self.read(ROOT)?
        {
            self.keep(ROOT, &root)?;
        }
        Ok(is_halved)
    }

    /// Deletes a file, if it is there.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn forget(&self, name: &str) -> Result<(), DurableError> {
        durable::remove(&self.path(name))
    }

    /// Replaces several files that belong together: all or none.
    ///
    /// # Errors
    /// [`DurableError`]; the earlier files are still there or all new ones will be at the next open.
    pub fn commit(&self, files: &[File]) -> Result<(), DurableError> {
        durable::aside(|| self.commit_while(files, &mut always_on))
    }

    fn commit_while(&self, files: &[File], power: Power<'_>) -> Result<(), DurableError> {
        if files.is_empty() {
            return Ok(());
        }
        // A commit that failed half-way in this run, e.g. on a full disk, is ended first.
        self.roll_forward(power)?;
        let staged = self.path(STAGED);
        power()?;
        remove_dir(&staged)?;
        power()?;
        durable::make_dir(&staged)?;
        for file in files {
            power()?;
            durable::write_atomic(&staged.join(&file.name), &file.bytes)?;
        }
        power()?;
        durable::rename(&staged, &self.path(ACCEPTED))?;
        self.roll_forward(power)
    }

    /// Moves what is committed into its place; may be repeated.
    fn roll_forward(&self, power: Power<'_>) -> Result<(), DurableError> {
        let accepted = self.path(ACCEPTED);
        if !accepted.is_dir() {
            return Ok(());
        }
        for name in names(&accepted)? {
            power()?;
            durable::rename(&accepted.join(&name), &self.path(&name))?;
        }
        power()?;
        remove_dir(&accepted)
    }
}

/// Asked before every write; a test cuts it off.
type Power<'a> = &'a mut dyn FnMut() -> Result<(), DurableError>;

/// The power of the real world, as far as it can be asked.
#[expect(clippy::unnecessary_wraps, reason = "it stands for a power that can fail")]
fn always_on() -> Result<(), DurableError> {
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, DurableError> {
    let list = |source| DurableError::Io { operation: "list", path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(list)? {
        let entry = entry.map_err(list)?;
        if entry.file_type().map_err(list)?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

fn remove_dir(path: &Path) -> Result<(), DurableError> {
    match fs::remove_dir_all(path) {
        Ok(()) => path.parent().map_or(Ok(()), durable::sync_dir),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DurableError::Io { operation: "remove", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["digits.json", "snapshot.json", "targets.json", "timestamp.json"];

    fn generation(n: &str) -> Vec<File> {
        NAMES.map(|name| File { name: name.into(), bytes: format!("{name} {n}").into_bytes() }).into()
    }

    fn on_disk(files: &TrustedFiles) -> Vec<String> {
        let stored = files.load().unwrap().unwrap();
        stored.files.into_values().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    fn expected(n: &str) -> Vec<String> {
        NAMES.map(|name| format!("{name} {n}")).into()
    }

    #[test]
    fn x1_power_cut_at_every_write_leaves_the_old_files_or_the_new_ones() {
        let mut seen = std::collections::BTreeSet::new();
        for cut in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let files = TrustedFiles::open(dir.path().join("trusted")).unwrap();
            files.keep(ROOT, b"root").unwrap();
            files.commit(&generation("old")).unwrap();
            let mut writes = 0;
            let mut power = || {
                writes += 1;
                let source = std::io::Error::other("power cut");
                let path = dir.path().to_owned();
                if writes > cut { Err(DurableError::Io { operation: "write", path, source }) } else { Ok(()) }
            };
            let is_whole = files.commit_while(&generation("new"), &mut power).is_ok();
            let files = TrustedFiles::open(dir.path().join("trusted")).unwrap();
            let found = on_disk(&files);
            assert!(found == expected("old") || found == expected("new"), "cut {cut}: {found:?}");
            assert!(!is_whole || found == expected("new"));
            seen.insert(found);
            assert_eq!(names(&dir.path().join("trusted")).unwrap().len(), 6, "nothing is left over");
            files.commit(&generation("later")).unwrap();
            assert_eq!(on_disk(&files), expected("later"));
            if is_whole {
                assert!(cut > 10, "{cut} writes");
                break;
            }
        }
        assert_eq!(seen.len(), 2, "both ends were reached");
    }

    #[test]
    fn full_disk_while_staging_is_no_half_commit() {
        let dir = tempfile::tempdir().unwrap();
        let files = TrustedFiles::open(dir.path().to_owned()).unwrap();
        files.keep(ROOT, b"root").unwrap();
        files.commit(&generation("old")).unwrap();
        let bad =
            [generation("new"), vec![File { name: "no/such/folder.json".into(), bytes: vec![] }]].concat();
        assert!(files.commit(&bad).is_err());
        assert_eq!(on_disk(&files), expected("old"), "without opening again");
        files.commit(&generation("new")).unwrap();
        assert_eq!(on_disk(&files), expected("new"));
    }

    #[test]
    fn forgotten_files_are_gone_and_absent_ones_are_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let files = TrustedFiles::open(dir.path().to_owned()).unwrap();
        assert!(files.load().unwrap().is_none(), "no root yet");
        files.keep(ROOT, b"root").unwrap();
        files.commit(&generation("old")).unwrap();
        files.forget("timestamp.json").unwrap();
        files.forget("timestamp.json").unwrap();
        assert_eq!(on_disk(&files).len(), 3);
    }

    #[test]
    fn either_copy_of_the_root_may_be_damaged_and_is_made_whole_again() {
        for copy in ["root.a", "root.b"] {
            let dir = tempfile::tempdir().unwrap();
            let files = TrustedFiles::open(dir.path().to_owned()).unwrap();
            files.keep(ROOT, b"first root").unwrap();
            files.keep(ROOT, b"second root").unwrap();
            let path = files.path(copy);
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(files.read(ROOT).unwrap().unwrap(), b"second root", "{copy}");
            assert!(files.is_root_halved().unwrap() && files.mend_root().unwrap());
            assert!(!files.is_root_halved().unwrap() && !files.mend_root().unwrap());
            for other in ["root.a", "root.b"] {
                let whole = fs::read(files.path(other)).unwrap();
                fs::remove_file(files.path(other)).unwrap();
                assert_eq!(files.read(ROOT).unwrap().unwrap(), b"second root", "without {other}");
                fs::write(files.path(other), whole).unwrap();
            }
        }
    }

    #[test]
    fn a_root_that_is_damaged_in_both_copies_is_an_error_until_another_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let files = TrustedFiles::open(dir.path().to_owned()).unwrap();
        files.keep(ROOT, b"root").unwrap();
        for copy in ["root.a", "root.b"] {
            fs::write(files.path(copy), "{").unwrap();
        }
        for failed in [files.load().err(), files.mend_root().err(), files.read(ROOT).err()] {
            assert!(matches!(failed, Some(DurableError::Corrupt { .. })), "{failed:?}");
        }
        files.keep(ROOT, b"another").unwrap();
        assert_eq!(files.load().unwrap().unwrap().root, b"another");
        assert!(!TrustedFiles::open(dir.path().to_owned()).unwrap().mend_root().unwrap());
    }

    #[test]
    fn the_single_file_of_an_earlier_version_is_read_and_becomes_two_copies() {
        let dir = tempfile::tempdir().unwrap();
        let files = TrustedFiles::open(dir.path().to_owned()).unwrap();
        fs::write(files.path(ROOT), "root").unwrap();
        assert_eq!(files.load().unwrap().unwrap().root, b"root");
        assert!(!files.mend_root().unwrap());
        assert_eq!(names(dir.path()).unwrap(), ["root.a", "root.b"]);
        assert_eq!(files.load().unwrap().unwrap().root, b"root");
    }
}
