//! What may travel in place of a blob: the blob as one zstd frame, or the difference to a blob that a device holds.
//!
//! Made once, kept beside the blobs, one at a time and within a bound of memory; an empty object says that it was
//! tried and is not worth it. Nothing here is trusted by anyone: devices verify what they decode. Tests: here, and a
//! real device in `firmware-tests`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use protocol::Digest;
use release::delta;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{BlobError, Blobs, Name};
use crate::supervisor::with_causes;

/// Memory that making one may take, in bytes; larger blobs travel as they are.
const MAX_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Things that may wait to be made; a device that asks for one more is told that there is none.
const MAX_WAITING: usize = 1024;
/// How long a device waits for something that is being made, before it takes another way. Shorter than the time in
/// which it expects the first byte.
const PATIENCE: Duration = Duration::from_secs(15);
/// A delta must save at least this part of the zstd frame, in percent.
const WORTH_PERCENT: u64 = 5;

/// Makes and finds them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Derived {
    blobs: Blobs,
    under_way: Arc<Mutex<BTreeMap<Name, watch::Receiver<()>>>>,
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
}

impl Derived {
    /// Of these blobs.
    pub fn new(blobs: Blobs) -> Self {
        Self { blobs, under_way: Arc::default(), one_at_a_time: Arc::default() }
    }

    /// Size in bytes of what travels under `name`; none when it is not worth it or not made yet. What is missing is
    /// made in the background, and waited for a while.
    ///
    /// # Errors
    /// [`BlobError`] when the store fails.
    pub async fn size(&self, name: Name) -> Result<Option<u64>, BlobError> {
        if let Some(size) = self.blobs.object_size(&name).await? {
            return Ok(Some(size).filter(|size| *size > 0));
        }
        if let Some(mut made) = self.begin(name) {
            // The sender never sends: it is dropped at the end, whatever the end is.
            let _ = tokio::time::timeout(PATIENCE, made.changed()).await;
        }
        Ok(self.blobs.object_size(&name).await?.filter(|size| *size > 0))
    }

    fn begin(&self, name: Name) -> Option<watch::Receiver<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = under_way.get(&name) {
            return Some(made.clone());
        }
        if under_way.len() >= MAX_WAITING {
            return None;
        }
        let (sender, made) = watch::channel(());
        under_way.insert(name, made.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let turn = this.one_at_a_time.lock().await;
            if let Err(error) = this.make(name).await {
                tracing::warn!("{name} can't be made: {}", with_causes(&error));
            }
            drop(turn);
            this.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            drop(sender);
        });
        Some(made)
    }

    async fn make(&self, name: Name) -> Result<(), BlobError> {
        let made = match name {
            Name::Blob(_) => return Ok(()),
            Name::Zstd(digest) => match self.content(&digest).await? {
                Some(content) => {
                    blocking(digest, move || delta::compress(&content).map(smaller_than(&content))).await?
                }
                None => Vec::new(),
            },
            Name::Delta { base, target } => self.make_delta(&base, &target).await?,
        };
        self.blobs.put_object(&name, made.into()).await
    }

    async fn make_delta(&self, base: &Digest, target: &Digest) -> Result<Vec<u8>, BlobError> {
        let full = Name::Zstd(*target);
        if self.blobs.object_size(&full).await?.is_none() {
            Box::pin(self.make(full)).await?;
        }
        let full_bytes = self.blobs.object_size(&full).await?.filter(|size| *size > 0);
        let (Some(old), Some(new)) = (self.content(base).await?, self.content(target).await?) else {
            return Ok(Vec::new());
        };
        let full_bytes = full_bytes.unwrap_or_else(|| size_of(&new));
        let made = blocking(*target, move || match delta::make(&old, &new, MAX_MEMORY_BYTES) {
            Err(delta::DeltaError::TooLarge { .. }) => Ok(Vec::new()),
            made => made,
        });
        let made = made.await?;
        let is_worth = size_of(&made).saturating_mul(100) <= full_bytes.saturating_mul(100 - WORTH_PERCENT);
        Ok(if is_worth { made } else { Vec::new() })
    }

    /// A blob's verified content; none when it is too large to be worked on.
    async fn content(&self, digest: &Digest) -> Result<Option<Bytes>, BlobError> {
        let content = match self.blobs.read(digest, MAX_MEMORY_BYTES / 4).await {
            Err(BlobError::TooLarge { .. }) => return Ok(None),
            content => content?,
        };
        let content = content.ok_or(BlobError::Missing { digest: *digest })?;
        let got = Digest::from_bytes(Sha256::digest(&content).into());
        if got == *digest { Ok(Some(content)) } else { Err(BlobError::Digest { expected: *digest, got }) }
    }
}

