//! `flotilla user ...`: who may do what where, and their passwords. No password is ever an argument.

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Context;
use crate::output::{confirmed, facts, items, table, text};
use crate::session::{Session, new_password, password};
use crate::settings::Settings;

/// Roles, each with what the ones before may do.
pub(super) const ROLES: [&str; 4] = ["viewer", "operator", "publisher", "admin"];

/// A role in a project, or in all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    project: String,
    role: String,
}

/// A text that is no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected PROJECT:ROLE or '*:ROLE', where ROLE is one of {}", ROLES.join(", "))]
pub(crate) struct NoGrant;

impl std::str::FromStr for Grant {
    type Err = NoGrant;
    fn from_str(text: &str) -> Result<Self, NoGrant> {
        let (project, role) = text.rsplit_once(':').unwrap_or_default();
        if project.is_empty() || !ROLES.contains(&role) {
            return Err(NoGrant);
        }
        Ok(Self { project: project.into(), role: role.into() })
    }
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Every user with what they may do where.
    List,
    /// Make a user. The one-time password is printed once; its user replaces it at the first sign-in.
    Create {
        /// Name to sign in with: 1 to 64 letters, digits and `. _ - @ +`.
        user: String,
        /// A role in one project, as PROJECT:ROLE, or in all, as '*:ROLE'; viewer, operator, publisher or admin, each
        /// with what the ones before may do. May be repeated.
        #[arg(long = "grant", value_name = "PROJECT:ROLE")]
        grants: Vec<Grant>,
    },
    /// Change what a user may do. What isn't said stays.
    #[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
    Set {
        /// The user's name.
        user: String,
        /// Replaces all of the user's roles; as with create.
        #[arg(long = "grant", value_name = "PROJECT:ROLE", group = "change", conflicts_with = "no_grants")]
        grants: Vec<Grant>,
        /// Takes all roles away: the user may sign in and do nothing.
        #[arg(long, group = "change")]
        no_grants: bool,
        /// Signing in is refused from now on, open sessions end, tokens are refused.
        #[arg(long, group = "change", conflicts_with = "enable")]
        disable: bool,
        /// Signing in is allowed again.
        #[arg(long, group = "change")]
        enable: bool,
    },
    /// Set your own password, or give another user a one-time password.
    #[command(
        after_help = "Both passwords are asked for on the terminal. Without one they are taken from FLOTILLA_PASSWORD and \
FLOTILLA_NEW_PASSWORD; where those are not set, each is a line of stdin, the present one first."
    )]
    Password {
        /// Make a new one-time password for this user and end the sessions; needs an admin. Your own is set without it.
        user: Option<String>,
        /// Don't ask.
        #[arg(long, requires = "user")]
        yes: bool,
    },
    /// Remove a user with all sessions and tokens.
    Delete {
        /// The user's name.
        user: String,
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
    match command {
        Command::List => list(context).await,
        Command::Create { user, grants } => {
            let body = json!({ "username": user, "grants": bodies(&grants) });
            let made = call(context, Method::POST, "/users", &body).await?;
            context.format.print(&made, shown)
        }
        Command::Set { user, grants, no_grants, disable, enable } => {
            let mut change = Map::new();
            if no_grants || !grants.is_empty() {
                change.insert("grants".into(), bodies(&grants));
            }
            if disable || enable {
                change.insert("is_disabled".into(), disable.into());
            }
            let changed = call(context, Method::PATCH, &path(&user)?, &Value::Object(change)).await?;
            context.format.print(&changed["user"], |user| shown(&json!({ "user": user })))
        }
        Command::Password { user: None, .. } => own_password(context).await,
        Command::Password { user: Some(user), yes } => {
            let what = format!("{user} is signed out everywhere, and the present password works no longer.");
            ensure!(yes || confirmed(&what)?, "nothing was done");
            let change = json!({ "reset_password": true });
            let changed = call(context, Method::PATCH, &path(&user)?, &change).await?;
            context.format.print(&changed, shown)
        }
        Command::Delete { user, yes } => {
            let what = format!("{user} loses all sessions and tokens; what they did stays in the audit.");
            ensure!(yes || confirmed(&what)?, "nothing was done");
            let client = &context.client;
            client.json(client.request(Method::DELETE, &path(&user)?)).await?;
            context.format.print(&json!({ "deleted": user }), |_| format!("user {user} is deleted"))
        }
    }
}

