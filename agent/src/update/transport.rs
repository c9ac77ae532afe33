//! How a blob travels: as a delta against one that lies here, as one zstd frame, or as it is, in this order. The
//! server says no to what saves nothing. What counts is the signed digest of the plain result; whatever is wrong with
//! an encoding only leads to the next way.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use http::StatusCode;
use protocol::Digest;
use protocol::message::{Cause, CauseKind};
use release::BlobRef;
use release::delta::{Delta, DeltaError, WINDOW_LOG};
use sha2::{Digest as _, Sha256};

use super::selftest::{cause, shelf_cause};
use crate::durable::{self, DurableError, Readers, aside, cut};
use crate::link::http::{FetchError, Http};
use crate::slots::Shelf;

/// Smaller blobs travel as they are: asking would cost more than it saves.
const MIN_ZSTD_BYTES: u64 = 1024;
const MIN_DELTA_BYTES: u64 = 4 * 1024;

/// Why an encoded blob could not be used.
#[derive(Debug, thiserror::Error)]
enum DecodeError {
    #[error("it can't be decoded")]
    Delta(#[source] DeltaError),
    #[error("it decodes to something else")]
    Content(#[source] release::BlobError),
    #[error("it can't be decoded")]
    Zstd(#[source] io::Error),
    #[error("what it is based on can't be used")]
    Base(#[source] crate::slots::ShelfError),
    #[error("it can't be kept")]
    Disk(#[source] DurableError),
}

/// What a transfer needs.
pub(super) struct Carrier {
    /// The way to the server, as it is now.
    pub(super) http: Http,
    /// Where blobs lie and arrive.
    pub(super) shelf: Shelf,
    /// Deltas that need more memory are not asked for.
    pub(super) delta_max_memory_bytes: u64,
}

/// Brings a blob to the shelf; `base` lies there and is likely to be similar. `part` is its name for people.
///
/// # Errors
/// The cause that the task ends with; transfers resume.
pub(super) async fn bring(
    carrier: &Carrier,
    blob: &BlobRef,
    base: Option<&BlobRef>,
    part: &str,
) -> Result<(), Cause> {
    if aside(|| carrier.shelf.has_blob(blob)) {
        return Ok(());
    }
    let is_encoded = match base.filter(|base| is_delta_possible(carrier, base, blob)) {
        Some(base) => by_delta(carrier, blob, base).await,
        None => Ok(false),
    };
    let is_here = match is_encoded {
        Ok(false) if blob.size_bytes >= MIN_ZSTD_BYTES => by_zstd(carrier, blob).await,
        tried => tried,
    };
    let named = |error| fetch_cause(part, &error);
    if !is_here.map_err(named)? {
        carrier.http.fetch_blob(blob, &carrier.shelf.part(blob)).await.map_err(named)?;
    }
    aside(|| carrier.shelf.keep_blob(blob)).map_err(|error| shelf_cause(&error))
}

fn is_delta_possible(carrier: &Carrier, base: &BlobRef, blob: &BlobRef) -> bool {
    let needed = release::delta::memory_bytes(base.size_bytes, blob.size_bytes);
    // The delta itself is in memory too, and is smaller than the blob.
    let needed = needed.saturating_add(blob.size_bytes);
    base != blob
        && blob.size_bytes >= MIN_DELTA_BYTES
        && needed <= carrier.delta_max_memory_bytes
        && carrier.shelf.has_blob(base)
}

async fn by_delta(carrier: &Carrier, blob: &BlobRef, base: &BlobRef) -> Result<bool, FetchError> {
    let path = format!("/blobs/v1/sha256/{}/delta/{}", blob.digest, base.digest);
    let encoded = carrier.shelf.part(blob).with_extension(format!("{}.delta", base.digest));
    if !fetch_encoded(carrier, &path, blob, &encoded).await? {
        return Ok(false);
    }
    let (shelf, blob, base) = (carrier.shelf.clone(), blob.clone(), base.clone());
    let max_bytes = carrier.delta_max_memory_bytes;
    decoded(encoded, "delta", move |encoded| apply(&shelf, &base, &blob, encoded, max_bytes)).await
}

async fn by_zstd(carrier: &Carrier, blob: &BlobRef) -> Result<bool, FetchError> {
    let path = format!("/blobs/v1/sha256/{}/zstd", blob.digest);
    let encoded = carrier.shelf.part(blob).with_extension("zst");
    if !fetch_encoded(carrier, &path, blob, &encoded).await? {
        return Ok(false);
    }
    let (part, blob) = (carrier.shelf.part(blob), blob.clone());
    decoded(encoded, "zstd", move |encoded| decompress(encoded, &part, &blob)).await
}

/// False when the server has nothing better than the blob itself.
async fn fetch_encoded(
    carrier: &Carrier,
    path: &str,
    blob: &BlobRef,
    part: &Path,
) -> Result<bool, FetchError> {
    match carrier.http.fetch_part(path, blob.size_bytes, part).await {
        Ok((got_bytes, _)) => {
            tracing::info!(blob = %blob.digest, size_bytes = blob.size_bytes, got_bytes, path, "fetched in another form");
            Ok(true)
        }
        Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. }) => {
            let _ = aside(|| fs::remove_file(part));
            Ok(false)
        }
        // A broken connection is tried again later, from where it broke; any other answer is not worth it.
        Err(error @ (FetchError::Disk { .. } | FetchError::Network { .. } | FetchError::TooSlow { .. })) => {
            Err(error)
        }
        Err(error) => {
            tracing::warn!(error = crate::chain(&error), "the blob is fetched another way");
            let _ = aside(|| fs::remove_file(part));
            Ok(false)
        }
    }
}

/// Decodes away from the runtime's threads. False when that failed; nothing of it is left then.
async fn decoded(
    encoded: PathBuf,
    what: &'static str,
    decode: impl FnOnce(&Path) -> Result<(), DecodeError> + Send + 'static,
) -> Result<bool, FetchError> {
    let file = encoded.clone();
    let tried = tokio::task::spawn_blocking(move || decode(&file)).await;
    let _ = aside(|| fs::remove_file(&encoded));
    match tried {
        Ok(Ok(())) => Ok(true),
        Ok(Err(DecodeError::Disk(source))) => Err(FetchError::Disk { url: what.into(), source }),
        Ok(Err(error)) => {
            tracing::warn!(what, error = crate::chain(&error), "refused; the blob is fetched another way");
            Ok(false)
        }
        Err(panic) => {
            tracing::error!(what, error = %panic, "decoding ended badly; the blob is fetched another way");
            Ok(false)
        }
    }
}

fn apply(
    shelf: &Shelf,
    base: &BlobRef,
    blob: &BlobRef,
    encoded: &Path,
    max_bytes: u64,
) -> Result<(), DecodeError> {
    let delta = fs::read(encoded).map_err(|source| disk("read", encoded)(source))?;
    let delta = Delta::parse(&delta).map_err(DecodeError::Delta)?;
    let (from, to) = ((base.digest, base.size_bytes), (blob.digest, blob.size_bytes));
    delta.expect(from, to, max_bytes).map_err(DecodeError::Delta)?;
    let base = shelf.read_blob(base).map_err(DecodeError::Base)?;
    let content = delta.apply(&base, max_bytes).map_err(DecodeError::Delta)?;
    drop(base);
    blob.verify(&content).map_err(DecodeError::Content)?;
    let part = shelf.part(blob);
    let mut file = create(&part)?;
    file.write_all(&content).map_err(disk("write", &part))?;
    cut::written();
    file.sync_all().map_err(disk("sync", &part))
}

/// Streams, so that memory is the window's; stops one byte over the signed size.
fn decompress(encoded: &Path, part: &Path, blob: &BlobRef) -> Result<(), DecodeError> {
    let source = File::open(encoded).map_err(disk("open", encoded))?;
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(BufReader::new(source)).map_err(DecodeError::Zstd)?;
    decoder.window_log_max(WINDOW_LOG).map_err(DecodeError::Zstd)?;
    let mut content = decoder.single_frame().take(blob.size_bytes.saturating_add(1));
    let (mut hash, mut got, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 * 1024]);
    let mut file = create(part)?;
    let tried = loop {
        match content.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(more) => {
                hash.update(&buffer[..more]);
                got = got.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
                file.write_all(&buffer[..more]).map_err(disk("write", part))?;
                cut::written();
            }
            Err(error) => break Err(DecodeError::Zstd(error)),
        }
    };
    let verified = tried.and_then(|()| {
        if got != blob.size_bytes {
            let length = release::BlobError::Length { digest: blob.digest, expected: blob.size_bytes, got };
            return Err(DecodeError::Content(length));
        }
        blob.verify_digest(Digest::from_bytes(hash.finalize().into())).map_err(DecodeError::Content)
    });
    if verified.is_err() {
        let _ = fs::remove_file(part);
        return verified;
    }
    file.sync_all().map_err(disk("sync", part))
}

fn create(part: &Path) -> Result<File, DecodeError> {
    let created = durable::create(Readers::Owner, part).map_err(disk("create", part));
    cut::written();
    created
}

fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DecodeError + use<> {
    let path = path.to_owned();
    move |source| DecodeError::Disk(DurableError::Io { operation, path, source })
}

fn fetch_cause(part: &str, error: &FetchError) -> Cause {
    let kind = match error {
        FetchError::Disk { source, .. } if source.is_disk_full() => CauseKind::DiskFull,
        FetchError::Disk { source: DurableError::Io { .. }, .. } => CauseKind::Storage,
        // The chain is signed and whole; what the server keeps, or the way from it, is not.
        FetchError::Content { .. } | FetchError::TooLong { .. } => CauseKind::Integrity,
        _ => CauseKind::Download,
    };
    cause(kind, format!("{part}: {}", crate::chain(error)))
}

#[cfg(test)]
mod tests;
