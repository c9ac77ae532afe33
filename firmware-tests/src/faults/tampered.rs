//! Releases that nobody signed, or that were changed after signing: refused by name, never served.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Outcome;
use super::world::World;

/// How the device names content that is not what was signed.
const NOT_SIGNED: &str = "content that was not signed";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    unsigned(world)?;
    let cause = tampered_blob(world)?;
    Ok(Outcome::Ok(format!(
        "unsigned release refused; a blob changed on the server refused by the device ({cause}), which served on; \
         after the repair the device committed it"
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
    world.problem(0, &[NOT_SIGNED])?;
    let task = world.task(&rollout, 0)?;
    ensure!(task["phase"] != "committed", "what nobody signed was committed: {task:#}");
    world.logged(0, &[NOT_SIGNED])?;
    world.logged(0, &["cause=Integrity"])?;
    world.serves(0, &before)?;
    std::fs::write(&blob, whole)?;
    // The device tries again by itself, and the rollout follows it.
    world.completed(&rollout)?;
    world.serves(0, &version)?;
    Ok(NOT_SIGNED.into())
}

/// The file of a release's golden samples in the server's blob folder.
fn golden_on_server(world: &World, version: &str) -> Result<PathBuf> {
    let manifest = world.folder.join("releases").join(version).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    let digest = manifest["golden"]["digest"].as_str().context("a manifest names its golden samples")?;
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    Ok(world.folder.join("server/data/blobs/sha256").join(&hex[..2]).join(hex))
}
