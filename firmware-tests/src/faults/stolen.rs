//! K2: the whole server in an attacker's hands, with its signing keys, database and blob store, against a real agent.
//! Each attack is mounted, seen to be refused by name, and undone; nothing that nobody signed ever runs, the agent
//! answers all the time, and a good update is taken at the end.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use protocol::Digest;
use release::{BlobRef, DraftManifest};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::thief::{Thief, Wish};
use super::world::{PATIENCE, World};

/// The device that is attacked, and another one of the same fleet.
const VICTIM: usize = 1;
const OTHER: usize = 0;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let older = world.active(VICTIM)?;
    let first = Thief::open(&world.folder.join("server/data"))?.envelope(world.agents[VICTIM].device())?;
    let current = world.release()?;
    let rollout = world.roll_out(&current, &[VICTIM, OTHER])?;
    world.completed(&rollout)?;
    let withdrawn = world.release()?;
    world.fleet.sign(&["release", "withdraw", "digits", &withdrawn])?;
    let signed = world.release()?;
    let mut played = 0;
    for attack in ATTACKS {
        let place =
            Place { older: &older, current: &current, withdrawn: &withdrawn, signed: &signed, first: &first };
        mount(world, &attack, &place).with_context(|| format!("attack {:?}", attack.name))?;
        played += 1;
    }
    swapped_content(world, &current)?;
    let last = world.release()?;
    let rollout = world.roll_out(&last, &[VICTIM])?;
    world.completed(&rollout)?;
    world.serves(VICTIM, &last)?;
    Ok(Outcome::Ok(format!(
        "a stolen server (its keys, database and blobs) tried {} attacks; each was refused by name, {current} served \
         on, and a good update was committed afterwards",
        played + 1
    )))
}

/// Releases that an attack can name: all of them were rightly signed.
struct Place<'a> {
    older: &'a str,
    current: &'a str,
    withdrawn: &'a str,
    signed: &'a str,
    /// What the victim was told before the current release.
    first: &'a [u8],
}

