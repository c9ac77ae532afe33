//! Nothing happens: an agent without a model, connected, sleeps.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testkit::rig::{Agent, AgentOptions};

use super::Outcome;
use super::world::World;

/// What a start does is over by then.
const SETTLED: Duration = Duration::from_secs(10);
/// Counted over this: work that comes every ten seconds counts twice.
const COUNTED: Duration = Duration::from_secs(20);
/// Wake-ups a second.
const BOUND: f64 = 5.0;

pub(super) fn play(world: &World) -> Result<Outcome> {
    let options = AgentOptions { device: "idle".into(), ..AgentOptions::default() };
    let mut agent = world.fleet.add_device(options, &[], None)?;
    world.fleet.wait_online(world.agents.len() + 1)?;
    std::thread::sleep(SETTLED);
    let (before, since) = (switches(&mut agent)?, Instant::now());
    std::thread::sleep(COUNTED);
    let per_s = (switches(&mut agent)? - before) as f64 / since.elapsed().as_secs_f64();
    ensure!(
        per_s < BOUND,
        "an idle agent wakes up {per_s:.1} times a second, fewer than {BOUND} are allowed"
    );
    ensure!(agent.status()?["is_online"] == true, "it is not connected");
    Ok(Outcome::Ok(format!("idle, without a model, connected: {per_s:.1} wake-ups a second")))
}

/// Voluntary context switches of all its threads: each is one wake-up from waiting.
fn switches(agent: &mut Agent) -> Result<u64> {
    let threads = format!("/proc/{}/task", agent.process()?.pid());
    let mut all = 0;
    for thread in std::fs::read_dir(&threads).with_context(|| format!("cannot read {threads}"))? {
        let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(all)
}
