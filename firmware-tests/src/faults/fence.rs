//! A release turns out bad. Its publisher signs the good one again under a higher counter and fences off all below: from
//! then on no rollout, fallback or stolen server brings the bad one back.

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// How the device names a counter that is too low.
const DOWNGRADE: &str = "downgrade";

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
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout).context("the good release under a new counter")?;
    world.serves(AGENT, &version)?;
    for fenced in [&bad, &good] {
        refused(world, fenced).with_context(|| format!("{fenced}, which is fenced off"))?;
        world.serves(AGENT, &version)?;
    }
    Ok(Outcome::Ok(format!(
        "{good} signed again as {version} with a fence: committed; {bad} and the first {good} refused as {DOWNGRADE}"
    )))
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
