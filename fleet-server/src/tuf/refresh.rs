//! Snapshot and timestamp: signed by the server with each publication, and again before they expire.

use protocol::{ProjectId, UnixMillis};
use tokio_util::sync::CancellationToken;
use trust::repo;
use trust::repo::BuildError;

use super::SealKey;
use super::keys::{self, KeyStoreError, OnlineRole};
use super::verify::Candidate;
use crate::app::AppState;
use crate::jobs;
use crate::store::metadata::MetadataFile;
use crate::store::{Conn, StoreError, metadata, projects};
use crate::supervisor::{TaskError, with_causes};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// A frozen repository is noticed by devices after so long.
const TIMESTAMP_LIFETIME_MS: i64 = 3 * DAY_MS;
const SNAPSHOT_LIFETIME_MS: i64 = 30 * DAY_MS;
/// Signed again when less than two thirds of the lifetime are left: a server that was down for a day harms nobody.
const LEFT_NUMERATOR: i64 = 2;
const LEFT_DENOMINATOR: i64 = 3;
const TICK: std::time::Duration = std::time::Duration::from_mins(1);

/// Why snapshot or timestamp can't be signed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The database failed.
    #[error("signed metadata can't be read or stored")]
    Store(#[from] StoreError),
    /// No usable online key.
    #[error("there is no usable online key")]
    Keys(#[from] KeyStoreError),
    /// The metadata can't be made.
    #[error("snapshot or timestamp can't be made")]
    Build(#[from] BuildError),
}

/// Makes the next snapshot of the candidate's targets roles and its timestamp, and puts both into it.
pub(super) async fn sign_both(
    conn: &mut Conn,
    seal: &SealKey,
    project: &ProjectId,
    candidate: &mut Candidate,
    now: UnixMillis,
) -> Result<[MetadataFile; 2], RefreshError> {
    let signer = keys::signer(conn, seal, project, OnlineRole::Snapshot).await?;
    let version = candidate.newest("snapshot").map_or(0, |(version, _)| version) + 1;
    let expires_at = whole_second(now.plus_millis(SNAPSHOT_LIFETIME_MS));
    let bytes = repo::snapshot(version, expires_at, candidate.targets_roles(), &[&signer])?;
    let snapshot = file("snapshot", version, bytes, expires_at, now);
    candidate.put("snapshot", version, snapshot.bytes.clone());
    let timestamp = sign_timestamp(conn, seal, project, candidate, now).await?;
    Ok([snapshot, timestamp])
}

/// Makes the next timestamp of the candidate's newest snapshot and puts it into it.
async fn sign_timestamp(
    conn: &mut Conn,
    seal: &SealKey,
    project: &ProjectId,
    candidate: &mut Candidate,
    now: UnixMillis,
) -> Result<MetadataFile, RefreshError> {
    let signer = keys::signer(conn, seal, project, OnlineRole::Timestamp).await?;
    let version = candidate.newest("timestamp").map_or(0, |(version, _)| version) + 1;
    let expires_at = whole_second(now.plus_millis(TIMESTAMP_LIFETIME_MS));
    let snapshot = candidate.newest("snapshot").map(|(_, bytes)| bytes).unwrap_or_default();
    let bytes = repo::timestamp(version, expires_at, snapshot, whole_second(now), &[&signer])?;
    candidate.put("timestamp", version, bytes.clone());
    Ok(file("timestamp", version, bytes, expires_at, now))
}

/// Metadata states whole seconds.
pub(super) fn whole_second(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0 - at.0.rem_euclid(1000))
}

fn file(name: &str, version: u64, bytes: Vec<u8>, expires_at: UnixMillis, now: UnixMillis) -> MetadataFile {
    MetadataFile {
        name: name.to_owned(),
        version,
        bytes,
        expires_at,
        stored_at: now,
        stored_by: "server".into(),
    }
}

/// Signs snapshot and timestamp of every project again before they expire, until shutdown.
///
/// # Errors
/// When the database refuses.
pub async fn run(state: AppState, shutdown: CancellationToken) -> Result<(), TaskError> {
    jobs::every(&state, "metadata", TICK, &shutdown, || refresh_all(&state)).await
}

async fn refresh_all(state: &AppState) -> Result<(), TaskError> {
    let projects = projects::list(&mut *state.store.read().await?).await?;
    for project in projects {
        // One project's broken key must not let the others' metadata expire.
        if let Err(e) = refresh(state, &project.project).await {
            tracing::error!(project = %project.project, "metadata can't be signed again: {}", with_causes(&e));
        }
    }
    Ok(())
}

/// Signs one project's snapshot and timestamp again if they near their end; returns whether it did.
///
/// # Errors
/// [`RefreshError`]; the old files stay then.
pub async fn refresh(state: &AppState, project: &ProjectId) -> Result<bool, RefreshError> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    projects::lock(&mut tx, project).await?;
    let newest = metadata::all_newest(&mut tx, project).await?;
    let expires = |name: &str| newest.iter().find(|file| file.name == name).map(|file| file.expires_at);
    let (Some(timestamp), Some(snapshot)) = (expires("timestamp"), expires("snapshot")) else {
        return Ok(false);
    };
    let is_snapshot_old = nears_end(snapshot, SNAPSHOT_LIFETIME_MS, now);
    if !is_snapshot_old && !nears_end(timestamp, TIMESTAMP_LIFETIME_MS, now) {
        return Ok(false);
    }
    let mut candidate = Candidate::default();
    for file in newest {
        candidate.put(&file.name, file.version, file.bytes);
    }
    let files = if is_snapshot_old {
        sign_both(&mut tx, &state.seal, project, &mut candidate, now).await?.to_vec()
    } else {
        vec![sign_timestamp(&mut tx, &state.seal, project, &mut candidate, now).await?]
    };
    for file in &files {
        metadata::insert(&mut tx, project, file).await?;
    }
    tx.commit().await?;
    tracing::info!(%project, "snapshot or timestamp signed again");
    Ok(true)
}

fn nears_end(expires: UnixMillis, lifetime_ms: i64, now: UnixMillis) -> bool {
    expires.millis_since(now) < lifetime_ms / LEFT_DENOMINATOR * LEFT_NUMERATOR
}
