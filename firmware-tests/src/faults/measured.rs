//! A published release that nobody runs is measured on a device of the fleet, from the publisher's desk, and what
//! serves there goes on.

use anyhow::{Result, ensure};

use super::Outcome;
use super::world::World;

/// The device that measures.
const AGENT: usize = 1;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let version = world.release()?;
    let device = world.agents[AGENT].device().to_owned();
    let inspect = ["release", "inspect", "digits", &version, "--on", &device];
    let said = world.fleet.cli.json(&inspect)?;
    let first = said["measured"].as_object().and_then(|classes| classes.iter().next());
    let (class, found) = first.ok_or_else(|| anyhow::anyhow!("nothing was measured: {said}"))?;
    let rows = found["variants"].as_array().cloned().unwrap_or_default();
    let int8 = rows.iter().find(|row| row["variant"] == "int8");
    let int8 = int8.ok_or_else(|| anyhow::anyhow!("int8 was not measured: {said}"))?;
    ensure!(int8["golden"]["passed"] == int8["golden"]["samples"], "golden samples on the device: {int8}");
    ensure!(int8["latency_us"]["p99"].as_u64() > Some(0), "latency on the device: {int8}");
    ensure!(int8["runs"]["int8_nodes"].as_u64() > Some(0), "nodes in int8: {int8}");
    ensure!(int8["parameters"].as_u64() > Some(0) && int8["flops"].is_u64(), "what it is made of: {int8}");
    let of_class = world.fleet.cli.json(&["release", "inspect", "digits", &version, "--class", class])?;
    ensure!(of_class["measured"][class]["variants"].is_array(), "by its class: {of_class}");
    world.serves(AGENT, "1.0.0")?;
    let shown = world.fleet.cli.run(&["release", "inspect", "digits", &version])?;
    ensure!(shown.contains("Latency") && shown.contains("nodes in int8"), "the tables: {shown}");
    let unknown =
        world.fleet.cli.run(&["release", "inspect", "digits", &version, "--class", "no-such-class"]);
    let why = unknown.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(why.contains("no device of hardware class"), "a class that nobody has: {why}");
    Ok(Outcome::Ok(format!(
        "measured: {} variants of {version} on a device that serves 1.0.0 and goes on with it",
        rows.len()
    )))
}
