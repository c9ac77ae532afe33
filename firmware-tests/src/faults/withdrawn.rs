//! A release that should never have been is taken out of its model's role: its rollout ends by itself, no other begins,
//! and an archive that was made in time brings it to no device that knows better.

use anyhow::{Context as _, Result, ensure};

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// How the server says it.
const GONE: &str = "metadata names it no longer";
/// Exit code of an import that was refused.
const REFUSED: i32 = 77;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(AGENT)?;
    let version = world.release()?;
    ensure!(is_listed(world, &version)?, "verify doesn't list {version}, which is published");
    let archive = world.folder.join("withdrawn.tar").display().to_string();
    let export = ["export", "digits", &version, "--out", &archive];
    world.fleet.cli.run(&export)?;
    world.rest_one(AGENT)?;
    world.agents[AGENT].stop();
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.fleet.sign(&["release", "withdraw", "digits", &version])?;
    ensure!(!is_listed(world, &version)?, "verify lists {version}, which is withdrawn");
    let ended = world.fleet.wait_ended(&rollout, PATIENCE, |_| {})?;
    ensure!(
        ended["state"] == "invalidated" && ended.to_string().contains(GONE),
        "its rollout did not end: {ended:#}"
    );
    let again = world.roll_out(&version, &[AGENT]).err().context("a withdrawn release is rolled out")?;
    ensure!(format!("{again:#}").contains(GONE), "refused for another reason: {again:#}");
    let once_more = world.fleet.cli.run(&export).err().context("a withdrawn release is exported")?;
    ensure!(format!("{once_more:#}").contains("was withdrawn"), "refused for another reason: {once_more:#}");
    world.agents[AGENT].start()?;
    world.fleet.wait_online(world.agents.len())?;
    world.serves(AGENT, &before)?;
    let next = world.release()?;
    let rollout = world.roll_out(&next, &[AGENT])?;
    world.completed(&rollout)?;
    world.agents[AGENT].stop();
    let import = world.agents[AGENT].run(&["import", &archive])?;
    let said = String::from_utf8_lossy(&import.stderr);
    ensure!(
        import.status.code() == Some(REFUSED) && said.contains("went back"),
        "an archive of the withdrawn release was not refused: {said}"
    );
    world.agents[AGENT].start()?;
    world.fleet.wait_online(world.agents.len())?;
    world.serves(AGENT, &next)?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(format!(
        "{version} withdrawn: its rollout ended, no other began, it was not exported again, and its archive was refused \
         by a device that had taken {next} meanwhile"
    )))
}

/// Whether a publisher who looks for releases that nobody of them signed would see this one.
fn is_listed(world: &World, version: &str) -> Result<bool> {
    let verified = world.fleet.cli.json(&["verify"])?;
    let targets = verified["targets"].as_array().context("verify lists no targets")?;
    let path = format!("models/digits/{version}/manifest.json");
    Ok(targets.iter().any(|target| target["path"] == *path && target["counter"].is_u64()))
}
