//! `flotilla drift show`: which devices and which features, now.

use anyhow::Result;
use serde_json::Value;

use super::Context;
use crate::output::{items, table, text};

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
            context.format.print(&found, |value| serde_json::to_string_pretty(value).unwrap_or_default())
        }
    }
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
