//! Whether a key holds the role that it is about to sign for, as far as the files at hand say. Asks no server.
//!
//! Who holds root stands in root itself and in the root before it; who holds targets, in root; who holds a model, in
//! targets. A delegator that lies beside the file was handed over with it and is believed; one from the key folder may
//! be older than the file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use trust::repo::Claims;
use trust::{KeyId, PublicKey};

use crate::keyring::{Keyring, Owner};
use crate::metadata::{claims, kept_name, short};
use crate::pending::{delegated_keys, root_keys};

/// What is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// One of the keys holds the role.
    Holds,
    /// None does; a signature would count for nothing.
    HoldsNot(Vec<Named>),
    /// None does according to what the key folder knows, which may be old.
    HoldsNotSoFar(Vec<Named>),
    /// Nothing at hand says who holds the role.
    Unknown,
}

/// Whom a file names as holders of the role.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The file.
    by: PathBuf,
    /// Its version.
    version: u64,
    /// The holders; none when it doesn't know the role.
    ids: Vec<KeyId>,
    /// Whether this is what the role's signatures will be checked against.
    is_sure: bool,
}

impl Named {
    fn of(by: PathBuf, delegator: &Claims, role: &str, is_sure: bool) -> Self {
        let listed = delegator.roles.iter().chain(&delegator.delegations).find(|(name, _, _)| name == role);
        let ids = listed.map(|(_, ids, _)| ids.clone()).unwrap_or_default();
        Self { by, version: delegator.version, ids, is_sure }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<String> = self.ids.iter().map(|id| short(id.as_str())).collect();
        let ids = if ids.is_empty() { "nobody".into() } else { ids.join(", ") };
        write!(f, "{} (version {}) names {ids}", self.by.display(), self.version)
    }
}

/// Where these keys stand towards the role of this file.
///
/// # Errors
/// When a delegator can't be read.
pub(super) fn standing(
    keyring: &Keyring,
    path: &Path,
    file: &Claims,
    owner: Owner<'_>,
    own: &[KeyId],
) -> Result<Standing> {
    let named = match owner {
        Owner::Root => holders_of_root(keyring, path, file)?,
        Owner::Targets => holders(keyring, path, "root", owner.role())?,
        Owner::Model(model) => holders(keyring, path, "targets", model)?,
    };
    Ok(if named.iter().any(|named| named.ids.iter().any(|id| own.contains(id))) {
        Standing::Holds
    } else if named.is_empty() {
        Standing::Unknown
    } else if named.iter().all(|named| named.is_sure) {
        Standing::HoldsNot(named)
    } else {
        Standing::HoldsNotSoFar(named)
    })
}

/// 5.3.4: a new root needs signatures of its own holders and of those that the root before it names.
fn holders_of_root(keyring: &Keyring, path: &Path, file: &Claims) -> Result<Vec<Named>> {
    let mut named = vec![Named::of(path.to_owned(), file, "root", true)];
    if file.version > 1 {
        named[0].is_sure = false;
        if let Some((by, kept)) = kept(keyring, "root")? {
            let kept = claims(&kept)?;
            let is_before = kept.version.checked_add(1) == Some(file.version);
            named[0].is_sure = is_before;
            named.push(Named::of(by, &kept, "root", is_before));
        }
    }
    Ok(named)
}

fn holders(keyring: &Keyring, path: &Path, delegator: &str, role: &str) -> Result<Vec<Named>> {
    let Some(found) = find(keyring, path, delegator)? else { return Ok(Vec::new()) };
    Ok(vec![Named::of(found.by, &claims(&found.bytes)?, role, found.is_beside)])
}

/// Keys that the files at hand name for the role: those whose signatures on the file can be checked.
///
/// # Errors
/// When a delegator can't be read.
pub(super) fn keys(keyring: &Keyring, path: &Path, file: &[u8], owner: Owner<'_>) -> Result<Vec<PublicKey>> {
    // A delegator that doesn't know the role names nobody.
    let named = match owner {
        Owner::Root => {
            let kept = kept(keyring, "root")?.map(|(_, kept)| kept);
            let roots = [Some(file.to_vec()), kept].into_iter().flatten();
            return Ok(roots.filter_map(|root| root_keys(&root, "root").ok()).flat_map(|(k, _)| k).collect());
        }
        Owner::Targets => {
            find(keyring, path, "root")?.and_then(|found| root_keys(&found.bytes, "targets").ok())
        }
        Owner::Model(model) => {
            find(keyring, path, "targets")?.and_then(|found| delegated_keys(&found.bytes, model).ok())
        }
    };
    Ok(named.map(|(keys, _)| keys).unwrap_or_default())
}

/// Whether the targets at hand delegate a model; nothing without any.
///
/// # Errors
/// When they can't be read.
pub(super) fn delegates(keyring: &Keyring, path: &Path, model: &str) -> Result<Option<bool>> {
    let Some(found) = find(keyring, path, "targets")? else { return Ok(None) };
    Ok(Some(claims(&found.bytes)?.delegations.iter().any(|(name, _, _)| name == model)))
}

/// A delegator.
struct Found {
    by: PathBuf,
    bytes: Vec<u8>,
    /// Whether it was handed over with the file.
    is_beside: bool,
}

/// The delegator beside the file, else the one that this folder keeps.
fn find(keyring: &Keyring, path: &Path, delegator: &str) -> Result<Option<Found>> {
    let by = path.with_file_name(format!("{delegator}.json"));
    if let Ok(bytes) = std::fs::read(&by)
        && claims(&bytes).is_ok_and(|said| said.kind == delegator)
    {
        return Ok(Some(Found { by, bytes, is_beside: true }));
    }
    let kept = kept(keyring, delegator)?;
    Ok(kept.map(|(by, bytes)| Found { by, bytes, is_beside: false }))
}

/// What was last published from here or verified, else the first root.
///
/// # Errors
/// When it can't be read.
pub(super) fn kept(keyring: &Keyring, role: &str) -> Result<Option<(PathBuf, Vec<u8>)>> {
    for name in [kept_name(role), format!("{role}.json")] {
        if let Some(bytes) = keyring.read(&name)? {
            return Ok(Some((keyring.folder().join(name), bytes)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
