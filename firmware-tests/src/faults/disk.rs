//! The device's disk is full, or takes no write at all: the active release serves on, the update waits, and goes through
//! once there is room.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::power::comes_up_with;
use super::world::{ON_SMALL_DISK, PATIENCE, World};

/// Size of the device's disk.
const SIZE: &str = "24m";

/// A file system in memory of a few megabytes. Dropping it unmounts.
pub(crate) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one on `folder`; none when this user may not mount.
    pub(crate) fn mount(folder: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let options = format!("size={SIZE},mode=0700");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &options, "flotilla-faults"]).arg(folder).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        Ok(is_mounted.then(|| Self { folder: folder.into() }))
    }

    /// Unmounts what an earlier run left on `folder`.
    pub(crate) fn clean_up(folder: &Path) {
        if folder.exists() {
            let _not_mounted = Command::new("umount").arg(folder).output();
        }
    }

    /// Takes what is left; again, what has become free since.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::options().create(true).append(true).open(self.ballast())?;
        loop {
            match file.write(&[0x5A; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("cannot fill the disk: {error}"),
            }
        }
    }

    /// As a file system that has met an error, or a switch on the card. Nobody may have a file open for writing.
    fn remount(&self, how: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        let done = mount.args(["-o", &format!("remount,{how}")]).arg(&self.folder).output()?;
        ensure!(done.status.success(), "cannot mount the disk {how}: {done:?}");
        Ok(())
    }

    pub(crate) fn free(&self) -> Result<()> {
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
    let told = read_only(world, disk, &version)?;
    Ok(Outcome::Ok(format!(
        "disk full: shown as \"{problem}\"; {before} served on, after a restart on the full disk too (\"{unstored}\"); \
         with room again the update went through; on a read-only disk {version} served after a start (\"{told}\"), and what \
         came meanwhile was stored once it took writes"
    )))
}

/// It comes up serving, says what is wrong, and goes on by itself when the disk takes writes again.
fn read_only(world: &mut World, disk: &SmallDisk, version: &str) -> Result<String> {
    world.rest_one(ON_SMALL_DISK)?;
    let lost = world.agents[ON_SMALL_DISK].status()?["spool"]["dropped"].clone();
    world.agents[ON_SMALL_DISK].kill();
    disk.remount("ro")?;
    world.agents[ON_SMALL_DISK].start().context("on a read-only disk")?;
    comes_up_with(world, ON_SMALL_DISK, &[version]).context("on a read-only disk")?;
    let stored = |status: &Value| !status["problems"].to_string().contains("telemetry can't be stored");
    let status = world.agents[ON_SMALL_DISK].status()?;
    let screen = world.agents[ON_SMALL_DISK].run(&["status"])?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    let told = screen.lines().find(|line| line.contains("PROBLEM") && line.contains("takes no writes"));
    let told = told.with_context(|| format!("a read-only disk is not told:\n{screen}"))?.trim().to_owned();
    ensure!(!stored(&status), "telemetry is stored on a read-only disk: {status:#}");
    // Today the server hears none of this: a report's number has to be durable before it is used.
    world.logged(ON_SMALL_DISK, &["nothing can be reported"])?;
    disk.remount("rw")?;
    let mut status = Value::Null;
    wait_until("an agent that stores telemetry again", PATIENCE, || {
        status = world.agents[ON_SMALL_DISK].status()?;
        Ok(stored(&status).then_some(()))
    })
    .with_context(|| format!("it says {}", status["problems"]))?;
    let (spool, more) = (&status["spool"], &status["spool"]["dropped"]);
    ensure!(*more == lost, "something was lost meanwhile: {spool}, {lost} before");
    world.feed_one(ON_SMALL_DISK);
    Ok(told)
}
