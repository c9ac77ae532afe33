//! Sending signed metadata, or keeping it until enough people have signed.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::super::Context;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{claims, fetch, kept_name, newest};
use crate::output::{facts, items, table, text};
use crate::pending::{Lacking, Pending};
use crate::rotation::Current;

/// Root and targets as they are published, each only if this folder's key signed it.
///
/// # Errors
/// When there are none yet, or the server offers something that our keys did not sign.
pub(super) async fn current(context: &Context, keyring: &Keyring) -> Result<Current> {
    let begin = "this project has no root yet; begin with: flotilla keys init";
    let newest = async |role, owner| newest(&context.client, keyring, role, &keyring.public(owner)?).await;
    let root = newest("root", Owner::Root).await?.context(begin)?;
    let targets = newest("targets", Owner::Targets).await?.context(begin)?;
    Ok(Current { root, targets, model: None })
}

/// Publishes if enough keys have signed, else keeps it and says who is missing.
///
/// # Errors
/// What the server refused.
pub(super) async fn publication(
    context: &Context,
    keyring: &Keyring,
    pending: &Pending,
    current: &Current,
) -> Result<()> {
    pending.write(keyring)?;
    let given = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| bytes.clone());
    let (root, targets) = (given(&current.root), given(&current.targets));
    let lacking = pending.lacking(root.as_deref(), targets.as_deref())?;
    if !lacking.is_empty() {
        return wait(context, keyring, &lacking);
    }
    // Kept first, as the pin of new devices: if the answer gets lost, the next try sends exactly the same again.
    if let Some(root) = pending.role("root")
        && claims(root)?.version == 1
    {
        keyring.keep("root.json", root)?;
    }
    context.client.post("/publications", &pending.body()).await?;
    for (role, bytes) in &pending.metadata {
        keyring.keep(&kept_name(role), bytes)?;
    }
    let promoted = keyring.promote_next()?;
    Pending::clear(keyring)?;
    let roles: Vec<_> = pending.metadata.iter().map(|(role, _)| role).collect();
    let said = json!({ "published": roles, "new_keys": promoted, "folder": keyring.folder() });
    context.format.print(&said, |said| {
        let list =
            |pointer| said.pointer(pointer).map(|list| items(list).iter().map(|i| text(i, "")).collect());
        let list = |pointer| list(pointer).map_or(String::new(), |list: Vec<String>| list.join(", "));
        facts(&[
            ("published", list("/published")),
            ("new keys", list("/new_keys")),
            ("keys in", text(said, "/folder")),
        ])
    })
}

fn wait(context: &Context, keyring: &Keyring, lacking: &[Lacking]) -> Result<()> {
    let folder = Pending::folder(keyring).join("metadata");
    eprintln!(
        "not published yet: give the files in {} to the others, who run: flotilla sign --add FILE\n\
         put what they give back there, then run: flotilla keys publish",
        folder.display()
    );
    let rows =
        lacking.iter().map(|l| json!({ "role": l.role, "have": l.have, "need": l.need, "open": l.keys }));
    let said = Value::Array(rows.collect());
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
            items(said).iter().map(row).collect(),
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
    publication(context, &keyring, &pending, &Current { root, targets, model: None }).await
}
