//! Samples for retraining: nothing without the device's consent, nothing where the release forbids it, and what is kept
//! survives a dead server and a power cut, reaches the publisher whole, once, and is written down when it is fetched.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::wait_until;

use super::Outcome;
use super::world::{PATIENCE, World};

/// The device that consents.
const AGENT: usize = 1;
/// Requests that must pass where nothing may be kept.
const UNSEEN: u64 = 40;
/// Samples that must wait before the power is cut.
const WAITING: u64 = 5;
/// Values of one image, which stand last in NumPy's form.
const IMAGE_BYTES: usize = 64 * 4;
const CONSENT: &str = "
[capture]
consent = true
random_rate = 0
uncertain_below = 0.95
uncertainty_rate = 1
max_per_day = 100000
";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let config = world.agents[AGENT].folder().join("agent.toml");
    let plain = std::fs::read_to_string(&config)?;
    let before = world.active(AGENT)?;
    reconfigured(world, &format!("{plain}{CONSENT}"), true)?;
    let asked = pass_requests(world)?;
    nothing_kept(world, &format!("{before} forbids samples"))?;

    let (version, spec) = world.spec(|text| format!("{text}\n[privacy]\nmay_send_samples = true\n"))?;
    world.fleet.publish(&spec)?;
    let rollout = world.roll_out(&version, &[AGENT])?;
    world.completed(&rollout)?;
    world.fleet.server.kill();
    let waiting = wait_until("samples that wait for the server", PATIENCE, || {
        let figures = figures(world)?;
        Ok(figures["waiting"].as_u64().filter(|waiting| *waiting >= WAITING))
    });
    waiting.with_context(|| format!("the status says of samples: {}", figures(world).unwrap_or_default()))?;
    world.rest_one(AGENT)?;
    let kept = settled(world)?;
    world.agents[AGENT].kill();
    world.agents[AGENT].start()?;
    let held = figures(world)?["waiting"].as_u64();
    world.fleet.server.restart()?;
    wait_until("the server to have all samples", PATIENCE, || {
        Ok((figures(world)?["waiting"] == 0).then_some(()))
    })?;
    let dropped = figures(world)?["dropped"].clone();
    ensure!(dropped.as_object().is_some_and(serde_json::Map::is_empty), "samples were dropped: {dropped}");
    let found = downloaded(world, &version)?;
    ensure!(
        u64::try_from(found.len())? == kept,
        "the device kept {kept} samples ({held:?} after the power cut), the publisher got {}",
        found.len()
    );
    let uncertain = checked(world, &found)?;
    reconfigured(world, &plain, false)?;
    world.feed_one(AGENT);
    let unasked = pass_requests(world)?;
    nothing_kept(world, "the consent is withdrawn")?;
    Ok(Outcome::Ok(format!(
        "capture: {asked} requests under a release that forbids it and {unasked} without consent left nothing; of {version} \
         {kept} samples ({uncertain} uncertain, the rest contradicted) outlived a dead server and a power cut, each once"
    )))
}

/// Replaces the agent's configuration while it runs.
fn reconfigured(world: &mut World, text: &str, is_on: bool) -> Result<()> {
    std::fs::write(world.agents[AGENT].folder().join("agent.toml"), text)?;
    world.agents[AGENT].process()?.signal("HUP");
    wait_until("the changed consent", PATIENCE, || Ok((figures(world)?["is_on"] == is_on).then_some(())))
}

fn figures(world: &World) -> Result<Value> {
    Ok(world.agents[AGENT].status()?["capture"].clone())
}

/// Samples that the device has kept since its start, when no more come.
fn settled(world: &World) -> Result<u64> {
    let kept = |figures: &Value| {
        let taken = figures["taken"].as_object().into_iter().flatten();
        taken.filter_map(|(_, count)| count.as_u64()).sum::<u64>()
    };
    let mut before = u64::MAX;
    wait_until("the last sample on the disk", PATIENCE, || {
        let now = kept(&figures(world)?);
        let is_settled = std::mem::replace(&mut before, now) == now;
        Ok(is_settled.then_some(now))
    })
}

/// Waits until the application has been answered so many more times.
fn pass_requests(world: &World) -> Result<u64> {
    let answered = || -> Result<u64> {
        let status = world.agents[AGENT].status()?;
        let serving = status["serving"].as_array().and_then(|all| all.first()).context("nothing serves")?;
        serving["execution_count"].as_u64().context("no count of requests")
    };
    let first = answered()?;
    wait_until("more requests", PATIENCE, || Ok(Some(answered()? - first).filter(|more| *more >= UNSEEN)))
}

fn nothing_kept(world: &World, why: &str) -> Result<()> {
    let folder = world.agents[AGENT].folder().join("state/samples");
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let samples: Vec<PathBuf> =
        files.filter_map(|file| file.path().extension().is_some().then(|| file.path())).collect();
    ensure!(samples.is_empty(), "{why}, but there is {samples:?}");
    let waiting = figures(world)?["waiting"].clone();
    ensure!(waiting == 0, "{why}, but {waiting} samples wait");
    Ok(())
}

/// The index that a publisher gets, and what says who fetched it.
fn downloaded(world: &World, version: &str) -> Result<Vec<Value>> {
    let folder = world.folder.join("samples");
    let out = folder.display().to_string();
    let listed = world.fleet.cli.json(&["samples", "list", "--model", "digits", "--version", version])?;
    world.fleet.cli.json(&[
        "samples",
        "download",
        "--model",
        "digits",
        "--version",
        version,
        "--out",
        &out,
    ])?;
    let index = std::fs::read_to_string(folder.join("samples.jsonl"))?;
    let lines = index.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
    ensure!(
        listed.as_array().is_some_and(|listed| listed.len() == lines.len()),
        "{} were downloaded, the list is {listed}",
        lines.len()
    );
    let audit = world.fleet.cli.json(&["audit", "list"])?;
    let is_told = audit.as_array().into_iter().flatten().any(|row| row["action"] == "sample.download");
    ensure!(is_told, "the audit log tells of no download: {audit}");
    Ok(lines)
}

/// Holds each sample against what it claims; returns how many were uncertain.
fn checked(world: &World, found: &[Value]) -> Result<usize> {
    let mut uncertain = 0;
    for sample in found {
        ensure!(sample["device"] == world.agents[AGENT].device(), "{sample}");
        match sample["strategy"].as_str() {
            Some("uncertainty") => {
                uncertain += 1;
                let confidence = sample.pointer("/answer/confidence").and_then(Value::as_f64);
                ensure!(confidence.is_some_and(|confidence| confidence < 0.95), "{sample}");
                ensure!(sample["probability"] == 1.0, "{sample}");
            }
            Some("contradiction") => {
                ensure!(
                    sample["label"].is_string() && sample["label"] != sample["answer"]["label"],
                    "{sample}"
                );
            }
            // A picture that the held-out data has and the training data had not the like of.
            Some("out_of_reference") => ensure!(sample["probability"] == 0.1, "{sample}"),
            _ => anyhow::bail!("nobody asked for {sample}"),
        }
        let file = sample.pointer("/inputs/image/file").and_then(Value::as_str).context("no input")?;
        let bytes = std::fs::read(world.folder.join("samples").join(file))?;
        let values = bytes.len().checked_sub(IMAGE_BYTES).map(|begin| &bytes[begin..]);
        let pixels = values.context("no image")?.chunks_exact(4);
        let pixels: Vec<f32> =
            pixels.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
        ensure!(world.has_image(&pixels), "{file} is no image that the application has sent");
    }
    ensure!(uncertain > 0, "no sample was uncertain");
    Ok(uncertain)
}
