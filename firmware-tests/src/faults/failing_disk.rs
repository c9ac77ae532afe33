//! A disk that fails: a file that QEMU's storage daemon shows as another one, a loop device on that, ext4 on it. Without
//! the daemon every read and write of the device ends with an error; with it the disk is what it was before.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testkit::rig::wait_until;

use crate::crash::{self, Mounted};

const BYTES: u64 = 64 << 20;

/// Dropping it takes away what it made: the mounted file system, the loop device, the shown file.
pub(super) struct FailingDisk {
    image: PathBuf,
    shown: PathBuf,
    folder: PathBuf,
    daemon: Option<Child>,
    mounted: Option<Mounted>,
}

impl FailingDisk {
    /// A new one, with its file in `place`, mounted on `folder`. Says why where that can't be done here.
    pub(super) fn make(place: &Path, folder: &Path) -> Result<std::result::Result<Self, String>> {
        if let Some(why) = crash::missing() {
            return Ok(Err(why));
        }
        std::fs::create_dir_all(place)?;
        let (image, shown) = (place.join("disk.raw"), place.join("shown.raw"));
        File::create(&image)?.set_len(BYTES)?;
        File::create(&shown)?;
        let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-b", "4096"]).arg(&image).output();
        let made = made.context("cannot run mke2fs")?;
        ensure!(made.status.success(), "mke2fs: {}", String::from_utf8_lossy(&made.stderr));
        let mut disk = Self { image, shown, folder: folder.into(), daemon: None, mounted: None };
        disk.comes_back()?;
        Ok(Ok(disk))
    }

    /// From now on nothing can be read from the device, and nothing written to it.
    pub(super) fn fails(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("the disk fails already")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// As when the machine is started anew with a disk that answers again. Nobody may use the folder now.
    pub(super) fn comes_back(&mut self) -> Result<()> {
        self.mounted = None;
        self.unshow();
        if self.daemon.is_some() {
            bail!("the disk doesn't fail");
        }
        let node = format!("driver=file,node-name=disk,filename={}", self.image.display());
        let export =
            format!("type=fuse,id=shown,node-name=disk,mountpoint={},writable=on", self.shown.display());
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node, "--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start qemu-storage-daemon")?;
        self.daemon = Some(daemon);
        wait_until("the disk", Duration::from_secs(30), || {
            Ok(std::fs::metadata(&self.shown).is_ok_and(|meta| meta.len() == BYTES).then_some(()))
        })?;
        // What the journal holds is replayed; what only a person could decide is a failure.
        let checked =
            Command::new("e2fsck").arg("-p").arg(&self.shown).output().context("cannot run e2fsck")?;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        ensure!(matches!(checked.status.code(), Some(0 | 1)), "e2fsck: {}: {said}", checked.status);
        self.mounted = Some(Mounted::new(&self.shown, &self.folder)?);
        Ok(())
    }

    /// Takes the shown file of a daemon that is gone away.
    fn unshow(&self) {
        if self.daemon.is_none() {
            let _not_shown = Command::new("umount").arg("-l").arg(&self.shown).output();
        }
    }

    /// Takes away what an earlier run left of a disk with its file in `place`, on `folder`.
    pub(super) fn clean_up(place: &Path, folder: &Path) {
        for left in [folder, &place.join("shown.raw")] {
            if std::fs::symlink_metadata(left).is_ok() || left.parent().is_some_and(Path::exists) {
                let _not_mounted = Command::new("umount").arg("-l").arg(left).output();
            }
        }
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        self.mounted = None;
        if let Some(mut daemon) = self.daemon.take() {
            // Only a polite end takes the shown file away.
            let asked = Command::new("kill").arg(daemon.id().to_string()).status();
            if !asked.is_ok_and(|status| status.success()) || daemon.wait().is_err() {
                eprintln!("qemu-storage-daemon could not be ended");
            }
        }
        self.unshow();
    }
}
