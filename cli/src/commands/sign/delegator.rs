//! Which root, and which targets, say who holds a role: what this key folder trusts, and what that vouches for.
//!
//! A root that lies beside a file came with it, from whoever prepared it: it is believed only as the next one after the
//! root that the key folder keeps, signed as a device wants it. Without a kept one it is believed, loudly. Tests:
//! `holder/tests.rs`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::keyring::Keyring;
use crate::metadata::{claims, is_next_root, is_signed, kept_name};
use crate::pending::root_keys;

/// Why a delegator is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The key folder keeps it; it may be older than the file.
    Kept,
    /// It came with the file, and what the key folder keeps vouches for it.
    VouchedFor,
    /// It came with the file, and this key folder keeps nothing that could vouch for it.
    FirstUse,
}

/// A file that says who holds roles.
#[derive(Debug)]
pub(super) struct Delegator {
    /// Where it lies.
    pub(super) by: PathBuf,
    /// Its content.
    pub(super) bytes: Vec<u8>,
    /// Its version.
    pub(super) version: u64,
    trust: Trust,
}

/// What says who holds a role.
#[derive(Debug, Default)]
pub(super) struct Delegators {
    /// What counts.
    pub(super) believed: Option<Delegator>,
    /// What came with the file and nobody vouches for yet.
    pub(super) proposed: Option<Delegator>,
}

impl Delegator {
    fn new(by: PathBuf, bytes: Vec<u8>, trust: Trust) -> Result<Self> {
        Ok(Self { version: claims(&bytes)?.version, by, bytes, trust })
    }

    fn kept(keyring: &Keyring, role: &str) -> Result<Option<Self>> {
        kept(keyring, role)?.map(|(by, bytes)| Self::new(by, bytes, Trust::Kept)).transpose()
    }

    fn beside(path: &Path, role: &str) -> Result<Option<Self>> {
        let by = path.with_file_name(format!("{role}.json"));
        let Ok(bytes) = std::fs::read(&by) else { return Ok(None) };
        // Another kind of file under that name says nothing.
        if !claims(&bytes).is_ok_and(|said| said.kind == role) {
            return Ok(None);
        }
        Self::new(by, bytes, Trust::VouchedFor).map(Some)
    }

    /// Whether the file's signatures will be checked against this one; one that was kept may be older.
    pub(super) fn is_sure(&self) -> bool {
        self.trust != Trust::Kept
    }

    /// For programs: which file, and why it is believed.
    pub(super) fn to_json(&self) -> Value {
        let trust = match self.trust {
            Trust::Kept => "kept",
            Trust::VouchedFor => "vouched_for",
            Trust::FirstUse => "first_use",
        };
        json!({ "file": self.by, "version": self.version, "sha256": self.sha256(), "trust": trust })
    }

    fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

impl Delegators {
    /// Of the role that `delegator`, which is root or targets, gives away; the file for it lies at `path`.
    ///
    /// # Errors
    /// When what is kept can't be read.
    pub(super) fn find(keyring: &Keyring, path: &Path, delegator: &str) -> Result<Self> {
        let (kept, beside) = (Delegator::kept(keyring, delegator)?, Delegator::beside(path, delegator)?);
        if delegator == "root" {
            return Self::choose(kept, beside, |kept, root| is_next_root(&kept?.bytes, &root.bytes).ok());
        }
        let root = Self::find(keyring, path, "root")?.believed;
        let root_trust = root.as_ref().map(|root| root.trust);
        let mut found = Self::choose(kept, beside, |_, targets| {
            Some(is_signed(&targets.bytes, root_keys(&root.as_ref()?.bytes, "targets").ok()?))
        })?;
        if root_trust == Some(Trust::FirstUse)
            && let Some(believed) = found.believed.as_mut().filter(|found| found.is_sure())
        {
            believed.trust = Trust::FirstUse;
        }
        Ok(found)
    }

    /// `vouched` says whether what is trusted vouches for the file beside; nothing when there is nothing to say it.
    fn choose(
        kept: Option<Delegator>,
        beside: Option<Delegator>,
        vouched: impl Fn(Option<&Delegator>, &Delegator) -> Option<bool>,
    ) -> Result<Self> {
        let Some(mut beside) = beside else { return Ok(Self { believed: kept, proposed: None }) };
        let is_vouched = vouched(kept.as_ref(), &beside);
        let Some(kept) = kept else {
            return Ok(match is_vouched {
                Some(true) => Self { believed: Some(beside), proposed: None },
                Some(false) => Self { believed: None, proposed: Some(beside) },
                None => {
                    beside.trust = Trust::FirstUse;
                    Self { believed: Some(beside), proposed: None }
                }
            });
        };
        Ok(
            if is_same(&kept.bytes, &beside.bytes)?
                || (beside.version > kept.version && is_vouched == Some(true))
            {
                Self { believed: Some(beside), proposed: None }
            } else if beside.version < kept.version {
                Self { believed: Some(kept), proposed: None }
            } else {
                Self { believed: Some(kept), proposed: Some(beside) }
            },
        )
    }

    /// What nobody may miss about what is believed, and what is not. `role` is whose holders it names.
    pub(super) fn tell(&self, role: &str) {
        if let Some(first) = self.believed.as_ref().filter(|found| found.trust == Trust::FirstUse) {
            eprintln!(
                "WARNING: this key folder trusts no root yet. Who holds the role {role} is believed as {} says it \
                 (version {}, SHA-256 {}), which came with the file and may be anybody's. Get root.json by a way that \
                 you trust, and pin it: flotilla verify --root root.json --pin",
                first.by.display(),
                first.version,
                first.sha256()
            );
        }
        if let Some(proposed) = &self.proposed {
            let instead = self.believed.as_ref().map_or_else(String::new, |kept| {
                format!("; {} (version {}) is believed instead", kept.by.display(), kept.version)
            });
            eprintln!(
                "WARNING: {} (version {}), which came with the file, is not believed: those whom this key folder \
                 trusts have not signed it, or versions in between are missing{instead}. See what it changes with: \
                 flotilla sign --dry-run --add {0}",
                proposed.by.display(),
                proposed.version
            );
        }
    }
}

/// Whether both sign the same, however many have signed.
fn is_same(one: &[u8], other: &[u8]) -> Result<bool> {
    let signed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map(|mut file| file["signed"].take());
    Ok(signed(one)? == signed(other)?)
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
