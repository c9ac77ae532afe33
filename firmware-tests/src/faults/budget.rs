//! A budget of memory for all models: a release of which no variant fits is refused before it is fetched, of one that
//! has a smaller variant that one is taken, and both are said.

use std::collections::BTreeSet;
use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::limits::restart;
use super::world::{PATIENCE, World};

/// The device that has a budget.
const AGENT: usize = 1;
/// Above what the example's variants declare, below [`BIG`].
const BUDGET: (&str, &str) = ("FLOTILLA_UPDATE_MEMORY_BUDGET_BYTES", "20000000");
const SMALL: &str = "peak_memory_bytes = 4_194_304";
const BIG: &str = "peak_memory_bytes = 40_000_000";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(AGENT)?;
    let (none_fits, spec) = world.spec(|text| text.replace(SMALL, BIG))?;
    world.fleet.publish(&spec)?;
    let (one_fits, spec) = world.spec(|text| text.replacen(SMALL, BIG, 1))?;
    world.fleet.publish(&spec)?;
    world.rest_one(AGENT)?;
    restart(world, AGENT, &[BUDGET])?;
    world.fleet.wait_online(3)?;

    let fetched = blobs(world)?;
    let rollout = world.roll_out(&none_fits, &[AGENT])?;
    let mut task = String::new();
    wait_until("a refusal for want of memory", PATIENCE, || {
        task = world.task(&rollout, AGENT)?.to_string();
        Ok(task.contains("too_big").then_some(()))
    })
    .with_context(|| format!("the task is {task}"))?;
    world.logged(AGENT, &["every variant needs too much memory"])?;
    ensure!(blobs(world)?.is_subset(&fetched), "something was fetched of a release that does not fit");
    world.fleet.cli.run(&["rollout", "abort", &rollout])?;
    world.serves(AGENT, &before)?;

    let rollout = world.roll_out(&one_fits, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &one_fits)?;
    let status = world.agents[AGENT].status()?;
    ensure!(status["serving"][0]["variant"] == "f16", "another variant serves: {}", status["serving"]);
    let said = world.problem(AGENT, &["variant f16 was taken; too big: int8"])?;
    restart(world, AGENT, &[])?;
    world.fleet.wait_online(3)?;
    world.serves(AGENT, &one_fits)?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(format!(
        "a budget of memory: {none_fits} refused before it was fetched and {before} served on, of {one_fits} the smaller \
         variant was taken (\"{said}\")"
    )))
}

/// Names of all blobs, or parts of some, that lie on the device.
fn blobs(world: &World) -> Result<BTreeSet<OsString>> {
    let folder = world.agents[AGENT].folder().join("state/blobs");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}
