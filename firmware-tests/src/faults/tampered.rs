//! Releases that nobody signed, or that were changed after signing: refused by name, never served.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    unsigned(world)?;
    let cause = tampered_blob(world)?;
    Ok(Outcome::Ok(format!(
        "unsigned release refused; a blob changed on the server refused by the device ({cause}), which served on; \
         after the repair the update went through"
    )))
}

fn unsigned(world: &mut World) -> Result<()> {
    let (version, spec) = world.spec(|text| text)?;
    let out = world.folder.join("releases").join(&version).display().to_string();
    world.fleet.cli.run(&["release", "build", &spec.display().to_string(), "--out", &out])?;
    let published = world.fleet.cli.output(&["release", "publish", &out], &[])?;
    let said = String::from_utf8_lossy(&published.stderr);
    ensure!(!published.status.success(), "an unsigned release was published");
    ensure!(said.contains("is not signed"), "the refusal doesn't say that it is unsigned: {said}");
    Ok(())
}

/// Returns the cause that the device told.
fn tampered_blob(world: &mut World) -> Result<String> {
    let before = world.active(0)?;
    let version = world.release()?;
    let blob = golden_on_server(world, &version)?;
    let whole = std::fs::read(&blob).with_context(|| format!("cannot read {}", blob.display()))?;
    let mut changed = whole.clone();
    let last = changed.iter().rposition(u8::is_ascii_digit).context("golden samples hold numbers")?;
    changed[last] ^= 1;
    std::fs::write(&blob, changed)?;
    let rollout = world.roll_out(&version, &[0])?;
    let cause = wait_until("the device's refusal", PATIENCE, || {
        let task = world.task(&rollout, 0)?;
        let detail = task.pointer("/cause/detail").and_then(Value::as_str).unwrap_or_default();
        Ok(detail.contains("digest").then(|| task["cause"].to_string()))
    });
    let cause =
        cause.with_context(|| format!("the task is {:#}", world.task(&rollout, 0).unwrap_or_default()))?;
    world.logged(0, &["update ended"])?;
    world.serves(0, &before)?;
    std::fs::write(&blob, whole)?;
    world.completed(&rollout)?;
    world.serves(0, &version)?;
    Ok(cause)
}

/// The file of a release's golden samples in the server's blob folder.
fn golden_on_server(world: &World, version: &str) -> Result<PathBuf> {
    let manifest = world.folder.join("releases").join(version).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    let digest = manifest["golden"]["digest"].as_str().context("a manifest names its golden samples")?;
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    Ok(world.folder.join("server/data/blobs/sha256").join(&hex[..2]).join(hex))
}
