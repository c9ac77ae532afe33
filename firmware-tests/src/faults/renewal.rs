//! Certificates that hold for seconds: renewed at once; a device that slept past the end comes back by a new token.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::{Agent, Fleet, ServerOptions, wait_until};

use super::Outcome;
use super::world::{PATIENCE, World, agent_options};

const DEVICE: &str = "sleeper";
/// Certificates begin an hour before they are made: these are due for renewal from the start.
const SERVER_CONFIG: &str = "[authority]\ndevice_certificate_s = 20\n";
const RENEWED: &str = "the device's certificate is renewed";

pub(super) fn play(world: &World) -> Result<Outcome> {
    let folder = world.folder.join("renewal");
    let options = ServerOptions { extra_config: SERVER_CONFIG.into(), ..ServerOptions::default() };
    let fleet = Fleet::start(&world.binaries, &folder, &options)?;
    let mut agent = fleet.add_device(agent_options(DEVICE), &[], None)?;
    renewed(&agent, 0)?;
    agent.stop();
    wait_until("the end of the certificate", Duration::from_mins(1), || {
        let said = agent.run(&["doctor"])?;
        Ok(String::from_utf8_lossy(&said.stdout).contains("expired").then_some(()))
    })?;
    agent.start()?;
    wait_until("the agent's word about its certificate", PATIENCE, || {
        let status = agent.status()?;
        let problems = status["attention"].as_array().context("nothing is said")?;
        Ok(problems.iter().any(|problem| problem["kind"] == "certificate_expired").then_some(()))
    })?;
    agent.stop();
    let earlier = agent.log().len();
    let token = fleet.token(DEVICE, &[])?;
    let said = agent.run(&["enroll", "--force", "--token", &token, "--device-id", DEVICE])?;
    ensure!(said.status.success(), "enrolling the device again: {said:?}");
    agent.start()?;
    renewed(&agent, earlier)?;
    fleet.wait_online(1)?;
    Ok(Outcome::Ok(
        "a certificate renewed and used for a new connection; a device that slept past its end said so and came back by \
         a new token"
            .into(),
    ))
}

/// Waits until the log says, from `earlier` on, that a renewed certificate has been let in.
fn renewed(agent: &Agent, earlier: usize) -> Result<()> {
    wait_until("a connection with a renewed certificate", PATIENCE, || {
        let log = agent.log();
        let after = log.get(earlier..).and_then(|log| log.split_once(RENEWED));
        Ok(after.is_some_and(|(_, after)| after.contains("connected to the server")).then_some(()))
    })
}
