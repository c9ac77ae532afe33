//! `flotilla drift show`: which devices and which features, now.

use anyhow::Result;
use serde_json::Value;

use super::Context;
use crate::output::{facts, items, table, text};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Which devices and which features of a model drift now.
    Show {
        /// Name of the model.
        #[arg(long)]
        model: String,
        /// Show one device's features instead.
        #[arg(long)]
        device: Option<String>,
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let Command::Show { model, device } = command;
    match device {
        None => {
            let found = context.client.get(&format!("/models/{model}/drift/devices")).await?;
            context.format.print(&found, devices)
        }
        Some(device) => {
            let found = context.client.get(&format!("/models/{model}/drift?device={device}")).await?;
            context.format.print(&found, |found| newest(items(found)))
        }
    }
}

/// The features of a device's newest window, and of how many windows it is the last.
fn newest(windows: &[Value]) -> String {
    let Some(window) = windows.last() else { return "nothing was counted in the last day".into() };
    let head = facts(&[
        ("release", text(window, "/version")),
        ("from", text(window, "/from")),
        ("to", text(window, "/to")),
        ("requests", text(window, "/n")),
        ("right", share(&window["report"]["quality"]["accuracy"])),
        ("windows in a day", windows.len().to_string()),
    ]);
    let features = window["report"]["features"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |feature: &Value| {
        let mut cells = ["/feature", "/role", "/status"].map(|pointer| text(feature, pointer)).to_vec();
        cells.extend(["distance", "adjusted_p"].map(|name| number(&feature[name])));
        cells
    };
    let headings = ["feature", "role", "status", "distance", "adjusted p"];
    format!("{head}\n{}", table(&headings, features.iter().map(row).collect(), "no feature is compared"))
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |value| format!("{value:.4}"))
}

fn share(value: &Value) -> String {
    value.as_f64().map_or_else(|| "no labels".into(), |value| format!("{:.1} %", 100.0 * value))
}

fn devices(found: &Value) -> String {
    let row = |device: &Value| {
        let features = device["features"].as_array().map_or(&[][..], Vec::as_slice);
        let drifting: Vec<String> = features.iter().map(|feature| text(feature, "/feature")).collect();
        let mut cells = ["/device", "/version", "/state"].map(|pointer| text(device, pointer)).to_vec();
        cells.push(drifting.join(", "));
        cells
    };
    table(
        &["device", "release", "state", "features"],
        items(found).iter().map(row).collect(),
        "no device drifts",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_shows_the_features_of_its_newest_window() {
        let window = |from: &str, accuracy: Value| {
            json!({"version": "1.0.0", "from": from, "to": "t", "n": 40, "report": {
                "quality": {"accuracy": accuracy},
                "features": [{"feature": "contrast", "role": "input", "status": "drifting", "distance": 0.25,
                    "adjusted_p": null}]}})
        };
        let shown = newest(&[window("old", Value::Null), window("new", json!(0.925))]);
        assert!(shown.contains("new") && !shown.contains("old") && shown.contains("92.5 %"), "{shown}");
        assert!(shown.contains("contrast") && shown.contains("0.2500"), "{shown}");
        assert_eq!(newest(&[]), "nothing was counted in the last day");
    }
}
