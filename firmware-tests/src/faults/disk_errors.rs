//! The device's disk fails: each read and write of its state directory ends with an error. The agent lives, answers its
//! applications, says what is wrong, also to the server. The power goes then; and with a disk that answers again the
//! device serves what it served, and everything that was durable comes, once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::{Agent, wait_until};

use super::failing_disk::FailingDisk;
use super::power::comes_up_with;
use super::world::{PATIENCE, World, agent_options};
use super::{Outcome, telemetry};

const DEVICE: &str = "cam-failing";
/// Requests that are answered and durable, and of which the server knows nothing yet.
const UNSENT: u64 = 100;
/// Several of the devices' windows: who is asked nothing has closed its last pane by then.
const PANES_CLOSED: Duration = Duration::from_secs(8);

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let (place, folder) = places(&world.folder);
    let mut disk = match FailingDisk::make(&place, &folder)? {
        Ok(disk) => disk,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let devices = world.agents.len();
    let outcome = fails_and_comes_back(world, &mut disk);
    // Whatever happened: nobody may use the disk when it is taken away.
    world.forget_behind(devices);
    drop(disk);
    outcome
}

/// Takes away what an earlier run left in `folder`.
pub(super) fn clean_up(folder: &Path) {
    let (place, folder) = places(folder);
    FailingDisk::clean_up(&place, &folder);
}

/// Where the disk's file lies, and what it is mounted on: where `add_device` will put the device's state.
fn places(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("failing"), folder.join("devices").join(DEVICE).join("state"))
}

fn fails_and_comes_back(world: &mut World, disk: &mut FailingDisk) -> Result<Outcome> {
    let agent = world.agents.len();
    let device: Agent = world.fleet.add_device(agent_options(DEVICE), &[], None)?;
    world.agents.push(device);
    world.answered.push(0);
    let version = world.release()?;
    let rollout = world.roll_out(&version, &[agent])?;
    world.completed(&rollout)?;
    // It reports once before: the numbers of its next reports are reserved on the disk then.
    world.fleet.server.kill();
    for _request in 0..UNSENT {
        world.serves(agent, &version)?;
    }
    let durable = all_is_durable(world, agent)?;

    disk.fails()?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    let told = world.problem(agent, &["telemetry can't be stored", "telemetry spool"])?;
    // What is answered now is promised to nobody: nothing can be stored.
    let before = world.answered[agent];
    comes_up_with(world, agent, &[&version])?;
    world.answered[agent] = before;
    let screen = world.agents[agent].run(&["status"])?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    ensure!(screen.contains("PROBLEM"), "the status calls a device well whose disk fails:\n{screen}");
    world.agents[agent].process()?.check_running()?;

    world.agents[agent].kill();
    disk.comes_back()?;
    world.agents[agent].start().context("with a disk that answers again")?;
    comes_up_with(world, agent, &[&version])?;
    telemetry::arrived(world, agent)?;
    telemetry::settle()?;
    let (answered, counted) = (world.answered[agent], telemetry::counted(world, DEVICE)?);
    ensure!(counted == answered, "{answered} were durable or answered since, the server counts {counted}");
    Ok(Outcome::Ok(format!(
        "a disk that fails each read and write: {version} answered on, the server was told \"{told}\"; after a power cut, \
         with a disk that answers, {version} serves and the {durable} records that were durable came, once"
    )))
}

/// Waits until the last pane is closed and nothing is only in memory; returns how many records wait on the disk.
fn all_is_durable(world: &World, agent: usize) -> Result<u64> {
    let closed = Instant::now() + PANES_CLOSED;
    wait_until("the end of the open panes", PATIENCE, || Ok((Instant::now() > closed).then_some(())))?;
    let mut status = Value::Null;
    wait_until("records on the disk, and only there", PATIENCE, || {
        status = world.agents[agent].status()?;
        let in_memory = status.pointer("/spool_figures/in_memory_records").and_then(Value::as_u64);
        let waiting = status.pointer("/spool/depth_records").and_then(Value::as_u64).unwrap_or(0);
        Ok((in_memory == Some(0) && waiting > 0).then_some(waiting))
    })
    .with_context(|| format!("the spool says {} and {}", status["spool"], status["spool_figures"]))
}
