//! The keys that the server makes itself, one set for each project.

use protocol::ProjectId;
use trust::{Ed25519Signer, PublicKey, Signer};

use super::{SealError, SealKey};
use crate::clock::Clock;
use crate::store::metadata::{self, OnlineKey};
use crate::store::{Conn, Store, StoreError};

/// What an online key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnlineRole {
    /// Which versions belong together.
    Snapshot,
    /// That it is the newest.
    Timestamp,
    /// What each device should run.
    Director,
}

impl OnlineRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Snapshot, Self::Timestamp, Self::Director];

    /// Name in metadata and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Director => "director",
        }
    }
}

/// Why an online key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The database failed.
    #[error("online keys can't be read")]
    Store(#[from] StoreError),
    /// The seed can't be opened.
    #[error("an online key can't be opened")]
    Seal(#[from] SealError),
    /// The project has no key yet.
    #[error("project {project} has no {} key yet", role.as_str())]
    Missing {
        /// Which project.
        project: ProjectId,
        /// Which role.
        role: OnlineRole,
    },
}

/// Makes the keys that are missing, and returns all public keys. Safe to call at once from several places.
///
/// # Errors
/// [`KeyStoreError`] when the database or the key file fails.
pub async fn ensure(
    store: &Store,
    clock: &Clock,
    seal: &SealKey,
    project: &ProjectId,
) -> Result<Vec<(OnlineRole, PublicKey)>, KeyStoreError> {
    let mut tx = store.begin().await?;
    let mut public = vec![];
    for role in OnlineRole::ALL {
        if metadata::online_key(&mut tx, project, role.as_str()).await?.is_none() {
            let signer = Ed25519Signer::from_seed(&crate::ids::random_bytes());
            let key = OnlineKey {
                role: role.as_str().to_owned(),
                public_key: signer.public_bytes().to_vec(),
                sealed_seed: seal.seal(project, role.as_str(), &signer.seed()),
                created_at: clock.now(),
            };
            metadata::insert_online_key(&mut tx, project, &key).await?;
        }
        public.push((role, signer(&mut tx, seal, project, role).await?.public_key()));
    }
    tx.commit().await?;
    Ok(public)
}

/// Forgets a project's keys, because somebody may have copied them; returns how many there were. [`ensure`] makes
/// others at the next need, which no device trusts before a publisher has named them.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn forget(store: &Store, project: &ProjectId) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let count = metadata::delete_online_keys(&mut tx, project).await?;
    tx.commit().await?;
    Ok(count)
}

/// The signer of a role.
///
/// # Errors
/// [`KeyStoreError::Missing`] before [`ensure`] made it; otherwise as there.
pub async fn signer(
    conn: &mut Conn,
    seal: &SealKey,
    project: &ProjectId,
    role: OnlineRole,
) -> Result<Ed25519Signer, KeyStoreError> {
    let key = metadata::online_key(conn, project, role.as_str()).await?;
    let key = key.ok_or_else(|| KeyStoreError::Missing { project: project.clone(), role })?;
    Ok(Ed25519Signer::from_seed(&seal.open(project, role.as_str(), &key.sealed_seed)?))
}
