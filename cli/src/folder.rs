//! A release folder: `manifest.json`, `blobs/{sha256}` and, once signed, `metadata/{role}.json`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use release::{BlobRef, DraftManifest};

use crate::replace::replace;

/// A built release on disk.
pub(crate) struct ReleaseFolder {
    path: PathBuf,
}

impl ReleaseFolder {
    /// At this place; nothing is read yet.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes the folder anew: an earlier build's files are replaced, and its signatures go.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn begin(&self) -> Result<()> {
        for name in ["blobs", "metadata"] {
            let old = self.path.join(name);
            if old.exists() {
                fs::remove_dir_all(&old).with_context(|| format!("cannot replace {}", old.display()))?;
            }
        }
        let blobs = self.path.join("blobs");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))
    }

    /// Adds a blob.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn add_blob(&self, bytes: &[u8], media_type: &str) -> Result<BlobRef> {
        let blob = BlobRef::of(bytes, media_type);
        self.write(&format!("blobs/{}", blob.digest), bytes)?;
        Ok(blob)
    }

    /// A blob's content, checked.
    ///
    /// # Errors
    /// When it is missing or differs from what the manifest says.
    pub(crate) fn blob(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        let path = self.blob_path(blob);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        blob.verify(&bytes).with_context(|| format!("{} was changed after the build", path.display()))?;
        Ok(bytes)
    }

    /// Where a blob is.
    pub(crate) fn blob_path(&self, blob: &BlobRef) -> PathBuf {
        self.path.join("blobs").join(blob.digest.to_hex())
    }

    /// The manifest, with every bound checked.
    ///
    /// # Errors
    /// When this is no release folder, or the manifest is not acceptable.
    pub(crate) fn manifest(&self) -> Result<DraftManifest> {
        let path = self.path.join("manifest.json");
        let bytes = fs::read(&path).with_context(|| {
            format!("cannot read {}; make it with: flotilla release build", path.display())
        })?;
        DraftManifest::parse_unsigned(&bytes).with_context(|| format!("{} is not acceptable", path.display()))
    }

    /// Signed metadata by role, in the order of names.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(crate) fn metadata(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = self.path.join("metadata");
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(role) = name.strip_suffix(".json") else { continue };
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((role.to_owned(), bytes));
        }
        files.sort();
        Ok(files)
    }

    /// Removes signed metadata of every other role: an earlier signing may have left what is published since, or was
    /// overtaken, and no publication that holds it is taken.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub(crate) fn keep_only(&self, roles: &[&str]) -> Result<()> {
        for (role, _) in self.metadata()?.iter().filter(|(role, _)| !roles.contains(&role.as_str())) {
            let path = self.path.join(format!("metadata/{role}.json"));
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        replace(&path, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_signing_left_behind_goes() {
        let folder = tempfile::tempdir().unwrap();
        let release = ReleaseFolder::at(folder.path());
        for role in ["faces", "targets"] {
            release.write(&format!("metadata/{role}.json"), b"{}").unwrap();
        }
        release.keep_only(&["faces"]).unwrap();
        let left = release.metadata().unwrap();
        assert_eq!(left, [("faces".to_owned(), b"{}".to_vec())]);
        ReleaseFolder::at(&folder.path().join("none")).keep_only(&[]).unwrap();
    }
}
