//! FF2: a thief signs the highest revision of Desired that there is. Nothing can rise above it, so the device hears
//! nobody any more, until a new root replaces the director's key: then the server's own revisions count again.

use anyhow::{Context as _, Result, ensure};
use protocol::Revision;
use testkit::rig::wait_until;

use super::Outcome;
use super::stolen::published;
use super::thief::Thief;
use super::world::{PATIENCE, World};

/// The device that is lied to.
const VICTIM: usize = 1;
/// How it says that it heard something older.
const DEAF: &str = "an older Desired was refused";
const BEGUN_ANEW: &str = "the director's key was replaced: revisions begin anew";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let (lured, next) = (world.release()?, world.release()?);
    let device = world.agents[VICTIM].device().to_owned();
    let true_revision = reported(world)?;
    let (thief, before) = steal(world, &device, &lured)?;
    wait_until("the thief's revision to be taken", PATIENCE, || {
        Ok((reported(world)? == Revision::MAX.0 && world.active(VICTIM)? == lured).then_some(()))
    })?;
    world.serves(VICTIM, &lured)?;

    // The owner is back, with what the database had, and the keys that the thief knows.
    world.fleet.server.kill();
    thief.tell(&device, before.0, &before.1)?;
    let seen = world.agents[VICTIM].log().len();
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    let rollout = world.roll_out(&next, &[VICTIM])?;
    logged_since(world, seen, DEAF)?;
    world.serves(VICTIM, &lured)?;

    world.fleet.server.kill();
    world.fleet.server.run("forget-keys")?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    world.fleet.sign(&["keys", "rotate", "server"])?;
    world.completed(&rollout).context("a rollout of the director who is authorised now")?;
    world.serves(VICTIM, &next)?;
    logged_since(world, seen, BEGUN_ANEW)?;
    let after = wait_until("a revision of the server's own", PATIENCE, || {
        Ok(Some(reported(world)?).filter(|after| *after < Revision::MAX.0))
    })?;
    // The copied key says nothing any more, however high.
    let refused = "director: refused (A1) at step desired";
    let seen = world.agents[VICTIM].log().len();
    world.fleet.server.kill();
    let own = Thief::open(&world.folder.join("server/data"))?;
    let before = own.told(&device)?;
    thief.desire_at(&device, Revision::MAX, published(world, &lured)?.release_ref())?;
    world.fleet.server.restart()?;
    logged_since(world, seen, refused)?;
    world.fleet.server.kill();
    own.tell(&device, before.0, &before.1)?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    world.serves(VICTIM, &next)?;
    Ok(Outcome::Ok(format!(
        "a thief's revision {} was above all others; after the director's key was replaced the device went on from \
         {true_revision} to {after} and took {next}",
        Revision::MAX
    )))
}

/// The highest revision, signed by the true director for a release that its publisher signed.
fn steal(world: &mut World, device: &str, lured: &str) -> Result<(Thief, (u64, Vec<u8>))> {
    world.fleet.server.kill();
    let thief = Thief::open(&world.folder.join("server/data"))?;
    let before = thief.told(device)?;
    thief.desire_at(device, Revision::MAX, published(world, lured)?.release_ref())?;
    world.fleet.server.restart()?;
    Ok((thief, before))
}

/// The revision that the device says it has accepted.
fn reported(world: &World) -> Result<u64> {
    let device = world.device(VICTIM)?;
    device["reported_revision"].as_u64().with_context(|| format!("no revision: {device:#}"))
}

fn logged_since(world: &World, seen: usize, words: &str) -> Result<()> {
    wait_until(&format!("the device to log {words:?}"), PATIENCE, || {
        let log = world.agents[VICTIM].log();
        ensure!(log.len() >= seen, "the device's log went back");
        Ok(log.get(seen..).is_some_and(|new| new.contains(words)).then_some(()))
    })
}