struct Attack {
    name: &'static str,
    /// Forges what the server holds; the device's Desired then names what is returned.
    forge: fn(&Thief, &World, &Place<'_>) -> Result<Wish>,
    /// Stands in the device's log afterwards.
    refused: &'static str,
}

const ATTACKS: [Attack; 11] = [
    Attack {
        name: "Desired for a release that nobody signed",
        forge: |_, world, place| Ok(Wish::Director(evil(world, place)?.release_ref())),
        refused: "no trusted role lists this target",
    },
    Attack {
        name: "a release that its publisher has withdrawn",
        forge: |_, world, place| Ok(Wish::Director(published(world, place.withdrawn)?.release_ref())),
        refused: "no trusted role lists this target",
    },
    Attack {
        name: "an evil manifest in the model's role, signed by the server's keys",
        forge: |thief, world, place| {
            let evil = evil(world, place)?;
            thief.forge_role("digits", |role| role.target(&evil.target_path(), evil.bytes(), None))?;
            thief.store_target(&evil)?;
            Ok(Wish::Director(evil.release_ref()))
        },
        refused: "digits: refused (A1) at step 5.6.3 signatures",
    },
    Attack {
        name: "the model delegated to the server's key",
        forge: |thief, world, place| {
            let evil = evil(world, place)?;
            thief.forge_role("targets", |role| role.delegate_model(&evil.model, &[thief.key()], 1))?;
            Ok(Wish::Director(evil.release_ref()))
        },
        refused: "targets: refused (A1) at step 5.6.3 signatures",
    },
    Attack {
        name: "a root that names the server's key for everything",
        forge: |thief, world, place| {
            thief.forge_root()?;
            Ok(Wish::Director(evil(world, place)?.release_ref()))
        },
        refused: "root: refused (A1) at step 5.3.4 signatures",
    },
    Attack {
        name: "a snapshot that takes the model's role back",
        forge: |thief, world, place| {
            thief.mix_snapshot("digits")?;
            Ok(Wish::Director(published(world, place.signed)?.release_ref()))
        },
        refused: "digits.json went back from version",
    },
    Attack {
        name: "a signed release under a digest that is not its own",
        forge: |_, world, place| {
            let mut release = published(world, place.signed)?.release_ref();
            release.digest = Digest::from_bytes([7; 32]);
            Ok(Wish::Director(release))
        },
        refused: "cause=DesiredMismatch",
    },
    Attack {
        name: "a downgrade that no manifest permits",
        forge: |_, world, place| Ok(Wish::Director(published(world, place.older)?.release_ref())),
        refused: "cause=Downgrade",
    },
    Attack {
        name: "another device's Desired",
        forge: |_, world, _| Ok(Wish::OfOtherDevice(world.agents[OTHER].device().to_owned())),
        refused: "director: refused (M2) at step desired: made for",
    },
    Attack {
        name: "the device's own Desired of before",
        forge: |_, _, place| Ok(Wish::Replayed(place.first.to_vec())),
        refused: "an older Desired was refused",
    },
    Attack {
        name: "Desired signed by a key of the attacker's own",
        forge: |_, world, place| Ok(Wish::OwnKey(evil(world, place)?.release_ref())),
        refused: "director: refused (A1) at step desired: 0 valid signatures",
    },
];

/// Mounts one attack on the stopped server, lets it run until the device has refused, then undoes it.
fn mount(world: &mut World, attack: &Attack, place: &Place<'_>) -> Result<()> {
    world.fleet.server.kill();
    let thief = Thief::open(&world.folder.join("server/data"))?;
    let before = thief.keep()?;
    let wish = (attack.forge)(&thief, world, place)?;
    thief.desire(world.agents[VICTIM].device(), wish)?;
    let seen = world.agents[VICTIM].log().len();
    world.fleet.server.restart()?;
    let log = wait_until(&format!("a refusal that says {:?}", attack.refused), PATIENCE, || {
        world.serves(VICTIM, place.current)?;
        let log = world.agents[VICTIM].log();
        let new = log.get(seen..).unwrap_or_default();
        Ok(new.contains(attack.refused).then(|| new.to_owned()))
    })?;
    // The release that serves may be going through its phases again; no other may come so far.
    let current = format!("version=\"{}\"", place.current);
    for line in log.lines().filter(|line| !line.contains(&current)) {
        let is_tried = ["Staged", "SelfTest", "Activating", "Probation", "Committed"]
            .iter()
            .any(|phase| line.contains(&format!("phase={phase}")));
        ensure!(!is_tried, "the attack came too far: {line}");
    }
    world.serves(VICTIM, place.current)?;
    world.fleet.server.kill();
    thief.put_back(&before)?;
    world.fleet.server.restart()?;
    world.fleet.wait_online(world.agents.len())?;
    // The next attack asks for the same again: before it, the device must have heard that it was taken back.
    wait_until("the true wish again", PATIENCE, || {
        let status = world.agents[VICTIM].status()?;
        Ok(status.pointer("/models/0/phase").is_some_and(|phase| phase == "committed").then_some(()))
    })?;
    ensure!(world.active(VICTIM)? == place.current, "another release is active");
    Ok(())
}

/// Other bytes under signed digests, in every form in which a blob travels; then the right ones again.
fn swapped_content(world: &mut World, current: &str) -> Result<()> {
    let version = world.release()?;
    let golden = |version: &str| -> Result<BlobRef> { Ok(published(world, version)?.golden.clone()) };
    let (base, blob) = (golden(current)?, golden(&version)?);
    let path = blob_path(world, &blob);
    let whole = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let old = std::fs::read(blob_path(world, &base))?;
    let evil: Vec<u8> = whole.iter().rev().copied().collect();
    let hex = blob.digest.to_hex();
    let derived = world.folder.join("server/data/blobs/derived").join(&hex[..2]);
    std::fs::create_dir_all(&derived)?;
    let mut delta = release::delta::make(&old, &evil, 1 << 26)?;
    // The header says what the device expects; what it decodes to does not care.
    delta[40..72].copy_from_slice(blob.digest.as_bytes());
    std::fs::write(derived.join(format!("{hex}.from.{}", base.digest.to_hex())), delta)?;
    std::fs::write(derived.join(format!("{hex}.zst")), release::delta::compress(&evil)?)?;
    std::fs::write(&path, &evil)?;
    let seen = world.agents[VICTIM].log().len();
    let rollout = world.roll_out(&version, &[VICTIM])?;
    for words in ["gives content with digest", "it decodes to something else", "content that was not signed"]
    {
        wait_until(&format!("a refusal that says {words:?}"), PATIENCE, || {
            world.serves(VICTIM, current)?;
            Ok(world.agents[VICTIM].log().get(seen..).is_some_and(|log| log.contains(words)).then_some(()))
        })?;
    }
    std::fs::write(&path, &whole)?;
    world.completed(&rollout)?;
    world.serves(VICTIM, &version)
}

fn blob_path(world: &World, blob: &BlobRef) -> PathBuf {
    let hex = blob.digest.to_hex();
    world.folder.join("server/data/blobs/sha256").join(&hex[..2]).join(hex)
}

/// A published release's manifest, as its publisher built it.
pub(super) fn published(world: &World, version: &str) -> Result<DraftManifest> {
    let path = world.folder.join("releases").join(version).join("manifest.json");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(DraftManifest::parse_unsigned(&bytes)?)
}

/// A release that nobody signed: the newest one with the f32 model in place of the chosen one, under a high counter.
fn evil(world: &World, place: &Place<'_>) -> Result<DraftManifest> {
    let signed = published(world, place.signed)?;
    let mut value: Value = serde_json::from_slice(signed.bytes())?;
    value["version"] = "9.9.9".into();
    value["counter"] = 999.into();
    Ok(DraftManifest::parse_unsigned(&serde_json::to_vec(&value)?)?)
}
