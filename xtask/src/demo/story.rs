//! The story, outcome by outcome. Each outcome is asserted from what the product itself says, then told in one line.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::rig::wait_until;

use super::world::World;

/// Longest time that any single outcome may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Plays it from the first key to the last rollout.
///
/// # Errors
/// At the first outcome that isn't as promised.
pub(crate) fn play(world: &mut World) -> Result<()> {
    told(
        "server up: TLS by its own CA, embedded broker, SQLite, console; admin's one-time password replaced",
    );
    told("publisher's keys made here, root signed, server's online keys authorised");
    publish(world)?;
    enroll(world)?;
    let first = first_rollout(world)?;
    let dirty = drift(world, &first)?;
    bad_rollout(world)?;
    good_rollout(world)?;
    ensure_lossless(world)?;
    told(&format!("{dirty} still drifts in the console: its lens is still dirty"));
    Ok(())
}

fn told(line: &str) {
    println!("  ok  {line}");
}

fn publish(world: &World) -> Result<()> {
    for version in ["1.0.0", "2.0.0", "1.1.0"] {
        world.publish(version)?;
    }
    told("releases digits 1.0.0, 2.0.0 and 1.1.0 built, golden samples passed here, signed, published");
    Ok(())
}

fn enroll(world: &mut World) -> Result<()> {
    for _ in 0..world.devices_wanted() {
        world.add_device()?;
    }
    world.fleet.wait_online(world.agents.len())?;
    told(&format!(
        "{} devices enrolled by one-time token, each with its own key and certificate, all online",
        world.agents.len()
    ));
    Ok(())
}

/// Stages of one device, two more, then all; the gate of every stage asks for proof from the stage's own devices.
fn plan(gates: &Value) -> Value {
    json!({
        "stages": ["1", "2", "100%"],
        "soak_s": 5,
        "measure_every_s": 1,
        "evidence_timeout_s": 90,
        "gates": gates,
        "on_failure": "roll_back_stage",
        // The same devices go first each time, so that the dirty one is never among the first.
        "seed": "demo",
    })
}

/// Behaviour against the control group: no more than five points of accuracy lost, p95 at most doubled.
fn behaviour_gates() -> Value {
    json!([
        { "metric": "install_failures", "limit": { "tasks": { "at_most": "0%" } }, "min_sample": 1 },
        { "metric": "accuracy", "limit": { "worse_than_control": { "by_at_most": 0.05 } }, "min_sample": 150, "min_control_sample": 150 },
        { "metric": "error_rate", "limit": { "value": { "bound": 0.01 } }, "min_sample": 150 },
    ])
}

fn first_rollout(world: &mut World) -> Result<Value> {
    let gates =
        json!([{ "metric": "install_failures", "limit": { "tasks": { "at_most": "0%" } }, "min_sample": 1 }]);
    let rollout = world.fleet.rollout("1.0.0", &plan(&gates))?;
    let mut most = 0;
    let ended = world.fleet.wait_ended(&rollout, PATIENCE, |now| most = most.max(stages_begun(now)))?;
    expect_state(&ended, "completed")?;
    ensure!(most >= 3, "the rollout of 1.0.0 was not seen in three stages");
    all_serve(world, "1.0.0")?;
    told(
        "rollout of 1.0.0 completed in three stages: fetched, verified, self-tested, committed on every device",
    );
    world.feed();
    Ok(ended)
}

fn stages_begun(rollout: &Value) -> usize {
    let stages = rollout["stages"].as_array().into_iter().flatten();
    stages.filter(|stage| stage["state"] != "pending").count()
}

/// A device of the last stage gets a dirty lens: it stays in every control group, as in a real fleet.
fn drift(world: &World, first: &Value) -> Result<String> {
    let tasks =
        world.fleet.cli.json(&["rollout", "tasks", first["rollout"].as_str().context("no rollout id")?])?;
    let in_last = |task: &&Value| task["stage"].as_u64() == Some(2);
    let task = tasks.as_array().into_iter().flatten().find(in_last).context("no device in the last stage")?;
    let dirty = task["device"].as_str().context("a task without a device")?.to_owned();
    wait_until("every feeder's first 200 answers", PATIENCE, || {
        Ok(world
            .feeders
            .iter()
            .all(|feeder| feeder.tally().answered.load(Ordering::Relaxed) >= 200)
            .then_some(()))
    })?;
    world.dirty_lens(&dirty)?;
    let found = wait_until(&format!("drift of {dirty}"), PATIENCE, || {
        let found = world.fleet.cli.json(&["drift", "show", "--model", "digits"])?;
        let devices = found["items"].as_array().context("no list of drifting devices")?;
        Ok(devices.iter().find(|device| device["device"] == dirty.as_str()).cloned())
    })?;
    let features: Vec<&str> = found["features"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|feature| feature["feature"].as_str())
        .collect();
    ensure!(!features.is_empty(), "the drift of {dirty} names no feature: {found}");
    told(&format!("dirty lens of {dirty} found by the fleet's aggregate: {} drift", features.join(", ")));
    Ok(dirty)
}

fn bad_rollout(world: &World) -> Result<()> {
    let rollout = world.fleet.rollout("2.0.0", &plan(&behaviour_gates()))?;
    let ended = world.fleet.wait_ended(&rollout, PATIENCE, |_| {})?;
    expect_state(&ended, "rolled_back")?;
    let gates = ended.pointer("/stages/0/gates").and_then(Value::as_array).context("stage 1 has no gates")?;
    let accuracy = gates.iter().find(|gate| gate["metric"] == "accuracy").context("no accuracy gate")?;
    ensure!(accuracy["verdict"] == "failed", "the accuracy gate did not fail: {accuracy}");
    all_serve(world, "1.0.0")?;
    told(&format!(
        "2.0.0 installed well on one device, failed its gate on behaviour and was rolled back by itself: {}",
        accuracy["because"].as_str().context("the gate tells no evidence")?
    ));
    Ok(())
}

fn good_rollout(world: &World) -> Result<()> {
    let rollout = world.fleet.rollout("1.1.0", &plan(&behaviour_gates()))?;
    let ended = world.fleet.wait_ended(&rollout, PATIENCE, |_| {})?;
    expect_state(&ended, "completed")?;
    all_serve(world, "1.1.0")?;
    told("1.1.0 passed its gates in every stage and serves on the whole fleet");
    Ok(())
}

fn expect_state(rollout: &Value, state: &str) -> Result<()> {
    ensure!(rollout["state"] == state, "expected the rollout to be {state}: {rollout:#}");
    Ok(())
}

/// What the server says and what each device's own API says must agree.
fn all_serve(world: &World, version: &str) -> Result<()> {
    wait_until(&format!("{version} on every device"), Duration::from_secs(20), || {
        let releases = world.releases()?;
        Ok(releases.iter().all(|(_, serves)| serves == version).then_some(()))
    })?;
    for agent in &world.agents {
        let status = agent.status()?;
        let serves = status.pointer("/models/0/active/version").and_then(Value::as_str);
        ensure!(serves == Some(version), "{} itself says {serves:?}, not {version}", agent.device());
    }
    Ok(())
}

/// No application saw a failed request, swaps and rollback included.
fn ensure_lossless(world: &World) -> Result<()> {
    let mut answered = 0;
    for (feeder, agent) in world.feeders.iter().zip(&world.agents) {
        answered += feeder.tally().answered.load(Ordering::Relaxed);
        feeder.tally().all_answered(agent.device())?;
    }
    told(&format!("{answered} requests answered by the devices' local APIs, none failed during any swap"));
    Ok(())
}
