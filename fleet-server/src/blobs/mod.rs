//! Content-addressed bytes: a local folder by default, any object store later. What is stored was hashed while it
//! came in; an upload whose content is not what its name says leaves nothing behind.

pub mod derived;
mod leftovers;
mod samples;
pub mod serve;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use protocol::Digest;
use sha2::{Digest as _, Sha256};

use crate::config;

/// Parts are gathered to this size before they are written.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// An upload that takes longer is given up. Shorter than the age at which its beginnings count as left behind: of an
/// upload that still comes, nothing is ever removed, and no other one gets the name of its file.
const MAX_UPLOAD: Duration = Duration::from_hours(12);

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The folder can't be made or opened.
    #[error("cannot open blob folder {path}", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store can't say what it holds, or remove what it said.
    #[error("the blob store can't be cleared up")]
    List {
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A file or folder of the local store can't be read or removed.
    #[error("cannot clear up {path}", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error("blob store: cannot {what} {digest}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The sender stopped or broke off.
    #[error("the upload of {digest} broke off")]
    Upload {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The content hashes to something else.
    #[error("the content of {expected} has the digest {got}")]
    Digest {
        /// What its name says.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
    /// It should be here.
    #[error("{digest} is not in the blob store")]
    Missing {
        /// Which blob.
        digest: Digest,
    },
    /// What should travel in its place could not be made.
    #[error("cannot compress {digest}")]
    Make {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Over the bound; reading stopped there.
    #[error("{digest} is larger than {max_bytes} bytes")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// The bound.
        max_bytes: u64,
    },
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A blob.
    Blob(Digest),
    /// A blob as one zstd frame.
    Zstd(Digest),
    /// What turns one blob into another.
    Delta {
        /// What a device holds.
        base: Digest,
        /// What it gets.
        target: Digest,
    },
}

impl Name {
    fn digest(&self) -> Digest {
        match self {
            Self::Blob(digest) | Self::Zstd(digest) | Self::Delta { target: digest, .. } => *digest,
        }
    }

    /// Two levels of folders, so that none holds millions of entries.
    fn path(&self) -> Path {
        let hex = self.digest().to_hex();
        let level = &hex[..2];
        match self {
            Self::Blob(_) => Path::from(format!("sha256/{level}/{hex}")),
            Self::Zstd(_) => Path::from(format!("derived/{level}/{hex}.zst")),
            Self::Delta { base, .. } => Path::from(format!("derived/{level}/{hex}.from.{}", base.to_hex())),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "{digest}"),
            Self::Zstd(digest) => write!(f, "{digest} as zstd"),
            Self::Delta { base, target } => write!(f, "{target} from {base}"),
        }
    }
}

/// The blob store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where the local store keeps its files.
    folder: PathBuf,
    max_bytes: u64,
}

impl Blobs {
    /// Opens the folder, making it if needed.
    ///
    /// # Errors
    /// [`BlobError::Open`] when it can't be made or read.
    pub fn open(config: &config::Blobs) -> Result<Self, BlobError> {
        let open = |source| BlobError::Open { path: config.dir.clone(), source };
        std::fs::create_dir_all(&config.dir).map_err(|e| open(e.into()))?;
        let local = LocalFileSystem::new_with_prefix(&config.dir).map_err(|e| open(e.into()))?;
        let (folder, max_bytes) = (config.dir.clone(), config.max_bytes);
        Ok(Self { store: Arc::new(local.with_fsync(true)), folder, max_bytes })
    }

