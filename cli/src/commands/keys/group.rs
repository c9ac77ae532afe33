//! Several people who hold a role together: each has a key folder of their own and gives the others public halves only.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use protocol::ModelName;
use serde_json::json;
use trust::PublicKey;
use trust::repo::TargetsBuilder;

use super::super::Context;
use super::send;
use crate::keyring::{Keyring, Owner, Passphrase};
use crate::metadata::{TARGETS_DAYS, expiry};
use crate::output::{facts, text};
use crate::pending::Pending;

/// The other people of a new project, and how many of all must sign.
#[derive(Debug, clap::Args)]
pub(crate) struct Group {
    /// Public root key of another person (their `root.pub.json`); repeat it for each.
    #[arg(long = "root-key")]
    root: Vec<PathBuf>,
    /// How many root keys must sign.
    #[arg(long, default_value_t = 1)]
    pub(super) root_threshold: usize,
    /// Public targets key of another person (their `targets.pub.json`); repeat it for each.
    #[arg(long = "targets-key")]
    targets: Vec<PathBuf>,
    /// How many targets keys must sign.
    #[arg(long, default_value_t = 1)]
    pub(super) targets_threshold: usize,
}

impl Group {
    /// Whether there is anybody else.
    pub(super) fn is_given(&self) -> bool {
        !self.root.is_empty() || !self.targets.is_empty()
    }

    /// All root keys, one's own first.
    ///
    /// # Errors
    /// When a file is no key, or the threshold can't be reached.
    pub(super) fn root_keys(&self, own: PublicKey) -> Result<Vec<PublicKey>> {
        together(Some(own), &self.root, self.root_threshold)
    }

    /// All targets keys, one's own first.
    ///
    /// # Errors
    /// As [`root_keys`](Self::root_keys).
    pub(super) fn targets_keys(&self, own: PublicKey) -> Result<Vec<PublicKey>> {
        together(Some(own), &self.targets, self.targets_threshold)
    }
}

fn together(own: Option<PublicKey>, others: &[PathBuf], threshold: usize) -> Result<Vec<PublicKey>> {
    let mut keys: Vec<PublicKey> = own.into_iter().collect();
    for path in others {
        let key = read(path)?;
        if keys.iter().any(|have| have.id() == key.id()) {
            bail!("{} is named twice", path.display());
        }
        keys.push(key);
    }
    if threshold == 0 || threshold > keys.len() {
        bail!("a threshold of {threshold} can't be reached by {} key(s)", keys.len());
    }
    Ok(keys)
}

fn read(path: &Path) -> Result<PublicKey> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let key: PublicKey =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no public key", path.display()))?;
    key.check().with_context(|| format!("{} can't be used", path.display()))?;
    Ok(key)
}

/// Makes root and targets keys without a project's root; nothing leaves this machine.
///
/// # Errors
/// When there are keys already.
pub(super) fn make_own(context: &Context, no_passphrase: bool) -> Result<()> {
    let mut keyring = Keyring::of(context.client.project())?;
    let passphrase = Passphrase::for_new_keys(no_passphrase)?;
    let root = keyring.create(Owner::Root, &passphrase)?;
    let targets = keyring.create(Owner::Targets, &passphrase)?;
    let said = json!({ "folder": keyring.folder(), "root": trust::Signer::public_key(&root).id(),
        "targets": trust::Signer::public_key(&targets).id() });
    context.format.print(&said, |said| {
        facts(&[
            ("keys in", text(said, "/folder")),
            ("root key", text(said, "/root")),
            ("targets key", text(said, "/targets")),
            ("give away", "root.pub.json and targets.pub.json, and nothing else".into()),
        ])
    })
}

/// Signs a delegation of a model to these keys, in place of an earlier one.
///
/// # Errors
/// When there are no targets yet, or a key can't be used.
pub(super) async fn delegate(
    context: &Context,
    model: &ModelName,
    keys: &[PathBuf],
    threshold: usize,
) -> Result<()> {
    let keys = together(None, keys, threshold)?;
    let mut keyring = Keyring::of(context.client.project())?;
    let current = send::current(context, &keyring).await?;
    let targets = TargetsBuilder::resume(&current.targets, expiry(TARGETS_DAYS)?)?;
    let targets = targets.delegate_model(model, &keys, threshold);
    let signed = targets.sign(&[&keyring.open(Owner::Targets)?])?;
    let pending = Pending { metadata: vec![("targets".into(), signed)], targets: Vec::new() };
    send::publication(context, &keyring, &pending, &current).await
}

#[cfg(test)]
mod tests {
    use trust::{Ed25519Signer, Signer as _};

    use super::*;

    #[test]
    fn a_threshold_must_be_reachable_by_different_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = |n: u8| {
            let path = folder.path().join(format!("{n}.pub.json"));
            let key = Ed25519Signer::from_seed(&[n; 32]).public_key();
            std::fs::write(&path, serde_json::to_vec(&key).unwrap()).unwrap();
            path
        };
        let own = || Some(Ed25519Signer::from_seed(&[1; 32]).public_key());
        assert_eq!(together(own(), &[path(2), path(3)], 3).unwrap().len(), 3);
        for (others, threshold) in [(vec![path(2)], 3), (vec![path(2)], 0), (vec![path(1)], 1)] {
            assert!(together(own(), &others, threshold).is_err());
        }
        std::fs::write(folder.path().join("bad"), b"{}").unwrap();
        assert!(read(&folder.path().join("bad")).is_err());
    }
}
