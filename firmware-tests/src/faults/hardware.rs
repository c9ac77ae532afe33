//! A release for other hardware: nobody fetches it, and the task says why.

use anyhow::{Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let arch = "arch = [\"x86_64\", \"aarch64\", \"armv7\"]";
    let riscv = refused(world, arch, "arch = [\"riscv64\"]")?;
    let feature = refused(world, arch, &format!("{arch}\ncpu_features = [\"sve2p1\"]"))?;
    Ok(Outcome::Ok(format!("wrong hardware: {riscv}; an absent CPU feature: {feature}; 1.0.0 serves on")))
}

fn refused(world: &mut World, from: &str, to: &str) -> Result<String> {
    let (version, spec) = world.spec(|text| text.replace(from, to))?;
    world.fleet.publish(&spec)?;
    let rollout = world.roll_out(&version, &[0])?;
    let task = wait_until("the task's end", PATIENCE, || {
        let task = world.task(&rollout, 0)?;
        Ok((task["cause"] == "incompatible").then_some(task))
    })?;
    world.serves(0, "1.0.0")?;
    let active = world.active(0)?;
    ensure!(active == "1.0.0", "cam-1 has activated {active}");
    let _ended_already = world.fleet.cli.output(&["rollout", "abort", &rollout], &[])?;
    let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
    Ok(format!("{} as {} ({})", text("phase"), text("cause"), text("why")))
}
