//! `flotilla verify`: who signed what until when, by the client workflow of the devices, from this folder's first root.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trust::repo::signed_by;
use trust::{Stored, TrustError, director};

use super::Context;
use crate::chain::{self, Chain, ensure_not_older, file, keys};
use crate::keyring::Keyring;
use crate::metadata::{claims, fetch_file, kept_name, short};
use crate::output::{facts, items, table, text};

/// The role that delegates the models.
const TARGETS: &str = "targets";

/// From which root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A root that came by a trusted way; default: the first root in the key folder.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Keep that root as the first one of this key folder, as a colleague who joins does.
    #[arg(long, requires = "root")]
    pin: bool,
}

/// Verifies all that the server offers, and says who vouches for it. What this key folder knows of earlier is never
/// given up for something older: a server may be a restored backup, or a copy that somebody stole.
///
/// # Errors
/// What a device would refuse.
pub(crate) async fn run(context: &Context, args: &Args) -> Result<()> {
    let keyring = Keyring::of(context.client.project())?;
    let given = args
        .root
        .as_ref()
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())));
    let given = given.transpose()?;
    let stored = remembered(&keyring, given.clone())?;
    let first = walk(context, &stored, &[director::TARGET.to_owned()]).await?;
    let mut wanted = wanted(&first)?;
    let (chain, refused) = walk_all(context, &stored, &mut wanted).await?;
    ensure_not_older(&chain.files, |role| keyring.read(&kept_name(role)))?;
    if let Some(root) = given.filter(|_| args.pin) {
        keyring.keep("root.json", &root)?;
    }
    // The end of a chain that was walked is what the next one, and the next change, is judged by.
    for (name, bytes) in &chain.files {
        keyring.keep(&kept_name(name.strip_suffix(".json").unwrap_or(name)), bytes)?;
    }
    let wanted = listed_targets(&chain, wanted.keys())?;
    let said = json!({
        "project": context.client.project(), "roles": roles(&chain, &refused)?, "targets": targets(&chain, &wanted),
    });
    context.format.print(&said, show)?;
    let names: Vec<&str> = refused.keys().map(String::as_str).collect();
    ensure!(names.is_empty(), "devices refuse what these roles signed: {}", names.join(", "));
    Ok(())
}

/// Walks to all that is wanted. A model's role that is refused is left out and named: the others stand without it.
async fn walk_all(
    context: &Context,
    stored: &Stored,
    wanted: &mut BTreeMap<String, Vec<String>>,
) -> Result<(Chain, BTreeMap<String, String>)> {
    let mut refused = BTreeMap::new();
    loop {
        let paths: Vec<String> = wanted.values().flatten().cloned().collect();
        let error = match walk(context, stored, &paths).await {
            Ok(chain) => return Ok((chain, refused)),
            Err(error) => error,
        };
        let role = error.downcast_ref::<TrustError>().map(|error| error.role.clone()).unwrap_or_default();
        if role == TARGETS || wanted.remove(&role).is_none() {
            return Err(error);
        }
        refused.insert(role, error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "));
    }
}

async fn walk(context: &Context, stored: &Stored, wanted: &[String]) -> Result<Chain> {
    chain::walk(async |name: &str| fetch_file(&context.client, name).await, stored, wanted).await
}

/// What this folder trusts already: the root that is given, else the last or the first one, and the last files.
fn remembered(keyring: &Keyring, given: Option<Vec<u8>>) -> Result<Stored> {
    let root = match given {
        Some(root) => root,
        None => match keyring.read(&kept_name("root"))? {
            Some(root) => root,
            None => chain::first_root(keyring)?,
        },
    };
    let mut stored = Stored::new(root);
    for role in ["timestamp", "snapshot", "targets"] {
        if let Some(bytes) = keyring.read(&kept_name(role))? {
            stored.files.insert(format!("{role}.json"), bytes);
        }
    }
    Ok(stored)
}

/// A path below each delegated role that the verified snapshot lists, by role: looking for it loads the role. A role
/// that is delegated and not listed has signed nothing yet.
fn wanted(first: &Chain) -> Result<BTreeMap<String, Vec<String>>> {
    let snapshot: Value = serde_json::from_slice(file(&first.files, "snapshot")?)?;
    let is_listed = |role: &str| snapshot["signed"]["meta"].get(format!("{role}.json")).is_some();
    let mut wanted = BTreeMap::from([(TARGETS.to_owned(), vec![director::TARGET.to_owned()])]);
    for (role, _, _) in claims(file(&first.files, TARGETS)?)?.delegations {
        if is_listed(&role) {
            let any = format!("models/{role}/any/manifest.json");
            wanted.insert(role, vec![any]);
        }
    }
    Ok(wanted)
}

/// What the roles' verified files list, and nothing that somebody else says about them.
fn listed_targets<'a>(chain: &Chain, roles: impl Iterator<Item = &'a String>) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for role in roles {
        paths.extend(claims(file(&chain.files, role)?)?.targets);
    }
    Ok(paths)
}

