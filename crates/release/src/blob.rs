//! Bytes named by their SHA-256.

use protocol::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Names a blob: digest, size and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the plain content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Media type, e.g. `application/onnx`.
    pub media_type: String,
}

/// Why bytes are not the blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// Another length.
    #[error("blob {digest} has {got} bytes, signed are {expected}")]
    Length {
        /// Which blob.
        digest: Digest,
        /// Signed.
        expected: u64,
        /// Came.
        got: u64,
    },
    /// Other content.
    #[error("blob {expected} has content with digest {got}")]
    Digest {
        /// Signed.
        expected: Digest,
        /// Came.
        got: Digest,
    },
}

impl BlobRef {
    /// Names these bytes.
    pub fn of(bytes: &[u8], media_type: impl Into<String>) -> Self {
        let size_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self { digest: digest_of(bytes), size_bytes, media_type: media_type.into() }
    }

    /// Checks whole content: length first, then the digest. Streams use the same two fields.
    ///
    /// # Errors
    /// [`BlobError`] when either differs.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), BlobError> {
        let got = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if got != self.size_bytes {
            return Err(BlobError::Length { digest: self.digest, expected: self.size_bytes, got });
        }
        self.verify_digest(digest_of(bytes))
    }

    /// Checks the digest that a stream of the right length ended with.
    ///
    /// # Errors
    /// [`BlobError::Digest`] when it differs.
    pub fn verify_digest(&self, got: Digest) -> Result<(), BlobError> {
        if got == self.digest { Ok(()) } else { Err(BlobError::Digest { expected: self.digest, got }) }
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a5_swapped_blob_is_refused_by_length_then_digest() {
        let blob = BlobRef::of(b"model", "application/onnx");
        assert!(blob.verify(b"model").is_ok());
        assert!(matches!(blob.verify(b"model!"), Err(BlobError::Length { .. })));
        assert!(matches!(blob.verify(b"MODEL"), Err(BlobError::Digest { .. })));
    }
}
