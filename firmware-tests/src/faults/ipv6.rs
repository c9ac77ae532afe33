//! A fleet that is reached by IPv6 only.

use anyhow::{Result, ensure};
use testkit::rig::{Fleet, ServerOptions};

use super::Outcome;
use super::world::{World, agent_options};

pub(super) fn play(world: &World) -> Result<Outcome> {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return Ok(Outcome::Skipped("this machine has no IPv6 on loopback".into()));
    }
    let folder = world.folder.join("ipv6");
    let address = Some("[::1]".to_owned());
    let options =
        ServerOptions { listen_ip: address.clone(), public_host: address, ..ServerOptions::default() };
    let fleet = Fleet::start(&world.binaries, &folder, &options)?;
    let agent = fleet.add_device(agent_options("six"), &[], None)?;
    fleet.wait_online(1)?;
    let report = agent.run(&["doctor"])?;
    ensure!(report.status.success(), "the doctor says {report:?}");
    Ok(Outcome::Ok("a server on [::1] only: enrolled, connected, the doctor is content".into()))
}