fn roles(chain: &Chain, refused: &BTreeMap<String, String>) -> Result<Vec<Value>> {
    let row = |(role, why): (&String, &String)| json!({ "role": role, "refused": why });
    let mut rows: Vec<Value> = refused.iter().map(row).collect();
    for (name, bytes) in &chain.files {
        let role = name.strip_suffix(".json").unwrap_or(name);
        let (keys, threshold) = keys(&chain.files, role)?;
        let claims = claims(bytes)?;
        rows.push(json!({
            "role": role, "version": claims.version, "expires_at": trust::format_rfc3339(claims.expires),
            "threshold": threshold, "keys": keys.len(), "signed_by": signed_by(bytes, &keys)?,
        }));
    }
    Ok(rows)
}

fn targets(chain: &Chain, wanted: &[String]) -> Vec<Value> {
    let found = wanted.iter().filter_map(|path| chain.repository.find_target(path).ok());
    let number = |info: &trust::TargetInfo, name: &str| {
        info.custom().and_then(|custom| custom.get(name)).and_then(Value::as_u64)
    };
    let found: Vec<_> = found.collect();
    let mut fences: BTreeMap<&str, u64> = BTreeMap::new();
    for info in &found {
        let fence = fences.entry(info.role()).or_default();
        *fence = (*fence).max(number(info, "min_counter").unwrap_or_default());
    }
    let row = |info: &&trust::TargetInfo| {
        let counter = number(info, "counter");
        let is_fenced_off = counter.is_some_and(|counter| counter < fences[info.role()]);
        json!({
            "path": info.path(), "role": info.role(), "digest": info.sha256(), "counter": counter,
            "is_fenced_off": is_fenced_off,
        })
    };
    found.iter().map(row).collect()
}

fn show(said: &Value) -> String {
    let role = |row: &Value| {
        let keys: Vec<String> = items(&row["signed_by"]).iter().map(|key| short(&text(key, ""))).collect();
        let threshold = format!("{} of {}", text(row, "/threshold"), text(row, "/keys"));
        if let Some(why) = row["refused"].as_str() {
            let nothing = || "-".to_owned();
            return vec![text(row, "/role"), nothing(), nothing(), nothing(), format!("REFUSED: {why}")];
        }
        vec![text(row, "/role"), text(row, "/version"), text(row, "/expires_at"), threshold, keys.join(", ")]
    };
    let target = |row: &Value| {
        let fence = if row["is_fenced_off"] == true { ", fenced off" } else { "" };
        let counter = text(row, "/counter") + fence;
        vec![text(row, "/path"), text(row, "/role"), counter, short(&text(row, "/digest"))]
    };
    format!(
        "{}\n{}\n\n{}",
        facts(&[("verified", text(said, "/project"))]),
        table(
            &["role", "version", "valid until", "needs", "signed by"],
            items(&said["roles"]).iter().map(role).collect(),
            "nothing",
        ),
        table(
            &["target", "vouched for by", "counter", "digest"],
            items(&said["targets"]).iter().map(target).collect(),
            "no target",
        )
    )
}
