//! Files that survive a power cut: temp file, fsync, rename, directory fsync; and records kept in two copies
//! with a generation and a checksum. Nothing here decides what a corrupt record means; the caller does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The system refused one operation.
    #[error("cannot {operation} {path}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Larger than anything we wrote.
    #[error("{path} has more than {max} bytes", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Bound in bytes.
        max: u64,
    },
    /// A pipe, a socket or a device.
    #[error("{path} is not a regular file", path = path.display())]
    NoFile {
        /// What lies there.
        path: PathBuf,
    },
    /// No copy of the record is valid, though there is at least one.
    #[error("no valid copy of record {path}", path = path.display())]
    Corrupt {
        /// The record's path without the copy's letter.
        path: PathBuf,
    },
}

impl DurableError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }

    /// Whether a file's name is longer than its file system permits.
    pub fn is_name_too_long(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::InvalidFilename)
    }

    /// Whether the disk is full or takes no writes at all: what lies on it can still be read.
    pub fn is_unwritable(&self) -> bool {
        let is_read_only = |source: &io::Error| source.kind() == io::ErrorKind::ReadOnlyFilesystem;
        matches!(self, Self::Io { source, .. } if is_disk_full(source) || is_read_only(source))
    }

    /// Whether what lies there is beyond reading.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_damage(source),
            Self::TooLarge { .. } | Self::NoFile { .. } | Self::Corrupt { .. } => true,
        }
    }

    /// Whether the disk, or this user's share of it, has no room left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether this user may not do that there.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Runs what waits for the disk. One that hangs stops the task that asks, and in the end the watchdog, but not the thread
/// on which others wait for events.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(test)]
    ASIDE.set(ASIDE.get() + 1);
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        Ok(_) | Err(_) => work(),
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread went aside.
    pub(crate) static ASIDE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether an error says that the disk, or the quota on it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError + use<> {
    let path = path.to_owned();
    move |source| DurableError::Io { operation, path, source }
}

/// Who may read a file or look into a folder that is made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// This user.
    Owner,
    /// Its group as well, whatever the process's umask.
    Group,
}

impl Readers {
    const fn file_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o640,
        }
    }

    /// The umask takes the group's rights away from what is made.
    fn grant(self, file: &File) -> io::Result<()> {
        match self {
            Self::Owner => Ok(()),
            Self::Group => file.set_permissions(fs::Permissions::from_mode(self.file_mode())),
        }
    }
}

/// Makes a directory that its group may look into; one that is there stays as it is.
///
/// # Errors
/// [`DurableError::Io`].
pub fn make_group_dir(path: &Path) -> Result<(), DurableError> {
    if path.is_dir() {
        return Ok(());
    }
    make_dir(path)?;
    // A folder above that hands its group down (setgid) goes on doing so.
    let meta = fs::metadata(path).map_err(io_error("look at", path))?;
    let mode = (meta.permissions().mode() & 0o2000) | 0o750;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error("set permissions of", path))
}

/// Makes a directory (and its parents) for this user only, and makes its name durable.
///
/// # Errors
/// [`DurableError::Io`].
pub fn make_dir(path: &Path) -> Result<(), DurableError> {
    let made = aside(|| fs::DirBuilder::new().recursive(true).mode(0o700).create(path));
    made.map_err(io_error("create directory", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// [`DurableError::Io`].
pub fn sync_dir(path: &Path) -> Result<(), DurableError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    aside(|| File::open(path).and_then(|dir| dir.sync_all())).map_err(io_error("sync directory", path))
}

/// Replaces a file by `bytes`, readable by this user only. After a power cut it holds the old bytes or the new.
///
/// # Errors
/// [`DurableError::Io`]; the old file is untouched then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    write_atomic_for(Readers::Owner, path, bytes)
}

/// The same for a file that others may have to read.
///
/// # Errors
/// As above.
pub fn write_atomic_for(readers: Readers, path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let temp = path.with_extension("tmp");
    let result = aside(|| write_synced(readers, &temp, bytes).and_then(|()| rename(&temp, path)));
    if result.is_err() {
        let _ = fs::remove_file(&temp);
    }
    result
}

fn write_synced(readers: Readers, path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut file = create(readers, path).map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))?;
    cut::written();
    Ok(())
}

