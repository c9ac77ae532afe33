//! An agent that keeps its own bounds: threads that give way, a release refused above the soft bound of memory, and an
//! orderly end above the hard one; and what it tells a service manager, whose watchdog bounds it too.

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::watchdog::Manager;
use super::world::{PATIENCE, World};

/// The device that is bounded.
const AGENT: usize = 0;
/// Less than any agent needs: 4 MiB.
const TIGHT: &str = "4194304";
/// More than whoever runs this has asked for, most likely.
const NICE: u32 = 15;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let version = world.release()?;
    world.rest_one(AGENT)?;
    let soft = [("FLOTILLA_HEALTH_MEMORY_SOFT_BYTES", TIGHT), ("FLOTILLA_HEALTH_NICE", &NICE.to_string())];
    restart(world, AGENT, &soft)?;
    world.fleet.wait_online(3)?;
    gives_way(world)?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    refused(world, &rollout)?;
    world.problem(AGENT, &["above health.memory_soft_bytes"])?;
    world.serves(AGENT, "1.0.0")?;

    restart(world, AGENT, &[("FLOTILLA_HEALTH_MEMORY_HARD_BYTES", TIGHT)])?;
    let ending = wait_until("the end of an agent above its hard bound", PATIENCE, || {
        Ok(world.agents[AGENT].process()?.check_running().err().map(|ended| ended.to_string()))
    })?;
    ensure!(ending.contains("exit status: 75") && ending.contains("stopped in order"), "{ending}");
    tells_its_manager(world)?;
    restart(world, AGENT, &[])?;
    world.fleet.wait_online(3)?;
    world.serves(AGENT, "1.0.0")?;
    world.feed_one(AGENT);
    Ok(Outcome::Ok(
        "an agent with bounds of its own: nice threads, a release refused above the soft bound of memory and said so, an \
         orderly end with 75 above the hard one; a service manager is told ready, alive and stopping; 1.0.0 serves on"
            .into(),
    ))
}

/// Waits until the device has told why it doesn't take the release, then ends the rollout that waits for a person.
fn refused(world: &World, rollout: &str) -> Result<()> {
    let mut task = String::new();
    let told = wait_until("a refusal for want of memory", PATIENCE, || {
        task = world.task(rollout, AGENT)?.to_string();
        Ok(task.contains("too_big").then_some(()))
    });
    told.with_context(|| format!("the task is {task}"))?;
    world.logged(AGENT, &["health.memory_soft_bytes is"])?;
    let revision = || anyhow::Ok(world.agents[AGENT].status()?["desired_revision"].as_u64());
    let asked = revision()?;
    world.fleet.cli.run(&["rollout", "abort", rollout])?;
    // Without its bound it would take what it is still asked for.
    let end = "the device hearing that nobody asks for the release any more";
    wait_until(end, PATIENCE, || Ok((revision()? > asked).then_some(())))
}

/// Systemd's side of the protocol: ready, then alive in half of the watchdog's time, again and again, then stopping.
fn tells_its_manager(world: &mut World) -> Result<()> {
    let manager = Manager::listen()?;
    let env = manager.env();
    restart(world, AGENT, &env.each_ref().map(|(name, value)| (*name, value.as_str())))?;
    for word in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        manager.hear(word)?;
    }
    world.agents[AGENT].stop();
    manager.hear("STOPPING=1")
}

/// Starts an agent again with this environment.
pub(super) fn restart(world: &mut World, agent: usize, env: &[(&str, &str)]) -> Result<()> {
    let agent = &mut world.agents[agent];
    agent.stop();
    agent.set_env(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
    agent.start()
}

/// Every thread of the agent has at least the niceness that was asked for.
fn gives_way(world: &mut World) -> Result<()> {
    let threads = format!("/proc/{}/task", world.agents[AGENT].process()?.pid());
    for thread in std::fs::read_dir(&threads).with_context(|| format!("cannot read {threads}"))? {
        let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else { continue };
        // Counted after the command's name, which may hold spaces.
        let nice = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().nth(16));
        let nice = nice.and_then(|nice| nice.parse::<u32>().ok());
        // It never takes back what its own parent gave away.
        ensure!(nice.is_some_and(|nice| nice >= NICE), "a thread has niceness {nice:?}: {stat}");
    }
    Ok(())
}
