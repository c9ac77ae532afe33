//! A candidate runs beside the active release: it sees the same requests, never answers, and its agreement is told.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};
use crate::rest::Rest;

/// The device that it runs on.
const AGENT: usize = 1;
/// Answers that must have been compared.
const COMPARED: u64 = 30;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let active = world.active(AGENT)?;
    let version = world.release()?;
    let device = world.agents[AGENT].device().to_owned();
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
    Ok(Outcome::Ok(format!(
        "shadow: {version} saw {} answers of {active} and agreed with each, answered none, then took over on request",
        tally["compared"]
    )))
}
