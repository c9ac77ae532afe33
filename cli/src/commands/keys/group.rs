//! Several people who hold a role together: each has a key folder of their own and gives the others public halves only.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use protocol::ModelName;
use serde_json::{Value, json};
use trust::PublicKey;

use crate::keyring::{Keyring, Owner};
use crate::metadata::{read_given, short};
use crate::output::{Format, items, table, text};
use crate::rotation::not_reserved;

/// The other people of a new project, and how many of all must sign.
#[derive(Debug, clap::Args)]
pub(crate) struct Group {
    /// Public root key of another person (their `root.pub.json`); repeat it for each.
    #[arg(long = "root-key", value_name = "FILE")]
    root: Vec<PathBuf>,
    /// How many root keys must sign.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(super) root_threshold: usize,
    /// Public targets key of another person (their `targets.pub.json`); repeat it for each.
    #[arg(long = "targets-key", value_name = "FILE")]
    targets: Vec<PathBuf>,
    /// How many targets keys must sign.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(super) targets_threshold: usize,
}

impl Group {
    /// Whether there is anybody else.
    pub(super) fn is_given(&self) -> bool {
        !self.root.is_empty() || !self.targets.is_empty()
    }

    /// Whether every file is a key and every threshold can be reached, before there is a key of one's own.
    ///
    /// # Errors
    /// As [`root_keys`](Self::root_keys).
    pub(super) fn check(&self) -> Result<()> {
        for (others, threshold) in
            [(&self.root, self.root_threshold), (&self.targets, self.targets_threshold)]
        {
            others.iter().try_for_each(|path| read(path).map(drop))?;
            reachable(threshold, others.len() + 1)?;
        }
        Ok(())
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

pub(super) fn together(
    own: Option<PublicKey>,
    others: &[PathBuf],
    threshold: usize,
) -> Result<Vec<PublicKey>> {
    let mut keys: Vec<PublicKey> = own.into_iter().collect();
    for path in others {
        let key = read(path)?;
        if keys.iter().any(|have| have.id() == key.id()) {
            bail!("{} is named twice", path.display());
        }
        keys.push(key);
    }
    reachable(threshold, keys.len())?;
    Ok(keys)
}

fn reachable(threshold: usize, keys: usize) -> Result<()> {
    if threshold == 0 || threshold > keys {
        bail!("a threshold of {threshold} can't be reached by {keys} key(s)");
    }
    Ok(())
}

fn read(path: &Path) -> Result<PublicKey> {
    let bytes = read_given(path)?;
    let key: PublicKey =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no public key", path.display()))?;
    key.check().with_context(|| format!("{} can't be used", path.display()))?;
    Ok(key)
}

/// Makes this person's keys without publishing anything; nothing leaves this machine.
///
/// # Errors
/// When such keys are there already, or can't be written.
pub(super) fn make_own(
    project: &str,
    format: Format,
    model: Option<&ModelName>,
    no_passphrase: bool,
) -> Result<()> {
    model.map_or(Ok(()), not_reserved)?;
    let mut keyring = Keyring::of(project)?;
    let owners = match model {
        Some(model) => vec![Owner::Model(model.as_str())],
        None => vec![Owner::Root, Owner::Targets],
    };
    // One of two may have got lost.
    let owners: Vec<_> = owners.into_iter().filter(|owner| !keyring.has(*owner)).collect();
    if owners.is_empty() {
        let folder = keyring.folder().display();
        bail!("{folder} holds these keys already; to replace one, run: flotilla keys rotate ROLE");
    }
    // Those that are there come along, because all of a folder open by the same passphrase.
    let there = [Owner::Root, Owner::Targets].into_iter().filter(|owner| keyring.has(*owner));
    let all: Vec<_> = there.chain(owners.iter().copied()).collect();
    keyring.create_missing(&all, no_passphrase)?;
    let keys: Vec<_> = owners.iter().map(|owner| row(&keyring, *owner)).collect::<Result<_>>()?;
    let said = json!({ "folder": keyring.folder(), "keys": keys });
    format.print(&said, |said| {
        let row =
            |row: &Value| vec![text(row, "/role"), short(&text(row, "/key_id")), text(row, "/give_away")];
        table(
            &["new key", "id", "give away this file, and nothing else"],
            items(&said["keys"]).iter().map(row).collect(),
            "none",
        )
    })
}

fn row(keyring: &Keyring, owner: Owner<'_>) -> Result<Value> {
    let key = keyring.public(owner)?;
    Ok(json!({ "role": owner.role(), "key_id": key.id(), "give_away": keyring.public_path(owner) }))
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