    /// Largest blob in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Size in bytes; `None` when there is no such blob.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.object_size(&Name::Blob(*digest)).await
    }

    async fn object_size(&self, name: &Name) -> Result<Option<u64>, BlobError> {
        match self.store.head(&name.path()).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(BlobError::Store { what: "look for", digest: name.digest(), source }),
        }
    }

    async fn put_object(&self, name: &Name, content: Bytes) -> Result<(), BlobError> {
        let put = self.store.put(&name.path(), PutPayload::from_bytes(content)).await;
        let fail = |source| BlobError::Store { what: "keep what was made of", digest: name.digest(), source };
        put.map(drop).map_err(fail)
    }

    /// Stores a stream under its digest and returns its size; nothing is visible unless the content fits its name.
    ///
    /// # Errors
    /// [`BlobError`]; nothing is stored then.
    pub async fn put<S, E>(&self, digest: &Digest, content: S) -> Result<u64, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let fail = |what| move |source| BlobError::Store { what, digest: *digest, source };
        let mut upload = self.store.put_multipart(&path(digest)).await.map_err(fail("begin"))?;
        let writing = write(upload.as_mut(), digest, content, self.max_bytes);
        let written = tokio::time::timeout(MAX_UPLOAD, writing).await;
        let too_slow = |e| Err(BlobError::Upload { digest: *digest, source: Box::new(e) });
        match written.unwrap_or_else(too_slow) {
            Ok(size) => {
                upload.complete().await.map_err(fail("complete"))?;
                Ok(size)
            }
            Err(e) => {
                // The unfinished part is never visible; a failure to remove it costs only space.
                let _ = upload.abort().await;
                Err(e)
            }
        }
    }

    /// Stores bytes that are already in memory.
    ///
    /// # Errors
    /// [`BlobError`]; nothing is stored then.
    pub async fn put_bytes(&self, digest: &Digest, content: Bytes) -> Result<u64, BlobError> {
        let once = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(content)]);
        self.put(digest, once).await
    }

    /// The content, or the given range of it; `None` when there is no such blob.
    ///
    /// # Errors
    /// [`BlobError::Store`] when the store fails or the range lies outside.
    pub async fn get(
        &self,
        name: &Name,
        range: Option<Range<u64>>,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, object_store::Error>>>, BlobError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        match self.store.get_opts(&name.path(), options).await {
            Ok(found) => Ok(Some(found.into_stream().boxed())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(BlobError::Store { what: "read", digest: name.digest(), source }),
        }
    }

    /// The whole content in memory, for small blobs such as references and model cards; `None` when there is no
    /// such blob.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] over `max_bytes`, [`BlobError::Store`] when the store fails.
    pub async fn read(&self, digest: &Digest, max_bytes: u64) -> Result<Option<Bytes>, BlobError> {
        match self.size(digest).await? {
            None => return Ok(None),
            Some(size) if size > max_bytes => return Err(BlobError::TooLarge { digest: *digest, max_bytes }),
            Some(_) => {}
        }
        let fail = |source| BlobError::Store { what: "read", digest: *digest, source };
        let found = self.store.get(&path(digest)).await.map_err(fail)?;
        found.bytes().await.map(Some).map_err(fail)
    }
}

async fn write<S, E>(
    upload: &mut dyn MultipartUpload,
    digest: &Digest,
    content: S,
    max_bytes: u64,
) -> Result<u64, BlobError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut content = std::pin::pin!(content);
    let (mut hash, mut size, mut part) = (Sha256::new(), 0_u64, Vec::new());
    while let Some(chunk) = content.next().await {
        let chunk = chunk.map_err(|e| BlobError::Upload { digest: *digest, source: e.into() })?;
        size = size.saturating_add(chunk.len().try_into().unwrap_or(u64::MAX));
        if size > max_bytes {
            return Err(BlobError::TooLarge { digest: *digest, max_bytes });
        }
        hash.update(&chunk);
        part.extend_from_slice(&chunk);
        if part.len() >= PART_BYTES {
            flush(upload, digest, &mut part).await?;
        }
    }
    flush(upload, digest, &mut part).await?;
    let got = Digest::from_bytes(hash.finalize().into());
    if got == *digest { Ok(size) } else { Err(BlobError::Digest { expected: *digest, got }) }
}

async fn flush(
    upload: &mut dyn MultipartUpload,
    digest: &Digest,
    part: &mut Vec<u8>,
) -> Result<(), BlobError> {
    let payload = PutPayload::from(std::mem::take(part));
    upload.put_part(payload).await.map_err(|source| BlobError::Store {
        what: "write",
        digest: *digest,
        source,
    })
}

fn path(digest: &Digest) -> Path {
    Name::Blob(*digest).path()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &std::path::Path, max_bytes: u64) -> Blobs {
        Blobs::open(&config::Blobs { dir: dir.to_owned(), max_bytes }).unwrap()
    }

    fn digest(content: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(content).into())
    }

    #[tokio::test]
    async fn what_is_stored_is_what_its_name_says() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path(), 100);
        let name = digest(b"hello");
        assert_eq!(blobs.put_bytes(&name, Bytes::from_static(b"hello")).await.unwrap(), 5);
        assert_eq!(blobs.read(&name, 5).await.unwrap().unwrap(), "hello");
        assert_eq!(blobs.size(&name).await.unwrap(), Some(5));
        let mut part = blobs.get(&Name::Blob(name), Some(1..3)).await.unwrap().unwrap();
        assert_eq!(part.next().await.unwrap().unwrap(), "el");
    }

    #[tokio::test]
    async fn a_false_or_oversized_upload_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path(), 5);
        let name = digest(b"hello");
        let false_content = blobs.put_bytes(&name, Bytes::from_static(b"hullo")).await;
        assert!(matches!(false_content, Err(BlobError::Digest { .. })));
        let oversized = blobs.put_bytes(&digest(b"hello!"), Bytes::from_static(b"hello!")).await;
        assert!(matches!(oversized, Err(BlobError::TooLarge { max_bytes: 5, .. })));
        assert_eq!(blobs.size(&name).await.unwrap(), None);
        assert!(walk(dir.path()).is_empty(), "{:?}", walk(dir.path()));
    }

    fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(walk(&path));
            } else {
                found.push(path);
            }
        }
        found
    }
}
