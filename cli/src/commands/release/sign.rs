//! Signing: the manifest becomes a target of its model's role; the targets role delegates the model if it doesn't yet.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use trust::repo::TargetsBuilder;
use trust::{PublicKey, Signer as _};

use super::super::Context;
use super::super::keys::send;
use crate::expired;
use crate::folder::ReleaseFolder;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{TARGETS_DAYS, claims, expiry, short};
use crate::output::{facts, text};
use crate::pending::{Pending, delegated_keys};
use crate::rotation::{Current, not_reserved};

/// Signs a release folder.
///
/// # Errors
/// When a key is missing or locked, or the release was signed before with other content.
pub(crate) async fn run(context: &Context, path: &Path) -> Result<()> {
    let client = &context.client;
    let folder = ReleaseFolder::at(path);
    let manifest = folder.manifest()?;
    for blob in manifest.all_blobs() {
        folder.blob(blob)?;
    }
    let mut keyring = Keyring::of(client.project())?;
    let model = manifest.model.as_str();
    let owner = Owner::Model(model);
    let current = send::current(context, &keyring).await?;
    for (role, bytes) in [("root", &current.root), ("targets", &current.targets)] {
        expired::warn(role, claims(bytes)?.expires);
    }
    let is_delegated = send::is_delegated(&current.targets, model)?;
    // Only now that nothing else is missing is there a reason to make a key.
    if !keyring.has(owner) {
        if is_delegated {
            bail!(
                "model {model} is delegated to keys that are not in {}; to join its holders make a key with \
                 flotilla keys new --model {model}, and have it named by: flotilla keys delegate {model}",
                keyring.folder().display()
            );
        }
        let passphrase = keyring.same_passphrase()?;
        keyring.create(owner, &passphrase)?;
        eprintln!("made a key for model {model} in {}", keyring.folder().display());
    }
    let key = keyring.public(owner)?;
    let targets = delegate(&mut keyring, &current, &manifest.model, &key, is_delegated)?;
    let role = match send::current_model(context, &keyring, &current, model).await? {
        Some(bytes) => TargetsBuilder::resume(&bytes, expiry(TARGETS_DAYS)?)?,
        None => TargetsBuilder::new(expiry(TARGETS_DAYS)?),
    };
    let target = manifest.target_path();
    if role.has_target(&target) {
        bail!(
            "release {} of {model} is published already; give the new one another version",
            manifest.version
        );
    }
    in_order(&role, model, manifest.counter.0)?;
    let custom = json!({ "counter": manifest.counter, "min_counter": manifest.min_counter });
    let role = role.target(&target, manifest.bytes(), Some(custom));
    let signer = keyring.open(owner)?;
    let signed = role.sign(&[&signer])?;
    let mut metadata = vec![(model.to_owned(), signed)];
    metadata.extend(targets.clone().map(|targets| ("targets".to_owned(), targets)));
    folder.keep_only(&metadata.iter().map(|(role, _)| role.as_str()).collect::<Vec<_>>())?;
    for (role, bytes) in &metadata {
        folder.write(&format!("metadata/{role}.json"), bytes)?;
    }
    let lacking = Pending { metadata, targets: Vec::new() };
    let lacking = lacking.lacking(Some(&current.root), Some(&current.targets))?;
    for lacking in &lacking {
        let file = path.join(format!("metadata/{}.json", lacking.role));
        eprintln!(
            "{} has {} of {} signatures: before it is published the others (keys {}) run: flotilla sign --add {}",
            lacking.role,
            lacking.have,
            lacking.need,
            lacking.keys.join(", "),
            file.display()
        );
    }
    let (_, threshold) = delegated_keys(targets.as_deref().unwrap_or(&current.targets), model)?;
    let said = json!({
        "model": model, "version": manifest.version, "digest": manifest.digest(),
        "key_id": signer.public_key().id(), "role_version": role.version(), "is_delegation_new": targets.is_some(), "needed_signatures": threshold,
    });
    context.format.print(&said, |said| {
        facts(&[
            ("signed", format!("{} {}", text(said, "/model"), text(said, "/version"))),
            ("digest", text(said, "/digest")),
            ("key", short(&text(said, "/key_id"))),
            ("role version", text(said, "/role_version")),
        ])
    })
}

/// Refuses a release that devices would: its counter is another's, or below a fence.
fn in_order(role: &TargetsBuilder, model: &str, counter: u64) -> Result<()> {
    let number = |custom: &Value, name: &str| custom[name].as_u64().unwrap_or_default();
    let highest = role.customs().map(|(_, custom)| number(custom, "counter")).max().unwrap_or_default();
    for (path, custom) in role.customs() {
        ensure!(
            number(custom, "counter") != counter,
            "counter {counter} is that of {path} already; the highest of {model} is {highest}"
        );
        let fence = number(custom, "min_counter");
        ensure!(
            fence <= counter,
            "counter {counter} is below the fence of {fence} that {path} has set; the highest counter of {model} is {highest}"
        );
    }
    Ok(())
}

/// The targets role that delegates the model, if one has to be signed for it.
fn delegate(
    keyring: &mut Keyring,
    current: &Current,
    model: &protocol::ModelName,
    key: &PublicKey,
    is_delegated: bool,
) -> Result<Option<Vec<u8>>> {
    if is_delegated {
        let (keys, _) = delegated_keys(&current.targets, model.as_str())?;
        if keys.iter().any(|holder| holder.is_same(key)) {
            return Ok(None);
        }
        bail!(
            "model {model} is delegated to other keys than the one in {}; have yours named by: \
             flotilla keys delegate {model}",
            keyring.folder().display()
        );
    }
    not_reserved(model)?;
    let next = TargetsBuilder::resume(&current.targets, expiry(TARGETS_DAYS)?)?;
    let next = next.delegate_model(model, std::slice::from_ref(key), 1);
    Ok(Some(next.sign(&[&keyring.open(Owner::Targets)?])?))
}

#[cfg(test)]
mod tests {
    use protocol::UnixMillis;

    use super::*;

    #[test]
    fn a_counter_that_is_taken_or_fenced_off_is_refused() {
        let custom = |counter: u64, fence: u64| Some(json!({ "counter": counter, "min_counter": fence }));
        let role = TargetsBuilder::new(UnixMillis(0)).target("models/digits/1.json", b"1", custom(2, 0));
        let role = role.target("models/digits/2.json", b"2", custom(4, 3));
        let ask = |counter| in_order(&role, "digits", counter).map_err(|error| error.to_string());
        assert!(ask(5).is_ok() && ask(3).is_ok());
        assert!(ask(4).unwrap_err().contains("models/digits/2.json already"));
        assert!(ask(2).unwrap_err().contains("models/digits/1.json already"));
        assert!(ask(1).unwrap_err().contains("below the fence of 3"));
    }
}
