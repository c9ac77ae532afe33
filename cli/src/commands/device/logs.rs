//! `flotilla device logs`: what a device's agent wrote into its log.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::commands::Context;
use crate::output::items;

/// A connected device answers at once; one that has just gone does not.
const PATIENCE_S: u32 = 60;

/// Prints the newest upload, or asks for one and prints that.
///
/// # Errors
/// When the device is offline or sends nothing in time, or there is no upload.
pub(super) async fn run(context: &Context, device: &str, collect: bool, lines: u32) -> Result<()> {
    let mut upload = if collect {
        collected(context, device, lines).await?
    } else {
        let newest = uploads(context, device, 1).await?.into_iter().next();
        newest.with_context(|| format!("{device} was never asked for its log; ask it with --collect"))?
    };
    let said = upload["lines"].as_array_mut().context("the upload holds no lines")?;
    // Newest last.
    said.drain(..said.len().saturating_sub(usize::try_from(lines)?));
    context.format.print(&upload, |upload| {
        let lines: Vec<&str> = items(&upload["lines"]).iter().filter_map(Value::as_str).collect();
        lines.join("\n")
    })
}

async fn uploads(context: &Context, device: &str, limit: u32) -> Result<Vec<Value>> {
    let page = context.client.get(&format!("/devices/{device}/logs?limit={limit}")).await?;
    Ok(items(&page).to_vec())
}

async fn collected(context: &Context, device: &str, lines: u32) -> Result<Value> {
    let command = json!({ "type": "collect_logs", "max_lines": lines });
    let queued = context.client.post(&format!("/devices/{device}/commands"), &command).await?;
    if queued["is_online"] != true {
        bail!("{device} is offline; ask again when it is connected");
    }
    for _ in 0..PATIENCE_S {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let found = uploads(context, device, 5).await?;
        if let Some(upload) = found.into_iter().find(|upload| upload["command_id"] == queued["id"]) {
            return Ok(upload);
        }
    }
    bail!("{device} did not send its log within {PATIENCE_S} s; it may come later: see it without --collect")
}