/// A new file. What lies there under its name is removed, not opened: it may be a link to anywhere, or a pipe, which
/// waits for a reader.
///
/// # Errors
/// Of the system; also where others have a folder of that name.
pub fn create(readers: Readers, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(readers.file_mode()).custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            clear(readers, path)?;
            options.open(path)?
        }
        opened => opened?,
    };
    readers.grant(&file)?;
    Ok(file)
}

/// Removes what lies under a file's name. Where only this user writes, a folder there is nobody's, and no start may fail by
/// it: it goes with all that is in it.
///
/// # Errors
/// Of the system; also where nothing is there.
pub fn clear(readers: Readers, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(_) if readers == Readers::Owner && path.is_dir() => fs::remove_dir_all(path),
        removed => removed,
    }?;
    cut::written();
    Ok(())
}

/// Gives a synced file its final name, durably.
///
/// # Errors
/// [`DurableError::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    aside(|| {
        fs::rename(from, to).map_err(io_error("rename", from))?;
        cut::written();
        to.parent().map_or(Ok(()), sync_dir)
    })
}

/// Deletes a file, durably; one that isn't there is no fault.
///
/// # Errors
/// [`DurableError::Io`].
pub fn remove(path: &Path) -> Result<(), DurableError> {
    aside(|| match fs::remove_file(path) {
        Ok(()) => {
            cut::written();
            path.parent().map_or(Ok(()), sync_dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path)(error)),
    })
}

/// Moves a file that others wrote, also to another file system: copied and synced there before it goes here. After a
/// power cut it is at one of the two places, or at both.
///
/// # Errors
/// [`DurableError::Io`]; the file is where it was then.
pub fn move_file(from: &Path, to: &Path) -> Result<(), DurableError> {
    match rename(from, to) {
        Err(DurableError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
            copy_over(from, to)
        }
        moved => moved,
    }
}

fn copy_over(from: &Path, to: &Path) -> Result<(), DurableError> {
    let temp = to.with_extension("tmp");
    let copied = copy(from, &temp);
    let moved = copied.map_err(io_error("copy", from)).and_then(|()| rename(&temp, to));
    if moved.is_err() {
        let _ = fs::remove_file(&temp);
    }
    moved?;
    fs::remove_file(from).map_err(io_error("remove", from))
}

/// Neither what is copied nor the place for the copy is followed if it is a link by now.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(from)?;
    let mut copy = create(Readers::Group, to)?;
    io::copy(&mut source, &mut copy)?;
    copy.set_permissions(source.metadata()?.permissions())?;
    copy.sync_all()
}

/// Reads a whole file of at most `max` bytes; none when it isn't there.
///
/// # Errors
/// [`DurableError`]; a file that can't be read is an error, never "absent".
pub fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    read_file(libc::O_NONBLOCK, path, max)
}

/// The same of a file that a person named: a pipe is read to its end.
///
/// # Errors
/// As above.
pub fn read_named(path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    read_opened(File::open(path), path, max)
}

/// The same in a folder where others write: a link is an error.
///
/// # Errors
/// As above.
pub fn read_no_link(path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    read_file(libc::O_NONBLOCK | libc::O_NOFOLLOW, path, max)
}

/// A pipe in a file's place holds nobody up: opened so, it doesn't wait for a writer, and it isn't read.
fn read_file(flags: i32, path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    aside(|| open_and_read(flags, path, max))
}

/// Opens a file that a person named, and nothing that would wait for ever: a pipe for its writer, a device for its end.
///
/// # Errors
/// [`DurableError::NoFile`] and [`DurableError::Io`].
pub fn open_file(path: &Path) -> Result<File, DurableError> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(io_error("open", path))?;
    if !file.metadata().map_err(io_error("look at", path))?.is_file() {
        return Err(DurableError::NoFile { path: path.to_owned() });
    }
    Ok(file)
}

fn open_and_read(flags: i32, path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let is_none = |file: &File| file.metadata().is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    if opened.as_ref().is_ok_and(is_none) {
        return Err(DurableError::NoFile { path: path.to_owned() });
    }
    read_opened(opened, path, max)
}

fn read_opened(opened: io::Result<File>, path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if u64::try_from(bytes.len()).is_ok_and(|got| got <= max) {
        return Ok(Some(bytes));
    }
    Err(DurableError::TooLarge { path: path.to_owned(), max })
}

