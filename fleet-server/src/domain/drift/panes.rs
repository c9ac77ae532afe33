//! From stored panes and releases to counters that can be trusted.

use std::collections::BTreeMap;

use profile::{MAX_REFERENCE_BYTES, Pane, Reference, ReferenceError};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis};
use serde::Deserialize;
use tracing::warn;

use crate::blobs::{BlobError, Blobs};
use crate::store::releases::Release;
use crate::store::telemetry::PaneRow;
use crate::store::{Conn, StoreError, releases};

/// Why drift can't be computed.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    /// The database refused.
    #[error("the database refused")]
    Store(#[from] StoreError),
    /// The computation ended in a panic, which the log tells.
    #[error("the computation of a window failed")]
    Panicked(#[source] tokio::task::JoinError),
    /// The reference can't be fetched.
    #[error("cannot fetch the reference of {release}")]
    Blob {
        /// Model and version.
        release: String,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// The reference is not in the blob store.
    #[error("the reference of {release} is not in the blob store")]
    Missing {
        /// Model and version.
        release: String,
    },
    /// The manifest names no reference.
    #[error("the manifest of {release} names no reference")]
    Manifest {
        /// Model and version.
        release: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The reference can't be used.
    #[error("the reference of {release} can't be used")]
    Reference {
        /// Model and version.
        release: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
}

/// What of a stored manifest is needed here; it was verified when it was published.
#[derive(Deserialize)]
struct NamesReference {
    reference: Named,
}

#[derive(Deserialize)]
struct Named {
    digest: Digest,
}

/// A release's reference, from the blob store.
///
/// # Errors
/// [`DriftError`] when it isn't there or can't be used.
pub async fn reference_of(blobs: &Blobs, release: &Release) -> Result<Reference, DriftError> {
    let name = || format!("{} {}", release.model, release.version);
    let manifest: NamesReference = serde_json::from_slice(&release.manifest)
        .map_err(|source| DriftError::Manifest { release: name(), source })?;
    let max_bytes = u64::try_from(MAX_REFERENCE_BYTES).unwrap_or(u64::MAX);
    let bytes = blobs.read(&manifest.reference.digest, max_bytes).await;
    let bytes = bytes.map_err(|source| DriftError::Blob { release: name(), source })?;
    let bytes = bytes.ok_or_else(|| DriftError::Missing { release: name() })?;
    Reference::parse(&bytes).map_err(|source| DriftError::Reference { release: name(), source })
}

/// The release with this manifest and its reference; `None`, with a line in the log, if it can't be used.
pub(super) async fn usable_release(
    conn: &mut Conn,
    blobs: &Blobs,
    project: &ProjectId,
    model: &ModelName,
    digest: &Digest,
) -> Result<Option<(Release, Reference)>, DriftError> {
    let Some(release) = releases::by_digest(conn, project, model, digest).await? else {
        warn!(%project, %model, %digest, "panes of an unknown release are left out");
        return Ok(None);
    };
    match reference_of(blobs, &release).await {
        Ok(reference) => Ok(Some((release, reference))),
        Err(e @ (DriftError::Store(_) | DriftError::Blob { .. })) => Err(e),
        Err(e) => {
            warn!(%project, model = %release.model, version = %release.version, "no drift is computed: {e}");
            Ok(None)
        }
    }
}

type Place = (DeviceId, String, UnixMillis, u64);

/// Sound panes only, of each the highest revision: a corrected pane replaces the one before.
pub fn newest(reference: &Reference, rows: &[PaneRow]) -> Vec<(DeviceId, Pane)> {
    let mut kept: BTreeMap<Place, Pane> = BTreeMap::new();
    for row in rows {
        let checked = Pane::decode(&row.body).and_then(|pane| pane.check(reference).map(|()| pane));
        match checked {
            Ok(pane) => {
                let place = (row.device.clone(), pane.key.segment.clone(), pane.key.start, pane.key.run);
                let is_newer = kept.get(&place).is_none_or(|old| old.key.revision <= pane.key.revision);
                if is_newer {
                    kept.insert(place, pane);
                }
            }
            Err(e) => {
                warn!(device = %row.device, stream = %row.stream, seq = row.seq, "a pane is left out: {e}");
            }
        }
    }
    kept.into_iter().map(|((device, ..), pane)| (device, pane)).collect()
}

/// The sum of panes; `None` if there are none.
pub(super) fn sum<'a>(panes: impl IntoIterator<Item = &'a Pane>) -> Option<Pane> {
    let mut panes = panes.into_iter();
    let mut sum = panes.next()?.clone();
    for pane in panes {
        if let Err(e) = sum.merge(pane) {
            warn!("a pane of another schema is left out: {e}");
        }
    }
    Some(sum)
}
