//! Tokens that must not enrol anything: one that the server never gave out, an expired one, a used one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::rig::{Agent, wait_until};

use super::Outcome;
use super::world::{World, agent_options};
use crate::rest::Rest;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let before = world.devices()?;
    refused(world, "wrong", &forged(&world.fleet.token("wrong", &[])?)?, "token_unknown")?;
    let expired = short_lived(world, "expired")?;
    wait_until("the token's expiry", Duration::from_secs(10), || {
        let tokens = call(world, "GET", &Value::Null)?;
        let items = tokens["items"].as_array().context("no list of tokens")?;
        Ok(items
            .iter()
            .any(|token| token["device"] == "expired" && token["state"] == "expired")
            .then_some(()))
    })?;
    refused(world, "expired", &expired, "token_expired")?;
    ensure!(world.devices()? == before, "a refused token has enrolled a device");
    used_twice(world)?;
    Ok(Outcome::Ok(
        "enrolment: wrong, expired and used tokens refused as token_unknown, token_expired, token_used; nothing enrolled"
            .into(),
    ))
}

fn refused(world: &World, device: &str, token: &str, code: &str) -> Result<()> {
    let folder = world.folder.join("refused").join(device);
    let agent = Agent::configure(world.agent_binary(), &folder, agent_options(device))?;
    let said = match agent.try_enroll(token) {
        Ok(()) => anyhow::bail!("{device} was enrolled"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(said.contains(code), "expected {code} on stderr, it said: {said}");
    ensure!(!has_identity(&folder), "{device} has kept an identity");
    Ok(())
}

/// Whether enrolment has left anything that names the device.
fn has_identity(folder: &std::path::Path) -> bool {
    let files = std::fs::read_dir(folder.join("state")).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().contains("identity"))
}

/// A second device can't use what a first one has used up.
fn used_twice(world: &World) -> Result<()> {
    let before = world.devices()?;
    let token = call(world, "POST", &json!({}))?;
    let token = token["text"].as_str().context("no token")?.to_owned();
    let first =
        Agent::configure(world.agent_binary(), &world.folder.join("refused/first"), agent_options("first"))?;
    first.try_enroll(&token)?;
    refused(world, "second", &token, "token_used")?;
    world.fleet.cli.run(&["device", "delete", "first", "--yes"])?;
    ensure!(world.devices()? == before, "the token's second use has enrolled a device");
    Ok(())
}

/// The token with another secret.
fn forged(token: &str) -> Result<String> {
    let body = token.strip_prefix("flt1.").context("a token begins with flt1.")?;
    let mut fields: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body)?)?;
    fields["s"] = URL_SAFE_NO_PAD.encode([7; 32]).into();
    Ok(format!("flt1.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&fields)?)))
}

/// The command line counts in hours; the API takes seconds.
fn short_lived(world: &World, device: &str) -> Result<String> {
    let made = call(world, "POST", &json!({ "device": device, "validity_s": 1 }))?;
    made["text"].as_str().map(str::to_owned).context("no token")
}

/// One call about enrolment tokens, as the operator who signed in.
fn call(world: &World, method: &str, body: &Value) -> Result<Value> {
    let rest = Rest::open(&world.folder)?;
    if method == "POST" { rest.post("/enrollment-tokens", body) } else { rest.get("/enrollment-tokens") }
}
