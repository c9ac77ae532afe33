//! A release comes to a device by an archive, without any network: the same checks, the same steps.

use std::path::Path;

use anyhow::{Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// Exit code of an import that was refused.
const REFUSED: i32 = 77;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(AGENT)?;
    let version = world.release()?;
    let archive = world.folder.join("release.tar");
    world.fleet.cli.run(&["export", "digits", &version, "--out", &archive.display().to_string()])?;
    let running = world.agents[AGENT].run(&["import", &archive.display().to_string()])?;
    ensure!(running.status.code() == Some(69), "an import beside a running agent was not refused");
    world.fleet.server.kill();
    world.agents[AGENT].stop();
    without_a_network(world, &archive, &before, &version)?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    let size = std::fs::metadata(&archive)?.len();
    let next = world.release()?;
    let rollout = world.roll_out(&next, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &next)?;
    Ok(Outcome::Ok(format!(
        "an archive of {size} bytes brought {version} to a device without a network; damaged and cut ones were \
         refused, {before} served on; back on the network it took {next}"
    )))
}

fn without_a_network(world: &mut World, archive: &Path, before: &str, version: &str) -> Result<()> {
    let whole = std::fs::read(archive)?;
    let bad = archive.with_extension("bad.tar");
    let mut changed = whole.clone();
    // The last blob's first byte: two blocks of zeros end the archive, and no blob here fits into one block.
    let last = changed.len() - 3 * 512;
    changed[last] ^= 1;
    for (content, words) in [(&changed[..], "not signed"), (&whole[..whole.len() / 2], "cut off")] {
        std::fs::write(&bad, content)?;
        let refused = world.agents[AGENT].run(&["import", &bad.display().to_string()])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(REFUSED) && said.contains(words), "not refused: {said}");
    }
    world.agents[AGENT].start()?;
    world.serves(AGENT, before)?;
    world.agents[AGENT].stop();
    let taken = world.agents[AGENT].run(&["import", &archive.display().to_string()])?;
    ensure!(taken.status.success(), "refused: {}", String::from_utf8_lossy(&taken.stderr));
    world.agents[AGENT].start()?;
    wait_until("the imported release", PATIENCE, || {
        let status = world.agents[AGENT].status()?;
        let model = &status["models"][0];
        let is_there = model["active"]["version"] == version && model["phase"] == "committed";
        Ok(is_there.then_some(()))
    })?;
    world.serves(AGENT, version)
}
