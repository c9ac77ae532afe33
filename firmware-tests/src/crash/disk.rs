//! Recording: a small ext4 on a disk whose every write and flush is logged, and a program at work on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flotilla_agent::durable;
use testkit::rig::wait_until;

use super::device::World;
use super::log::{Log, SECTOR};
use super::work::Bug;

/// The file system has so much of the disk; marks of the program at work lie beyond.
pub(super) const FILE_SYSTEM_BYTES: u64 = 64 << 20;
/// Beside a device the worker takes its time: both are to be at work when a cut comes.
const PAUSE_MS: &str = "250";
/// Room for the log; sparse.
const LOG_BYTES: u64 = 4 << 30;
/// Where the worker's state directory lies in the file system.
pub(super) const STATE: &str = "state";
/// Where the device's folder lies there; its state directory is below.
pub(super) const DEVICE: &str = "device";

/// What a program did to a disk.
pub(super) struct Recording {
    /// The disk before, file system and all.
    pub(super) before: Vec<u8>,
    /// What reached it, in order.
    pub(super) log: Log,
}

/// Lets `rounds` of work be done on a logged disk under `folder`, beside a device of `world`, if there is one.
pub(super) fn record(
    folder: &Path,
    rounds: u32,
    bug: Option<Bug>,
    world: Option<&World>,
) -> Result<Recording> {
    let (disk, log, export) = (folder.join("disk.raw"), folder.join("log.raw"), folder.join("export"));
    let size = FILE_SYSTEM_BYTES + u64::try_from(SECTOR)? * 8;
    File::create(&disk)?.set_len(size)?;
    File::create(&log)?.set_len(LOG_BYTES)?;
    File::create(&export)?;
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "4096", "-J", "size=4"])
        .args(["-E", "lazy_itable_init=0,lazy_journal_init=0"])
        .arg(&disk)
        .arg(format!("{}M", FILE_SYSTEM_BYTES >> 20)))?;
    let before = std::fs::read(&disk)?;
    let daemon = Daemon::start(&disk, &log, &export, size)?;
    let mounted = Mounted::new(&export, &folder.join("work"))?;
    let device = mounted.folder.join(DEVICE);
    durable::make_dir(&device)?;
    let program = std::env::current_exe().context("this program has a path")?;
    let mut work = Command::new(program);
    work.arg("crash-work").arg("--state").arg(mounted.folder.join(STATE)).arg("--marks").arg(&export);
    work.args(["--rounds", &rounds.to_string()]);
    if let Some(bug) = bug {
        work.args(["--bug", bug.word()]);
    }
    if let Some(world) = world {
        work.args(["--pause-ms", PAUSE_MS]);
        let mut work = work.spawn().context("the worker can't be started")?;
        let played = world.play(&device, &export);
        let ended = work.wait()?;
        played?;
        ensure!(ended.success(), "the worker ended with {ended}");
    } else {
        run(&mut work)?;
    }
    drop(mounted);
    drop(daemon);
    let log_file = log;
    let log = Log::read(&log_file)?;
    ensure!(log.entries.len() > 100, "only {} requests were logged", log.entries.len());
    for file in [&disk, &log_file, &export] {
        std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(Recording { before, log })
}

/// QEMU's storage daemon, which shows the logged disk as a file.
struct Daemon(Child);

impl Daemon {
    fn start(disk: &Path, log: &Path, export: &Path, size: u64) -> Result<Self> {
        let node = |name: &str, path: &Path| {
            format!("driver=file,node-name={name},filename={},cache.no-flush=on", path.display())
        };
        let logged = "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512,log-super-update-interval=1";
        let shown =
            format!("type=fuse,id=shown,node-name=logged,mountpoint={},writable=on", export.display());
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node("disk", disk), "--blockdev", &node("log", log)])
            .args(["--blockdev", logged, "--export", &shown])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start qemu-storage-daemon")?;
        let mut daemon = Self(child);
        wait_until("the logged disk", Duration::from_secs(30), || {
            if let Some(status) = daemon.0.try_wait()? {
                bail!("qemu-storage-daemon ended with {status}");
            }
            Ok(std::fs::metadata(export).is_ok_and(|meta| meta.len() == size).then_some(()))
        })?;
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only a polite end writes the log's last word and takes the export away.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) || self.0.wait().is_err() {
            eprintln!("qemu-storage-daemon could not be ended");
        }
    }
}

/// Reads both folders out of an image into `to`, as a boot would find it: the journal is replayed first.
/// Without mounting, several times as fast.
///
/// # Errors
/// When the file system can't be repaired without a person, or read: after a power cut that is a fault of its own.
pub(super) fn read_state(image: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    let checked = Command::new("e2fsck").arg("-p").arg(image).output().context("cannot run e2fsck")?;
    let said = String::from_utf8_lossy(&checked.stdout).trim().to_owned();
    ensure!(matches!(checked.status.code(), Some(0 | 1)), "e2fsck ended with {}: {said}", checked.status);
    let copy = format!("rdump /{STATE} /{DEVICE} {}", to.display());
    let copied =
        Command::new("debugfs").args(["-R", &copy]).arg(image).output().context("cannot run debugfs")?;
    let said = String::from_utf8_lossy(&copied.stderr).trim().to_owned();
    ensure!(copied.status.success() && to.join(STATE).is_dir(), "debugfs could not copy the files: {said}");
    Ok(())
}

/// A file system in a file, mounted; undone when dropped.
pub(crate) struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    pub(crate) fn new(image: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop,nodiscard,noatime"]).args([image, folder]);
        run(&mut mount)?;
        Ok(Self { folder: folder.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..100 {
            let status = Command::new("umount").arg(&self.folder).stderr(Stdio::null()).status();
            if status.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{} could not be unmounted", self.folder.display());
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
