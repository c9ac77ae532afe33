//! What nobody will ever ask for again: the beginnings of uploads that were cut, and what was made of blobs that are gone.
//!
//! The local store writes `NAME#NUMBER` beside the place of an object and renames it when all has come; a server that is
//! killed leaves that file for ever, and no listing shows it. (In a bucket the like is ended by its lifecycle rule.)

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use protocol::Digest;

use super::{BlobError, Blobs, Name};

/// A file younger than this may belong to an upload: they end after half of it.
pub(super) const LEFT_AFTER: Duration = Duration::from_hours(24);
/// Folders within folders; the store makes four at most.
const MAX_DEPTH: u32 = 8;

impl Blobs {
    /// Removes what cut uploads left behind, if it is older than a day; returns how many files.
    ///
    /// # Errors
    /// [`BlobError::Folder`] names the file or folder that can't be read or removed.
    pub async fn remove_leftovers(&self) -> Result<u64, BlobError> {
        let (folder, limit) = (self.folder.clone(), SystemTime::now() - LEFT_AFTER);
        let swept = tokio::task::spawn_blocking(move || sweep(&folder, limit, MAX_DEPTH)).await;
        let panicked = |e| BlobError::Folder { path: self.folder.clone(), source: std::io::Error::other(e) };
        swept.map_err(panicked)?
    }

    /// Every blob whose bytes are here and weren't written within a day, with its size.
    ///
    /// # Errors
    /// [`BlobError::List`] when the store fails.
    pub async fn settled(&self) -> Result<Vec<(Digest, u64)>, BlobError> {
        let prefix = Path::from("sha256");
        let mut found = self.store.list(Some(&prefix)).map_err(|source| BlobError::List { source });
        let mut settled = Vec::new();
        while let Some(object) = found.try_next().await? {
            let digest = object.location.filename().and_then(|name| name.parse().ok());
            if let Some(digest) = digest.filter(|_| is_settled(&object)) {
                settled.push((digest, object.size));
            }
        }
        Ok(settled)
    }

    /// Removes a blob, unless it was written within a day: then somebody is about to name it. Returns whether it is gone.
    /// The caller sees to it that nobody can name it meanwhile. Safe to repeat.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn remove_settled(&self, digest: &Digest) -> Result<bool, BlobError> {
        let fail = |source| BlobError::Store { what: "remove", digest: *digest, source };
        let place = Name::Blob(*digest).path();
        match self.store.head(&place).await {
            Ok(object) if !is_settled(&object) => return Ok(false),
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(true),
            Err(source) => return Err(fail(source)),
        }
        match self.store.delete(&place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(source) => Err(fail(source)),
        }
    }

    /// Removes what was made of blobs that are not among `known`; returns how many objects.
    ///
    /// # Errors
    /// [`BlobError::List`] when the store fails.
    pub async fn remove_derived_of_others(&self, known: &BTreeSet<Digest>) -> Result<u64, BlobError> {
        let fail = |source| BlobError::List { source };
        let prefix = Path::from("derived");
        let mut found = self.store.list(Some(&prefix)).boxed();
        let mut removed = 0;
        while let Some(object) = found.try_next().await.map_err(fail)? {
            let of = object.location.filename().and_then(made_of);
            if of.is_some_and(|of| of.iter().any(|digest| !known.contains(digest))) {
                self.store.delete(&object.location).await.map_err(fail)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn is_settled(object: &object_store::ObjectMeta) -> bool {
    let written = SystemTime::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0));
    written < SystemTime::now() - LEFT_AFTER
}

/// The blobs that a derived form was made of, by its name.
fn made_of(name: &str) -> Option<Vec<Digest>> {
    if let Some(of) = name.strip_suffix(".zst") {
        return Some(vec![of.parse().ok()?]);
    }
    let (target, base) = name.split_once(".from.")?;
    Some(vec![target.parse().ok()?, base.parse().ok()?])
}

fn sweep(folder: &FilePath, limit: SystemTime, depth: u32) -> Result<u64, BlobError> {
    let failed = |path: PathBuf| move |source| BlobError::Folder { path, source };
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed(folder.to_owned()))?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(failed(folder.to_owned()))?;
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => removed += sweep(&path, limit, depth - 1)?,
            Ok(kind) if kind.is_file() && is_staged(&path) => {
                removed += u64::from(remove_if_old(&path, limit).map_err(failed(path.clone()))?);
            }
            _ => {}
        }
    }
    Ok(removed)
}

fn remove_if_old(path: &FilePath, limit: SystemTime) -> std::io::Result<bool> {
    let removed = std::fs::metadata(path).and_then(|meta| meta.modified()).and_then(|written| {
        if written < limit { std::fs::remove_file(path).map(|()| true) } else { Ok(false) }
    });
    match removed {
        // Its upload ended this very moment.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        removed => removed,
    }
}

/// `NAME#NUMBER`, which no object of ours is called.
fn is_staged(path: &FilePath) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};

    fn digest(content: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(content).into())
    }

    fn open(dir: &FilePath) -> Blobs {
        Blobs::open(&config::Blobs { dir: dir.to_owned(), max_bytes: 1 << 20 }).unwrap()
    }

    fn age(path: &FilePath) {
        let old = SystemTime::now() - LEFT_AFTER * 2;
        std::fs::File::options().append(true).open(path).unwrap().set_modified(old).unwrap();
    }

    #[tokio::test]
    async fn only_old_beginnings_of_uploads_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        blobs.put_bytes(&digest(b"hello"), Bytes::from_static(b"hello")).await.unwrap();
        let whole = dir.path().join(blobs_path(&digest(b"hello")));
        let staged = |number: u32| PathBuf::from(format!("{}#{number}", whole.display()));
        for path in [staged(1), staged(2), dir.path().join("sample-parts#x"), dir.path().join("x#")] {
            std::fs::write(&path, b"hel").unwrap();
            age(&path);
        }
        std::fs::write(staged(2), b"hell").unwrap();
        age(&whole);
        assert_eq!(blobs.remove_leftovers().await.unwrap(), 1);
        assert!(!staged(1).exists() && staged(2).exists() && whole.exists());
        assert!(dir.path().join("x#").exists() && dir.path().join("sample-parts#x").exists());
    }

    #[tokio::test]
    async fn what_was_made_of_a_blob_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        let (one, two) = (digest(b"one"), digest(b"two"));
        for name in [Name::Zstd(one), Name::Zstd(two), Name::Delta { base: one, target: two }] {
            blobs.put_object(&name, Bytes::from_static(b"x")).await.unwrap();
        }
        let known = [two].into_iter().collect();
        assert_eq!(blobs.remove_derived_of_others(&known).await.unwrap(), 2);
        assert!(blobs.object_size(&Name::Zstd(two)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_blob_that_was_just_written_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        let name = digest(b"hello");
        blobs.put_bytes(&name, Bytes::from_static(b"hello")).await.unwrap();
        assert!(blobs.settled().await.unwrap().is_empty());
        assert!(!blobs.remove_settled(&name).await.unwrap());
        age(&dir.path().join(blobs_path(&name)));
        assert_eq!(blobs.settled().await.unwrap(), [(name, 5)]);
        assert!(blobs.remove_settled(&name).await.unwrap() && blobs.size(&name).await.unwrap().is_none());
        assert!(blobs.remove_settled(&name).await.unwrap(), "safe to repeat");
    }

    fn blobs_path(digest: &Digest) -> String {
        Name::Blob(*digest).path().to_string()
    }
}
