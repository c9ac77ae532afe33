//! A release comes to a device by an archive, without any network: the same checks, the same steps.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use anyhow::{Result, ensure};
use testkit::rig::{Agent, wait_until};

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that it happens to.
const AGENT: usize = 1;
/// What the example's preferred variant needs, and what the imported one does.
const SMALL: &str = "peak_memory_bytes = 4_194_304";
const BIG: &str = "peak_memory_bytes = 40_000_000";
/// Lets in all variants but that one; none.
const BUDGETS: [&str; 2] = ["20000000", "1048576"];
/// Some other user's number: no system has it by itself.
const OTHER: u32 = 61_234;
/// Exit code of an import that was refused.
const REFUSED: i32 = 77;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(AGENT)?;
    let (version, spec) = world.spec(|text| text.replacen(SMALL, BIG, 1))?;
    world.fleet.publish(&spec)?;
    let archive = world.folder.join("release.tar");
    world.fleet.cli.run(&["export", "digits", &version, "--out", &archive.display().to_string()])?;
    let running = world.agents[AGENT].run(&["import", &archive.display().to_string()])?;
    ensure!(running.status.code() == Some(69), "an import beside a running agent was not refused");
    world.fleet.server.kill();
    world.rest_one(AGENT)?;
    world.agents[AGENT].stop();
    without_a_network(world, &archive, &before, &version)?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    let size = fs::metadata(&archive)?.len();
    let next = world.release()?;
    let rollout = world.roll_out(&next, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &next)?;
    world.feed_one(AGENT);
    let owner = if is_root() { "its owner's and not root's" } else { "see above" };
    if !is_root() {
        println!("  --  an import by root into another user's folder NOT played: that needs root");
    }
    Ok(Outcome::Ok(format!(
        "an archive of {size} bytes brought {version} to a device without a network, in a smaller variant for a \
         budget of memory; damaged and cut ones and too small a budget were refused, {before} served on; back on \
         the network it took {next}; imported by root into another user's folder: {owner}"
    )))
}

/// A budget of memory that no variant fits refuses the archive, a wider one takes a smaller variant.
fn within_a_budget(agent: &mut Agent, archive: &str) -> Result<()> {
    // As in a service's folder: what root is to leave to another user, that user can read.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let config = folder.path().join("agent.toml");
    fs::copy(agent.folder().join("agent.toml"), &config)?;
    let mut import = |budget: &str| {
        agent.set_env(vec![("FLOTILLA_UPDATE_MEMORY_BUDGET_BYTES".into(), budget.into())]);
        let done = agent.run_with(&config, &["import", archive]);
        agent.set_env(Vec::new());
        done
    };
    let [some, none] = BUDGETS;
    let refused = import(none)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    let is_named = said.contains("every variant needs too much memory");
    ensure!(refused.status.code() == Some(REFUSED) && is_named, "not refused for memory: {said}");
    let taken = import(some)?;
    let said = String::from_utf8_lossy(&taken.stdout);
    ensure!(taken.status.success(), "refused: {}", String::from_utf8_lossy(&taken.stderr));
    ensure!(said.contains("variant f16 was taken; too big: int8"), "no smaller variant: {said}");
    Ok(())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Makes the state directory another user's, as a service's is. Needs root.
fn give_to(agent: &Agent, user: u32) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    each(&agent.folder().join("state"), &mut |path| Ok(chown(path, Some(user), Some(user))?))
}

/// What root would own, the agent could not read at its next start.
fn is_all_of(agent: &Agent, user: u32) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    each(&agent.folder().join("state"), &mut |path| {
        let owner = fs::symlink_metadata(path)?.uid();
        ensure!(owner == user, "{} belongs to {owner} after an import by root", path.display());
        Ok(())
    })
}

fn each(path: &Path, act: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    act(path)?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            each(&entry?.path(), act)?;
        }
    }
    Ok(())
}

fn without_a_network(world: &mut World, archive: &Path, before: &str, version: &str) -> Result<()> {
    let whole = fs::read(archive)?;
    let bad = archive.with_extension("bad.tar");
    let mut changed = whole.clone();
    // The last blob's first byte: two blocks of zeros end the archive, and no blob here fits into one block.
    let last = changed.len() - 3 * 512;
    changed[last] ^= 1;
    for (content, words) in [(&changed[..], "not signed"), (&whole[..whole.len() / 2], "cut off")] {
        fs::write(&bad, content)?;
        let refused = world.agents[AGENT].run(&["import", &bad.display().to_string()])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(REFUSED) && said.contains(words), "not refused: {said}");
    }
    world.agents[AGENT].start()?;
    world.serves(AGENT, before)?;
    world.agents[AGENT].stop();
    give_to(&world.agents[AGENT], OTHER)?;
    within_a_budget(&mut world.agents[AGENT], &archive.display().to_string())?;
    is_all_of(&world.agents[AGENT], OTHER)?;
    give_to(&world.agents[AGENT], 0)?;
    world.agents[AGENT].start()?;
    wait_until("the imported release", PATIENCE, || {
        let status = world.agents[AGENT].status()?;
        let model = &status["models"][0];
        let is_there = model["active"]["version"] == version && model["phase"] == "committed";
        Ok(is_there.then_some(()))
    })?;
    world.serves(AGENT, version)
}