fn size_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn smaller_than(content: &Bytes) -> impl FnOnce(Vec<u8>) -> Vec<u8> + use<> {
    let bound = content.len();
    move |made| if made.len() < bound { made } else { Vec::new() }
}

async fn blocking(
    digest: Digest,
    work: impl FnOnce() -> Result<Vec<u8>, delta::DeltaError> + Send + 'static,
) -> Result<Vec<u8>, BlobError> {
    let made = tokio::task::spawn_blocking(work).await;
    let made = made.map_err(|source| BlobError::Make { digest, source: source.into() })?;
    made.map_err(|source| BlobError::Make { digest, source: source.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    async fn store(blobs: &Blobs, content: Vec<u8>) -> Digest {
        let digest = Digest::from_bytes(Sha256::digest(&content).into());
        blobs.put_bytes(&digest, content.into()).await.unwrap();
        digest
    }

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in 0_u32.. {
            if bytes.len() >= length {
                break;
            }
            bytes.extend_from_slice(&Sha256::digest([&[seed][..], &block.to_le_bytes()].concat()));
        }
        bytes.truncate(length);
        bytes
    }

    #[tokio::test]
    async fn what_is_asked_for_at_once_is_made_once_and_only_when_it_saves() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&config::Blobs { dir: dir.path().to_owned(), max_bytes: 1 << 20 }).unwrap();
        let derived = Derived::new(blobs.clone());
        let base = noise(1, 40_000);
        let mut near = base.clone();
        near[20_000] ^= 1;
        let (base, near) = (store(&blobs, base).await, store(&blobs, near).await);
        let (other, plain) = (store(&blobs, noise(2, 40_000)).await, store(&blobs, vec![7; 40_000]).await);
        let delta = Name::Delta { base, target: near };
        let (one, two) = tokio::join!(derived.size(delta), derived.size(delta));
        let (one, two) = (one.unwrap().unwrap(), two.unwrap().unwrap());
        assert!(one == two && one < 1000, "{one}");
        assert_eq!(derived.size(Name::Delta { base, target: other }).await.unwrap(), None);
        assert_eq!(derived.size(Name::Zstd(base)).await.unwrap(), None, "noise does not shrink");
        assert!(derived.size(Name::Zstd(plain)).await.unwrap().unwrap() < 100);
    }

    #[tokio::test]
    async fn nothing_is_made_of_a_blob_that_was_changed_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&config::Blobs { dir: dir.path().to_owned(), max_bytes: 1 << 20 }).unwrap();
        let digest = store(&blobs, vec![7; 5000]).await;
        let hex = digest.to_hex();
        let path = dir.path().join("sha256").join(&hex[..2]).join(&hex);
        std::fs::write(&path, vec![8; 5000]).unwrap();
        let derived = Derived::new(blobs);
        assert_eq!(derived.size(Name::Zstd(digest)).await.unwrap(), None);
        std::fs::write(&path, vec![7; 5000]).unwrap();
        assert!(derived.size(Name::Zstd(digest)).await.unwrap().is_some());
    }
}
