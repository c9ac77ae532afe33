//! Sending signed metadata, or keeping it until enough people have signed.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use trust::PublicKey;
use trust::envelope::KeySet;

use super::super::Context;
use crate::client::ClientError;
use crate::expired;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{UNPINNED, claims, fetch, kept_name, newest, own};
use crate::output::{facts, items, table, text};
use crate::pending::{Lacking, Pending, delegated_keys, root_keys};
use crate::rotation::{Current, catch_up, is_holder};

/// Root and targets as they are published, and what was taken of this folder's own without its hearing of it is ended here.
/// Each only if this folder's key signed it, or all who hold the role.
///
/// # Errors
/// When there are none yet, or the server offers something that neither signed.
pub(crate) async fn current(context: &Context, keyring: &Keyring) -> Result<Current> {
    let begin = "this project has no root yet; begin with: flotilla keys init";
    let known = match keyring.read(&kept_name("root"))? {
        Some(root) => Some(root),
        None => keyring.read("root.json")?,
    };
    let accepted = accepted(keyring, Owner::Root, known.as_deref().map(|root| root_keys(root, "root")))?;
    let root = match newest(&context.client, keyring, "root", &accepted).await {
        // Nobody could vouch for it, so why each could not is no help.
        Err(error) if known.is_none() && !error.is::<ClientError>() => bail!(UNPINNED),
        found => found?,
    };
    let root = root.or(known).context(begin)?;
    let accepted = accepted_targets(keyring, &root)?;
    let targets = newest(&context.client, keyring, "targets", &accepted).await?.context(begin)?;
    let current = Current { root, targets, model: None };
    for name in catch_up(keyring, &current)? {
        eprintln!(
            "note: the new {name} key waited, and holds its role by now; it has taken the old one's place"
        );
    }
    Ok(current)
}

fn accepted_targets(keyring: &Keyring, root: &[u8]) -> Result<Vec<KeySet>> {
    accepted(keyring, Owner::Targets, Some(root_keys(root, "targets")))
}

/// A model's role as it is published now; none if nothing of it is.
///
/// # Errors
/// When the server offers something that neither this folder's key nor the delegation's signed.
pub(crate) async fn current_model(
    context: &Context,
    keyring: &Keyring,
    current: &Current,
    model: &str,
) -> Result<Option<Vec<u8>>> {
    let delegated = is_delegated(&current.targets, model)?.then(|| delegated_keys(&current.targets, model));
    let accepted = accepted(keyring, Owner::Model(model), delegated)?;
    newest(&context.client, keyring, model, &accepted).await
}

/// Whether a targets role delegates a model.
///
/// # Errors
/// When it is no targets role.
pub(crate) fn is_delegated(targets: &[u8], model: &str) -> Result<bool> {
    Ok(claims(targets)?.delegations.iter().any(|(role, _, _)| role == model))
}

fn accepted(
    keyring: &Keyring,
    owner: Owner<'_>,
    holders: Option<Result<(Vec<PublicKey>, usize)>>,
) -> Result<Vec<KeySet>> {
    let mut accepted = Vec::new();
    if keyring.has(owner) {
        accepted.push(own(keyring.public(owner)?));
    }
    if let Some((keys, threshold)) = holders.transpose()? {
        accepted.push(KeySet::new(keys, threshold));
    }
    Ok(accepted)
}

