//! Where the bytes of an output go. A file takes its name, and the place of an earlier one, when it is complete; a
//! pipe, a socket or a device is written as it is and never replaced.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Links to links that are followed, as the kernel does.
const MAX_LINKS: usize = 40;
/// Bytes of the output's name in the name of its unfinished file: the rest must fit into the 255 that a name may have.
const MAX_NAME_BYTES: usize = 200;
/// End of that name, behind 16 digits.
const PART: &str = ".part";
/// Attempts at a name that nobody else has.
const ATTEMPTS: usize = 16;

/// The open output. A file that isn't finished is removed.
pub(super) struct Output {
    out: BufWriter<Box<dyn Write>>,
    part: Option<Part>,
}

/// A file on its way to its name.
struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Output {
    /// Into what is open already, or takes no other name.
    pub(super) fn stream(stream: impl Write + 'static) -> Self {
        Self { out: BufWriter::new(Box::new(stream)), part: None }
    }

    /// By what lies at `path`. Opening what is there asks the system whether it may be written, and leaves it as it is.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(own) = own(path)? {
            return Ok(Self::stream(own));
        }
        match OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path) {
            Ok(file) => {
                let there = file.metadata()?;
                if there.is_file() { Self::file(path, Some(&there)) } else { Ok(Self::stream(file)) }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::file(path, None),
            Err(_) if fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) => {
                UnixStream::connect(path).map(Self::stream)
            }
            Err(error) => Err(error),
        }
    }

    fn file(path: &Path, there: Option<&fs::Metadata>) -> io::Result<Self> {
        let target = target(path)?;
        if there.is_some_and(|there| !is_one(fs::symlink_metadata(&target), there)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no name that can be replaced"));
        }
        let part = Part::make(target, there)?;
        let file = part.file.try_clone()?;
        Ok(Self { out: BufWriter::new(Box::new(file)), part: Some(part) })
    }

    /// Whether a file is made of it.
    pub(super) fn is_file(&self) -> bool {
        self.part.is_some()
    }

    /// Hands over what waits, and gives a file its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some(part) = &self.part else { return Ok(()) };
        part.file.sync_all()?;
        fs::rename(&part.path, &part.target)?;
        self.part = None;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(part) = self.part.take() {
            let _gone = fs::remove_file(part.path);
        }
    }
}

impl Part {
    /// A new file beside its target, under a name of its own: what others have there is neither opened nor followed.
    fn make(target: PathBuf, there: Option<&fs::Metadata>) -> io::Result<Self> {
        let name = target.file_name().filter(|_| !target.as_os_str().as_bytes().ends_with(b"/"));
        let name = name.ok_or(io::ErrorKind::IsADirectory)?.as_bytes();
        let start = OsStr::from_bytes(&name[..name.len().min(MAX_NAME_BYTES)]);
        take_away_leftovers(&target, start);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).custom_flags(libc::O_NOFOLLOW);
        // Until it has the rights of the file that it is to replace.
        options.mode(if there.is_some() { 0o600 } else { 0o666 });
        for _ in 0..ATTEMPTS {
            let mut name = start.to_owned();
            name.push(format!(".{:016x}{PART}", getrandom::u64().map_err(io::Error::other)?));
            let path = target.with_file_name(name);
            match options.open(&path) {
                // Another run of this output may have taken it for a leftover meanwhile.
                Ok(file) if is_claimed(&file, &path) => {
                    let part = Self { file, path, target };
                    there.map_or(Ok(()), |there| part.resemble(there))?;
                    return Ok(part);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Who could read the earlier file can read the new one. Its owner stays where this user may give files away.
    fn resemble(&self, earlier: &fs::Metadata) -> io::Result<()> {
        let _not_allowed = std::os::unix::fs::fchown(&self.file, Some(earlier.uid()), Some(earlier.gid()));
        self.file.set_permissions(fs::Permissions::from_mode(earlier.mode() & 0o777))
    }
}

/// Removes the unfinished files of runs that were killed: of this user, under the name that this output gives them, and
/// held by no run.
fn take_away_leftovers(target: &Path, start: &OsStr) {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_part_of(start, &entry.file_name()) && is_left(&entry.path()) {
            let _stays = fs::remove_file(entry.path());
        }
    }
}

fn is_part_of(start: &OsStr, name: &OsStr) -> bool {
    let digits = name.as_bytes().strip_prefix(start.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    let digits = digits.and_then(|rest| rest.strip_suffix(PART.as_bytes()));
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Opened for nothing but the question whether a run still holds it.
fn is_left(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    opened.is_ok_and(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == own) && lock(&file).is_ok()
    })
}

/// Marks an unfinished file as one that a run writes, as long as it is open; false when it is somebody else's by now.
fn is_claimed(file: &File, path: &Path) -> bool {
    match lock(file) {
        Err(rustix::io::Errno::WOULDBLOCK) => false,
        // Where there are no locks nobody takes it away.
        Ok(()) | Err(_) => file.metadata().is_ok_and(|own| is_one(fs::symlink_metadata(path), &own)),
    }
}

fn lock(file: &File) -> rustix::io::Result<()> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
}

/// This program's own stdout or stderr, if `path` is another name of it (`/dev/stdout`): opened anew, a file would be
/// written from its beginning, and a socket can't be opened at all.
fn own(path: &Path) -> io::Result<Option<File>> {
    let Ok(there) = fs::metadata(path) else { return Ok(None) };
    let (stdout, stderr) = (io::stdout(), io::stderr());
    for own in [stdout.as_fd(), stderr.as_fd()] {
        let own = File::from(own.try_clone_to_owned()?);
        if is_one(own.metadata(), &there) {
            return Ok(Some(own));
        }
    }
    Ok(None)
}

fn is_one(one: io::Result<fs::Metadata>, other: &fs::Metadata) -> bool {
    one.is_ok_and(|one| (one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// The file that `path` means, whether it is there or not: links stay, what they lead to is replaced.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new(".")).join(link),
            // No link, or nothing at all.
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) -> io::Result<()> {
        let mut output = Output::open(path)?;
        output.write_all(text.as_bytes())?;
        output.finish()
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("below")).unwrap();
        fs::write(path("below/real"), "old").unwrap();
        symlink("below/real", path("one")).unwrap();
        symlink(path("one"), path("two")).unwrap();
        symlink("below/new", path("dangling")).unwrap();
        for (link, real) in [("two", "below/real"), ("dangling", "below/new")] {
            write(&path(link), "new").unwrap();
            assert_eq!(read(&path(real)), "new");
            assert!(path(link).is_symlink() && !path(real).is_symlink());
        }
        assert!(path("one").is_symlink());
        symlink("round", path("round")).unwrap();
        assert!(write(&path("round"), "").is_err());
        assert_eq!(names(&path("below")), ["new", "real"]);
    }

    #[test]
    fn what_others_have_beside_the_output_is_neither_truncated_nor_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.csv.part"), "a user's").unwrap();
        fs::write(path("victim"), "another's").unwrap();
        symlink("victim", path("b.csv.part")).unwrap();
        for name in ["a.csv", "b.csv"] {
            write(&path(name), "answers").unwrap();
            assert_eq!(read(&path(name)), "answers");
        }
        assert_eq!(
            (read(&path("a.csv.part")), read(&path("victim"))),
            ("a user's".into(), "another's".into())
        );
        assert_eq!(names(dir.path()), ["a.csv", "a.csv.part", "b.csv", "b.csv.part", "victim"]);
        let longest = path(&"n".repeat(255));
        write(&longest, "answers").unwrap();
        assert_eq!(read(&longest), "answers");
    }

