//! The loop that updates hangs in the kernel, as on a disk that answers no more. What serves goes on; the watchdog is fed
//! no longer; and the agent that its manager then ends and starts anew serves the same release.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use testkit::rig::wait_until;

use super::disk::SmallDisk;
use super::limits::restart;
use super::world::{PATIENCE, World};
use super::{Outcome, telemetry};
use crate::crash::Mounted;

/// The device whose disk hangs.
const AGENT: usize = 0;
/// What the manager allows; it is told twice as often.
const WATCHDOG: Duration = Duration::from_secs(1);

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let version = world.release()?;
    world.rest_one(AGENT)?;
    let manifests = manifests(&world.folder);
    let image = world.folder.join("manifests.ext4");
    let Some(disk) = HangingDisk::mount(&image, &manifests) else {
        world.feed_one(AGENT);
        return Ok(Outcome::Skipped("only root may mount a disk that hangs, made by mke2fs".into()));
    };
    let manager = Manager::listen()?;
    let env = manager.env();
    restart(world, AGENT, &env.each_ref().map(|(name, value)| (*name, value.as_str())))?;
    world.fleet.wait_online(3)?;
    manager.hear("WATCHDOG=1")?;

    disk.hang()?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    manager.falls_silent()?;
    let line = world.logged(AGENT, &["not feeding the watchdog"])?;
    ensure!(line.contains("update"), "the loop that updates is stuck: {line}");
    world.serves(AGENT, "1.0.0")?;
    // Telemetry goes on too; only what is on its way in memory would be lost by the end.
    telemetry::arrived(world, AGENT)?;

    // As systemd ends it: what waits in the kernel ends once the disk answers.
    world.agents[AGENT].process()?.signal("ABRT");
    disk.answer()?;
    wait_until("the end of an agent that hangs", PATIENCE, || {
        Ok(world.agents[AGENT].process()?.check_running().err().map(drop))
    })?;
    world.fleet.cli.run(&["rollout", "abort", &rollout])?;
    drop(disk);
    restart(world, AGENT, &[])?;
    world.serves(AGENT, "1.0.0")?;
    world.fleet.wait_online(3)?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(
        "a disk that hangs under the loop that updates: 1.0.0 answers on, the watchdog is fed no longer; ended by \
         SIGABRT and started anew the device serves 1.0.0"
            .into(),
    ))
}

/// Takes away what an earlier run left in `folder`.
pub(super) fn clean_up(folder: &Path) {
    let manifests = manifests(folder);
    if manifests.exists() {
        let _not_hanging = freeze("--unfreeze", &manifests);
        SmallDisk::clean_up(&manifests);
    }
}

/// Where the loop that updates keeps the manifest of a new release, and nothing else writes.
fn manifests(folder: &Path) -> PathBuf {
    folder.join("devices/cam-1/state/manifests")
}

/// A small disk that can stop answering: who writes to it waits in the kernel. Dropping it takes it away.
struct HangingDisk {
    folder: PathBuf,
    _mounted: Mounted,
}

impl HangingDisk {
    /// Puts one with the same files over `folder`; none when that can't be done here.
    fn mount(image: &Path, folder: &Path) -> Option<Self> {
        let mut make = Command::new("mke2fs");
        let made = make.args(["-q", "-F", "-t", "ext4", "-d"]).args([folder, image]).arg("8m").output();
        if !made.is_ok_and(|made| made.status.success()) {
            return None;
        }
        let mounted = Mounted::new(image, folder).ok()?;
        Some(Self { folder: folder.into(), _mounted: mounted })
    }

    fn hang(&self) -> Result<()> {
        freeze("--freeze", &self.folder)
    }

    fn answer(&self) -> Result<()> {
        freeze("--unfreeze", &self.folder)
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        // It does no harm to a disk that answers; a hanging one could not be unmounted.
        let _not_hanging = self.answer();
    }
}

fn freeze(how: &str, folder: &Path) -> Result<()> {
    let done = Command::new("fsfreeze").arg(how).arg(folder).output().context("cannot run fsfreeze")?;
    ensure!(done.status.success(), "fsfreeze {how} {}: {done:?}", folder.display());
    Ok(())
}

/// Systemd's side of its protocol.
pub(super) struct Manager {
    socket: UnixDatagram,
    /// A socket's path is bounded; the rig's folder may lie deep.
    folder: TempDir,
}

impl Manager {
    pub(super) fn listen() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("notify");
        let socket =
            UnixDatagram::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, folder })
    }

    /// What it gives an agent.
    pub(super) fn env(&self) -> [(&'static str, String); 2] {
        let socket = self.folder.path().join("notify").display().to_string();
        [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())]
    }

    /// Waits until it is told this.
    pub(super) fn hear(&self, word: &str) -> Result<()> {
        let mut heard = Vec::new();
        loop {
            let mut said = [0; 1024];
            let length = self.socket.recv(&mut said).with_context(|| format!("no {word} after {heard:?}"))?;
            heard.push(String::from_utf8_lossy(&said[..length]).into_owned());
            if heard.last().is_some_and(|said| said.lines().any(|line| line == word)) {
                return Ok(());
            }
        }
    }

    /// Reads what it was told already, then waits much longer than the watchdog permits: nothing may come.
    fn falls_silent(&self) -> Result<()> {
        self.socket.set_read_timeout(Some(WATCHDOG * 5))?;
        // Also so that the agent's words find room.
        for _ in 0..10_000 {
            match self.socket.recv(&mut [0; 1024]) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(error) => return Err(error).context("the manager hears nothing any more"),
            }
        }
        bail!("the watchdog of an agent that hangs is fed on and on")
    }
}
