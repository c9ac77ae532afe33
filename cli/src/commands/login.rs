//! `flotilla login` and `flotilla logout`.
//!
//! The password is asked for once; what is remembered is an API token that can be revoked, never the password.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::user::ROLES;
use crate::client::{Client, ClientError};
use crate::output::{Format, shown, text};
use crate::session::{Session, new_password, password};
use crate::settings::Settings;

/// Whom and where.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a terminal the password is taken from FLOTILLA_PASSWORD, and the one that replaces a one-time \
password from FLOTILLA_NEW_PASSWORD; where they are not set, each is a line of stdin."
)]
pub(crate) struct Args {
    /// Address of the server, e.g. <https://fleet.example:8443>.
    #[arg(long, env = "FLOTILLA_SERVER")]
    server: String,
    /// The fleet's CA certificate (PEM); the server keeps it in its data folder as ca/ca.pem.
    #[arg(long, env = "FLOTILLA_CA")]
    ca: PathBuf,
    /// User name.
    #[arg(long, default_value = "admin", env = "FLOTILLA_USER")]
    user: String,
    /// Days until this machine has to sign in again.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

/// Signs in; a one-time password is replaced on the way.
///
/// # Errors
/// When the server refuses, or there is nobody to ask for the password.
pub(crate) async fn login(args: &Args, project: Option<&str>, format: Format) -> Result<()> {
    let ca = std::fs::read_to_string(&args.ca).with_context(|| {
        format!(
            "cannot read the CA {}; the server keeps it in its data folder as ca/ca.pem",
            args.ca.display()
        )
    })?;
    let client = Client::new(&args.server, &ca)?;
    let password = password(&args.user)?;
    let mut session = Session::open(&client, &args.user, &password).await?;
    if session.must_change_password {
        let new = new_password("this password works once; ")?;
        session.change_password(&client, &password, &new).await?;
    }
    let project = project.unwrap_or("default");
    let (scope, role) = widest(&session.grants, project)?;
    let expires = OffsetDateTime::now_utc() + Duration::days(args.days.into());
    let wanted = json!({
        "title": format!("flotilla on {}", host_name()), "project": scope, "role": role,
        "expires_at": expires.format(&Rfc3339)?,
    });
    let made = session.request(&client, Method::POST, "/tokens").json(&wanted);
    let made = client.json(made).await?;
    let token = made["text"].as_str().context("the server's answer holds no token")?.to_owned();
    session.close(&client).await?;
    let settings = Settings {
        server: client.server().to_owned(),
        ca,
        project: project.to_owned(),
        user: args.user.clone(),
        token,
        token_id: text(&made, "/token/id"),
    };
    settings.save()?;
    let said = json!({
        "server": settings.server, "user": settings.user, "project": settings.project,
        "expires_at": made["token"]["expires_at"],
    });
    format.print(&said, |said| {
        format!(
            "signed in to {} as {}, project {}, until {}",
            text(said, "/server"),
            text(said, "/user"),
            text(said, "/project"),
            text(said, "/expires_at")
        )
    })
}

/// Revokes the token and forgets the server; forgetting works without the server too.
///
/// # Errors
/// When nobody has signed in.
pub(crate) async fn logout() -> Result<()> {
    let client = Client::signed_in(None)?;
    let settings = Settings::load()?.ok_or(ClientError::NotSignedIn)?;
    let current = client.request(Method::DELETE, &format!("/tokens/{}", settings.token_id));
    if let Err(error) = client.send(current).await {
        eprintln!("warning: the token could not be revoked on the server: {}", shown(&error.to_string()));
    }
    Settings::forget()
}

/// The user's own role where the token is to work: everywhere if granted so, else in the one project, or there when the
/// role is a stronger one.
fn widest(grants: &[Value], project: &str) -> Result<(String, String)> {
    let rank = |grant: &&Value| ROLES.iter().position(|role| grant["role"] == *role);
    let of = |scope: &str| grants.iter().find(|grant| grant["project"] == scope);
    // Of two that are equal, the last one is taken.
    let Some(grant) = [of(project), of("*")].into_iter().flatten().max_by_key(rank) else {
        bail!("this user may do nothing in project {project}");
    };
    Ok((text(grant, "/project"), text(grant, "/role")))
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "this machine".into(), |name| name.trim().into())
}
