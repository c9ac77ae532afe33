//! `flotilla verify`: who signed what until when, by the client workflow of the devices, from this folder's first root.

mod listed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trust::repo::signed_by;
use trust::{Limits, PublicKey, Reply, Session, Step, Stored, TrustError, director};

use super::Context;
use crate::expired;
use crate::keyring::Keyring;
use crate::metadata::{UNPINNED, claims, fetch, kept_name, now, read_given, short};
use crate::output::{facts, items, table, text};
use crate::pending::{delegated_keys, root_keys};

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

/// What this folder trusts already: the root that is given, else the last or the first one, and the last files.
fn remembered(keyring: &Keyring, given: Option<Vec<u8>>) -> Result<Stored> {
    let root = match given {
        Some(root) => root,
        None => match keyring.read(&kept_name("root"))? {
            Some(root) => root,
            None => keyring.read("root.json")?.context(UNPINNED)?,
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

/// Beyond what snapshots say: nothing that the holders of a role signed, and that this folder has seen, may be missing.
fn ensure_not_older(files: &Files, kept: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<()> {
    for (name, shown) in files {
        let role = name.strip_suffix(".json").unwrap_or(name);
        let Some(known) = kept(role)? else { continue };
        let (shown, version) = (claims(shown)?.version, claims(&known)?.version);
        // What only keys vouch for that are replaced since may be an attacker's; 5.3.11 forgets it, too.
        let (keys, threshold) = keys(files, role)?;
        ensure!(
            version <= shown || signed_by(&known, &keys)?.len() < threshold,
            "the server shows {role} version {shown}, but this key folder knows version {version}: the server went \
             back, as a restored backup does, or somebody withholds what was published. Nothing was kept. If it was a \
             backup, publish again what is missing"
        );
    }
    Ok(())
}

/// What was accepted: each role's bytes.
struct Chain {
    files: Files,
}

/// Metadata by the names of files.
type Files = BTreeMap<String, Vec<u8>>;

async fn walk(context: &Context, stored: &Stored, wanted: &[String]) -> Result<Chain> {
    let wanted = wanted.iter().map(String::as_str);
    let mut session = Session::new(stored.clone(), wanted, now()?, &Limits::default())?;
    let mut files = stored.files.clone();
    files.insert("root.json".to_owned(), stored.root.clone());
    loop {
        match session.next()? {
            Step::Need(need) => {
                let name = need.path.strip_suffix(".json").unwrap_or(&need.path);
                let bytes = fetch(&context.client, name).await?;
                session.feed(bytes.map_or(Reply::NotFound, Reply::Bytes))?;
            }
            Step::Persist(file) => drop(files.insert(file.name, file.bytes)),
            Step::Forget(name) => drop(files.remove(&name)),
            Step::Done(accepted) => {
                files.extend(accepted.files.into_iter().map(|file| (file.name, file.bytes)));
                return Ok(Chain { files });
            }
        }
    }
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

fn file<'a>(files: &'a Files, role: &str) -> Result<&'a [u8]> {
    let file = files.get(&format!("{role}.json"));
    file.map(Vec::as_slice).with_context(|| format!("{role} is missing"))
}

/// Who holds a role, and how many of them must sign.
fn keys(files: &Files, role: &str) -> Result<(Vec<PublicKey>, usize)> {
    if matches!(role, "root" | "targets" | "snapshot" | "timestamp") {
        root_keys(file(files, "root")?, role)
    } else {
        delegated_keys(file(files, "targets")?, role)
    }
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

    #[test]
    fn k3_verify_does_not_go_back() {
        let (ada, bea) = (Ed25519Signer::from_seed(&[1; 32]), Ed25519Signer::from_seed(&[2; 32]));
        let root = |holder: &Ed25519Signer| {
            let all = ["root", "targets", "snapshot", "timestamp"];
            let root = RootBuilder::new(UnixMillis(0));
            let root = all.into_iter().fold(root, |root, role| root.role(role, &[holder.public_key()], 1));
            root.sign(&[holder]).unwrap()
        };
        let older = TargetsBuilder::new(UnixMillis(0)).sign(&[&ada]).unwrap();
        let newer = TargetsBuilder::resume(&older, UnixMillis(0)).unwrap().sign(&[&ada]).unwrap();
        let shows = |root: Vec<u8>, targets: &[u8]| {
            Files::from([("root.json".into(), root), ("targets.json".into(), targets.to_vec())])
        };
        let knows = |known: &[u8]| {
            let known = known.to_vec();
            move |role: &str| Ok((role == "targets").then(|| known.clone()))
        };
        assert!(ensure_not_older(&shows(root(&ada), &newer), knows(&older)).is_ok());
        assert!(ensure_not_older(&shows(root(&ada), &newer), knows(&newer)).is_ok());
        let error = ensure_not_older(&shows(root(&ada), &older), knows(&newer)).unwrap_err().to_string();
        assert!(error.contains("targets version 1") && error.contains("knows version 2"), "{error}");
        // The key that signed what is known was replaced since: nobody vouches for it any more.
        let again = TargetsBuilder::new(UnixMillis(0)).sign(&[&bea]).unwrap();
        assert!(ensure_not_older(&shows(root(&bea), &again), knows(&newer)).is_ok());
    }
}
