//! Power cuts at random moments of updates: whatever was written, the device comes up serving and ends committed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 0;
/// Updates, and power cuts in each.
const UPDATES: usize = 5;
const CUTS: usize = 2;
/// A cut comes at most so long after the rollout was made or the device came up.
const LATEST_MS: u64 = 1800;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    // The application beside a device without power is not answered; the others are fed on.
    drop(world.feeders.remove(AGENT));
    let mut seen = Vec::new();
    for _ in 0..UPDATES {
        let before = world.active(AGENT)?;
        let version = world.release()?;
        let rollout = world.roll_out(&version, &[AGENT])?;
        for _ in 0..CUTS {
            let moment = random_ms();
            std::thread::sleep(Duration::from_millis(moment));
            let phase = phase(world);
            world.agents[AGENT].kill();
            world.agents[AGENT].start().with_context(|| format!("after a cut at {moment} ms in {phase}"))?;
            comes_up_with(world, AGENT, &[&before, &version])
                .with_context(|| format!("after a cut at {moment} ms in {phase}"))?;
            seen.push(phase);
        }
        world.completed(&rollout)?;
        world.serves(AGENT, &version)?;
        let active = world.active(AGENT)?;
        ensure!(active == version, "it says that {active} is active, not {version}");
    }
    seen.sort();
    seen.dedup();
    Ok(Outcome::Ok(format!(
        "power cut {} times at random in {UPDATES} updates (phases met: {}): served after every start, every update committed",
        UPDATES * CUTS,
        seen.join(", ")
    )))
}

/// Waits until a device that was started answers, and fails if it is with another version than these.
pub(super) fn comes_up_with(world: &mut World, agent: usize, versions: &[&str]) -> Result<String> {
    let mut version = String::new();
    wait_until("an answer after the start", PATIENCE, || {
        version = world.answers(agent)?;
        Ok(Some(()))
    })?;
    ensure!(versions.contains(&version.as_str()), "{version} serves, expected one of {versions:?}");
    Ok(version)
}

fn phase(world: &World) -> String {
    let status = world.agents[AGENT].status().unwrap_or_default();
    status.pointer("/models/0/phase").and_then(|phase| phase.as_str()).unwrap_or("unknown").to_owned()
}

/// From the clock's nanoseconds: the moment shall differ from run to run.
fn random_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) / 1000 % LATEST_MS
}
