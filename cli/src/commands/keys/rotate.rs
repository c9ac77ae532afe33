//! `flotilla keys rotate`: a new key in the place of an old one, and the files that have to be signed again.

use anyhow::{Context as _, Result, bail};
use protocol::ModelName;
use serde_json::json;

use super::super::Context;
use super::{online_key, send};
use crate::keyring::{Keyring, Owner};
use crate::output::facts;
use crate::rotation::{self, Online};

/// Rotates the key of a role.
///
/// # Errors
/// When a key is missing or isn't the role's, or the server refuses.
pub(super) async fn run(context: &Context, role: &str) -> Result<()> {
    let mut keyring = Keyring::of(context.client.project())?;
    let Some(owner) = owner(role)? else { return of_server(context, &mut keyring).await };
    let waited = keyring.has_next(owner);
    let mut current = send::current(context, &keyring).await?;
    // The rotation that this is a second try of was taken.
    if waited && !keyring.has_next(owner) {
        let said = json!({ "is_published": true, "published": [], "new_keys": [role] });
        return context.format.print(&said, |_| facts(&[("rotated before", role.to_owned())]));
    }
    let present = keyring.public(owner).with_context(|| format!("{role} has no key to rotate here"))?;
    // Before there is a new key, which would wait for nothing.
    if !rotation::is_holder(owner, &present, &current) {
        bail!(
            "the {role} key in {} doesn't hold the role; to have it named, give {} to somebody who holds {}, who \
             runs: flotilla keys delegate {role}",
            keyring.folder().display(),
            keyring.public_path(owner).display(),
            if matches!(owner, Owner::Model(_)) { "targets" } else { "root" }
        );
    }
    if let Owner::Model(model) = owner {
        current.model = send::current_model(context, &keyring, &current, model).await?;
    }
    // A key that waits since an earlier try is used, not made again.
    if !keyring.has_next(owner) {
        let passphrase = keyring.same_passphrase()?;
        keyring.create_next(owner, &passphrase)?;
    }
    let pending = rotation::of_owner(&mut keyring, owner, &current)?;
    send::publication(context, &keyring, &pending, &current).await.map(drop)
}

/// Whose key a role's name means; none for the server's own.
fn owner(role: &str) -> Result<Option<Owner<'_>>> {
    Ok(match role {
        "server" => None,
        "root" => Some(Owner::Root),
        "targets" => Some(Owner::Targets),
        model => {
            ModelName::new(model)
                .with_context(|| format!("{model:?} is neither root, targets, server nor a model's name"))?;
            Some(Owner::Model(model))
        }
    })
}

/// Names the server's keys as they are now.
async fn of_server(context: &Context, keyring: &mut Keyring) -> Result<()> {
    let current = send::current(context, keyring).await?;
    let online = context.client.get("/online-keys").await?;
    let [snapshot, timestamp, director] = ["snapshot", "timestamp", "director"];
    let online = Online {
        snapshot: online_key(&online, snapshot)?,
        timestamp: online_key(&online, timestamp)?,
        director: online_key(&online, director)?,
    };
    let pending = rotation::of_server(keyring, &online, &current)?;
    send::publication(context, keyring, &pending, &current).await.map(drop)
}
