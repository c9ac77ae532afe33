//! A budget of memory for all models: a release of which no variant fits is refused before it is fetched, of one that
//! has a smaller variant that one is taken, and both are said. With a higher budget a refused release is taken by itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that has a budget.
const AGENT: usize = 1;
/// Above what the example's variants declare, below [`BIG`].
const BUDGET: u64 = 20_000_000;
/// Above both.
const HIGHER: u64 = 60_000_000;
const SMALL: &str = "peak_memory_bytes = 4_194_304";
const BIG: &str = "peak_memory_bytes = 40_000_000";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(AGENT)?;
    let (none_fits, spec) = world.spec(|text| text.replace(SMALL, BIG))?;
    world.fleet.publish(&spec)?;
    let (one_fits, spec) = world.spec(|text| text.replacen(SMALL, BIG, 1))?;
    world.fleet.publish(&spec)?;
    let (fits_later, spec) = world.spec(|text| text.replace(SMALL, BIG))?;
    world.fleet.publish(&spec)?;
    world.rest_one(AGENT)?;
    let plain = std::fs::read_to_string(config(world))?;
    let with =
        |bytes: u64| plain.replace("[update]\n", &format!("[update]\nmemory_budget_bytes = {bytes}\n"));
    reload(world, &with(BUDGET))?;

    let fetched = blobs(world)?;
    let rollout = refused(world, &none_fits)?;
    world.logged(AGENT, &["every variant needs too much memory"])?;
    ensure!(blobs(world)?.is_subset(&fetched), "something was fetched of a release that does not fit");
    tries_again(world, &rollout)?;
    world.fleet.cli.run(&["rollout", "abort", &rollout])?;
    world.serves(AGENT, &before)?;

    let rollout = world.roll_out(&one_fits, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &one_fits)?;
    let status = world.agents[AGENT].status()?;
    ensure!(status["serving"][0]["variant"] == "f16", "another variant serves: {}", status["serving"]);
    let said = world.problem(AGENT, &["variant f16 was taken; too big: int8"])?;

    let rollout = refused(world, &fits_later)?;
    world.serves(AGENT, &one_fits)?;
    reload(world, &with(HIGHER))?;
    wait_until("the release that was refused", PATIENCE, || {
        Ok((world.active(AGENT)? == fits_later).then_some(()))
    })?;
    ensure!(world.task(&rollout, AGENT)?.to_string().contains("too_big"), "a late success is no success");
    world.fleet.cli.run(&["rollout", "resume", &rollout, "--retry-failed"])?;
    world.completed(&rollout)?;
    reload(world, &plain)?;
    world.serves(AGENT, &fits_later)?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(format!(
        "a budget of memory: {none_fits} refused before it was fetched and {before} served on, of {one_fits} the smaller \
         variant was taken (\"{said}\"); {fits_later} refused, and taken by itself once the budget was raised"
    )))
}

/// Another chance is taken, though it ends as the one before did.
fn tries_again(world: &World, rollout: &str) -> Result<()> {
    let ends = || world.agents[AGENT].log().matches("every variant needs too much memory").count();
    let before = ends();
    wait_until("a rollout that its gate has paused", PATIENCE, || {
        let args = ["rollout", "resume", rollout, "--retry-failed"];
        Ok(world.fleet.cli.run(&args).is_ok().then_some(()))
    })?;
    wait_until("the device's next attempt", PATIENCE, || Ok((ends() > before).then_some(())))?;
    wait_until("its end", PATIENCE, || {
        Ok(world.task(rollout, AGENT)?.to_string().contains("too_big").then_some(()))
    })
}

/// Rolls out a release that finds no room, and waits until the server knows; returns the rollout.
fn refused(world: &World, version: &str) -> Result<String> {
    let rollout = world.roll_out(version, &[AGENT])?;
    let mut task = String::new();
    wait_until("a refusal for want of memory", PATIENCE, || {
        task = world.task(&rollout, AGENT)?.to_string();
        Ok(task.contains("too_big").then_some(()))
    })
    .with_context(|| format!("the task is {task}"))?;
    Ok(rollout)
}

fn config(world: &World) -> PathBuf {
    world.agents[AGENT].folder().join("agent.toml")
}

/// Another configuration, without a restart.
fn reload(world: &mut World, text: &str) -> Result<()> {
    let times = |world: &World| world.agents[AGENT].log().matches("the configuration was read again").count();
    let before = times(world);
    std::fs::write(config(world), text)?;
    world.agents[AGENT].process()?.signal("HUP");
    wait_until("the new configuration", PATIENCE, || Ok((times(world) > before).then_some(())))
}

/// Names of all blobs, or parts of some, that lie on the device.
fn blobs(world: &World) -> Result<BTreeSet<OsString>> {
    let folder = world.agents[AGENT].folder().join("state/blobs");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}
