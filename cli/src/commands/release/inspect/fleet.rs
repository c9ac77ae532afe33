//! How a published release does on each hardware class of the fleet: what its devices' own self-tests measured
//! when they took it. A rollout's first stage is the job that brings it onto a class.

use std::collections::BTreeMap;

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::output::{bytes, items, table, text};

/// Devices that are looked at; more of a class add nothing.
const MAX_DEVICES: &str = "200";
/// Devices of one class whose tasks are asked for.
const PER_CLASS: usize = 5;
/// Transitions of a device that are searched, newest first.
const MAX_TRANSITIONS: &str = "200";

/// The self-tests by hardware class.
///
/// # Errors
/// What the server refused.
pub(super) async fn measured(client: &Client, model: &str, version: &str) -> Result<Value> {
    let filter = [("model", model), ("version", version), ("limit", MAX_DEVICES)];
    let devices = page(client, "/devices", &filter).await?;
    let mut classes: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for device in items(&devices) {
        let class = device["hardware_class"].as_str().or(device["arch"].as_str()).unwrap_or("unknown");
        let found = classes.entry(class.to_owned()).or_default();
        if found.len() >= PER_CLASS {
            continue;
        }
        let path = format!("/devices/{}/tasks", text(device, "/device"));
        let tasks = page(client, &path, &[("limit", MAX_TRANSITIONS)]).await?;
        found.extend(self_test(&tasks, model, version).cloned());
    }
    Ok(classes.into_iter().map(|(class, tests)| (class, summary(&tests))).collect())
}

async fn page(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Value> {
    Ok(client.json(client.request(Method::GET, &client.in_project(path)).query(query)).await?)
}

/// The newest self-test of this release among a device's transitions.
fn self_test<'v>(tasks: &'v Value, model: &str, version: &str) -> Option<&'v Value> {
    let of_release = |task: &&Value| task["model"] == model && task["release"]["version"] == version;
    let tested = items(tasks).iter().filter(of_release).filter(|task| task["self_test"].is_object());
    tested.max_by_key(|task| text(task, "/received_at")).map(|task| &task["self_test"])
}

/// The middle of the medians, and the worst of the rest.
fn summary(tests: &[Value]) -> Value {
    let values = |key: &str| {
        let mut values: Vec<u64> = tests.iter().filter_map(|test| test[key].as_u64()).collect();
        values.sort_unstable();
        values
    };
    let medians = values("p50_us");
    json!({
        "devices": tests.len(),
        "p50_us": medians.get(medians.len() / 2),
        "worst_p95_us": values("p95_us").last(),
        "most_memory_bytes": values("memory_bytes").last(),
        "golden": { "samples": values("samples").iter().sum::<u64>(), "passed": values("passed").iter().sum::<u64>() },
    })
}

/// The table for people; nothing where no device took the release.
pub(super) fn show(classes: &Value) -> String {
    let Some(classes) = classes.as_object().filter(|classes| !classes.is_empty()) else {
        return String::new();
    };
    let row = |(class, tests): (&String, &Value)| {
        let memory = tests["most_memory_bytes"].as_u64().map_or_else(|| "-".into(), bytes);
        let golden = format!("{} of {}", text(tests, "/golden/passed"), text(tests, "/golden/samples"));
        let micros = |key: &str| text(tests, key);
        vec![
            class.clone(),
            text(tests, "/devices"),
            micros("/p50_us"),
            micros("/worst_p95_us"),
            memory,
            golden,
        ]
    };
    let headings = ["class", "devices", "p50 in µs", "worst p95 in µs", "most memory", "golden samples"];
    let rows = classes.iter().map(row).collect();
    ["\nOn devices\n", &table(&headings, rows, "no device took it yet"), "\n\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(version: &str, at: &str, p50_us: u64) -> Value {
        let test = json!({ "samples": 16, "passed": 16, "p50_us": p50_us, "p95_us": 2 * p50_us, "memory_bytes": 1024 });
        json!({ "model": "digits", "release": { "version": version }, "received_at": at, "self_test": test })
    }

    #[test]
    fn the_newest_self_test_of_the_release_counts() {
        let idle = json!({ "model": "digits", "release": { "version": "1.0.0" }, "received_at": "2026-03-01T00:00:00Z", "self_test": null });
        let old = task("1.0.0", "2026-01-01T00:00:00Z", 9);
        let new = task("1.0.0", "2026-02-01T00:00:00Z", 7);
        let tasks = json!({ "items": [idle, new, old, task("2.0.0", "2026-04-01T00:00:00Z", 1)] });
        assert_eq!(self_test(&tasks, "digits", "1.0.0").unwrap()["p50_us"], 7);
        assert!(self_test(&tasks, "digits", "3.0.0").is_none());
    }

    #[test]
    fn a_class_shows_its_middle_and_its_worst() {
        let tests: Vec<Value> = [30, 10, 20].map(|p50| task("1.0.0", "", p50)["self_test"].clone()).into();
        let said = summary(&tests);
        assert_eq!((&said["p50_us"], &said["worst_p95_us"]), (&json!(20), &json!(60)));
        assert_eq!(said["golden"]["passed"], 48);
        let shown = show(&json!({ "cam": said }));
        assert!(shown.contains("1.0 KiB") && shown.contains("48 of 48"), "{shown}");
        assert_eq!(show(&json!({})), "");
    }
}
