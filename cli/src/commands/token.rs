//! `flotilla token ...`: enrolment tokens that were made; `flotilla device token` makes one.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::Context;
use crate::output::{confirmed, items, table, text};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Enrolment tokens, newest first: who made them, and which device used them.
    List {
        /// Used and expired ones, too.
        #[arg(long)]
        all: bool,
    },
    /// Take a token back: no device can enrol with it from now on.
    Revoke {
        /// The token's id.
        token: String,
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
        Command::List { all } => {
            let mut found = client.list("/enrollment-tokens", &[]).await?;
            found.retain(|token| all || token["state"] == "unused");
            context.format.print(&json!(found), |found| {
                let rows = items(found).iter().map(row).collect();
                table(&["made", "by", "for", "state", "until", "id"], rows, "no token waits for a device")
            })
        }
        Command::Revoke { token, yes } => {
            let what = format!("No device can enrol with token {token} any more.");
            ensure!(yes || confirmed(&what)?, "nothing was done");
            let path = client.in_project(&format!("/enrollment-tokens/{token}"));
            client.json(client.request(Method::DELETE, &path)).await?;
            context.format.print(&json!({ "revoked": token }), |_| format!("token {token} is revoked"))
        }
    }
}

fn row(token: &Value) -> Vec<String> {
    let [made, by, device, until, id] =
        ["/created_at", "/created_by", "/device", "/expires_at", "/id"].map(|field| text(token, field));
    let state = match token["used_by"].as_str() {
        Some(_) => format!("used by {}", text(token, "/used_by")),
        None => text(token, "/state"),
    };
    vec![made, by, if device == "-" { "any device".into() } else { device }, state, until, id]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_token_says_by_whom() {
        let token = json!({"id": "1", "created_at": "t", "created_by": "ana", "device": null, "state": "used",
            "expires_at": "u", "used_by": "cam-1"});
        assert_eq!(row(&token), ["t", "ana", "any device", "used by cam-1", "u", "1"]);
    }
}
