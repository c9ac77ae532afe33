//! A fleet that a device reaches through a proxy only: its name leads nowhere from here.

use anyhow::{Result, ensure};
use testkit::rig::{Agent, AgentOptions, CREDENTIALS, Fleet, ServerOptions, TunnelProxy};

use super::Outcome;
use super::world::{World, agent_options};

/// A name that no resolver knows, by its top level.
const NAME: &str = "fleet.invalid";

pub(super) fn play(world: &World) -> Result<Outcome> {
    let folder = world.folder.join("proxy");
    let options = ServerOptions { public_host: Some(NAME.into()), ..ServerOptions::default() };
    let fleet = Fleet::start(&world.binaries, &folder, &options)?;
    let proxy = TunnelProxy::start()?;
    let through = |device: &str, variable: &str, credentials: &str| AgentOptions {
        env: vec![(variable.into(), proxy.url(credentials))],
        ..agent_options(device)
    };
    let shut_out = through("shut-out", "FLOTILLA_LINK_PROXY", "dev:wrong");
    let shut_out = Agent::configure(world.agent_binary(), &folder.join("shut-out"), shut_out)?;
    let said = shut_out.try_enroll(&fleet.token("shut-out", &[])?).err().map(|error| format!("{error:#}"));
    ensure!(said.as_ref().is_some_and(|said| said.contains("proxy")), "the proxy was not named: {said:?}");

    let ours = fleet.add_device(through("ours", "FLOTILLA_LINK_PROXY", CREDENTIALS), &[], None)?;
    let _usual = fleet.add_device(through("usual", "HTTPS_PROXY", CREDENTIALS), &[], None)?;
    fleet.wait_online(2)?;
    let report = ours.run(&["doctor"])?;
    ensure!(report.status.success(), "the doctor says {report:?}");
    let mut opened = proxy.opened();
    opened.sort();
    opened.dedup();
    let is_ours = opened.iter().all(|target| target.starts_with(NAME));
    ensure!(is_ours && opened.len() == 3, "tunnels were opened to {opened:?}");
    Ok(Outcome::Ok(
        "a server behind a proxy with a password: a wrong one named, enrolment, fetches and messages through it".into(),
    ))
}
