//! A release for other hardware: the server refuses a rollout that nobody can take. (What a device says when it is
//! asked all the same stands in `crates/release`'s tests of compatibility.)

use anyhow::{Result, ensure};

use super::Outcome;
use super::world::World;

/// What the example's manifest says of hardware.
const ARCH: &str = "arch = [\"x86_64\", \"aarch64\", \"armv7\"]";
/// The device that is asked for.
const AGENT: usize = 0;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    refused_by_server(world, "arch = [\"riscv64\"]")?;
    refused_by_server(world, &format!("{ARCH}\ncpu_features = [\"sve2p1\"]"))?;
    world.serves(AGENT, "1.0.0")?;
    Ok(Outcome::Ok(
        "wrong architecture, absent CPU feature: rollouts refused as no_target; 1.0.0 serves on".into(),
    ))
}

fn refused_by_server(world: &mut World, hardware: &str) -> Result<()> {
    let (version, spec) = world.spec(|text| text.replace(ARCH, hardware))?;
    world.fleet.publish(&spec)?;
    let said = match world.roll_out(&version, &[AGENT]) {
        Ok(rollout) => {
            anyhow::bail!("rollout {rollout} of {version} was created for hardware that can't run it")
        }
        Err(error) => format!("{error:#}"),
    };
    ensure!(said.contains("no_target") && said.contains("hardware"), "expected no_target, it said: {said}");
    Ok(())
}
