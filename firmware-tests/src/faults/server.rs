//! The server is killed in the middle of telemetry and in the middle of a rollout, and comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::rig::wait_until;

use super::world::{PATIENCE, World};
use super::{Outcome, telemetry};

/// Kills while telemetry flows.
const KILLS: u32 = 3;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    for kill in 0..KILLS {
        // Panes close every two seconds: each kill meets another moment of a batch on its way.
        std::thread::sleep(Duration::from_millis(u64::from(1500 + kill * 430)));
        world.fleet.server.kill();
        world.fleet.server.restart()?;
    }
    let version = world.release()?;
    let rollout = world.roll_out(&version, &[0, 1, 2])?;
    let phase = wait_until("a task under way", PATIENCE, || {
        let phase = world.task(&rollout, 0)?["phase"].as_str().unwrap_or_default().to_owned();
        let is_under_way = !["", "pending", "queued", "offered", "committed"].contains(&phase.as_str());
        Ok(is_under_way.then_some(phase))
    })?;
    world.fleet.server.kill();
    world.fleet.server.restart()?;
    world.completed(&rollout)?;
    for agent in 0..world.agents.len() {
        world.serves(agent, &version)?;
        let active = world.active(agent)?;
        ensure!(active == version, "{} says {active} is active", world.agents[agent].device());
    }
    let total = telemetry::ensure_exact(world)?;
    Ok(Outcome::Ok(format!(
        "server killed {KILLS} times in telemetry and once in a rollout (a task was {phase}): the rollout completed, \
         {total} inferences answered and exactly {total} counted"
    )))
}
