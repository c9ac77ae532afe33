//! Measuring a published release on a device of the fleet, by the command `measure`: the device fetches each variant
//! as it would one that is to serve, runs it beside what serves, and the server keeps what it found.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use protocol::measurement::MAX_MEASURE_S;
use protocol::message::UNKNOWN_COMMAND;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::output::{items, text};

/// Seconds that a device may take to fetch a variant before this stops waiting for it.
const FETCHING_S: u64 = 120;
/// How often is looked whether the answer has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where to measure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// On this device.
    Device(&'a str),
    /// On a connected device of this hardware class.
    Class(&'a str),
}

/// Has every variant measured, one after the other; what a device can't measure is told and kept as such. What went
/// wrong, if something did.
///
/// # Errors
/// When no such device is connected, or it doesn't answer.
pub(super) async fn measure(
    client: &Client,
    release: &Value,
    place: Place<'_>,
    max_s: u64,
) -> Result<Option<String>> {
    let mut wrong = None;
    let device = match place {
        Place::Device(device) => device.to_owned(),
        Place::Class(class) => connected(client, class).await?,
    };
    for variant in items(&release["variants"]) {
        let name = text(variant, "/name");
        eprintln!("measuring variant {name} on {device}");
        let max_s = max_s.clamp(1, u64::from(MAX_MEASURE_S));
        let command = json!({
            "type": "measure", "model": release["model"], "version": release["version"], "variant": name, "max_s": max_s,
        });
        let queued = client.post(&format!("/devices/{device}/commands"), &command).await?;
        if queued["is_online"] != true {
            bail!("{device} is offline; ask again when it is connected");
        }
        let answer = answer(client, release, &device, (&text(&queued, "/id"), max_s)).await?;
        if let Some(why) = failed(&name, &answer) {
            eprintln!("{why}");
            wrong.get_or_insert(why);
        }
    }
    Ok(wrong)
}

/// Why a device's answer is none that the variant can be taken for, if it isn't.
fn failed(variant: &str, answer: &Value) -> Option<String> {
    if answer["failure"].is_object() {
        return Some(format!("variant {variant} was not measured: {}", text(answer, "/failure/detail")));
    }
    let figures = &answer["figures"];
    let fails = figures["passed"] != figures["samples"];
    fails.then(|| format!("variant {variant} fails a golden sample, so no device would take it"))
}

async fn connected(client: &Client, class: &str) -> Result<String> {
    let path = client.in_project("/devices");
    let mut cursor: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, &path).query(&[("online", "true"), ("limit", "500")]);
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page = client.json(request).await?;
        if let Some(device) = items(&page).iter().find(|device| device["hardware_class"] == class) {
            return Ok(text(device, "/device"));
        }
        let next = page["next_cursor"].as_str().map(str::to_owned);
        cursor = Some(next.with_context(|| format!("no device of hardware class {class:?} is connected"))?);
    }
}

/// The path of what was measured of a release.
fn measurements_of(release: &Value) -> String {
    format!("/models/{}/releases/{}/measurements", text(release, "/model"), text(release, "/version"))
}

async fn answer(client: &Client, release: &Value, device: &str, asked: (&str, u64)) -> Result<Value> {
    let (id, max_s) = asked;
    let (measurements, events) = (measurements_of(release), format!("/devices/{device}/events?limit=20"));
    for _ in 0..max_s + FETCHING_S {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = client.get(&measurements).await?;
        if let Some(answer) = items(&found).iter().find(|answer| answer["command_id"] == id) {
            return Ok(answer.clone());
        }
        let events = client.get(&events).await?;
        let is_refusal =
            |event: &&Value| event["name"] == UNKNOWN_COMMAND && text(event, "/detail").starts_with(id);
        if let Some(event) = items(&events).iter().find(is_refusal) {
            bail!("{device} can't measure: {}", text(event, "/detail"));
        }
    }
    bail!(
        "{device} did not answer within {} s: it may still fetch the release (look again without --on), or its agent \
         is too old to measure",
        max_s + FETCHING_S
    )
}

/// What was measured of a release on request, by hardware class, and what could not be.
///
/// # Errors
/// What the server refused.
pub(super) async fn found(
    client: &Client,
    release: &Value,
) -> Result<(BTreeMap<String, Value>, Vec<String>)> {
    let mut found = items(&client.get(&measurements_of(release)).await?).to_vec();
    // The newest of a class and variant is shown.
    found.sort_by_key(|measured| std::cmp::Reverse(text(measured, "/received_at")));
    let (mut classes, mut failures) = (BTreeMap::<String, Vec<Value>>::new(), Vec::new());
    for measured in found {
        let (class, variant) = (text(&measured, "/hardware_class"), text(&measured, "/variant"));
        if measured["failure"].is_object() {
            let (device, why) = (text(&measured, "/device"), text(&measured, "/failure/detail"));
            failures.push(format!("{variant} was not measured on {device} ({class}): {why}"));
            continue;
        }
        let rows = classes.entry(class).or_default();
        if rows.iter().all(|row| row["variant"] != variant.as_str()) {
            rows.push(row(release, &measured));
        }
    }
    let place = |row: &Value| {
        items(&release["variants"]).iter().position(|variant| variant["name"] == row["variant"])
    };
    for rows in classes.values_mut() {
        rows.sort_by_key(place);
    }
    let classes = classes.into_iter().map(|(class, rows)| (class, json!({ "variants": rows })));
    Ok((classes.collect(), failures))
}

