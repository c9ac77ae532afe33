//! The device's disk is full: the active release serves on, the update waits, and goes through once there is room.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Outcome;
use super::power::comes_up_with;
use super::world::{ON_SMALL_DISK, PATIENCE, World};

/// Size of the device's disk.
const SIZE: &str = "24m";

/// A file system in memory of a few megabytes. Dropping it unmounts.
pub(super) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one on `folder`; none when this user may not mount.
    pub(super) fn mount(folder: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let options = format!("size={SIZE},mode=0700");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &options, "flotilla-faults"]).arg(folder).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        Ok(is_mounted.then(|| Self { folder: folder.into() }))
    }

    /// Unmounts what an earlier run left on `folder`.
    pub(super) fn clean_up(folder: &Path) {
        if folder.exists() {
            let _not_mounted = Command::new("umount").arg(folder).output();
        }
    }

    /// Takes what is left; again, what has become free since.
    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::options().create(true).append(true).open(self.ballast())?;
        loop {
            match file.write(&[0x5A; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("cannot fill the disk: {error}"),
            }
        }
    }

    fn free(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).context("cannot free the disk")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Self::clean_up(&self.folder);
    }
}

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let Some(disk) = world.disk.take() else {
        return Ok(Outcome::Skipped("only root may mount a small disk".into()));
    };
    let outcome = fill_and_free(world, &disk);
    world.disk = Some(disk);
    outcome
}

fn fill_and_free(world: &mut World, disk: &SmallDisk) -> Result<Outcome> {
    let before = world.active(ON_SMALL_DISK)?;
    let version = world.release()?;
    disk.fill()?;
    let rollout = world.roll_out(&version, &[ON_SMALL_DISK])?;
    let words = ["No space left", "space", "disk"];
    world.logged(ON_SMALL_DISK, &["No space left", "DiskFull"])?;
    let problem = world.problem(ON_SMALL_DISK, &words)?;
    world.serves(ON_SMALL_DISK, &before)?;
    // Power fails now too: the agent must come up serving on a disk that takes no byte.
    world.stop_feeding()?;
    world.agents[ON_SMALL_DISK].kill();
    disk.fill()?;
    world.agents[ON_SMALL_DISK].start().context("on a full disk")?;
    comes_up_with(world, ON_SMALL_DISK, &[&before]).context("on a full disk")?;
    let unstored = world.problem(ON_SMALL_DISK, &["telemetry can't be stored"])?;
    world.feed();
    disk.free()?;
    world.completed_within(&rollout, PATIENCE * 2)?;
    world.serves(ON_SMALL_DISK, &version)?;
    Ok(Outcome::Ok(format!(
        "disk full: shown as \"{problem}\"; {before} served on, after a restart on the full disk too (\"{unstored}\"); \
         with room again the update went through"
    )))
}
