//! The shelf: verified blobs and manifests on disk, by digest. What lies here under a digest was synced before it got
//! its name; it is hashed again before it is staged or loaded.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use protocol::Digest;
use release::{BlobRef, Manifest, Variant};
use sha2::{Digest as _, Sha256};

use crate::durable::{self, DurableError, Readers};

/// Largest manifest; the trust limits stop there too.
const MAX_MANIFEST_BYTES: u64 = 1_000_000;

/// Why the shelf failed.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The disk.
    #[error("the shelf can't be used")]
    Disk(#[source] DurableError),
    /// Something that should be here is not, or is damaged.
    #[error("{what} {digest} is {state} on this disk")]
    Gone {
        /// Blob or manifest.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// `missing` or `damaged`.
        state: &'static str,
    },
    /// A manifest that is not one any more.
    #[error("the stored manifest {digest} can't be read")]
    Manifest {
        /// Which.
        digest: Digest,
        /// Why.
        source: release::ManifestError,
    },
}

/// Blobs and manifests under the state directory.
#[derive(Debug, Clone)]
pub struct Shelf {
    blobs: PathBuf,
    manifests: PathBuf,
}

impl Shelf {
    /// Opens it, making the folders.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn open(state_dir: &Path) -> Result<Self, DurableError> {
        let shelf = Self { blobs: state_dir.join("blobs"), manifests: state_dir.join("manifests") };
        durable::make_dir(&shelf.blobs)?;
        durable::make_dir(&shelf.manifests)?;
        Ok(shelf)
    }

    /// Where a transfer of this blob collects its bytes; survives restarts.
    pub fn part(&self, blob: &BlobRef) -> PathBuf {
        self.blobs.join(format!("{}.part", blob.digest))
    }

    /// Gives a complete, synced and verified part its name.
    ///
    /// # Errors
    /// [`ShelfError::Disk`].
    pub fn keep_blob(&self, blob: &BlobRef) -> Result<(), ShelfError> {
        let path = self.blob_path(blob.digest);
        make_room(&path);
        durable::rename(&self.part(blob), &path).map_err(ShelfError::Disk)
    }

    /// Bytes of `blobs` that still have to come.
    pub fn missing_bytes<'a>(&self, blobs: impl Iterator<Item = &'a BlobRef>) -> u64 {
        let missing = blobs.filter(|blob| !self.has_blob(blob));
        missing.map(|blob| blob.size_bytes.saturating_sub(length(&self.part(blob)).unwrap_or(0))).sum()
    }

    /// Whether a file of the right length lies under the blob's name.
    pub fn has_blob(&self, blob: &BlobRef) -> bool {
        length(&self.blob_path(blob.digest)) == Some(blob.size_bytes)
    }

    /// Hashes a blob on disk; a damaged one is removed, so that it is fetched again.
    ///
    /// # Errors
    /// [`ShelfError::Gone`].
    pub fn check_blob(&self, blob: &BlobRef) -> Result<(), ShelfError> {
        let path = self.blob_path(blob.digest);
        let gone = |state| ShelfError::Gone { what: "blob", digest: blob.digest, state };
        if !self.has_blob(blob) {
            // Neither read, a pipe would wait for a writer, nor left.
            return Err(gone(if take_away(&path) { "damaged" } else { "missing" }));
        }
        let mut file = fs::File::open(&path).map_err(|_| gone("missing"))?;
        let (mut hash, mut buffer, mut total) = (Sha256::new(), vec![0; 64 * 1024], 0_u64);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => {
                    hash.update(&buffer[..got]);
                    total += u64::try_from(got).unwrap_or(u64::MAX);
                }
                Err(_) => return Err(gone("unreadable")),
            }
        }
        let got = Digest::from_bytes(hash.finalize().into());
        if got == blob.digest && total == blob.size_bytes {
            return Ok(());
        }
        let _ = fs::remove_file(&path);
        Err(gone("damaged"))
    }

    /// A blob's verified bytes.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>, ShelfError> {
        let bytes =
            durable::read_bounded(&self.blob_path(blob.digest), blob.size_bytes).map_err(ShelfError::Disk)?;
        let gone = |state| ShelfError::Gone { what: "blob", digest: blob.digest, state };
        let bytes = bytes.ok_or_else(|| gone("missing"))?;
        blob.verify(&bytes).map_err(|_| {
            let _ = fs::remove_file(self.blob_path(blob.digest));
            gone("damaged")
        })?;
        Ok(bytes)
    }

    /// Keeps a verified manifest's bytes.
    ///
    /// # Errors
    /// [`ShelfError::Disk`].
    pub fn keep_manifest(&self, digest: Digest, bytes: &[u8]) -> Result<(), ShelfError> {
        let path = self.manifest_path(digest);
        make_room(&path);
        durable::write_atomic(&path, bytes).map_err(ShelfError::Disk)
    }

    /// A manifest that was verified before it came here; `digest` comes from the boot record or a signed statement.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn manifest(&self, digest: Digest) -> Result<Manifest, ShelfError> {
        let bytes = durable::read_bounded(&self.manifest_path(digest), MAX_MANIFEST_BYTES)
            .map_err(ShelfError::Disk)?;
        let bytes = bytes.ok_or(ShelfError::Gone { what: "manifest", digest, state: "missing" })?;
        Manifest::reopen(&bytes, digest).map_err(|source| ShelfError::Manifest { digest, source })
    }

    /// Checks that a variant is complete, hashes included, and that all names are durable.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn check(&self, manifest: &Manifest, variant: &Variant) -> Result<(), ShelfError> {
        // All of them, so that everything damaged is gone before the next fetch.
        let checked: Vec<_> = manifest.blobs_for(variant).map(|blob| self.check_blob(blob)).collect();
        checked.into_iter().collect::<Result<(), _>>()?;
        durable::sync_dir(&self.blobs)
            .and_then(|()| durable::sync_dir(&self.manifests))
            .map_err(ShelfError::Disk)
    }

    /// Removes every manifest and blob that no release of `pinned` needs. One whose manifest isn't there, or is none any
    /// more, can't be loaded by it and needs nothing; any other error stops the collection: nothing may be removed on a
    /// guess.
    ///
    /// # Errors
    /// [`ShelfError::Disk`].
    pub fn collect(&self, pinned: &BTreeSet<Digest>) -> Result<(), ShelfError> {
        let mut needed = BTreeSet::new();
        for digest in pinned {
            match self.manifest(*digest) {
                Ok(manifest) => needed.extend(manifest.all_blobs().map(|blob| blob.digest)),
                Err(error @ ShelfError::Disk(DurableError::Io { .. })) => return Err(error),
                Err(_) => {}
            }
        }
        remove_others(&self.manifests, pinned);
        remove_others(&self.blobs, &needed);
        Ok(())
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.to_hex())
    }

    fn manifest_path(&self, digest: Digest) -> PathBuf {
        self.manifests.join(digest.to_hex())
    }
}

