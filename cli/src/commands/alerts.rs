//! `flotilla alerts ...`.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::output::{facts, items, table, text};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The open alerts, newest first.
    List {
        /// Closed ones, too.
        #[arg(long)]
        all: bool,
    },
    /// Take note of an alert: others see who looks after it. It closes by itself; about a rollout that was
    /// rolled back, by this or by a later one that completes.
    Acknowledge {
        /// The alert's id.
        alert: String,
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::List { all } => {
            let open: &[(&str, &str)] = if all { &[] } else { &[("open", "true")] };
            let found = context.client.list("/alerts", open).await?;
            context.format.print(&json!(found), |found| {
                let rows = items(found).iter().map(row).collect();
                table(&["opened", "severity", "state", "what", "id"], rows, "there is no alert")
            })
        }
        Command::Acknowledge { alert } => {
            let path = format!("/alerts/{alert}/acknowledge");
            let noted = context.client.post(&path, &json!({})).await?;
            context.format.print(&noted, |noted| {
                facts(&[
                    ("alert", text(noted, "/message")),
                    ("state", state(noted)),
                    ("since", text(noted, "/acknowledged_at")),
                ])
            })
        }
    }
}

fn row(alert: &Value) -> Vec<String> {
    let [opened, severity, message, id] =
        ["/opened_at", "/severity", "/message", "/id"].map(|field| text(alert, field));
    vec![opened, severity, state(alert), message, id]
}

fn state(alert: &Value) -> String {
    if !alert["closed_at"].is_null() {
        return "closed".into();
    }
    match alert["acknowledged_by"].as_str() {
        Some(_) => format!("open, acknowledged by {}", text(alert, "/acknowledged_by")),
        None => "open".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_says_who_looks_after_it() {
        let open = json!({"closed_at": null, "acknowledged_by": null});
        let noted = json!({"closed_at": null, "acknowledged_by": "ana"});
        let closed = json!({"closed_at": "2026-11-21T00:00:00Z", "acknowledged_by": "ana"});
        assert_eq!(
            [open, noted, closed].each_ref().map(state),
            ["open", "open, acknowledged by ana", "closed"]
        );
    }
}
