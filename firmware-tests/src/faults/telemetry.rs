//! Nothing lost, nothing doubled: what the server counts against what the applications were answered.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::world::{PATIENCE, World};

/// Ends the applications, waits until the server has counted exactly what they were answered, sees that it stays
/// so, and starts them again. Returns the number of requests.
pub(super) fn ensure_exact(world: &mut World) -> Result<u64> {
    world.stop_feeding()?;
    for agent in 0..world.agents.len() {
        arrived(world, agent)?;
    }
    settle()?;
    for agent in 0..world.agents.len() {
        let (device, answered) = (world.agents[agent].device().to_owned(), world.answered[agent]);
        let seen = counted(world, &device)?;
        ensure!(
            seen == answered,
            "the server counts {seen} inferences of {device}, {answered} were answered"
        );
        let dropped = world.device(agent)?.pointer("/spool/dropped").cloned().unwrap_or_default();
        ensure!(dropped.as_array().is_some_and(Vec::is_empty), "{device} has dropped telemetry: {dropped}");
    }
    let total = world.answered.iter().sum();
    world.feed();
    Ok(total)
}

/// What comes twice would come within a retry of the link.
pub(super) fn settle() -> Result<()> {
    let settled = std::time::Instant::now() + Duration::from_secs(4);
    wait_until("a retry's time", PATIENCE, || Ok((std::time::Instant::now() > settled).then_some(())))
}

/// Waits until the server has counted at least what a device's applications were answered by feeders that have ended.
pub(super) fn arrived(world: &World, agent: usize) -> Result<()> {
    let (device, answered) = (world.agents[agent].device(), world.answered[agent]);
    let mut seen = 0;
    wait_until(&format!("{answered} inferences of {device} in the server's windows"), PATIENCE, || {
        seen = counted(world, device)?;
        Ok((seen >= answered).then_some(()))
    })
    .with_context(|| format!("the server counts {seen}, the application was answered {answered}"))
}

/// Inferences of a device in all windows of all releases.
pub(super) fn counted(world: &World, device: &str) -> Result<u64> {
    let shown = world.fleet.cli.json(&["drift", "show", "--model", "digits", "--device", device])?;
    let windows = shown["items"].as_array().context("no list of windows")?;
    Ok(windows.iter().filter_map(|window| window["n"].as_u64()).sum())
}
