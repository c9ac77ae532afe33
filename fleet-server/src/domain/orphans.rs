//! Blobs that nothing names: uploads without a publication, and what a crash left without a row.
//!
//! What may be named is never removed. A publication checks that the project has its blobs while it holds the project, and
//! here a project's claim to a blob ends only while it is held: whichever comes first, the other sees it. Bytes are removed
//! only while the blob's row is held and no project has a claim, and an upload is acknowledged only after it has seen its
//! bytes while it held the same row. Asking for a blob renews the claim. Tests: `tests/orphans.rs`.

use std::collections::BTreeSet;

use protocol::{Digest, ProjectId, UnixMillis};
use release::Manifest;
use tracing::warn;

use crate::app::AppState;
use crate::blobs::BlobError;
use crate::store::{Conn, StoreError, blobs, projects, releases};

/// Why they can't be removed.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// The database.
    #[error("the database can't be used")]
    Store(#[from] StoreError),
    /// The object store.
    #[error("the object store can't be used")]
    Blobs(#[from] BlobError),
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Blobs that nothing names.
    pub blobs: u64,
    /// What was made of blobs that are gone.
    pub derived: u64,
    /// Beginnings of uploads that were cut.
    pub leftovers: u64,
}

/// Removes what is left of cut uploads, and blobs that nothing has named or asked for since `before`. Safe to repeat.
///
/// # Errors
/// [`OrphanError`]; what was removed before stays removed.
pub async fn remove(state: &AppState, before: UnixMillis) -> Result<Removed, OrphanError> {
    let leftovers = state.blobs.remove_leftovers().await?;
    adopt(state).await?;
    let all = projects::list(&mut *state.store.read().await?).await?;
    for project in &all {
        end_claims(state, &project.project, before).await?;
    }
    let mut removed = 0;
    let orphans = blobs::orphans(&mut *state.store.read().await?, before).await?;
    for digest in &orphans {
        removed += u64::from(remove_one(state, digest).await?);
    }
    let known = blobs::known(&mut *state.store.read().await?).await?;
    let derived = state.blobs.remove_derived_of_others(&known).await?;
    Ok(Removed { blobs: removed, derived, leftovers })
}

/// Bytes that were stored before a crash kept their row from being written get one now, and their time begins.
async fn adopt(state: &AppState) -> Result<(), OrphanError> {
    let settled = state.blobs.settled().await?;
    let known = blobs::known(&mut *state.store.read().await?).await?;
    for (digest, size_bytes) in settled.iter().filter(|(digest, _)| !known.contains(digest)) {
        let mut tx = state.store.begin().await?;
        blobs::adopt(&mut tx, digest, *size_bytes, state.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Ends the claims of a project to blobs that it asked for long ago and that none of its releases names, withdrawn ones
/// included: devices may still run those.
async fn end_claims(state: &AppState, project: &ProjectId, before: UnixMillis) -> Result<(), OrphanError> {
    let mut conn = state.store.read().await?;
    let old = blobs::asked_before(&mut conn, project, before).await?;
    let Some(named) = named(&mut conn, project).await? else { return Ok(()) };
    drop(conn);
    if old.is_subset(&named) {
        return Ok(());
    }
    let mut tx = state.store.begin().await?;
    projects::lock(&mut tx, project).await?;
    // Now that no publication can come between: what is named?
    let Some(named) = self::named(&mut tx, project).await? else { return Ok(()) };
    for digest in old.difference(&named) {
        blobs::forget(&mut tx, project, digest, before).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// What the releases of a project name; `None`, with a line in the log, when one of them can't be read: then nothing is
/// known to be unnamed.
async fn named(conn: &mut Conn, project: &ProjectId) -> Result<Option<BTreeSet<Digest>>, StoreError> {
    let mut named = BTreeSet::new();
    for model in releases::models(conn, project).await? {
        for release in releases::list(conn, project, &model.model).await? {
            match Manifest::reopen(&release.manifest, release.digest) {
                Ok(manifest) => named.extend(manifest.all_blobs().map(|blob| blob.digest)),
                Err(e) => {
                    warn!(%project, model = %model.model, version = %release.version, "unnamed blobs stay: {e}");
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(named))
}

async fn remove_one(state: &AppState, digest: &Digest) -> Result<bool, OrphanError> {
    let mut tx = state.store.begin().await?;
    let is_orphan = blobs::delete_orphan(&mut tx, digest).await?;
    // Bytes before the commit: a row without bytes is found again, bytes without a row only after a day.
    if !is_orphan || !state.blobs.remove_settled(digest).await? {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}
