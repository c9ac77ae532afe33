//! The server asks its devices to spread their next reconnect. When it is gone they wait as they were told; one that was
//! started anew since, and so was told nothing, comes back at its own pace.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::{Agent, Fleet, ServerOptions, wait_until};

use super::Outcome;
use super::world::{PATIENCE, World, agent_options};

/// Three devices, so that it can't be chance: each of their delays is random from half a second on.
const DEVICES: [&str; 3] = ["wide-1", "wide-2", "wide-3"];
/// For each connected device: three spread over three minutes. Stands where the rig's section on MQTT goes on.
const SERVER_CONFIG: &str = "reconnect_gap_ms = 60000\n";
/// The devices' own bound, `link.backoff_max_s`.
const OWN_BOUND: Duration = Duration::from_secs(2);
const TOLD: &str = "the server asks to spread the next reconnect";
const NEXT: &str = "the next attempt to connect comes after delay_ms=";

pub(super) fn play(world: &World) -> Result<Outcome> {
    let folder = world.folder.join("widening");
    let options = ServerOptions { extra_config: SERVER_CONFIG.into(), ..ServerOptions::default() };
    let mut fleet = Fleet::start(&world.binaries, &folder, &options)?;
    let mut agents = Vec::new();
    for device in DEVICES {
        let mut options = agent_options(device);
        options.extra_config.push_str("\n[log]\nfilter = \"debug\"\n");
        agents.push(fleet.add_device(options, &[], None)?);
    }
    fleet.wait_online(DEVICES.len())?;
    for agent in &agents {
        wait_until("a device that was told to spread", PATIENCE, || {
            Ok(agent.log().contains(TOLD).then_some(()))
        })?;
    }
    fleet.server.kill();
    let mut delays = Vec::new();
    for agent in &agents {
        delays.push(next_delay(agent, 0)?);
    }
    let longest = delays.iter().max().copied().unwrap_or_default();
    ensure!(longest > OWN_BOUND, "told to spread over minutes the devices wait {delays:?}");
    // Its process begins anew, with nobody there to tell it anything.
    let last = agents.last_mut().context("a device")?;
    last.stop();
    let before = last.log().len();
    last.start()?;
    let own = next_delay(last, before)?;
    ensure!(own <= OWN_BOUND, "a device that was told nothing waits {own:?}");
    fleet.server.restart()?;
    fleet.wait_online(1)?;
    Ok(Outcome::Ok(format!(
        "three devices that were told to spread their reconnects wait up to {} s without the server; started anew one \
         waits {} ms, and is back with the server",
        longest.as_secs(),
        own.as_millis()
    )))
}

/// The first delay that an agent's log names behind its first `from` bytes.
fn next_delay(agent: &Agent, from: usize) -> Result<Duration> {
    wait_until("a delay before the next attempt", PATIENCE, || {
        let log = agent.log();
        let said = log.get(from..).and_then(|log| log.split_once(NEXT)).map(|(_, rest)| rest);
        let figure = said.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        Ok(figure.map(Duration::from_millis))
    })
}