const MAGIC: &[u8; 8] = b"FLOTREC1";
const HEAD_BYTES: usize = 8 + 8 + 4 + 32;
/// Largest body of a record.
const MAX_BODY_BYTES: u32 = 1024 * 1024;

/// A small record kept in two copies, `<name>.a` and `<name>.b`. Each write replaces the older copy.
#[derive(Debug)]
pub struct TwoCopies {
    path: PathBuf,
    generation: u64,
}

/// What was found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Body of the newest valid copy.
    pub body: Vec<u8>,
    /// Whether the other copy was damaged: what is here may be one write old.
    pub is_other_damaged: bool,
}

enum Copy {
    Missing,
    Damaged,
    Valid { generation: u64, body: Vec<u8> },
}

impl TwoCopies {
    /// Opens the record at `path` (without the copy's letter) and reads its newest valid copy, if it exists.
    ///
    /// # Errors
    /// [`DurableError::Corrupt`] when copies exist and none is valid; [`DurableError::Io`] when one can't be read.
    pub fn open(path: &Path) -> Result<(Self, Option<Found>), DurableError> {
        let copies = [read_copy(&copy_path(path, 'a'))?, read_copy(&copy_path(path, 'b'))?];
        let is_any_damaged = copies.iter().any(|copy| matches!(copy, Copy::Damaged));
        let valid = copies.into_iter().filter_map(|copy| match copy {
            Copy::Valid { generation, body } => Some((generation, body)),
            Copy::Missing | Copy::Damaged => None,
        });
        match valid.max_by_key(|(generation, _)| *generation) {
            Some((generation, body)) => {
                let found = Found { body, is_other_damaged: is_any_damaged };
                Ok((Self { path: path.to_owned(), generation }, Some(found)))
            }
            None if is_any_damaged => Err(DurableError::Corrupt { path: path.to_owned() }),
            None => Ok((Self { path: path.to_owned(), generation: 0 }, None)),
        }
    }

    /// Begins anew over damaged copies. Only for a caller that has put the safe value in their place.
    pub fn begin_anew(path: &Path) -> Self {
        Self { path: path.to_owned(), generation: 0 }
    }

    /// Makes `body` the record. Durable when it returns, also on a full disk if it is no longer than what it replaces.
    ///
    /// # Errors
    /// [`DurableError`]; the record is then what it was before.
    pub fn write(&mut self, body: &[u8]) -> Result<(), DurableError> {
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_BODY_BYTES);
        let length = length
            .ok_or_else(|| DurableError::TooLarge { path: self.path.clone(), max: MAX_BODY_BYTES.into() })?;
        self.write_older(length, body)?;
        if !copy_path(&self.path, letter(self.generation + 1)).exists() {
            // Both copies from the first write on: the next one must find room on a disk that has filled up since.
            self.write_older(length, body)?;
        }
        Ok(())
    }

    fn write_older(&mut self, length: u32, body: &[u8]) -> Result<(), DurableError> {
        let generation = self.generation + 1;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&generation.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&checksum(generation, body));
        bytes.extend_from_slice(body);
        let copy = copy_path(&self.path, letter(generation));
        match write_atomic(&copy, &bytes) {
            // Torn by a power cut, the older copy is damaged; the newer one, which counts until now, is not touched.
            Err(error) if error.is_disk_full() => overwrite(&copy, &bytes).map_err(|_| error)?,
            written => written?,
        }
        self.generation = generation;
        Ok(())
    }
}

/// Writes over a file's own blocks, which needs no space. A power cut may leave a mixture.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A pipe in its place is an error, and waits for nobody.
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
    if file.metadata()?.len() < length {
        return Err(io::ErrorKind::StorageFull.into());
    }
    file.write_all(bytes)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Of the copy that a generation is written to.
fn letter(generation: u64) -> char {
    if generation.is_multiple_of(2) { 'a' } else { 'b' }
}

fn copy_path(path: &Path, letter: char) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{letter}"));
    name.into()
}

fn checksum(generation: u64, body: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(MAGIC)
        .chain_update(generation.to_be_bytes())
        .chain_update(body)
        .finalize()
        .into()
}

fn read_copy(path: &Path) -> Result<Copy, DurableError> {
    let max = u64::from(MAX_BODY_BYTES) + HEAD_BYTES as u64;
    match read_bounded(path, max) {
        Ok(None) => Ok(Copy::Missing),
        Ok(Some(bytes)) => Ok(parse_copy(&bytes).unwrap_or(Copy::Damaged)),
        Err(error) if error.is_damage() => Ok(Copy::Damaged),
        Err(error) => Err(error),
    }
}

