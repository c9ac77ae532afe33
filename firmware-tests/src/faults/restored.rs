//! A device's state goes back to an image of yesterday: its reports have counters that the server has seen. It is told,
//! goes on above them, and is heard and updated again; the server notes it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    // Nothing is counted any more: the power cuts took a device away from under its application.
    world.feeders.clear();
    let state = world.agents[AGENT].folder().join("state");
    let image = state.with_file_name("state.image");
    world.agents[AGENT].stop();
    copy(&state, &image)?;
    world.agents[AGENT].start()?;
    let newer = updated(world).context("after the image was made")?;
    world.agents[AGENT].kill();
    std::fs::remove_dir_all(&state).context("cannot remove the newer state")?;
    copy(&image, &state)?;
    world.agents[AGENT].start()?;
    world.logged(AGENT, &["the state went back"])?;
    wait_until("the newer release on the older state", PATIENCE, || {
        Ok((world.active(AGENT)? == newer).then_some(()))
    })?;
    let version = updated(world).context("after the state went back")?;
    let device = world.agents[AGENT].device().to_owned();
    wait_until("the server's event", PATIENCE, || {
        let events = world.fleet.cli.json(&["device", "events", &device])?;
        Ok(events.to_string().contains("state_went_back").then_some(()))
    })?;
    Ok(Outcome::Ok(format!(
        "state restored from an older image: the server noted it and named its counter, the device went on above it, \
         came back to {newer} and committed {version}"
    )))
}

/// A new release that the device has committed, by reports that the server took.
fn updated(world: &mut World) -> Result<String> {
    let version = world.release()?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &version)?;
    Ok(version)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().context("cannot run cp")?;
    ensure!(status.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(())
}
