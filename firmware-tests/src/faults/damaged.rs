//! The disk loses the release that serves. The one before it answers, over every start and without a network, and the
//! device says why; with the server back the lost one is fetched again.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// How the device calls it, in status and in its events.
const LOST: &str = "release_lost";
const STARTS: u32 = 3;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(AGENT)?;
    let version = with_its_own_reference(world)?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &version)?;
    world.fleet.server.kill();
    world.rest_one(AGENT)?;
    world.agents[AGENT].stop();
    let blob = reference_on_device(world, &version)?;
    let mut bytes = std::fs::read(&blob).with_context(|| format!("cannot read {}", blob.display()))?;
    bytes[..4].fill(0);
    std::fs::write(&blob, bytes)?;
    for start in 1..=STARTS {
        world.agents[AGENT].start()?;
        // The local API listens before the model is loaded.
        wait_until(&format!("{before} after the damage, start {start}"), PATIENCE, || {
            Ok(world.answers(AGENT).ok().filter(|answers| *answers == before))
        })?;
        let active = world.active(AGENT)?;
        ensure!(active == before, "status calls {active} active, {before} answers");
        ensure!(says_so(world)?, "start {start}: status does not say what is lost");
        world.agents[AGENT].stop();
    }
    world.agents[AGENT].start()?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    wait_until("the lost release", PATIENCE, || Ok((world.active(AGENT)? == version).then_some(())))?;
    world.serves(AGENT, &version)?;
    ensure!(!says_so(world)?, "status still calls it lost");
    let device = world.agents[AGENT].device().to_owned();
    wait_until("the server's event", PATIENCE, || {
        let events = world.fleet.cli.json(&["device", "events", &device])?;
        Ok(events.to_string().contains(LOST).then_some(()))
    })?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(format!(
        "a damaged blob of {version}: {before} answered over {STARTS} starts without a network, status and an event said \
         why; with the server back {version} was fetched again"
    )))
}

/// A new published release that shares its reference profile's blob with no other.
fn with_its_own_reference(world: &mut World) -> Result<String> {
    let (version, spec) = world.spec(|text| text)?;
    let reference = spec.with_file_name("reference.json");
    let text = std::fs::read_to_string(&reference)?;
    std::fs::write(&reference, text + "\n")?;
    world.fleet.publish(&spec)?;
    Ok(version)
}

fn reference_on_device(world: &World, version: &str) -> Result<PathBuf> {
    let manifest = world.folder.join("releases").join(version).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    let digest = manifest["reference"]["digest"].as_str().context("a manifest names its reference")?;
    Ok(world.agents[AGENT].folder().join("state/blobs").join(digest.rsplit(':').next().unwrap_or(digest)))
}

fn says_so(world: &World) -> Result<bool> {
    let status = world.agents[AGENT].status()?;
    let problems = status["attention"].as_array().context("status has no list of problems")?;
    Ok(problems.iter().any(|problem| problem["kind"] == LOST))
}