/// A file takes the place of another one, but not that of a folder. Where it can't be removed, what follows fails.
fn make_room(path: &Path) {
    if path.is_dir() {
        take_away(path);
    }
}

/// Whether something was there.
fn take_away(path: &Path) -> bool {
    durable::clear(Readers::Owner, path).is_ok()
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|meta| meta.len())
}

fn remove_others(dir: &Path, keep: &BTreeSet<Digest>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let digest =
            name.to_str().and_then(|name| Digest::from_str(name.split('.').next().unwrap_or(name)).ok());
        if digest.is_none_or(|digest| !keep.contains(&digest)) {
            take_away(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_in_the_place_of_a_blob_a_part_or_a_manifest_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let digest = Digest::from_bytes(Sha256::digest(b"content").into());
        let blob = BlobRef { digest, size_bytes: 7, media_type: "text/plain".into() };
        let occupy = |path: &Path| {
            fs::create_dir_all(path.join("folder")).unwrap();
            fs::write(path.join("folder/file"), "x").unwrap();
        };
        let path = shelf.blob_path(digest);
        occupy(&path);
        assert!(matches!(shelf.check_blob(&blob), Err(ShelfError::Gone { state: "damaged", .. })));
        assert!(!path.exists());
        occupy(&path);
        assert_eq!(shelf.missing_bytes([&blob].into_iter()), 7);
        fs::write(shelf.part(&blob), b"content").unwrap();
        shelf.keep_blob(&blob).unwrap();
        assert_eq!(shelf.read_blob(&blob).unwrap(), b"content");
        occupy(&shelf.manifest_path(digest));
        shelf.keep_manifest(digest, b"manifest").unwrap();
        assert_eq!(fs::read(shelf.manifest_path(digest)).unwrap(), b"manifest");
        // What nobody needs goes, whatever it is.
        occupy(&shelf.blobs.join("folder"));
        shelf.collect(&BTreeSet::new()).unwrap();
        assert_eq!(fs::read_dir(&shelf.blobs).unwrap().count(), 0);
    }
}
