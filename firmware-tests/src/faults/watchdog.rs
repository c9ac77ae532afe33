//! The loop that updates hangs in the kernel, as on a disk that answers no more. What serves goes on; the watchdog is fed
//! no longer; and the agent that its manager then ends and starts anew serves the same release.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use testkit::rig::wait_until;

use super::limits::restart;
use super::world::{PATIENCE, World};
use super::{Outcome, telemetry};

/// The device whose disk hangs.
const AGENT: usize = 0;
/// What the manager allows; it is told twice as often.
const WATCHDOG: Duration = Duration::from_secs(1);

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let version = world.release()?;
    world.rest_one(AGENT)?;
    let manager = Manager::listen()?;
    let env = manager.env();
    restart(world, AGENT, &env.each_ref().map(|(name, value)| (*name, value.as_str())))?;
    world.fleet.wait_online(3)?;
    manager.hear("WATCHDOG=1")?;

    // Opened for writing it waits for a reader, who never comes: the next write of the boot record hangs.
    let hanging = world.agents[AGENT].folder().join("state/boot.tmp");
    let made = Command::new("mkfifo").arg(&hanging).status()?;
    ensure!(made.success(), "cannot make {}", hanging.display());
    let rollout = world.roll_out(&version, &[AGENT])?;
    manager.falls_silent()?;
    let line = world.logged(AGENT, &["not feeding the watchdog"])?;
    ensure!(line.contains("update"), "the loop that updates is stuck: {line}");
    world.serves(AGENT, "1.0.0")?;
    // Telemetry goes on too; only what is on its way in memory would be lost by the end.
    telemetry::arrived(world, AGENT)?;

    // As systemd ends it.
    world.agents[AGENT].process()?.signal("ABRT");
    wait_until("the end of an agent that hangs", PATIENCE, || {
        Ok(world.agents[AGENT].process()?.check_running().err().map(drop))
    })?;
    world.fleet.cli.run(&["rollout", "abort", &rollout])?;
    std::fs::remove_file(&hanging)?;
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
