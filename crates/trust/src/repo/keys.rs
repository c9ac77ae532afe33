//! Which keys a role has, and others in their place.

use std::collections::BTreeSet;

use super::{BuildError, RootBuilder, TargetsBuilder, parsed};
use crate::envelope::{Envelope, KeySet};
use crate::key::{KeyId, PublicKey};

impl RootBuilder {
    /// Keys and threshold of a top-level role; none if root doesn't name it.
    pub fn keys_of(&self, role: &str) -> Option<(Vec<PublicKey>, usize)> {
        let (root, listed) = (&self.0.content, self.0.content.roles.get(role)?);
        let keys = listed.keyids.iter().filter_map(|id| root.keys.get(id).cloned());
        Some((keys.collect(), listed.threshold))
    }

    /// Puts `new` into the place of `old`; the other keys and the threshold stay.
    ///
    /// # Errors
    /// [`BuildError::NotListed`] when `old` is no key of the role.
    pub fn replace_key(self, role: &str, old: &PublicKey, new: &PublicKey) -> Result<Self, BuildError> {
        let (keys, threshold) = replaced(role, self.keys_of(role), old, new)?;
        Ok(self.role(role, &keys, threshold))
    }
}

impl TargetsBuilder {
    /// Keys and threshold of a delegated role; none if it isn't delegated here.
    pub fn keys_of(&self, role: &str) -> Option<(Vec<PublicKey>, usize)> {
        let delegations = self.0.content.delegations.as_ref()?;
        let listed = &delegations.roles().iter().find(|delegated| delegated.name == role)?.keys;
        let keys = listed.keyids.iter().filter_map(|id| delegations.keys.get(id).cloned());
        Some((keys.collect(), listed.threshold))
    }

    /// Takes a delegation back; its keys go unless another delegation names them.
    #[must_use]
    pub fn without_delegation(mut self, role: &str) -> Self {
        if let Some(delegations) = &mut self.0.content.delegations {
            let roles = delegations.roles.get_or_insert_default();
            roles.retain(|delegated| delegated.name != role);
            let used: BTreeSet<_> =
                roles.iter().flat_map(|delegated| delegated.keys.keyids.clone()).collect();
            delegations.keys.retain(|id, _| used.contains(id));
        }
        self
    }

    /// Puts `new` into the place of `old` in a delegation; its paths, other keys and threshold stay.
    ///
    /// # Errors
    /// [`BuildError::NotListed`] when `old` is no key of the role.
    pub fn replace_key(mut self, role: &str, old: &PublicKey, new: &PublicKey) -> Result<Self, BuildError> {
        let (keys, _) = replaced(role, self.keys_of(role), old, new)?;
        let Some(delegations) = &mut self.0.content.delegations else { return Ok(self) };
        let roles = delegations.roles.get_or_insert_default();
        if let Some(delegated) = roles.iter_mut().find(|delegated| delegated.name == role) {
            delegated.keys.keyids = keys.iter().map(PublicKey::id).collect();
        }
        delegations.keys.extend(keys.into_iter().map(|key| (key.id(), key)));
        let used: BTreeSet<KeyId> =
            roles.iter().flat_map(|delegated| delegated.keys.keyids.clone()).collect();
        delegations.keys.retain(|id, _| used.contains(id));
        Ok(self)
    }
}

fn replaced(
    role: &str,
    listed: Option<(Vec<PublicKey>, usize)>,
    old: &PublicKey,
    new: &PublicKey,
) -> Result<(Vec<PublicKey>, usize), BuildError> {
    let not_listed = || BuildError::NotListed { role: role.into(), key: old.id() };
    let (mut keys, threshold) = listed.ok_or_else(not_listed)?;
    let place = keys.iter_mut().find(|key| key.is_same(old)).ok_or_else(not_listed)?;
    *place = new.clone();
    Ok((keys, threshold))
}

/// Which of these keys have signed the bytes.
///
/// # Errors
/// [`BuildError`] when they are no metadata.
pub fn signed_by(bytes: &[u8], keys: &[PublicKey]) -> Result<Vec<KeyId>, BuildError> {
    Ok(valid(&parsed(bytes)?, keys))
}

fn valid(envelope: &Envelope, keys: &[PublicKey]) -> Vec<KeyId> {
    let has_signed = |key: &&PublicKey| envelope.verify(&KeySet::new([(*key).clone()], 1)).is_ok();
    let mut seen = BTreeSet::new();
    // A key may be given twice, as one that stands in the old root and in the new one.
    keys.iter().filter(has_signed).map(PublicKey::id).filter(|id| seen.insert(id.clone())).collect()
}

/// A file with the signatures of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The file.
    pub bytes: Vec<u8>,
    /// Whose signatures came from the copy.
    pub taken: Vec<KeyId>,
    /// Whose didn't: no valid ones of these keys.
    pub refused: Vec<KeyId>,
}

/// Adds the valid signatures of these keys on a copy of the same content, for people who signed at the same time.
///
/// # Errors
/// [`BuildError::OtherContent`] when the signed parts differ; another when one is no metadata.
pub fn merge_signatures(bytes: &[u8], copy: &[u8], keys: &[PublicKey]) -> Result<Merged, BuildError> {
    let (mut envelope, copy) = (parsed(bytes)?, parsed(copy)?);
    if !envelope.signs_the_same(&copy) {
        return Err(BuildError::OtherContent);
    }
    let (have, offered) = (valid(&envelope, keys), valid(&copy, keys));
    let refused = copy.signers().filter(|id| !offered.contains(id)).cloned().collect();
    let taken: Vec<KeyId> = offered.into_iter().filter(|id| !have.contains(id)).collect();
    for id in &taken {
        envelope.take_signature(&copy, id);
    }
    let bytes = if taken.is_empty() { bytes.to_vec() } else { envelope.to_bytes() };
    Ok(Merged { bytes, taken, refused })
}