/// Adds to each row what its variant is made of.
pub(super) fn add(classes: &mut BTreeMap<String, Value>, made_of: &BTreeMap<String, Value>) {
    let rows = classes.values_mut().filter_map(|class| class["variants"].as_array_mut()).flatten();
    for row in rows.filter_map(Value::as_object_mut) {
        let made_of = row.get("variant").and_then(Value::as_str).and_then(|variant| made_of.get(variant));
        row.extend(made_of.and_then(Value::as_object).cloned().unwrap_or_default());
    }
}

/// The same row as a publisher's own measurement gives.
fn row(release: &Value, measured: &Value) -> Value {
    let figures = &measured["figures"];
    let variant = items(&release["variants"]).iter().find(|variant| variant["name"] == measured["variant"]);
    let fallback =
        |node: &Value| json!({ "name": node["node"], "op": node["op"], "runs": "tract", "why": node["why"] });
    json!({
        "variant": measured["variant"], "device": measured["device"], "received_at": measured["received_at"],
        "size_bytes": variant.map(|variant| &variant["size_bytes"]),
        "claimed_accuracy": variant.map(|variant| &variant["accuracy"]),
        "load_us": figures["load_us"], "loaded_bytes": figures["loaded_bytes"],
        "peak_memory_bytes": figures["peak_bytes"],
        "latency_us": {
            "runs": figures["runs"], "p50": figures["p50_us"], "p90": figures["p90_us"],
            "p95": figures["p95_us"], "p99": figures["p99_us"],
        },
        "golden": { "samples": figures["samples"], "passed": figures["passed"] },
        "tract_time_share": figures["tract_time_share"],
        "runs": {
            "int8_nodes": figures["int8_nodes"], "f32_nodes": figures["f32_nodes"],
            "tract_nodes": figures["tract_nodes"], "kernels": figures["kernels"],
            "why_all_tract": figures["why_all_tract"],
            "nodes": items(&figures["fallbacks"]).iter().map(fallback).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::release::inspect::measured;

    #[test]
    fn what_was_not_measured_or_fails_its_samples_went_wrong() {
        let of = |answer: Value| failed("int8", &answer);
        let figures = |passed: u32| json!({ "figures": { "samples": 16, "passed": passed } });
        assert_eq!(of(figures(16)), None);
        assert!(of(figures(15)).unwrap().contains("variant int8 fails a golden sample"));
        let failure = json!({ "failure": { "code": "timeout", "detail": "it took 30 s" } });
        assert_eq!(of(failure).unwrap(), "variant int8 was not measured: it took 30 s");
    }

    #[test]
    fn a_device_s_figures_stand_in_the_same_tables_as_the_publisher_s() {
        let release = json!({ "variants": [{ "name": "int8", "size_bytes": 2048, "accuracy": 0.958 }] });
        let figures = json!({
            "load_us": 1500, "runs": 30, "p50_us": 800, "p90_us": 900, "p95_us": 950, "p99_us": 1000,
            "loaded_bytes": 4096, "peak_bytes": 8192, "samples": 16, "passed": 16, "int8_nodes": 5, "f32_nodes": 0,
            "tract_nodes": 1, "tract_time_share": 0.25, "kernels": "neon-dot", "why_all_tract": null,
            "fallbacks": [{ "node": "g", "op": "Gather", "why": "no int8 step for it" }],
        });
        let measured_there = json!({ "variant": "int8", "device": "cam", "figures": figures });
        let rows = json!({ "variants": [row(&release, &measured_there)] });
        let mut classes = BTreeMap::from([("rpi4".to_owned(), rows)]);
        let made_of = json!({ "parameters": 77_000, "macs": 1_000_000, "flops": 2_000_000 });
        add(&mut classes, &BTreeMap::from([("int8".to_owned(), made_of)]));
        let shown = measured::show(&classes) + &measured::show_runs(&classes);
        for part in [
            "2.0 KiB",
            "8.0 KiB",
            "800 µs",
            "1.00 ms",
            "16 of 16",
            "95.8 %",
            "77.0 k",
            "1.0 M",
            "2.0 M",
            "neon-dot",
            "Gather g runs",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(shown.contains("25 % of the time goes into tract's nodes"), "{shown}");
        assert!(!shown.contains("multiply-adds in int8"), "devices don't report them: {shown}");
    }
}
