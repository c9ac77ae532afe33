//! Numbered records over a full disk: some before, many while nothing can be stored, over a restart on the full disk,
//! over one that fills up meanwhile. All ends in order here. What is stored on the server and what the device reports as
//! dropped is then exactly what was offered, of each kind.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::ledger::Said;
use super::reckoning::Stored;
use super::{Party, World};
use crate::faults::SmallDisk;

/// Records of each kind that are offered on a disk with room.
const FEW: u64 = 60;
/// The same on a full disk: more than an agent keeps in memory.
const MANY: u64 = 1500;

/// Plays it where a small disk can be mounted; says what was seen.
pub(super) fn play(folder: &Path, binaries: &Path) -> Result<Option<String>> {
    let mount = folder.join("device/state");
    SmallDisk::clean_up(&mount);
    let folder = crate::fresh(folder)?;
    let Some(disk) = SmallDisk::mount(&folder.join("device/state"))? else { return Ok(None) };
    let mut world = World::open(&folder, binaries, false)?;
    world.offer(FEW, || Ok(()))?;
    // All of it is on the server and known to be: what is dropped from here on never was.
    world.drain()?;
    world.kill(Party::Server)?;
    world.offer(FEW, || Ok(()))?;
    disk.fill()?;
    world.offer(MANY, || Ok(())).context("on a full disk")?;
    world.offer(FEW, || Ok(())).context("again on the full disk")?;
    disk.free()?;
    world.offer(MANY, || disk.fill()).context("on a disk that fills up")?;
    disk.free()?;
    world.offer(FEW, || Ok(()))?;
    world.restart(Party::Server)?;
    let ended = world.drain()?;
    let stored = Stored::read(&folder)?;
    world.ensure_told(ended.dropped())?;
    let ledger = world.ledger.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
    let mut told = Vec::new();
    for (kind, offered) in &ledger.offered {
        let (stored, dropped) = (stored.count(*kind), ended.dropped_of(*kind));
        ensure!(
            stored + dropped == *offered,
            "{offered} {kind:?} were offered: {stored} are stored, {dropped} reported as dropped"
        );
        ensure!(stored > 0 && dropped > 0, "{kind:?}: {stored} stored, {dropped} dropped");
        told.push(format!("{offered} {kind:?} offered = {stored} stored + {dropped} dropped").to_lowercase());
    }
    Ok(Some(format!("a full disk over restarts, in numbers: {}; {}", told.join(", "), ended.told())))
}

impl World {
    /// Lets a worker offer so many records of each kind and end in order; `meanwhile` is done as it begins.
    fn offer(&self, records: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let child = Command::new(std::env::current_exe()?)
            .args(["kill-work", "--offer", &records.to_string(), "--state"])
            .arg(&self.state)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        meanwhile()?;
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the worker ended with {}: {errors}", output.status);
        let mut ledger = self.ledger.lock().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.lines().filter_map(Said::parse).for_each(|said| ledger.note(said));
        Ok(())
    }
}
