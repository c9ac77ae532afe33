//! A publication that was signed here and is not on the server yet: it may still need other people's signatures.
//!
//! `pending/metadata/{role}.json` and `pending/targets/{name}` in the key folder. It stays until the server has taken
//! it, so that a lost answer or a missing signature costs nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use trust::PublicKey;
use trust::repo::{RootBuilder, TargetsBuilder, signed_by};

use crate::keyring::Keyring;
use crate::metadata::{expiry, short};

/// Name of the folder in the key folder.
const FOLDER: &str = "pending";
/// What is to take its place, until it is whole.
const NEW: &str = "pending.new";
/// What it took the place of, until that is durable.
const OLD: &str = "pending.old";

/// The files, by role and by target path.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Signed metadata by role.
    pub(crate) metadata: Vec<(String, Vec<u8>)>,
    /// Targets by path; only top-level ones, which have no folder.
    pub(crate) targets: Vec<(String, Vec<u8>)>,
}

impl Pending {
    /// What waits in this key folder.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn read(keyring: &Keyring) -> Result<Self> {
        // A writing was cut off between its two steps.
        if !Self::folder(keyring).exists() && keyring.folder().join(OLD).exists() {
            rename(keyring, OLD, FOLDER)?;
        }
        let folder = keyring.folder().join(FOLDER);
        let metadata = files(&folder.join("metadata"))?;
        let role = |(name, bytes): (String, Vec<u8>)| Some((name.strip_suffix(".json")?.to_owned(), bytes));
        Ok(Self {
            metadata: metadata.into_iter().filter_map(role).collect(),
            targets: files(&folder.join("targets"))?,
        })
    }

    /// Keeps it in the key folder, in place of what waited there: cut off anywhere, one of the two is there as a whole.
    /// Other people's signatures are in it.
    ///
    /// # Errors
    /// When it can't be written; what waited before is still there then.
    pub(crate) fn write(&self, keyring: &Keyring) -> Result<()> {
        if Self::read(keyring)?.is_same(self) {
            return Ok(());
        }
        remove(keyring, NEW)?;
        for (role, bytes) in &self.metadata {
            keyring.keep(&format!("{NEW}/metadata/{role}.json"), bytes)?;
        }
        for (path, bytes) in &self.targets {
            keyring.keep(&format!("{NEW}/targets/{path}"), bytes)?;
        }
        remove(keyring, OLD)?;
        if Self::folder(keyring).exists() {
            rename(keyring, FOLDER, OLD)?;
        }
        rename(keyring, NEW, FOLDER)?;
        remove(keyring, OLD)
    }

    /// Forgets what waited.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(crate) fn clear(keyring: &Keyring) -> Result<()> {
        remove(keyring, OLD)?;
        remove(keyring, NEW)?;
        if Self::folder(keyring).exists() {
            rename(keyring, FOLDER, NEW)?; // All of it at once, and only then file by file.
        }
        remove(keyring, NEW)
    }

    /// Whether both hold the same files, in any order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let sorted = |pending: &Self| {
            let mut pending = pending.clone();
            pending.metadata.sort();
            pending.targets.sort();
            pending
        };
        sorted(self) == sorted(other)
    }

    /// Where it lies.
    pub(crate) fn folder(keyring: &Keyring) -> PathBuf {
        keyring.folder().join(FOLDER)
    }

    /// One of its metadata files.
    pub(crate) fn role(&self, role: &str) -> Option<&[u8]> {
        self.metadata.iter().find(|(name, _)| name == role).map(|(_, bytes)| bytes.as_slice())
    }

    /// As the server takes it.
    pub(crate) fn body(&self) -> Value {
        let file =
            |(name, bytes): &(String, Vec<u8>)| json!({ "name": name, "content": STANDARD.encode(bytes) });
        json!({
            "metadata": self.metadata.iter().map(file).collect::<Vec<_>>(),
            "targets": self.targets.iter().map(file).collect::<Vec<_>>(),
        })
    }

    /// What is still missing before devices accept it; `root` and `targets` are what is published now.
    ///
    /// # Errors
    /// When a file is no metadata.
    pub(crate) fn lacking(&self, root: Option<&[u8]>, targets: Option<&[u8]>) -> Result<Vec<Lacking>> {
        let new_root = self.role("root").or(root).context("there is no root yet")?;
        let new_targets = self.role("targets").or(targets);
        let mut lacking = Vec::new();
        for (role, bytes) in &self.metadata {
            match role.as_str() {
                // 5.3.4: a threshold of the old root's keys and a threshold of its own.
                "root" => {
                    for root in [root, Some(bytes.as_slice())].into_iter().flatten() {
                        lacking.extend(Lacking::of(role, bytes, root_keys(root, "root")?)?);
                    }
                }
                "targets" => lacking.extend(Lacking::of(role, bytes, root_keys(new_root, "targets")?)?),
                model => {
                    let delegator = new_targets.context("there is no targets role yet")?;
                    lacking.extend(Lacking::of(model, bytes, delegated_keys(delegator, model)?)?);
                }
            }
        }
        lacking.dedup();
        Ok(lacking)
    }
}