/// Whether an error says that what lies there is beyond reading: bad blocks, a broken file system, no file at all.
/// One of rights is none: who runs the agent as somebody else must not lose what it holds.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG | libc::EISDIR))
}

fn parse_copy(bytes: &[u8]) -> Option<Copy> {
    let (magic, rest) = bytes.split_at_checked(8)?;
    let (generation, rest) = rest.split_at_checked(8)?;
    let (length, rest) = rest.split_at_checked(4)?;
    let (sum, body) = rest.split_at_checked(32)?;
    let generation = u64::from_be_bytes(generation.try_into().ok()?);
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let is_valid =
        magic == MAGIC && u32::try_from(body.len()) == Ok(length) && checksum(generation, body) == sum;
    is_valid.then(|| Copy::Valid { generation, body: body.to_vec() })
}

#[cfg(not(test))]
pub(crate) mod cut {
    pub(crate) fn written() {}
}

/// For tests: ends this process by SIGKILL right after the write that was chosen, or is a disk that hangs.
#[cfg(test)]
pub(crate) mod cut {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender};

    thread_local! {
        static DISK: RefCell<Option<(Sender<()>, Receiver<()>)>> = const { RefCell::new(None) };
    }

    /// From here on each write of this thread tells `began`, and goes on once `disk` gives a word or is gone.
    pub(crate) fn hold(began: Sender<()>, disk: Receiver<()>) {
        DISK.set(Some((began, disk)));
    }

    static WRITES: AtomicUsize = AtomicUsize::new(0);
    static KILL_AT: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Counts from here on, and kills at this write, from 1.
    pub(crate) fn kill_at(write: usize) {
        WRITES.store(0, Ordering::Relaxed);
        KILL_AT.store(write, Ordering::Relaxed);
    }

    /// Writes since.
    pub(crate) fn writes() -> usize {
        WRITES.load(Ordering::Relaxed)
    }

    /// A write outside of this file is over: of the update path and of the spool each one says so.
    pub(crate) fn written() {
        DISK.with_borrow(|disk| {
            if let Some((began, disk)) = disk {
                let _nobody_looks = began.send(());
                let _gone = disk.recv();
            }
        });
        if WRITES.fetch_add(1, Ordering::Relaxed) + 1 == KILL_AT.load(Ordering::Relaxed) {
            let _ends =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot");
        (dir, path)
    }

    #[test]
    fn small_files_are_read_aside() {
        let (_dir, path) = record();
        let before = ASIDE.get();
        assert!(matches!((read_bounded(&path, 1), read_no_link(&path, 1)), (Ok(None), Ok(None))));
        assert_eq!(ASIDE.get() - before, 2);
    }

    fn written(path: &Path, bodies: &[&[u8]]) {
        let (mut record, _) = TwoCopies::open(path).unwrap();
        for body in bodies {
            record.write(body).unwrap();
        }
    }

    #[test]
    fn a_pipe_in_a_records_place_is_damage_and_holds_nobody_up() {
        let (_dir, path) = record();
        written(&path, &[b"one", b"two"]);
        let copies = ["boot.a", "boot.b"].map(|name| path.with_file_name(name));
        for (copy, left) in copies.iter().zip([1, 0]) {
            fs::remove_file(copy).unwrap();
            make_pipe(copy);
            let found = TwoCopies::open(&path);
            assert_eq!(found.is_ok(), left == 1, "{found:?}");
            assert!(matches!(read_bounded(copy, 9), Err(error) if error.is_damage()));
        }
    }

    fn make_pipe(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[test]
    fn what_is_no_file_in_the_place_of_the_temp_file_makes_room_for_it() {
        let (dir, path) = record();
        let temp = path.with_extension("tmp");
        let full = |temp: &Path| {
            fs::create_dir(temp).unwrap();
            fs::write(temp.join("within"), "").unwrap();
        };
        let leftovers: [fn(&Path); 4] = [
            full,
            |temp| drop(std::os::unix::net::UnixListener::bind(temp).unwrap()),
            |temp| std::os::unix::fs::symlink("nowhere", temp).unwrap(),
            make_pipe,
        ];
        for leave in leftovers {
            leave(&temp);
            written(&path, &[b"one"]);
            assert_eq!(TwoCopies::open(&path).unwrap().1.unwrap().body, b"one");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the two copies");
        }
        make_pipe(&temp);
        assert!(overwrite(&temp, b"").is_err(), "it doesn't wait either");
    }

    #[test]
    fn a_link_in_the_place_of_the_temp_file_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let [victim, file] = ["victim", "answer.json"].map(|name| dir.path().join(name));
        fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, file.with_extension("tmp")).unwrap();
        write_atomic_for(Readers::Group, &file, b"answer").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert_eq!(read_no_link(&file, 100).unwrap().unwrap(), b"answer");
        assert_eq!(fs::symlink_metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        assert!(read_no_link(&file, 100).is_err(), "a link was read");
        copy_over(&victim, &file).unwrap();
        assert_eq!((fs::read(&file).unwrap(), victim.exists()), (b"kept".to_vec(), false));
    }

    #[test]
    fn newest_copy_wins_after_reopening() {
        let (_dir, path) = record();
        assert!(TwoCopies::open(&path).unwrap().1.is_none());
        written(&path, &[b"one", b"two"]);
        written(&path, &[b"three"]);
        let (_, found) = TwoCopies::open(&path).unwrap();
        assert_eq!(found, Some(Found { body: b"three".into(), is_other_damaged: false }));
    }

    #[test]
    fn corrupt_copy_falls_back_to_older_copy_wherever_the_damage_is() {
        let (_dir, path) = record();
        written(&path, &[b"one", b"two"]);
        let newest = copy_path(&path, 'b');
        let good = fs::read(&newest).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&newest, &bad).unwrap();
            let (_, found) = TwoCopies::open(&path).unwrap();
            assert_eq!(found, Some(Found { body: b"one".into(), is_other_damaged: true }), "byte {position}");
        }
        for cut in 0..good.len() {
            fs::write(&newest, &good[..cut]).unwrap();
            assert_eq!(TwoCopies::open(&path).unwrap().1.unwrap().body, b"one", "cut at {cut}");
        }
        fs::remove_file(&newest).unwrap();
        fs::create_dir(&newest).unwrap();
        assert!(TwoCopies::open(&path).unwrap().1.unwrap().is_other_damaged, "no file is damage as well");
    }

    #[test]
    fn both_copies_corrupt_is_an_error_and_can_be_begun_anew() {
        let (_dir, path) = record();
        written(&path, &[b"one", b"two"]);
        for letter in ['a', 'b'] {
            fs::write(copy_path(&path, letter), b"garbage").unwrap();
        }
        assert!(matches!(TwoCopies::open(&path), Err(DurableError::Corrupt { .. })));
        TwoCopies::begin_anew(&path).write(b"safe").unwrap();
        assert_eq!(TwoCopies::open(&path).unwrap().1.unwrap().body, b"safe");
    }

    #[test]
    fn a_write_after_damage_replaces_the_damaged_copy() {
        let (_dir, path) = record();
        written(&path, &[b"one", b"two"]);
        fs::write(copy_path(&path, 'a'), b"garbage").unwrap();
        written(&path, &[b"three"]);
        assert_eq!(TwoCopies::open(&path).unwrap().1.unwrap().body, b"three");
        assert!(!TwoCopies::open(&path).unwrap().1.unwrap().is_other_damaged);
    }

    #[test]
    fn overwriting_needs_no_more_room_than_there_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(overwrite(&path, b"new").is_err());
        fs::write(&path, b"older").unwrap();
        overwrite(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(overwrite(&path, b"longer").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_is_copied_to_another_file_system_leaves_only_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.json"), dir.path().join("there").join("a.json"));
        fs::write(&from, b"request").unwrap();
        assert!(copy_over(&from, &to).is_err() && from.exists(), "no such folder: it stays where it was");
        fs::create_dir(dir.path().join("there")).unwrap();
        copy_over(&from, &to).unwrap();
        assert_eq!((fs::read(&to).unwrap(), from.exists()), (b"request".into(), false));
        assert_eq!(fs::read_dir(dir.path().join("there")).unwrap().count(), 1);
    }

    #[test]
    fn unreadable_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_bounded(dir.path(), 10).is_err());
        fs::write(dir.path().join("f"), [0; 11]).unwrap();
        assert!(matches!(read_bounded(&dir.path().join("f"), 10), Err(DurableError::TooLarge { .. })));
    }
}
