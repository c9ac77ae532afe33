//! `flotilla audit list`.

use anyhow::Result;
use reqwest::Method;
use serde_json::json;

use super::Context;
use crate::output::{items, table, text};

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
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let Command::List { limit, everywhere } = command;
    let path = format!("/audit?limit={limit}");
    let page = if everywhere {
        context.client.json(context.client.request(Method::GET, &path)).await?
    } else {
        context.client.get(&path).await?
    };
    context.format.print(&json!(items(&page)), |rows| {
        let row = |row: &serde_json::Value| {
            ["/at", "/actor", "/action", "/object"].map(|pointer| text(row, pointer)).to_vec()
        };
        table(
            &["when", "who", "did", "to"],
            items(rows).iter().map(row).collect(),
            "nothing has been changed yet",
        )
    })
}