async fn list(context: &Context) -> Result<()> {
    let client = &context.client;
    let found = client.json(client.request(Method::GET, "/users")).await?;
    context.format.print(&json!(items(&found)), |found| {
        let row = |user: &Value| {
            vec![text(user, "/username"), grants(user), state(user), text(user, "/created_at")]
        };
        table(&["user", "may", "state", "made"], items(found).iter().map(row).collect(), "there is no user")
    })
}

/// By the user's own session: a token must not be able to lock its maker out.
async fn own_password(context: &Context) -> Result<()> {
    let settings = Settings::load()?.context("not signed in")?;
    let client = context.client.without_token();
    let old = password(&settings.user)?;
    let mut session = Session::open(&client, &settings.user, &old).await?;
    let new = new_password("")?;
    session.change_password(&client, &old, &new).await?;
    session.close(&client).await?;
    context.format.print(&json!({ "changed": settings.user }), |_| {
        format!("the password of {} is changed; other sessions have ended, tokens stay", settings.user)
    })
}

async fn call(context: &Context, method: Method, path: &str, body: &Value) -> Result<Value> {
    let client = &context.client;
    Ok(client.json(client.request(method, path).json(body)).await?)
}

/// What may stand in a name is plain in a path too; anything else would lead elsewhere.
fn path(user: &str) -> Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    ensure!(user.chars().all(is_plain) && user.contains(|c| c != '.'), "{user:?} is no user's name");
    Ok(format!("/users/{user}"))
}

fn bodies(grants: &[Grant]) -> Value {
    grants.iter().map(|grant| json!({ "project": grant.project, "role": grant.role })).collect()
}

fn shown(answer: &Value) -> String {
    let user = &answer["user"];
    let password = answer["one_time_password"].as_str().unwrap_or_default();
    facts(&[
        ("user", text(user, "/username")),
        ("may", grants(user)),
        ("state", state(user)),
        ("one-time password", password.to_owned()),
    ])
}

fn grants(user: &Value) -> String {
    let all: Vec<String> = items(&user["grants"])
        .iter()
        .map(|grant| format!("{}:{}", text(grant, "/project"), text(grant, "/role")))
        .collect();
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}

fn state(user: &Value) -> String {
    match (user["is_disabled"].as_bool(), user["must_change_password"].as_bool()) {
        (Some(true), _) => "disabled".into(),
        (_, Some(true)) => "has a one-time password".into(),
        _ => "active".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_projects_and_roles() {
        let read = |text: &str| text.parse::<Grant>().map(|grant| (grant.project, grant.role)).ok();
        assert_eq!(read("porto:operator"), Some(("porto".into(), "operator".into())));
        assert_eq!(read("*:admin"), Some(("*".into(), "admin".into())));
        for wrong in ["operator", ":operator", "porto:", "porto:emperor", "porto=viewer"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_user_is_told_in_a_line() {
        let user = json!({"username": "ana", "is_disabled": false, "must_change_password": true,
            "grants": [{"project": "*", "role": "viewer"}, {"project": "porto", "role": "operator"}]});
        assert_eq!(grants(&user), "*:viewer, porto:operator");
        assert_eq!(state(&user), "has a one-time password");
        let gone = json!({"is_disabled": true, "must_change_password": true, "grants": []});
        assert_eq!((grants(&gone), state(&gone)), ("nothing".into(), "disabled".into()));
    }

    #[test]
    fn no_name_leads_to_another_path() {
        assert_eq!(path("ana+1@x.pt").unwrap(), "/users/ana+1@x.pt");
        for wrong in ["", ".", "..", "../tokens/1", "ana/../bob", "ana?x=1", "ana#", "%2e%2e", "josé"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }
}
