//! Captured samples in the object store, under a prefix of their own: whole ones, and the parts of those on their way.

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use protocol::sample::PART_BYTES;

use super::{BlobError, Blobs};
use crate::store::samples::SampleKey;

impl Blobs {
    /// Stores a whole sample; the caller has checked its digest.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn put_sample(&self, key: &SampleKey, content: Bytes) -> Result<(), BlobError> {
        self.write_sample(key, &whole(key), content).await
    }

    /// A whole sample; `None` when there is no such one.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn read_sample(&self, key: &SampleKey) -> Result<Option<Bytes>, BlobError> {
        self.load_sample(key, &whole(key)).await
    }

    /// Removes a whole sample; safe to repeat.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn remove_sample(&self, key: &SampleKey) -> Result<(), BlobError> {
        self.unlink_sample(key, &whole(key)).await
    }

    /// Keeps one part until all have come.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn put_sample_part(
        &self,
        key: &SampleKey,
        first: u64,
        content: Bytes,
    ) -> Result<(), BlobError> {
        self.write_sample(key, &part(key, first), content).await
    }

    /// Removes one part; safe to repeat.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn remove_sample_part(&self, key: &SampleKey, first: u64) -> Result<(), BlobError> {
        self.unlink_sample(key, &part(key, first)).await
    }

    /// All parts together; `None` when one is missing.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn join_sample_parts(
        &self,
        key: &SampleKey,
        size_bytes: u64,
    ) -> Result<Option<Bytes>, BlobError> {
        let mut all = BytesMut::new();
        for first in places(size_bytes) {
            match self.load_sample(key, &part(key, first)).await? {
                Some(content) => all.extend_from_slice(&content),
                None => return Ok(None),
            }
        }
        Ok(Some(all.freeze()))
    }

    /// Removes all parts; safe to repeat.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn remove_sample_parts(&self, key: &SampleKey, size_bytes: u64) -> Result<(), BlobError> {
        for first in places(size_bytes) {
            self.unlink_sample(key, &part(key, first)).await?;
        }
        Ok(())
    }

    async fn write_sample(&self, key: &SampleKey, path: &Path, content: Bytes) -> Result<(), BlobError> {
        let put = self.store.put(path, PutPayload::from_bytes(content)).await;
        put.map(drop).map_err(failed("keep sample", key))
    }

    async fn load_sample(&self, key: &SampleKey, path: &Path) -> Result<Option<Bytes>, BlobError> {
        match self.store.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed("read sample", key)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed("read sample", key)(source)),
        }
    }

    async fn unlink_sample(&self, key: &SampleKey, path: &Path) -> Result<(), BlobError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("remove sample", key)(source)),
        }
    }
}

/// Where parts begin.
fn places(size_bytes: u64) -> impl Iterator<Item = u64> {
    (0..size_bytes.div_ceil(PART_BYTES)).map(|number| number * PART_BYTES)
}

fn whole(key: &SampleKey) -> Path {
    Path::from(format!("samples/{}/{}/{}", key.project, key.device, key.digest.to_hex()))
}

fn part(key: &SampleKey, first: u64) -> Path {
    Path::from(format!("sample-parts/{}/{}/{}.{first}", key.project, key.device, key.digest.to_hex()))
}

fn failed(what: &'static str, key: &SampleKey) -> impl Fn(object_store::Error) -> BlobError + use<> {
    let digest = key.digest;
    move |source| BlobError::Store { what, digest, source }
}
