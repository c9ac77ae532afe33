//! Somebody copied the server's own keys: they are forgotten, others are made, and a publisher authorises those. In
//! between devices take nothing new and run on; afterwards what the copied keys sign is refused.

use anyhow::{Context as _, Result, ensure};
use testkit::rig::wait_until;

use super::Outcome;
use super::stolen::published;
use super::thief::{Thief, Wish};
use super::world::{PATIENCE, World};

/// The device that is lied to.
const VICTIM: usize = 1;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.active(VICTIM)?;
    world.fleet.server.kill();
    let copied = copy(world)?;
    let said = world.fleet.server.run("forget-keys")?;
    ensure!(said.contains("forgot 3 keys"), "not three keys were forgotten: {said}");
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    let (next, out) = signed(world)?;
    let early = world.fleet.cli.output(&["release", "publish", &out], &[])?;
    ensure!(!early.status.success(), "a server whose keys nobody authorised published");
    world.serves(VICTIM, &before)?;

    let rotated = world.fleet.sign(&["keys", "rotate", "server"])?;
    ensure!(rotated.contains("root") && rotated.contains("targets"), "it says: {rotated}");
    let again = world.fleet.cli.output(&["keys", "rotate", "server"], &[world.fleet.passphrase()])?;
    let said = String::from_utf8_lossy(&again.stderr);
    ensure!(!again.status.success() && said.contains("already"), "a second time it says: {said}");
    world.fleet.cli.run(&["release", "publish", &out])?;
    let rollout = world.roll_out(&next, &[VICTIM])?;
    world.completed(&rollout)?;
    world.serves(VICTIM, &next)?;

    let other = world.release()?;
    for attack in ATTACKS {
        refused(world, &copied, &attack, &next, &other).with_context(|| attack.name)?;
    }
    let rollout = world.roll_out(&other, &[VICTIM])?;
    world.completed(&rollout)?;
    world.serves(VICTIM, &other)?;
    Ok(Outcome::Ok(format!(
        "the server's keys were replaced while {before} served on; {next} came after a publisher had authorised the \
         new ones, and {} lies by the old ones were refused",
        ATTACKS.len()
    )))
}

/// The keys as they are before they are forgotten.
fn copy(world: &World) -> Result<Thief> {
    Thief::open(&world.folder.join("server/data"))
}

/// A release that is built and signed, and not published yet.
fn signed(world: &mut World) -> Result<(String, String)> {
    let (version, spec) = world.spec(|text| text)?;
    let out = world.release_folder(&version);
    world.fleet.cli.run(&["release", "build", &spec.display().to_string(), "--out", &out])?;
    world.fleet.sign(&["release", "sign", &out])?;
    Ok((version, out))
}

struct Attack {
    name: &'static str,
    /// What is signed by the keys that were copied, and what by the server's own.
    lie: fn(copied: &Thief, own: &Thief, device: &str, wish: Wish) -> Result<()>,
    /// Stands in the device's log afterwards.
    refused: &'static str,
}

const ATTACKS: [Attack; 2] = [
    Attack {
        name: "Desired by the old director, for a rightly signed release",
        lie: |copied, _, device, wish| copied.desire(device, wish),
        refused: "director: refused (A1) at step desired: 0 valid signatures",
    },
    Attack {
        name: "snapshot and timestamp by the old keys",
        lie: |copied, own, device, wish| {
            copied.sign_anew()?;
            own.desire(device, wish)
        },
        refused: "timestamp: refused (A1) at step 5.4.2 signatures",
    },
];

fn refused(world: &mut World, copied: &Thief, attack: &Attack, current: &str, other: &str) -> Result<()> {
    world.fleet.server.kill();
    let own = copy(world)?;
    let before = own.keep()?;
    let wish = Wish::Director(published(world, other)?.release_ref());
    (attack.lie)(copied, &own, world.agents[VICTIM].device(), wish)?;
    let seen = world.agents[VICTIM].log().len();
    world.fleet.server.restart()?;
    wait_until(&format!("a refusal that says {:?}", attack.refused), PATIENCE, || {
        world.serves(VICTIM, current)?;
        Ok(world.agents[VICTIM]
            .log()
            .get(seen..)
            .is_some_and(|new| new.contains(attack.refused))
            .then_some(()))
    })?;
    world.fleet.server.kill();
    own.put_back(&before)?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    world.serves(VICTIM, current)
}
