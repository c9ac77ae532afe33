//! `flotilla project ...`: the tenants of one server; each has its own devices, models and keys.

use anyhow::Result;
use reqwest::Method;
use serde_json::json;

use super::Context;
use crate::output::{items, table, text};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Projects that you may see, and as what.
    List,
    /// Make a project. `flotilla login --project NAME` works on it from then on.
    Create {
        /// Its name in paths and topics: 1 to 63 of a-z, 0-9, `-`, `_`, `.`.
        name: String,
        /// Its name for people; the name itself if left out.
        #[arg(long)]
        title: Option<String>,
    },
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = &context.client;
    match command {
        Command::List => {
            let found = client.json(client.request(Method::GET, "/projects")).await?;
            context.format.print(&found["items"], |found| {
                let row = |project| {
                    ["/project", "/title", "/role", "/created_at"].map(|field| text(project, field))
                };
                let rows = items(found).iter().map(|project| row(project).to_vec()).collect();
                table(&["project", "title", "you are", "made"], rows, "you may see no project")
            })
        }
        Command::Create { name, title } => {
            let body = json!({ "project": name, "title": title.unwrap_or_else(|| name.clone()) });
            let made = client.json(client.request(Method::POST, "/projects").json(&body)).await?;
            let next = format!(
                "project {name} is made; next: flotilla login --project {name}, then flotilla keys init"
            );
            context.format.print(&made, |_| next)
        }
    }
}