/// Signatures that a file still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// Which file.
    pub(crate) role: String,
    /// How many valid ones it has.
    pub(crate) have: usize,
    /// How many it needs.
    pub(crate) need: usize,
    /// Keys that have not signed yet.
    pub(crate) keys: Vec<String>,
}

impl Lacking {
    fn of(role: &str, bytes: &[u8], (keys, need): (Vec<PublicKey>, usize)) -> Result<Option<Self>> {
        let signed = signed_by(bytes, &keys)?;
        if signed.len() >= need {
            return Ok(None);
        }
        let open = keys.iter().map(PublicKey::id).filter(|id| !signed.contains(id));
        let keys = open.map(|id| short(id.as_str())).collect();
        Ok(Some(Self { role: role.to_owned(), have: signed.len(), need, keys }))
    }
}

/// Keys and threshold that a root names for a role.
///
/// # Errors
/// When it is no root, or names no such role.
pub(crate) fn root_keys(root: &[u8], role: &str) -> Result<(Vec<PublicKey>, usize)> {
    let root = RootBuilder::resume(root, expiry(1)?)?;
    root.keys_of(role).with_context(|| format!("root names no {role} role"))
}

/// Keys and threshold that a targets role names for a delegated one.
///
/// # Errors
/// When it is no targets role, or delegates no such role.
pub(crate) fn delegated_keys(targets: &[u8], role: &str) -> Result<(Vec<PublicKey>, usize)> {
    let targets = TargetsBuilder::resume(targets, expiry(1)?)?;
    targets.keys_of(role).with_context(|| format!("model {role} is not delegated"))
}

fn rename(keyring: &Keyring, from: &str, to: &str) -> Result<()> {
    let folder = keyring.folder();
    let moved = fs::rename(folder.join(from), folder.join(to));
    moved
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .with_context(|| format!("cannot rename {} to {to}", folder.join(from).display()))
}

fn remove(keyring: &Keyring, name: &str) -> Result<()> {
    let folder = keyring.folder().join(name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((name.to_owned(), bytes));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(text: &[u8]) -> Pending {
        let file = |name: &str| (name.to_owned(), text.to_vec());
        Pending { metadata: vec![file("root"), file("targets")], targets: vec![file("director.json")] }
    }

    #[test]
    fn what_waits_is_never_lost_when_writing_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::at(folder.path());
        let inode = || {
            let path = folder.path().join("pending/metadata/root.json");
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
        };
        pending(b"signed by two").write(&keyring).unwrap();
        let before = inode();
        let mut same = pending(b"signed by two");
        same.metadata.reverse();
        same.write(&keyring).unwrap();
        assert_eq!(inode(), before, "the same again touches nothing");
        // It can't be written: the name of its folder is taken by a file.
        let taken =
            Pending { targets: vec![("a/b".into(), vec![]), ("a".into(), vec![])], ..pending(b"new") };
        assert!(taken.write(&keyring).is_err());
        assert_eq!(Pending::read(&keyring).unwrap(), pending(b"signed by two"));
        // The power went between the two steps.
        fs::rename(folder.path().join("pending"), folder.path().join("pending.old")).unwrap();
        assert_eq!(Pending::read(&keyring).unwrap(), pending(b"signed by two"));
        pending(b"new").write(&keyring).unwrap();
        assert_eq!(Pending::read(&keyring).unwrap(), pending(b"new"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        Pending::clear(&keyring).unwrap();
        assert_eq!(Pending::read(&keyring).unwrap(), Pending::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
