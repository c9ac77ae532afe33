//! `flotilla device ...`.

mod logs;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Context;
use crate::output::{bytes, confirmed, facts, items, table, text};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Every device with its state and release.
    List {
        /// Only devices with this label, as key=value.
        #[arg(long)]
        label: Option<String>,
        /// Only devices that are connected.
        #[arg(long)]
        online: bool,
    },
    /// One device.
    Show {
        /// Device id.
        device: String,
    },
    /// A one-time token that enrols a device.
    Token {
        /// The id that the device will have; it may choose one itself if none is given.
        #[arg(long)]
        device: Option<String>,
        /// Labels that the device will have, as key=value.
        #[arg(long = "label")]
        labels: Vec<String>,
        /// Hours until the token expires.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// The trusted root that is pinned into the token; default: the one in this project's key folder.
        #[arg(long)]
        root: Option<PathBuf>,
        /// Make the token without a pinned root: the device then trusts the root that the server hands it.
        #[arg(long, conflicts_with = "root")]
        unpinned: bool,
    },
    /// Set labels as key=value, remove them as key=.
    Label {
        /// Device id.
        device: String,
        /// Labels.
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// Why a device is not on a model's release.
    Why {
        /// Device id.
        device: String,
        /// Name of the model.
        #[arg(long)]
        model: String,
    },
    /// What happened on a device, newest first.
    Events {
        /// Device id.
        device: String,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Records of a device that the server could not store, newest first; they are kept to be looked at.
    Quarantine {
        /// Device id.
        device: String,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// The agent's own log lines, as a device sent them when it was asked.
    Logs {
        /// Device id.
        device: String,
        /// Ask the device for its newest lines and wait for them.
        #[arg(long)]
        collect: bool,
        /// At most so many lines.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        lines: u32,
    },
    /// Decommission: its certificate is refused from now on.
    Delete {
        /// Device id.
        device: String,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = &context.client;
    match command {
        Command::List { label, online } => list(context, label.as_deref(), online).await,
        Command::Show { device } => {
            context.format.print(&client.get(&format!("/devices/{device}")).await?, show)
        }
        Command::Token { device, labels, hours, root, unpinned } => {
            let pin = if unpinned { None } else { Some(pin(context, root.as_deref())?) };
            token(context, device, &labels, hours, pin.as_deref()).await
        }
        Command::Label { device, labels } => label(context, &device, &labels).await,
        Command::Why { device, model } => {
            let found = client.get(&format!("/devices/{device}/why?model={model}")).await?;
            context.format.print(&found, |found| text(found, "/message"))
        }
        Command::Events { device, limit } => {
            let page = client.get(&format!("/devices/{device}/events?limit={limit}")).await?;
            context.format.print(&json!(items(&page)), |events| {
                let row = |event: &Value| {
                    ["/received_at", "/name", "/detail"].map(|field| text(event, field)).to_vec()
                };
                let rows = items(events).iter().map(row).collect();
                table(&["received", "event", "what"], rows, "nothing has happened on this device")
            })
        }
        Command::Quarantine { device, limit } => {
            let page = client.get(&format!("/devices/{device}/quarantine?limit={limit}")).await?;
            context.format.print(&json!(items(&page)), quarantined)
        }
        Command::Logs { device, collect, lines } => logs::run(context, &device, collect, lines).await,
        Command::Delete { device, yes } => {
            let what = format!("{device} can never connect again without a new token.");
            ensure!(yes || confirmed(&what)?, "nothing was done");
            let path = client.in_project(&format!("/devices/{device}"));
            let gone = client.json(client.request(Method::DELETE, &path)).await?;
            context.format.print(&gone, |_| format!("{device} is decommissioned"))
        }
    }
}

async fn list(context: &Context, label: Option<&str>, online: bool) -> Result<()> {
    let label = label.map(|label| label.replacen('=', ":", 1));
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(label.as_deref().map(|label| ("label", label)));
    query.extend(online.then_some(("online", "true")));
    let devices = context.client.list("/devices", &query).await?;
    context.format.print(&json!(devices), |devices| {
        let rows = items(devices).iter().map(row).collect();
        table(&["device", "state", "last seen", "releases", "labels"], rows, "no device has enrolled yet")
    })
}

fn row(device: &Value) -> Vec<String> {
    vec![
        text(device, "/device"),
        state(device).into(),
        text(device, "/last_seen"),
        releases(device),
        labels(&device["labels"]),
    ]
}

fn state(device: &Value) -> &'static str {
    if device["is_online"].as_bool().unwrap_or(false) { "online" } else { "offline" }
}

fn releases(device: &Value) -> String {
    let one = |model: &Value| {
        let state = if model["absent"].is_null() { text(model, "/phase") } else { "NOT loaded".into() };
        format!("{} {} ({state})", text(model, "/model"), text(model, "/active/version"))
    };
    device["models"].as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join(", ")
}

fn labels(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quarantined(records: &Value) -> String {
    let row = |record: &Value| {
        let [received, stream, seq, kind, why] =
            ["/received_at", "/stream", "/seq", "/kind", "/why"].map(|field| text(record, field));
        let size = record["size_bytes"].as_u64().map_or_else(String::new, bytes);
        vec![received, kind, why, size, format!("{stream}:{seq}")]
    };
    let rows = items(records).iter().map(row).collect();
    table(&["received", "kind", "why", "size", "record"], rows, "every record of this device could be stored")
}

fn show(device: &Value) -> String {
    let quarantined = device["quarantined_records"].as_u64().unwrap_or(0);
    let problems: Vec<&str> =
        device["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    facts(&[
        ("device", text(device, "/device")),
        ("state", state(device).into()),
        ("last seen", text(device, "/last_seen")),
        ("releases", releases(device)),
        ("labels", labels(&device["labels"])),
        ("certificate until", text(device, "/certificate_expires_at")),
        ("problems", problems.join("; ")),
        (
            "quarantined",
            if quarantined > 0 {
                format!("{quarantined} records; see `flotilla device quarantine`")
            } else {
                String::new()
            },
        ),
    ])
}

async fn label(context: &Context, device: &str, labels: &[String]) -> Result<()> {
    let client = &context.client;
    let path = client.in_project(&format!("/devices/{device}"));
    let removal = |(key, value)| (key, if value == "" { Value::Null } else { value });
    let changes: Map<String, Value> = pairs(labels)?.into_iter().map(removal).collect();
    let changed =
        client.json(client.request(Method::PATCH, &path).json(&json!({ "labels": changes }))).await?;
    context.format.print(&changed, show)
}

fn pairs(labels: &[String]) -> Result<Map<String, Value>> {
    let pair = |label: &String| match label.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Value::String(value.to_owned()))),
        _ => bail!("{label:?} is not of the form key=value"),
    };
    labels.iter().map(pair).collect()
}

