//! The broker stands still for a while, connections and all: devices serve on, telemetry waits on them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::world::{PATIENCE, World};
use super::{Outcome, telemetry};

/// How long; longer than the devices need to notice, and than the broker waits for the server's own session (22.5 s):
/// all of them connect again, and what a device sends before the server listens again is lost on the way.
const OUTAGE: Duration = Duration::from_secs(25);
/// Records that must wait on each device by then: a pane and a resource reading every two seconds.
const LEAST_WAITING: u64 = 8;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    world.fleet.server.process()?.signal("STOP");
    let seen = outage(world);
    world.fleet.server.process()?.signal("CONT");
    let most = seen?;
    for agent in 0..world.agents.len() {
        wait_until("an empty spool", PATIENCE, || {
            let (is_online, waiting) = link(world, agent)?;
            Ok((is_online && waiting <= 3).then_some(()))
        })?;
    }
    world.fleet.wait_online(3)?;
    let total = telemetry::ensure_exact(world)?;
    Ok(Outcome::Ok(format!(
        "broker stopped for {} s: every request answered, up to {most} records waited on a device, drained after; \
         {total} answered and exactly {total} counted",
        OUTAGE.as_secs()
    )))
}

/// Returns the most records that waited on one device.
fn outage(world: &World) -> Result<u64> {
    let end = Instant::now() + OUTAGE;
    wait_until("the end of the outage", PATIENCE, || Ok((Instant::now() >= end).then_some(())))?;
    let mut most = 0;
    for agent in 0..world.agents.len() {
        let (is_online, waiting) = link(world, agent)?;
        let device = world.agents[agent].device();
        ensure!(!is_online, "{device} has not noticed that the server is gone");
        ensure!(waiting >= LEAST_WAITING, "only {waiting} records wait on {device}");
        most = most.max(waiting);
    }
    Ok(most)
}

/// Whether a device is connected, and how many records wait on it.
fn link(world: &World, agent: usize) -> Result<(bool, u64)> {
    let status = world.agents[agent].status()?;
    let waiting = status.pointer("/spool/depth_records").and_then(Value::as_u64).unwrap_or_default();
    Ok((status["is_online"] == true, waiting))
}
