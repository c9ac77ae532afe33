//! Captured samples on their way in and out of the fleet server: taken part by part, checked whole, deleted in time.
//!
//! A device is not believed: the release that a sample names must be known here and must allow samples by its signed
//! manifest, the bytes must be what their name says, and each device has a bound of its own.

use bytes::Bytes;
use protocol::sample::{MAX_SAMPLE_BYTES, PART_BYTES, SampleHead, UploadState};
use protocol::{Digest, UnixMillis};
use release::{Manifest, ManifestError};
use sha2::{Digest as _, Sha256};

use crate::app::AppState;
use crate::blobs::BlobError;
use crate::ids;
use crate::store::samples::{self, OVERHEAD_BYTES, Sample, SampleKey};
use crate::store::{StoreError, releases};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// A sample of which nothing has come for so long is given up.
const STALE_MS: i64 = DAY_MS;
/// Samples that one look at old ones deletes at most; the next look takes the rest.
const PER_TICK: i64 = 1000;

/// Why a part of a sample is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The bytes are not a part as the form says.
    #[error(
        "a part begins at a multiple of {PART_BYTES}, has that size or ends the sample, and is sent whole"
    )]
    Part,
    /// Over the bound.
    #[error("the sample has {got} bytes, at most {max} are taken")]
    TooLarge {
        /// Its size.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// The device's room is used up.
    #[error("the device's samples would take {wanted} bytes, {max} are for them")]
    Quota {
        /// With this one.
        wanted: u64,
        /// The bound.
        max: u64,
    },
    /// Another part is due.
    #[error("the part that is due begins at {}", .0.got_bytes)]
    Place(UploadState),
    /// The content is another one.
    #[error("the content has the digest {got}")]
    Digest {
        /// What it is.
        got: Digest,
    },
    /// No sample.
    #[error("{0}")]
    Form(#[from] protocol::DecodeError),
    /// A release that nobody published here.
    #[error("release {release} of model {model} is not known here")]
    UnknownRelease {
        /// Which model it names.
        model: protocol::ModelName,
        /// Which release.
        release: Digest,
    },
    /// The publisher forbids it.
    #[error("release {version} of model {model} does not allow samples")]
    Forbidden {
        /// Which model.
        model: protocol::ModelName,
        /// Which version.
        version: protocol::Version,
    },
    /// Our own copy of the manifest.
    #[error("the stored manifest can't be read")]
    Manifest(#[source] ManifestError),
    /// The database.
    #[error("the database can't be used")]
    Store(#[from] StoreError),
    /// The object store.
    #[error("the object store can't be used")]
    Blobs(#[from] BlobError),
}

/// One part of a sample as it came.
#[derive(Debug)]
pub struct Part {
    /// Where it begins.
    pub first: u64,
    /// Size of the whole sample.
    pub total: u64,
    /// Its bytes.
    pub content: Bytes,
}

/// What is here of a sample.
///
/// # Errors
/// [`SampleError::Store`].
pub async fn look(state: &AppState, key: &SampleKey) -> Result<UploadState, SampleError> {
    let mut conn = state.store.read().await?;
    let is_stored = samples::exists(&mut conn, key).await?;
    let upload = samples::upload(&mut conn, key).await?;
    Ok(UploadState { got_bytes: upload.map_or(0, |upload| upload.got_bytes), is_stored })
}

/// Takes one part. The sample is stored, checked and acknowledged when the state says so.
///
/// # Errors
/// [`SampleError`] by cause; what came before stays, unless the whole is no sample.
pub async fn take(state: &AppState, key: &SampleKey, part: Part) -> Result<UploadState, SampleError> {
    let Part { first, total, content } = part;
    // One that the device's whole room would not hold never fits: whoever waits for room would wait for ever.
    let room = state.config.samples.device_bytes.saturating_sub(OVERHEAD_BYTES);
    check_part(first, total, &content, state.config.samples.max_bytes.min(room))?;
    let mut conn = state.store.read().await?;
    if samples::exists(&mut conn, key).await? {
        return Ok(UploadState { got_bytes: total, is_stored: true });
    }
    let mut known = samples::upload(&mut conn, key).await?;
    drop(conn);
    // Another size is another sample: what came of the first one must not lie here uncounted.
    if let Some(other) = known.take_if(|upload| upload.size_bytes != total) {
        give_up(state, key, other.size_bytes).await?;
    }
    let due = known.map_or(0, |upload| upload.got_bytes);
    if due == total {
        // All of it has come, and a stop or a fault came before its end: no part is due any more.
        return complete(state, key, total).await;
    }
    if first != due {
        return Err(SampleError::Place(UploadState { got_bytes: due, is_stored: false }));
    }
    if known.is_none() {
        begin(state, key, total).await?;
    }
    if total <= PART_BYTES {
        return finish(state, key, total, content).await;
    }
    let to = first + u64::try_from(content.len()).unwrap_or(u64::MAX);
    state.blobs.put_sample_part(key, first, content).await?;
    let mut tx = state.store.begin().await?;
    let is_ours = samples::advance_upload(&mut tx, key, first, to, state.clock.now()).await?;
    tx.commit().await?;
    if !is_ours {
        // Two requests at once. A part that nobody counts goes again; at worst the sample begins anew.
        let due = look(state, key).await?;
        if due.got_bytes <= first {
            state.blobs.remove_sample_part(key, first).await?;
        }
        return Err(SampleError::Place(due));
    }
    if to < total {
        return Ok(UploadState { got_bytes: to, is_stored: false });
    }
    complete(state, key, total).await
}

/// Every part has come.
async fn complete(state: &AppState, key: &SampleKey, total: u64) -> Result<UploadState, SampleError> {
    if let Some(content) = state.blobs.join_sample_parts(key, total).await? {
        return finish(state, key, total, content).await;
    }
    give_up(state, key, total).await?;
    Err(SampleError::Place(UploadState { got_bytes: 0, is_stored: false }))
}

fn check_part(first: u64, total: u64, content: &Bytes, max: u64) -> Result<(), SampleError> {
    let max = max.min(MAX_SAMPLE_BYTES);
    if total > max {
        return Err(SampleError::TooLarge { got: total, max });
    }
    let expected = total.checked_sub(first).map(|left| left.min(PART_BYTES));
    let got = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let is_whole = expected == Some(got) && got > 0 && first.is_multiple_of(PART_BYTES);
    if is_whole { Ok(()) } else { Err(SampleError::Part) }
}

/// Reserves the room before anything is stored.
async fn begin(state: &AppState, key: &SampleKey, total: u64) -> Result<(), SampleError> {
    let max = state.config.samples.device_bytes;
    let mut tx = state.store.begin().await?;
    samples::end_upload(&mut tx, key).await?;
    let room = samples::room_bytes(&mut tx, &key.project, &key.device).await?;
    let wanted = room.saturating_add(total).saturating_add(OVERHEAD_BYTES);
    if wanted > max {
        return Err(SampleError::Quota { wanted, max });
    }
    samples::begin_upload(&mut tx, key, total, state.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}

/// All is here: checks it, stores it, and lets go of its parts.
async fn finish(
    state: &AppState,
    key: &SampleKey,
    total: u64,
    content: Bytes,
) -> Result<UploadState, SampleError> {
    let sample = match judge(state, key, &content).await {
        Ok(sample) => sample,
        Err(error @ (SampleError::Store(_) | SampleError::Manifest(_))) => return Err(error),
        Err(error) => {
            give_up(state, key, total).await?;
            return Err(error);
        }
    };
    let mut tx = state.store.begin().await?;
    let is_ours = samples::touch_upload(&mut tx, key, total, state.clock.now()).await?;
    tx.commit().await?;
    if !is_ours {
        // Another request has brought the same end, or it was given up as stale while this one read its parts.
        let found = look(state, key).await?;
        return if found.is_stored {
            Ok(UploadState { got_bytes: total, ..found })
        } else {
            Err(SampleError::Place(found))
        };
    }
    state.blobs.put_sample(key, content).await?;
    let mut tx = state.store.begin().await?;
    // Two requests that bring the same end at once are one sample.
    if !samples::exists(&mut tx, key).await? {
        samples::insert(&mut tx, &sample).await?;
    }
    tx.commit().await?;
    give_up(state, key, total).await?;
    Ok(UploadState { got_bytes: total, is_stored: true })
}

async fn judge(state: &AppState, key: &SampleKey, content: &Bytes) -> Result<Sample, SampleError> {
    let got = Digest::from_bytes(Sha256::digest(content).into());
    if got != key.digest {
        return Err(SampleError::Digest { got });
    }
    let (head, _) = SampleHead::split(content)?;
    let mut conn = state.store.read().await?;
    let found = releases::by_digest(&mut conn, &key.project, &head.model, &head.release).await?;
    let unknown = || SampleError::UnknownRelease { model: head.model.clone(), release: head.release };
    let release = found.filter(|release| release.version == head.version).ok_or_else(unknown)?;
    let manifest = Manifest::reopen(&release.manifest, release.digest).map_err(SampleError::Manifest)?;
    if !manifest.privacy.may_send_samples {
        return Err(SampleError::Forbidden { model: head.model, version: head.version });
    }
    let now = state.clock.now();
    let kept_ms = i64::try_from(state.config.retention.samples.as_millis()).unwrap_or(i64::MAX);
    let allowed_ms = manifest.privacy.sample_days.map_or(i64::MAX, |days| i64::from(days) * DAY_MS);
    Ok(Sample {
        sample_id: ids::ordered_id(now),
        key: key.clone(),
        size_bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
        received_at: now,
        expires_at: now.plus_millis(kept_ms.min(allowed_ms)),
        head,
    })
}

/// Lets go of what came in parts. The row goes last: until then a later look finds the parts.
async fn give_up(state: &AppState, key: &SampleKey, total: u64) -> Result<(), SampleError> {
    if total > PART_BYTES {
        state.blobs.remove_sample_parts(key, total).await?;
    }
    let mut tx = state.store.begin().await?;
    samples::end_upload(&mut tx, key).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes samples whose time is over, and what is left of uploads that never ended; returns how many samples.
///
/// # Errors
/// [`SampleError::Store`] and [`SampleError::Blobs`].
pub async fn delete_old(state: &AppState) -> Result<u64, SampleError> {
    let now = state.clock.now();
    let expired = samples::expired(&mut *state.store.read().await?, now, PER_TICK).await?;
    for key in &expired {
        // The bytes first: a row without them is found again, bytes without a row never.
        state.blobs.remove_sample(key).await?;
        let mut tx = state.store.begin().await?;
        samples::delete(&mut tx, key).await?;
        tx.commit().await?;
    }
    let before = now.plus_millis(-STALE_MS);
    let stale = samples::stale_uploads(&mut *state.store.read().await?, before, PER_TICK).await?;
    for (key, total) in &stale {
        give_up_stale(state, key, *total, before).await?;
    }
    Ok(u64::try_from(expired.len()).unwrap_or(u64::MAX))
}

/// Gives an upload up of which nothing has come since `before`; returns false when its device has gone on with it in
/// the meantime. One transaction: a request that goes on waits for its end and finds the row gone, and a stop before
/// the end brings the row back, by which a later look finds the parts.
///
/// # Errors
/// [`SampleError::Store`] and [`SampleError::Blobs`].
pub async fn give_up_stale(
    state: &AppState,
    key: &SampleKey,
    total: u64,
    before: UnixMillis,
) -> Result<bool, SampleError> {
    let mut tx = state.store.begin().await?;
    if !samples::end_stale_upload(&mut tx, key, before).await? {
        return Ok(false);
    }
    if !samples::exists(&mut tx, key).await? {
        state.blobs.remove_sample(key).await?;
    }
    if total > PART_BYTES {
        state.blobs.remove_sample_parts(key, total).await?;
    }
    tx.commit().await?;
    Ok(true)
}
