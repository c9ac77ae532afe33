//! Certificates that hold for seconds: renewed at once; a device that slept past the end comes back by a new token.
//! A renewed certificate that is not let in on its own connection replaces nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::{Agent, AgentOptions, CREDENTIALS, Fleet, ServerOptions, TunnelProxy, wait_until};

use super::Outcome;
use super::world::{PATIENCE, World, agent_options};

const DEVICE: &str = "sleeper";
/// Certificates begin an hour before they are made: these are due for renewal from the start.
const SERVER_CONFIG: &str = "[authority]\ndevice_certificate_s = 20\n";
/// The same, but they outlive a second attempt. Stands in the section that begins with the server's name.
const LONGER_CONFIG: &str = "device_certificate_s = 1200\n";
/// A name that only the proxy leads to the server.
const NAME: &str = "fleet.invalid";
/// What the server logs before it answers with a new certificate.
const ISSUED: &str = "certificate renewed; the earlier one holds";
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
    drop(agent);
    drop(fleet);
    refused_on_trial(world)?;
    Ok(Outcome::Ok(
        "a certificate renewed and used for a new connection; a device that slept past its end said so and came back by \
         a new token; a new certificate whose own connection was refused replaced nothing until the next attempt"
            .into(),
    ))
}

/// The proxy lets the request for a certificate through and refuses the connection that the new one is tried on.
fn refused_on_trial(world: &World) -> Result<()> {
    let folder = world.folder.join("renewal-trial");
    let options = ServerOptions {
        extra_config: LONGER_CONFIG.into(),
        public_host: Some(NAME.into()),
        ..ServerOptions::default()
    };
    let fleet = Fleet::start(&world.binaries, &folder, &options)?;
    let proxy = TunnelProxy::start()?;
    let env = vec![("FLOTILLA_LINK_PROXY".into(), proxy.url(CREDENTIALS))];
    let options = AgentOptions { env, ..agent_options(DEVICE) };
    let token = fleet.token(DEVICE, &[])?;
    let mut agent = Agent::enroll(world.agent_binary(), &folder.join("device"), options, &token)?;
    let file = agent.folder().join("state/identity.json");
    let before = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let identity: serde_json::Value = serde_json::from_slice(&before)?;
    let device_port = identity["device_url"].as_str().unwrap_or_default().replace("https://", "");
    let server_log = fleet.folder().join("server/server.log");
    proxy.refuse(move |target| {
        let is_issued = || std::fs::read_to_string(&server_log).is_ok_and(|log| log.contains(ISSUED));
        target == device_port && is_issued()
    });
    agent.start()?;
    wait_until("the refusal of the new certificate's own connection", PATIENCE, || {
        Ok(agent.log().contains("the new certificate was not accepted").then_some(()))
    })?;
    fleet.wait_online(1)?;
    ensure!(proxy.refused() > 0 && !agent.log().contains(RENEWED), "the proxy refused nothing");
    ensure!(std::fs::read(&file)? == before, "a certificate that was not let in is kept");
    proxy.refuse(|_| false);
    renewed(&agent, 0)?;
    ensure!(std::fs::read(&file)? != before, "the renewed certificate is not kept");
    fleet.wait_online(1)
}

/// Waits until the log says, from `earlier` on, that a renewed certificate has been let in.
fn renewed(agent: &Agent, earlier: usize) -> Result<()> {
    wait_until("a connection with a renewed certificate", PATIENCE, || {
        let log = agent.log();
        let after = log.get(earlier..).and_then(|log| log.split_once(RENEWED));
        Ok(after.is_some_and(|(_, after)| after.contains("connected to the server")).then_some(()))
    })
}
