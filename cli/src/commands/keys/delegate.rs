//! `flotilla keys delegate`: who holds a role from now on. So a colleague joins, leaves, or gets a new key for a lost one.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use protocol::ModelName;
use trust::repo::{RootBuilder, TargetsBuilder};
use trust::{Ed25519Signer, PublicKey, Signer};

use super::super::Context;
use super::{group, send};
use crate::keyring::{Keyring, Owner};
use crate::metadata::{ROOT_DAYS, TARGETS_DAYS, expiry};
use crate::pending::Pending;
use crate::rotation::{Current, not_reserved};

/// The people who are to hold a role.
struct Holders {
    keys: Vec<PublicKey>,
    threshold: usize,
}

/// Signed files by role.
type Files = Vec<(String, Vec<u8>)>;

/// Signs the change with this folder's keys; what others must sign too waits.
///
/// # Errors
/// When there is no root yet, a key can't be used, or this folder holds no key that may change the role.
pub(super) async fn run(context: &Context, role: &str, keys: &[PathBuf], threshold: usize) -> Result<()> {
    let holders = Holders { keys: group::together(None, keys, threshold)?, threshold };
    let mut keyring = Keyring::of(context.client.project())?;
    let mut current = send::current(context, &keyring).await?;
    let metadata = match role {
        "root" => of_root(&mut keyring, &current, &holders)?,
        "targets" => of_targets(&mut keyring, &current, &holders)?,
        model => {
            let model = ModelName::new(model)
                .with_context(|| format!("{model:?} is neither root nor targets nor a model's name"))?;
            not_reserved(&model)?;
            if !send::is_delegated(&current.targets, model.as_str())? {
                eprintln!(
                    "note: {model} is delegated for the first time; no model of that name was known until now"
                );
            }
            current.model = send::current_model(context, &keyring, &current, model.as_str()).await?;
            of_model(&mut keyring, &current, &model, &holders)?
        }
    };
    send::publication(context, &keyring, &Pending { metadata, targets: Vec::new() }, &current).await.map(drop)
}

fn of_root(keyring: &mut Keyring, current: &Current, holders: &Holders) -> Result<Files> {
    let root = RootBuilder::resume(&current.root, expiry(ROOT_DAYS)?)?;
    let root = root.role("root", &holders.keys, holders.threshold);
    Ok(vec![("root".into(), root.sign(&[&keyring.open(Owner::Root)?])?)])
}

/// Root names the new holders; they must sign what is published of the role, too.
fn of_targets(keyring: &mut Keyring, current: &Current, holders: &Holders) -> Result<Files> {
    let root = RootBuilder::resume(&current.root, expiry(ROOT_DAYS)?)?;
    let root = root.role("targets", &holders.keys, holders.threshold);
    let root = root.sign(&[&keyring.open(Owner::Root)?])?;
    let targets = signed_again(keyring, Owner::Targets, &current.targets, holders)?;
    Ok(vec![("root".into(), root), ("targets".into(), targets)])
}

fn of_model(keyring: &mut Keyring, current: &Current, model: &ModelName, holders: &Holders) -> Result<Files> {
    let targets = TargetsBuilder::resume(&current.targets, expiry(TARGETS_DAYS)?)?;
    let targets = targets.delegate_model(model, &holders.keys, holders.threshold);
    let mut files = vec![("targets".to_owned(), targets.sign(&[&keyring.open(Owner::Targets)?])?)];
    if let Some(role) = &current.model {
        let role = signed_again(keyring, Owner::Model(model.as_str()), role, holders)?;
        files.push((model.to_string(), role));
    }
    Ok(files)
}

/// The next version of a role's file with the same content, signed from here only if this folder holds one of its keys.
fn signed_again(keyring: &mut Keyring, owner: Owner<'_>, bytes: &[u8], holders: &Holders) -> Result<Vec<u8>> {
    let mut own: Vec<Ed25519Signer> = Vec::new();
    if keyring.has(owner) && is_one_of(&keyring.public(owner)?, holders) {
        own.push(keyring.open(owner)?);
    }
    let signers: Vec<&dyn Signer> = own.iter().map(|signer| -> &dyn Signer { signer }).collect();
    Ok(TargetsBuilder::resume(bytes, expiry(TARGETS_DAYS)?)?.sign(&signers)?)
}

fn is_one_of(key: &PublicKey, holders: &Holders) -> bool {
    holders.keys.iter().any(|holder| holder.is_same(key))
}