    #[test]
    fn what_a_killed_run_has_left_goes_with_the_next_one_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let running = Output::open(&path("a.csv")).unwrap();
        let kept = [
            "a.csv.0123456789ABCDEF.part",
            "a.csv.0123456789abcde.part",
            "a.csv.0123456789abcdef.part.csv",
            "a.csv.part",
            "b.csv.0123456789abcdef.part",
        ];
        for name in kept.iter().chain(&["a.csv.0123456789abcdef.part"]) {
            fs::write(path(name), "half").unwrap();
        }
        symlink("b.csv.0123456789abcdef.part", path("a.csv.0000000000000000.part")).unwrap();
        fs::create_dir(path("a.csv.1111111111111111.part")).unwrap();
        write(&path("a.csv"), "answers").unwrap();
        let own = running.part.as_ref().unwrap().path.clone();
        assert!(own.exists(), "another run still writes it");
        running.finish().unwrap();
        let mut there = kept.to_vec();
        there.extend(["a.csv", "a.csv.0000000000000000.part", "a.csv.1111111111111111.part"]);
        there.sort_unstable();
        assert_eq!(names(dir.path()), there);
    }

    #[test]
    fn an_earlier_output_stays_whole_and_keeps_its_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut broken = Output::open(&path).unwrap();
        broken.write_all(b"half").unwrap();
        broken.flush().unwrap();
        assert_eq!(read(&path), "old");
        drop(broken);
        assert_eq!((read(&path), names(dir.path())), ("old".into(), vec!["out.csv".into()]));
        write(&path, "new").unwrap();
        assert_eq!(read(&path), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_pipe_is_written_to_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Open for both sides: a reader that gets nothing would wait for ever.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        write(&path, "answers").unwrap();
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo(), "it is no file by now");
        let mut got = [0; 7];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"answers");
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    #[test]
    fn a_socket_is_written_to_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        write(&path, "answers").unwrap();
        assert!(fs::metadata(&path).unwrap().file_type().is_socket(), "it is no file by now");
        let mut got = String::new();
        listener.accept().unwrap().0.read_to_string(&mut got).unwrap();
        assert_eq!(got, "answers");
    }

    #[test]
    fn a_device_stays_one_and_its_errors_are_the_outputs() {
        let dir = tempfile::tempdir().unwrap();
        // By a link of the test's own: the device itself must survive a mistake.
        let path = dir.path().join("full");
        symlink("/dev/full", &path).unwrap();
        assert_eq!(write(&path, "answers").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(path.is_symlink());
        assert_eq!(names(dir.path()), ["full"]);
    }

    #[test]
    fn stdout_by_another_name_is_stdout() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        let stdout = Path::new("/proc/self/fd/1");
        let own_stdout = own(stdout).unwrap().unwrap();
        assert!(is_one(own_stdout.metadata(), &fs::metadata(stdout).unwrap()));
        assert!(own(&other).unwrap().is_none() && own(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_folder_is_refused_and_so_is_the_name_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        symlink(".", path("link")).unwrap();
        symlink("nowhere/", path("dangling")).unwrap();
        for folder in [dir.path().to_owned(), path("link"), path("new/"), path("dangling")] {
            let error = write(&folder, "").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "{}", folder.display());
        }
        assert_eq!(write(&path("none/out"), "").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names(dir.path()), ["dangling", "link"]);
    }
}
