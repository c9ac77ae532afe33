//! `flotilla audit list`.

use anyhow::Result;
use reqwest::Method;
use serde_json::json;

use super::Context;
use crate::output::{items, table, text};

/// Which changes; all if nothing is said.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Made by this user.
    #[arg(long)]
    actor: Option<String>,
    /// Of which this is the beginning, e.g. rollout. or rollout.pause
    #[arg(long)]
    action: Option<String>,
    /// To this object.
    #[arg(long)]
    object: Option<String>,
    /// At this time or later, e.g. 2026-11-21T08:00:00Z
    #[arg(long)]
    since: Option<String>,
}

impl Wanted {
    fn query(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("actor", &self.actor),
            ("action", &self.action),
            ("object", &self.object),
            ("since", &self.since),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The newest changes first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// What concerns the whole server instead: users, tokens, sign-ins; needs an admin of all projects
        #[arg(long)]
        everywhere: bool,
        #[command(flatten)]
        wanted: Wanted,
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let Command::List { limit, everywhere, wanted } = command;
    let client = &context.client;
    let path = if everywhere { "/audit".to_owned() } else { client.in_project("/audit") };
    let request = client.request(Method::GET, &path).query(&[("limit", limit)]).query(&wanted.query());
    let page = client.json(request).await?;
    context.format.print(&json!(items(&page)), |rows| {
        let row = |row: &serde_json::Value| {
            ["/at", "/actor", "/action", "/object"].map(|pointer| text(row, pointer)).to_vec()
        };
        table(&["when", "who", "did", "to"], items(rows).iter().map(row).collect(), "there is no such change")
    })
}
