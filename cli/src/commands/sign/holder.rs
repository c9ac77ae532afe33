//! Whether a key holds the role that it is about to sign for, as far as the files at hand say. Asks no server.
//!
//! Who holds root stands in root itself and in the root before it; who holds targets, in root; who holds a model, in
//! targets. Which of those files are believed says `delegator`; one from the key folder may be older than the file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use trust::repo::Claims;
use trust::{KeyId, PublicKey};

use super::delegator::{Delegator, Delegators, kept};
use crate::keyring::{Keyring, Owner};
use crate::metadata::{claims, short};
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
    /// Whether it is believed; who holds the role by a file that nobody vouches for does not hold it yet.
    is_believed: bool,
}

impl Named {
    fn of(by: PathBuf, delegator: &Claims, role: &str, is_sure: bool) -> Self {
        let listed = delegator.roles.iter().chain(&delegator.delegations).find(|(name, _, _)| name == role);
        let ids = listed.map(|(_, ids, _)| ids.clone()).unwrap_or_default();
        Self { by, version: delegator.version, ids, is_sure, is_believed: true }
    }

    fn by(delegator: &Delegator, role: &str, is_believed: bool) -> Result<Self> {
        let is_sure = is_believed && delegator.is_sure();
        let named = Self::of(delegator.by.clone(), &claims(&delegator.bytes)?, role, is_sure);
        Ok(Self { is_believed, ..named })
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<String> = self.ids.iter().map(|id| short(id.as_str())).collect();
        let ids = if ids.is_empty() { "nobody".into() } else { ids.join(", ") };
        let belief = if self.is_believed { "" } else { ", not believed," };
        write!(f, "{} (version {}){belief} names {ids}", self.by.display(), self.version)
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
    let mut holders = named.iter().filter(|named| named.is_believed).flat_map(|named| &named.ids);
    let holds = holders.any(|id| own.contains(id));
    Ok(if holds {
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
    let found = Delegators::find(keyring, path, delegator)?;
    let believed = found.believed.iter().map(|delegator| Named::by(delegator, role, true));
    believed.chain(found.proposed.iter().map(|delegator| Named::by(delegator, role, false))).collect()
}

/// What says who holds the role of this file: nothing for root, which says it itself.
///
/// # Errors
/// When what is kept can't be read.
pub(super) fn delegators(keyring: &Keyring, path: &Path, owner: Owner<'_>) -> Result<Delegators> {
    match owner {
        Owner::Root => Ok(Delegators::default()),
        Owner::Targets => Delegators::find(keyring, path, "root"),
        Owner::Model(_) => Delegators::find(keyring, path, "targets"),
    }
}

/// Keys that hold the role as far as files say that are believed.
///
/// # Errors
/// When what is kept can't be read.
pub(super) fn keys(keyring: &Keyring, path: &Path, file: &[u8], owner: Owner<'_>) -> Result<Vec<PublicKey>> {
    if owner == Owner::Root {
        let kept = kept(keyring, "root")?.map(|(_, kept)| kept);
        let roots = [Some(file.to_vec()), kept].into_iter().flatten();
        return Ok(roots.filter_map(|root| root_keys(&root, "root").ok()).flat_map(|(k, _)| k).collect());
    }
    Ok(named_by(delegators(keyring, path, owner)?.believed.as_ref(), owner))
}

/// Keys that files name for the role which nobody vouches for yet.
///
/// # Errors
/// When what is kept can't be read.
pub(super) fn proposed_keys(keyring: &Keyring, path: &Path, owner: Owner<'_>) -> Result<Vec<PublicKey>> {
    Ok(named_by(delegators(keyring, path, owner)?.proposed.as_ref(), owner))
}

/// A delegator that doesn't know the role names nobody.
fn named_by(delegator: Option<&Delegator>, owner: Owner<'_>) -> Vec<PublicKey> {
    let named = delegator.and_then(|delegator| match owner {
        Owner::Model(model) => delegated_keys(&delegator.bytes, model).ok(),
        owner => root_keys(&delegator.bytes, owner.role()).ok(),
    });
    named.map(|(keys, _)| keys).unwrap_or_default()
}

/// Whether the targets at hand delegate a model; nothing without any.
///
/// # Errors
/// When they can't be read.
pub(super) fn delegates(keyring: &Keyring, path: &Path, model: &str) -> Result<Option<bool>> {
    let found = Delegators::find(keyring, path, "targets")?;
    let mut known = None;
    for targets in found.believed.iter().chain(&found.proposed) {
        let names_it = claims(&targets.bytes)?.delegations.iter().any(|(name, _, _)| name == model);
        known = Some(names_it || known == Some(true));
    }
    Ok(known)
}

#[cfg(test)]
mod tests;
