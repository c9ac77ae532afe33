//! Signing: the manifest becomes a target of its model's role; the targets role delegates the model if it doesn't yet.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use trust::Signer as _;
use trust::repo::TargetsBuilder;

use super::super::Context;
use crate::folder::ReleaseFolder;
use crate::keyring::{Keyring, Owner};
use crate::metadata::{TARGETS_DAYS, expiry, newest, short};
use crate::output::{facts, text};

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
    if !keyring.has(owner) {
        let passphrase = keyring.same_passphrase()?;
        keyring.create(owner, &passphrase)?;
        eprintln!("made a key for model {model} in {}", keyring.folder().display());
    }
    let key = keyring.public(owner)?;
    let is_delegated = delegate(context, &mut keyring, &folder, &manifest.model, &key).await?;
    let role = match newest(client, &keyring, model, &key).await? {
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
    let custom = json!({ "counter": manifest.counter, "min_counter": manifest.min_counter });
    let role = role.target(&target, manifest.bytes(), Some(custom));
    let signer = keyring.open(owner)?;
    folder.write(&format!("metadata/{model}.json"), &role.sign(&[&signer])?)?;
    let said = json!({
        "model": model, "version": manifest.version, "digest": manifest.digest(),
        "key_id": signer.public_key().id(), "role_version": role.version(), "is_delegation_new": is_delegated,
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

/// Whether a new delegation had to be signed.
async fn delegate(
    context: &Context,
    keyring: &mut Keyring,
    folder: &ReleaseFolder,
    model: &protocol::ModelName,
    key: &trust::PublicKey,
) -> Result<bool> {
    let targets_key = keyring.public(Owner::Targets)?;
    let current = newest(&context.client, keyring, "targets", &targets_key).await?;
    let current = current.context("this project has no targets role yet; begin with: flotilla keys init")?;
    let claims = crate::metadata::claims(&current)?;
    if let Some((_, ids, _)) = claims.delegations.iter().find(|(role, _, _)| role == model.as_str()) {
        if ids.contains(&key.id()) {
            return Ok(false);
        }
        bail!("model {model} is delegated to another key than the one in {}", keyring.folder().display());
    }
    let next = TargetsBuilder::resume(&current, expiry(TARGETS_DAYS)?)?;
    let next = next.delegate_model(model, std::slice::from_ref(key), 1);
    let signer = keyring.open(Owner::Targets)?;
    folder.write("metadata/targets.json", &next.sign(&[&signer])?)?;
    Ok(true)
}
