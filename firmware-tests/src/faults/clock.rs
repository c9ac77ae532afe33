//! The device boots in 1970: it serves what is committed, refuses nothing valid, and says that its clock is wrong.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::world::{PATIENCE, World};
use super::{Outcome, power};

/// The device that it happens to.
const AGENT: usize = 1;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let Some(library) = library() else {
        return Ok(Outcome::Skipped("libfaketime is not installed (Debian package libfaketime)".into()));
    };
    let env = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let before = world.active(AGENT)?;
    world.rest_one(AGENT)?;
    world.agents[AGENT].stop();
    world.agents[AGENT].set_env(vec![
        env("LD_PRELOAD", &library.display().to_string()),
        env("FAKETIME", "@1970-01-01 00:00:10"),
        env("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        env("DONT_FAKE_MONOTONIC", "1"),
    ]);
    let outcome = in_1970(world, &before);
    world.agents[AGENT].stop();
    world.agents[AGENT].set_env(Vec::new());
    world.agents[AGENT].start()?;
    world.feed_one(AGENT);
    outcome
}

fn in_1970(world: &mut World, before: &str) -> Result<Outcome> {
    world.agents[AGENT].start()?;
    power::comes_up_with(world, AGENT, &[before])?;
    let status = world.agents[AGENT].status()?;
    let is_plausible = status.pointer("/clock/is_plausible").and_then(Value::as_bool);
    ensure!(is_plausible == Some(false), "the device takes its clock for plausible: {status:#}");
    world.logged(AGENT, &["clock_implausible"])?;
    world.problem(AGENT, &["wall clock"])?;
    testkit::rig::wait_until("the server's word about the clock", PATIENCE, || {
        Ok((world.device(AGENT)?["is_clock_plausible"] == false).then_some(()))
    })?;
    let version = world.release()?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout).context("an update with the clock at 1970")?;
    world.serves(AGENT, &version)?;
    Ok(Outcome::Ok(format!(
        "clock at 1970: booted, served {before}, reported an implausible clock in its log and to the server, and took {version}"
    )))
}

/// Debian's libfaketime for programs with threads.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists())
}
