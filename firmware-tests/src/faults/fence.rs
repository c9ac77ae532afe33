//! A release turns out bad. Its publisher signs the good one again under a higher counter and fences off all below: from
//! then on no rollout, fallback or stolen server brings the bad one back.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// How the device names a counter that is too low.
const DOWNGRADE: &str = "downgrade";
/// How it says that what it serves is fenced off.
const FENCED: &str = "its publisher has fenced it off";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let good = committed(world)?;
    let bad = committed(world)?;
    let again = world.next();
    let (number, version) = (again.0.to_string(), again.1);
    let (from, out) = (world.release_folder(&good), world.release_folder(&version));
    let renew = ["release", "renew", &from, "--version", &version, "--counter", &number];
    world.fleet.cli.run(&[&renew[..], &["--min-counter", &number, "--out", &out]].concat())?;
    world.fleet.sign(&["release", "sign", &out])?;
    world.fleet.cli.run(&["release", "publish", &out])?;
    held_back(world, &bad)?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout).context("the good release under a new counter")?;
    world.serves(AGENT, &version)?;
    wait_until("the problem to be over", PATIENCE, || {
        Ok((!world.device(AGENT)?["problems"].to_string().contains(FENCED)).then_some(()))
    })?;
    for fenced in [&bad, &good] {
        refused(world, fenced).with_context(|| format!("{fenced}, which is fenced off"))?;
        world.serves(AGENT, &version)?;
    }
    Ok(Outcome::Ok(format!(
        "{good} signed again as {version} with a fence: {bad} served on, was said to be fenced off and had nothing to go \
         back to; {version} committed; {bad} and the first {good} refused as {DOWNGRADE}"
    )))
}

/// The device hears of the fence without a rollout: what serves serves on, and is said to be fenced off; what it could
/// go back to is given up. So it is after a start, too.
fn held_back(world: &mut World, bad: &str) -> Result<()> {
    ensure!(fallback(world)?.is_some(), "there is nothing to go back to");
    restart(world, vec![("FLOTILLA_UPDATE_REFRESH_EVERY_S".into(), "5".into())])?;
    let said = world.problem(AGENT, &[FENCED])?;
    ensure!(said.contains(bad), "another release is fenced off: {said}");
    world.serves(AGENT, bad)?;
    ensure!(fallback(world)?.is_none(), "a fallback is kept that is fenced off");
    restart(world, Vec::new())?;
    world.serves(AGENT, bad)?;
    world.problem(AGENT, &[FENCED]).map(drop)
}

fn restart(world: &mut World, env: Vec<(String, String)>) -> Result<()> {
    world.rest_one(AGENT)?;
    world.agents[AGENT].stop();
    world.agents[AGENT].set_env(env);
    world.agents[AGENT].start()?;
    world.fleet.wait_online(world.agents.len())?;
    world.feed_one(AGENT);
    Ok(())
}

/// The release that the device could go back to.
fn fallback(world: &World) -> Result<Option<String>> {
    let device = world.device(AGENT)?;
    Ok(device.pointer("/models/0/fallback/version").and_then(Value::as_str).map(str::to_owned))
}

/// A new release that the device has committed.
fn committed(world: &mut World) -> Result<String> {
    let version = world.release()?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    Ok(version)
}

/// Refused by the server already, or by the device by name.
fn refused(world: &World, version: &str) -> Result<()> {
    let rollout = match world.roll_out(version, &[AGENT]) {
        Ok(rollout) => rollout,
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(
                said.contains("counter") || said.contains("fence"),
                "the server gave another reason: {said}"
            );
            return Ok(());
        }
    };
    let task = wait_until("the device's refusal", PATIENCE, || {
        let task = world.task(&rollout, AGENT)?;
        ensure!(task["phase"] != "committed", "it was committed: {task:#}");
        Ok((task["phase"] == "rejected").then_some(task))
    })?;
    ensure!(task["cause"].to_string().contains(DOWNGRADE), "refused for another reason: {task:#}");
    Ok(())
}