/// Publishes if enough keys have signed, else keeps it and says who is missing. Returns whether it was published.
///
/// # Errors
/// What the server refused.
pub(crate) async fn publication(
    context: &Context,
    keyring: &Keyring,
    pending: &Pending,
    current: &Current,
) -> Result<bool> {
    replacing(keyring, pending)?;
    pending.write(keyring)?;
    let given = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| bytes.clone());
    let (root, targets) = (given(&current.root), given(&current.targets));
    let lacking = pending.lacking(root.as_deref(), targets.as_deref())?;
    if !lacking.is_empty() {
        wait(context, keyring, &lacking)?;
        return Ok(false);
    }
    // Kept first, as the pin of new devices: if the answer gets lost, the next try sends exactly the same again.
    if let Some(root) = pending.role("root")
        && claims(root)?.version == 1
    {
        keyring.keep("root.json", root)?;
    }
    context.client.post("/publications", &pending.body()).await.map_err(advise)?;
    for (role, bytes) in &pending.metadata {
        keyring.keep(&kept_name(role), bytes)?;
    }
    let now_published = |role: &str, before: &[u8]| pending.role(role).unwrap_or(before).to_vec();
    let now_published = Current {
        root: now_published("root", &current.root),
        targets: now_published("targets", &current.targets),
        model: None,
    };
    let promoted = keyring.promote_next(|owner, key| is_holder(owner, key, &now_published))?;
    Pending::clear(keyring)?;
    let roles: Vec<_> = pending.metadata.iter().map(|(role, _)| role).collect();
    let said = json!({
        "is_published": true, "published": roles, "new_keys": promoted, "folder": keyring.folder(),
    });
    context.format.print(&said, |said| {
        let list =
            |pointer| said.pointer(pointer).map(|list| items(list).iter().map(|i| text(i, "")).collect());
        let list = |pointer| list(pointer).map_or(String::new(), |list: Vec<String>| list.join(", "));
        facts(&[
            ("published", list("/published")),
            ("new keys", list("/new_keys")),
            ("keys in", text(said, "/folder")),
        ])
    })?;
    Ok(true)
}

/// Says so when something else waited for signatures until now.
fn replacing(keyring: &Keyring, pending: &Pending) -> Result<()> {
    let before = Pending::read(keyring)?;
    if !before.metadata.is_empty() && !before.is_same(pending) {
        let roles: Vec<_> = before.metadata.iter().map(|(role, _)| role.as_str()).collect();
        eprintln!(
            "note: this takes the place of what waited for signatures: {}; if that was another change, prepare it \
             again after this one is published",
            roles.join(", ")
        );
    }
    Ok(())
}

/// What is to be done when somebody else was faster.
fn advise(error: ClientError) -> anyhow::Error {
    if let Some(advice) = expired::of_refusal(&error) {
        return anyhow::Error::from(error).context(advice);
    }
    let is_late = matches!(
        &error,
        ClientError::Refused { code, .. } if matches!(code.as_str(), "version_exists" | "stale_metadata")
    );
    let error = anyhow::Error::from(error);
    if is_late {
        return error.context(
            "something else was published since this was prepared; run the command that prepared it once more",
        );
    }
    error
}

fn wait(context: &Context, keyring: &Keyring, lacking: &[Lacking]) -> Result<()> {
    let folder = Pending::folder(keyring).join("metadata");
    eprintln!(
        "not published yet: give the files in {} to the others, who run: flotilla sign --add FILE\n\
         put what they give back there (with flotilla sign --merge if several signed at the same time), then run: \
         flotilla keys publish",
        folder.display()
    );
    let rows =
        lacking.iter().map(|l| json!({ "role": l.role, "have": l.have, "need": l.need, "open": l.keys }));
    let rows: Vec<Value> = rows.collect();
    let said = json!({ "is_published": false, "published": [], "folder": keyring.folder(), "waits": rows });
    context.format.print(&said, |said| {
        let row = |row: &Value| {
            let open: Vec<String> = items(&row["open"]).iter().map(|key| text(key, "")).collect();
            vec![
                text(row, "/role"),
                format!("{} of {}", text(row, "/have"), text(row, "/need")),
                open.join(", "),
            ]
        };
        table(
            &["waits", "signed", "keys that may still sign"],
            items(&said["waits"]).iter().map(row).collect(),
            "nothing",
        )
    })
}

/// Sends what waits.
///
/// # Errors
/// When nothing waits, or the server refuses.
pub(super) async fn waiting(context: &Context) -> Result<()> {
    let keyring = Keyring::of(context.client.project())?;
    let pending = Pending::read(&keyring)?;
    if pending.metadata.is_empty() {
        bail!("nothing waits in {}", Pending::folder(&keyring).display());
    }
    // The old root's threshold counts too; the server's word is enough here, because devices judge again.
    let root = fetch(&context.client, "root").await?.unwrap_or_default();
    let targets = fetch(&context.client, "targets").await?.unwrap_or_default();
    let is_published =
        publication(context, &keyring, &pending, &Current { root, targets, model: None }).await?;
    ensure!(is_published, "nothing was published: signatures are missing");
    Ok(())
}
