//! The disk loses both copies of the boot record. The device starts with nothing, never with something unverified; it says
//! so, and takes from the server what it is to serve.

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// How the device calls it in its events.
const LOST: &str = "boot_record_lost";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let version = world.active(AGENT)?;
    world.rest_one(AGENT)?;
    world.fleet.server.kill();
    world.agents[AGENT].stop();
    let state = world.agents[AGENT].folder().join("state");
    for copy in ["boot.a", "boot.b"] {
        std::fs::write(state.join(copy), "no record").with_context(|| format!("cannot write {copy}"))?;
    }
    world.agents[AGENT].start()?;
    wait_until("an agent without a boot record", PATIENCE, || {
        Ok(world.agents[AGENT].status().ok().map(drop))
    })?;
    ensure!(world.answers(AGENT).is_err(), "something answers that no record names");
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    wait_until("what the server asks for", PATIENCE, || {
        Ok(world.answers(AGENT).ok().filter(|answers| *answers == version))
    })?;
    let device = world.agents[AGENT].device().to_owned();
    wait_until("the server's event", PATIENCE, || {
        let events = world.fleet.cli.json(&["device", "events", &device])?;
        Ok(events.to_string().contains(LOST).then_some(()))
    })?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(format!(
        "both copies of the boot record damaged: nothing unverified answered, an event said so, and {version} came back \
         from the server"
    )))
}
