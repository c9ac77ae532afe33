//! A rollout is aborted while a device that never had the model fetches the release: it must not come into service there,
//! over a start neither; and whoever asks again gets it.

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World, agent_options};

/// Bytes a second that the device may fetch: the release takes several seconds.
const RATE: u64 = 4000;
const DEVICE: &str = "slow-line";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let mut options = agent_options(DEVICE);
    options.extra_config =
        options.extra_config.replace("[link]\n", &format!("[link]\nmax_rate_bytes_s = {RATE}\n"));
    let mut agent = world.fleet.add_device(options, &[], Some(world.agent_binary()))?;
    let version = world.release()?;
    let plan =
        json!({ "target": format!("device = \"{DEVICE}\""), "stages": ["100%"], "task_timeout_s": 300 });

    let rollout = world.fleet.rollout(&version, &plan)?;
    wait_until("the fetch", PATIENCE, || {
        let tasks = world.fleet.cli.json(&["rollout", "tasks", &rollout])?;
        Ok(tasks.to_string().contains("downloading").then_some(()))
    })?;
    world.fleet.cli.run(&["rollout", "abort", &rollout])?;
    wait_until("the end of the fetch", PATIENCE, || {
        Ok(agent.log().contains("nobody asks for the release under way any more").then_some(()))
    })?;
    agent.stop();
    agent.start()?;
    world.fleet.wait_online(world.agents.len() + 1)?;
    let status = agent.status()?;
    let model = status.pointer("/models/0").cloned().unwrap_or_default();
    ensure!(model["active"].is_null() && model["phase"] == "idle", "it goes on: {status:#}");
    ensure!(!agent.log().contains("now answering"), "the aborted release came into service");

    let again = world.fleet.rollout(&version, &plan)?;
    world.completed(&again)?;
    let active = agent.status()?.pointer("/models/0/active/version").cloned();
    ensure!(active == Some(json!(version)), "asked for again, it is {active:?}");
    agent.stop();
    Ok(Outcome::Ok(format!(
        "a rollout of {version} aborted while a device that never had the model fetched it: nothing came into service \
         there; a later rollout brought it"
    )))
}
