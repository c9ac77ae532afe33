//! `flotilla verify`: who signed what until when, by the client workflow of the devices, from this folder's first root.

mod listed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trust::repo::signed_by;
use trust::{Stored, TrustError, director};

use super::Context;
use crate::chain::{self, Chain, ensure_not_older, file, keys};
use crate::expired;
use crate::keyring::Keyring;
use crate::metadata::{claims, fetch_file, kept_name, now, read_given, short};
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
    let given = args.root.as_deref().map(|path| given_root(path, args.pin)).transpose()?;
    let stored = remembered(&keyring, given.clone())?;
    let first = walk(context, &stored, &[director::TARGET.to_owned()]).await.map_err(expired::advise)?;
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
    let targets = listed::rows(&chain.files, wanted.keys(), now()?)?;
    let said = json!({
        "project": context.client.project(), "roles": roles(&chain, &refused)?, "targets": targets,
    });
    context.format.print(&said, show)?;
    let names: Vec<&str> = refused.keys().map(String::as_str).collect();
    ensure!(names.is_empty(), "devices refuse what these roles signed: {}", names.join(", "));
    Ok(())
}

/// A root that came by a trusted way. Only the first one can be pinned: by its digest devices know the project.
fn given_root(path: &Path, is_to_pin: bool) -> Result<Vec<u8>> {
    let (root, shown) = (read_given(path)?, path.display());
    let said = claims(&root).with_context(|| format!("{shown} is no root that can be used"))?;
    ensure!(said.kind == "root", "{shown} is no root, but of the role {}", said.kind);
    ensure!(
        !is_to_pin || said.version == 1,
        "{shown} is root version {}; the pin must be the project's first root, root.json in the key folder itself (not \
         the one in its folder metadata)",
        said.version
    );
    Ok(root)
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
            Err(error) => expired::advise(error),
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

fn show(said: &Value) -> String {
    let role = |row: &Value| {
        let keys: Vec<String> = items(&row["signed_by"]).iter().map(|key| short(&text(key, ""))).collect();
        let threshold = format!("{} of {}", text(row, "/threshold"), text(row, "/keys"));
        if let Some(why) = row["refused"].as_str() {
            let nothing = || "-".to_owned();
            return vec![text(row, "/role"), nothing(), nothing(), nothing(), format!("REFUSED: {why}")];
        }
        let until = expired::until(&text(row, "/role"), &text(row, "/expires_at"));
        vec![text(row, "/role"), text(row, "/version"), until, threshold, keys.join(", ")]
    };
    let target = |row: &Value| {
        if let Some(why) = row["refused"].as_str() {
            return vec![text(row, "/path"), text(row, "/role"), "-".to_owned(), format!("REFUSED: {why}")];
        }
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

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;
    use trust::repo::{RootBuilder, TargetsBuilder};
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    #[test]
    fn only_the_first_root_is_pinned_and_what_is_no_root_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.json");
        let holder = Ed25519Signer::from_seed(&[1; 32]);
        let root = RootBuilder::new(UnixMillis(0));
        let all = ["root", "targets", "snapshot", "timestamp"];
        let first = all.into_iter().fold(root, |root, role| root.role(role, &[holder.public_key()], 1));
        let first = first.sign(&[&holder]).unwrap();
        let second = RootBuilder::resume(&first, UnixMillis(0)).unwrap().sign(&[&holder]).unwrap();
        let given = |bytes: &[u8], is_to_pin| {
            std::fs::write(&path, bytes).unwrap();
            given_root(&path, is_to_pin).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(given(&first, true).unwrap(), first);
        assert_eq!(given(&second, false).unwrap(), second, "to look from, any will do");
        assert!(given(&second, true).unwrap_err().contains("is root version 2; the pin must be"));
        let error = given(b"{}", false).unwrap_err();
        assert!(
            error.contains("root.json is no root that can be used") && !error.contains("enrol"),
            "{error}"
        );
        let targets = TargetsBuilder::new(UnixMillis(0)).sign(&[&holder]).unwrap();
        assert!(given(&targets, true).unwrap_err().contains("but of the role targets"));
    }
}
