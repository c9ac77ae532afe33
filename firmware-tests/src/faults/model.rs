//! Models that the runtime can't load never become a release: the publisher's own machine refuses them.

use anyhow::{Context as _, Result, ensure};

use super::Outcome;
use super::world::World;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    refused(world, |onnx| onnx.truncate(onnx.len() / 2)).context("a model that is cut off")?;
    refused(world, |onnx| rename_operator(onnx, b"Conv", b"Cvno")).context("an operator nobody knows")?;
    Ok(Outcome::Ok(
        "models that can't be loaded (cut off; unknown operator) refused by `flotilla release build`, which names the variant"
            .into(),
    ))
}

fn refused(world: &mut World, damage: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let (version, spec) = world.spec(|text| text)?;
    let file = spec.with_file_name("f32.onnx");
    let mut onnx = std::fs::read(&file)?;
    damage(&mut onnx);
    std::fs::write(&file, onnx)?;
    let out = world.folder.join("releases").join(&version).display().to_string();
    let built =
        world.fleet.cli.output(&["release", "build", &spec.display().to_string(), "--out", &out], &[])?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(!built.status.success(), "it was built");
    ensure!(said.contains("variant f32 can't be loaded"), "the refusal names no variant: {said}");
    let published = world.fleet.cli.output(&["release", "publish", &out], &[])?;
    ensure!(!published.status.success(), "what could not be built was published");
    Ok(())
}

fn rename_operator(onnx: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = onnx[at..].windows(from.len()).position(|window| window == from) {
        onnx[at + found..at + found + to.len()].copy_from_slice(to);
        at += found + to.len();
    }
}
