//! Keys change while the fleet runs: every role's key is replaced, two people sign together, one of them leaves. The
//! device follows each time and takes what the people of the day have signed, and nothing else is published.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use testkit::rig::Cli;

use super::Outcome;
use super::world::World;

/// The device that follows.
const AGENT: usize = 0;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    for role in ["root", "targets", "digits", "root"] {
        world.fleet.sign(&["keys", "rotate", role]).with_context(|| format!("rotating {role}"))?;
    }
    takes_a_release(world).context("after every key was replaced")?;
    let nothing = world.fleet.cli.output(&["keys", "rotate", "server"], &[])?;
    let said = String::from_utf8_lossy(&nothing.stderr);
    ensure!(said.contains("present keys already"), "rotating the server's unchanged keys said: {said}");
    let colleague = joins(world).context("a colleague joins")?;
    signs_together(world, &colleague).context("two people sign")?;
    leaves(world).context("a colleague leaves")?;
    takes_a_release(world).context("after a colleague left")?;
    Ok(Outcome::Ok(
        "keys of root (twice), targets and the model replaced; a release published by two of two signatures and not \
         by one; one signer left: the device followed and committed each release"
            .into(),
    ))
}

fn takes_a_release(world: &mut World) -> Result<()> {
    let version = world.release()?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &version)
}

/// The model's role is shared by two; what is published of it needs both signatures at once.
fn joins(world: &World) -> Result<Cli> {
    let colleague = world.fleet.colleague("colleague")?;
    let made = colleague.json(&["keys", "new", "--model", "digits", "--no-passphrase"])?;
    let theirs = made["keys"][0]["give_away"].as_str().context("keys new names no public file")?;
    let ours = own_key(world)?.display().to_string();
    let share = ["keys", "delegate", "digits", "--key", &ours, "--key", theirs, "--threshold", "2"];
    let waits = world.fleet.sign(&[&share[..], &["--json"]].concat())?;
    ensure!(waits.contains("\"have\":1") || waits.contains("\"have\": 1"), "nothing waits: {waits}");
    let too_few = world.fleet.cli.output(&["keys", "publish"], &[])?;
    let said = String::from_utf8_lossy(&too_few.stdout);
    ensure!(said.contains("1 of 2"), "one signature of two was enough, or it didn't say so: {said}");
    let pending = key_folder(world)?.join("pending/metadata/digits.json").display().to_string();
    colleague.run(&["sign", "--add", &pending])?;
    world.fleet.sign(&["keys", "publish"])?;
    Ok(colleague)
}

fn signs_together(world: &mut World, colleague: &Cli) -> Result<()> {
    let (version, spec) = world.spec(|text| text)?;
    let out = world.release_folder(&version);
    world.fleet.cli.run(&["release", "build", &spec.display().to_string(), "--out", &out])?;
    world.fleet.sign(&["release", "sign", &out])?;
    let alone = world.fleet.cli.output(&["release", "publish", &out], &[])?;
    ensure!(!alone.status.success(), "a release was published by one signature of two");
    colleague.run(&["sign", "--add", &format!("{out}/metadata/digits.json")])?;
    world.fleet.cli.run(&["release", "publish", &out])?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    world.serves(AGENT, &version)?;
    let verified = world.fleet.cli.json(&["verify"])?;
    let roles = verified["roles"].as_array().context("verify lists no roles")?;
    let digits = roles.iter().find(|role| role["role"] == "digits").context("verify doesn't know digits")?;
    ensure!(digits["threshold"] == 2, "verify names another threshold: {digits}");
    ensure!(digits["signed_by"].as_array().is_some_and(|keys| keys.len() == 2), "not both signed: {digits}");
    Ok(())
}

fn leaves(world: &World) -> Result<()> {
    let ours = own_key(world)?.display().to_string();
    world.fleet.sign(&["keys", "delegate", "digits", "--key", &ours, "--threshold", "1"]).map(drop)
}

fn own_key(world: &World) -> Result<PathBuf> {
    Ok(key_folder(world)?.join("models/digits.pub.json"))
}

/// The publisher's only key folder.
fn key_folder(world: &World) -> Result<PathBuf> {
    let keys = world.folder.join("publisher/flotilla/keys");
    let shown = || format!("no key folder in {}", keys.display());
    let mut entries = std::fs::read_dir(&keys).with_context(shown)?;
    Ok(entries.next().with_context(shown)??.path())
}