/// The server makes the secret; this machine adds the pin of the root that it trusts, so that a server that was
/// taken over can't hand a new device another root.
async fn token(
    context: &Context,
    device: Option<String>,
    labels: &[String],
    hours: u32,
    pin: Option<&str>,
) -> Result<()> {
    let body = json!({ "device": device, "labels": pairs(labels)?, "validity_s": u64::from(hours) * 3600 });
    let made = context.client.post("/enrollment-tokens", &body).await?;
    let plain = made["text"].as_str().context("the server's answer holds no token")?;
    let pinned = pin.map_or_else(|| Ok(plain.to_owned()), |pin| with_pin(plain, pin))?;
    let said = json!({ "text": pinned, "expires_at": made["token"]["expires_at"], "device": device, "is_root_pinned": pin.is_some() });
    context.format.print(&said, |said| text(said, "/text"))
}

fn pin(context: &Context, root: Option<&Path>) -> Result<String> {
    let project = context.client.project();
    crate::keyring::root_pin(root, project)?.with_context(|| {
        format!(
            "no root of project {project} on this machine to pin into the token; make keys with `flotilla keys init`, \
             give --root FILE, or --unpinned to let the device trust whatever root the server hands it"
        )
    })
}

/// Adds the pin `r` (SHA-256 of root.json) to a token's text.
fn with_pin(token: &str, pin: &str) -> Result<String> {
    let body = token.strip_prefix("flt1.").context("the server's token has an unknown form")?;
    let bytes = URL_SAFE_NO_PAD.decode(body).context("the server's token is not base64")?;
    let mut fields: Map<String, Value> =
        serde_json::from_slice(&bytes).context("the server's token is not JSON")?;
    fields.insert("r".into(), Value::String(pin.into()));
    Ok(format!("flt1.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&fields)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_joins_what_the_server_wrote() {
        let token = format!("flt1.{}", URL_SAFE_NO_PAD.encode(r#"{"u":"https://x","s":"y"}"#));
        let pinned = with_pin(&token, "ab").unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(pinned.strip_prefix("flt1.").unwrap()).unwrap();
        let fields: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(fields, json!({"u": "https://x", "s": "y", "r": "ab"}));
        assert!(with_pin("nonsense", "ab").is_err());
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(pairs(&["site=a=b".into()]).unwrap()["site"], "a=b");
        assert!(pairs(&["site".into()]).is_err());
        assert!(pairs(&["=x".into()]).is_err());
    }
}
