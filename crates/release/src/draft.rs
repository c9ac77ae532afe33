//! The publisher's manifest before it is signed. No device takes one.

use std::ops::Deref;

use protocol::{Digest, ReleaseRef};
use sha2::{Digest as _, Sha256};

use crate::agreement;
use crate::check::{Bounds, ManifestError};
use crate::manifest::Manifest;
use crate::wire;

/// A manifest that nobody has signed yet, with exactly the bytes that will be signed.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
}

impl DraftManifest {
    /// Checks a manifest that a publisher composed and fixes its bytes.
    ///
    /// # Errors
    /// [`ManifestError`] as a device would see it.
    pub fn compose(manifest: &Manifest) -> Result<Self, ManifestError> {
        Bounds::default().check(manifest)?;
        let mut bytes = serde_json::to_vec_pretty(manifest).map_err(ManifestError::Format)?;
        bytes.push(b'\n');
        Self::parse_unsigned(&bytes)
    }

    /// Reads the publisher's own file; every bound is checked, no signature is.
    ///
    /// # Errors
    /// [`ManifestError`] as a device would see it.
    pub fn parse_unsigned(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest = wire::parse(bytes)?;
        agreement::check(&manifest)?;
        Ok(Self { manifest, bytes: bytes.to_vec() })
    }

    /// The bytes to sign and to publish.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: the release's digest.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(Sha256::digest(&self.bytes).into())
    }

    /// Names this release, for a Desired or another manifest's fallback list.
    pub fn release_ref(&self) -> ReleaseRef {
        ReleaseRef {
            version: self.manifest.version.clone(),
            digest: self.digest(),
            counter: self.manifest.counter,
        }
    }
}

impl Deref for DraftManifest {
    type Target = Manifest;
    fn deref(&self) -> &Manifest {
        &self.manifest
    }
}
