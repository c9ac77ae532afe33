//! `flotilla verify`: who signed what until when, by the client workflow of the devices, from this folder's first root.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use trust::repo::signed_by;
use trust::{Limits, Reply, Repository, Session, Step, Stored, director};

use super::Context;
use crate::keyring::Keyring;
use crate::metadata::{UNPINNED, claims, fetch, kept_name, now, short};
use crate::output::{facts, items, table, text};
use crate::pending::{delegated_keys, root_keys};

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

/// Verifies all that the server offers, and says who vouches for it.
///
/// # Errors
/// What a device would refuse.
pub(crate) async fn run(context: &Context, args: &Args) -> Result<()> {
    let keyring = Keyring::of(context.client.project())?;
    let root = match &args.root {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => keyring.read("root.json")?.context(UNPINNED)?,
    };
    let first = walk(context, &root, &[director::TARGET.to_owned()]).await?;
    let wanted = wanted(context, &first).await?;
    let chain = walk(context, &root, &wanted).await?;
    if args.pin {
        keyring.keep("root.json", &root)?;
    }
    // The end of a chain that was walked is what the next change of keys is judged by.
    keyring.keep(&kept_name("root"), chain.file("root")?)?;
    keyring.keep(&kept_name("targets"), chain.file("targets")?)?;
    let said = json!({
        "project": context.client.project(), "roles": roles(&chain)?, "targets": targets(&chain, &wanted),
    });
    context.format.print(&said, show)
}

/// What was accepted: the view, and each role's bytes.
struct Chain {
    repository: Repository,
    files: BTreeMap<String, Vec<u8>>,
}

async fn walk(context: &Context, root: &[u8], wanted: &[String]) -> Result<Chain> {
    let wanted = wanted.iter().map(String::as_str);
    let mut session = Session::new(Stored::new(root), wanted, now()?, &Limits::default())?;
    let mut files = BTreeMap::from([("root.json".to_owned(), root.to_vec())]);
    loop {
        match session.next()? {
            Step::Need(need) => {
                let name = need.path.strip_suffix(".json").unwrap_or(&need.path);
                let bytes = fetch(&context.client, name).await?;
                session.feed(bytes.map_or(Reply::NotFound, Reply::Bytes))?;
            }
            Step::Persist(file) => drop(files.insert(file.name, file.bytes)),
            Step::Forget(_) => {}
            Step::Done(accepted) => {
                files.extend(accepted.files.into_iter().map(|file| (file.name, file.bytes)));
                return Ok(Chain { repository: accepted.repository, files });
            }
        }
    }
}

/// Every target that the delegated roles claim to have; whether it is so, the second walk decides.
async fn wanted(context: &Context, first: &Chain) -> Result<Vec<String>> {
    let mut wanted = vec![director::TARGET.to_owned()];
    for (role, _, _) in claims(first.file("targets")?)?.delegations {
        if let Some(bytes) = fetch(&context.client, &role).await? {
            wanted.extend(claims(&bytes)?.targets);
        }
    }
    Ok(wanted)
}

impl Chain {
    fn file(&self, role: &str) -> Result<&[u8]> {
        let file = self.files.get(&format!("{role}.json"));
        file.map(Vec::as_slice).with_context(|| format!("{role} is missing"))
    }
}

fn roles(chain: &Chain) -> Result<Vec<Value>> {
    let (root, targets) = (chain.file("root")?, chain.file("targets")?);
    let mut rows = Vec::new();
    for (name, bytes) in &chain.files {
        let role = name.strip_suffix(".json").unwrap_or(name);
        let is_top_level = matches!(role, "root" | "targets" | "snapshot" | "timestamp");
        let (keys, threshold) =
            if is_top_level { root_keys(root, role)? } else { delegated_keys(targets, role)? };
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
