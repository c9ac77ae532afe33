//! A candidate runs beside the active release: it sees the same requests, never answers, and its agreement is told.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::rig::wait_until;

use super::Outcome;
use super::limits::restart;
use super::power::comes_up_with;
use super::world::{PATIENCE, World};
use crate::rest::Rest;

/// The device that it runs on.
const AGENT: usize = 1;
/// Its candidate's share of a core.
const PERCENT: f64 = 1.0;
/// Batches without pause, and the images of each.
const CROWD: u64 = 400;
const ROWS: usize = 256;
/// Answers that must have been compared.
const COMPARED: u64 = 10;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let active = world.active(AGENT)?;
    let version = world.release()?;
    let device = world.agents[AGENT].device().to_owned();
    world.rest_one(AGENT)?;
    let percent = PERCENT.to_string();
    restart(world, AGENT, &[("FLOTILLA_UPDATE_SHADOW_CPU_PERCENT", &percent)])?;
    world.fleet.wait_online(world.agents.len())?;
    comes_up_with(world, AGENT, &[&active])?;
    world.feed_one(AGENT);
    let plan = json!({
        "target": format!("device = \"{device}\""), "stages": ["100%"], "mode": "shadow",
        "task_timeout_s": 300, "unreachable_after_s": 300,
    });
    let rollout = world.fleet.rollout(&version, &plan)?;
    let mut seen = Value::Null;
    let tally = wait_until("a candidate that has been compared", PATIENCE, || {
        seen = world.agents[AGENT].status()?["shadow"].clone();
        let tally = seen.as_array().into_iter().flatten().find(|tally| tally["version"] == *version);
        Ok(tally.filter(|tally| tally["compared"].as_u64() >= Some(COMPARED)).cloned())
    });
    let tally = tally.with_context(|| format!("the status says of candidates: {seen}"))?;
    ensure!(tally["agreed"] == tally["compared"], "the same model disagrees with itself: {tally}");
    ensure!(tally["beside"] == *active && tally["failed"] == 0, "{tally}");
    world.serves(AGENT, &active)?;
    ensure!(world.active(AGENT)? == active, "a candidate beside has become active");
    world.rest_one(AGENT)?;
    let share = keeps_to_its_share(world, &version)?;
    world.feed_one(AGENT);
    let rest = Rest::open(&world.folder)?;
    let told = wait_until("an event that tells the agreement", PATIENCE, || {
        let events = rest.get(&format!("/devices/{device}/events?limit=200"))?;
        let told = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|event| event["name"] == "shadow_agreement");
        Ok(told.and_then(|event| event["detail"].as_str()).map(str::to_owned))
    })?;
    ensure!(told.contains("100.00 %"), "{told}");
    world.completed(&rollout)?;
    // The release that ran beside takes over when it is asked to.
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &version)?;
    world.rest_one(AGENT)?;
    restart(world, AGENT, &[])?;
    world.fleet.wait_online(world.agents.len())?;
    comes_up_with(world, AGENT, &[&version])?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(format!(
        "shadow: {version} saw {} answers of {active} and agreed with each, answered none, then took over on request; \
         {share}",
        tally["compared"]
    )))
}

/// Asks without pause for batches: each takes longer to answer than anything around it. By the agent's own accounting the
/// candidate works for its share of the time and rests for the others, and its thread takes no more of the processor than
/// that accounting says; what it could not see is counted.
fn keeps_to_its_share(world: &mut World, version: &str) -> Result<String> {
    let before = (tally(world, version)?, thread_us(world)?, Instant::now());
    for _request in 0..CROWD {
        world.ask_batch(AGENT, ROWS)?;
    }
    let elapsed_us = before.2.elapsed().as_micros() as f64;
    let (after, thread_us) = (tally(world, version)?, thread_us(world)? - before.1);
    let grown = |key: &str| after[key].as_u64().unwrap_or(0) - before.0[key].as_u64().unwrap_or(0);
    let rows = u64::try_from(ROWS)?;
    let (runs, skipped, busy_us) = (grown("compared") / rows, grown("skipped") / rows, grown("candidate_us"));
    ensure!(runs > 0 && skipped > runs, "of {CROWD} batches {runs} were run and {skipped} skipped");
    // One may wait, one may run, before and after.
    ensure!(
        (runs + skipped).abs_diff(CROWD) <= 3,
        "of {CROWD} batches {runs} were run and {skipped} skipped"
    );
    let each_us = busy_us as f64 / runs as f64;
    let allowed = elapsed_us * PERCENT / 100.0 / each_us;
    let told = format!(
        "asked for {CROWD} batches in {:.1} s, with {PERCENT} % of a core it ran {runs}, where {allowed:.1} would be all \
         of that",
        elapsed_us / 1e6
    );
    // Its first run here may follow a rest, and the rest after its last one lies behind.
    ensure!(runs as f64 <= 1.5 * allowed + 3.0, "more than its share: {told}");
    ensure!(4.0 * runs as f64 + 4.0 >= allowed, "far less than its share: {told}");
    ensure!(thread_us <= 3 * busy_us + 5_000, "its thread took {thread_us} us, {busy_us} are told: {told}");
    Ok(told)
}

fn tally(world: &World, version: &str) -> Result<Value> {
    let seen = world.agents[AGENT].status()?["shadow"].clone();
    let found = seen.as_array().into_iter().flatten().find(|tally| tally["version"] == version);
    found.cloned().with_context(|| format!("the status says of candidates: {seen}"))
}

/// Processor time of the thread that runs candidates, in microseconds.
fn thread_us(world: &mut World) -> Result<u64> {
    let threads = format!("/proc/{}/task", world.agents[AGENT].process()?.pid());
    for thread in std::fs::read_dir(&threads).with_context(|| format!("cannot read {threads}"))? {
        let folder = thread?.path();
        if std::fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == "shadow") {
            let spent = std::fs::read_to_string(folder.join("schedstat"))?;
            let ns: u64 = spent.split_whitespace().next().context("no schedstat")?.parse()?;
            return Ok(ns / 1000);
        }
    }
    anyhow::bail!("no thread runs candidates")
}
