//! Requests that an application gets wrong: each is answered 400 in the protocol's form, and the next one is served.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::world::World;

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let tensor = |shape: Value, count: usize, datatype: &str| {
        json!({ "inputs": [
            { "name": "image", "datatype": datatype, "shape": shape, "data": vec![0.0; count] }
        ]})
        .to_string()
    };
    let cases = [
        ("an image of 8x9", tensor(json!([1, 1, 8, 9]), 72, "FP32")),
        ("an image without channels", tensor(json!([1, 8, 8]), 64, "FP32")),
        ("63 values for 64 pixels", tensor(json!([1, 1, 8, 8]), 63, "FP32")),
        ("a shape below zero", tensor(json!([-1, 1, 8, 8]), 64, "FP32")),
        ("a datatype that doesn't exist", tensor(json!([1, 1, 8, 8]), 64, "FP33")),
        ("no image", json!({ "inputs": [] }).to_string()),
        ("JSON that is cut off", "{\"inputs\": [{\"name\": \"image\",".to_owned()),
        ("no JSON", "image".to_owned()),
        ("nothing", String::new()),
        ("JSON nested 200 deep", "[".repeat(200)),
    ];
    for (what, body) in &cases {
        let (status, answer) = post(world, body)?;
        ensure!(status == 400, "{what} was answered {status}: {answer}");
        let parsed: Value = serde_json::from_str(&answer)?;
        let said = parsed["error"].as_str().unwrap_or_default();
        ensure!(!said.is_empty(), "{what} was answered in another form than the protocol's: {answer}");
    }
    world.serves(0, "1.0.0")?;
    Ok(Outcome::Ok(format!(
        "local API: {} malformed requests answered 400 with a named error, then it serves on",
        cases.len()
    )))
}

fn post(world: &World, body: &str) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}/v2/models/digits/infer", world.agents[0].url());
    let mut answer = agent.post(&url).header("content-type", "application/json").send(body)?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}
