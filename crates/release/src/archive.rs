//! The archive for devices without a network: signed metadata, then manifests, then blobs, in one stream.
//!
//! It is a tar file of the plainest kind (ustar, ordinary files only), so that `tar t` shows it; the reader takes
//! nothing but what the writer here writes, to the byte. Every name is one of the three kinds of [`Name`], none comes
//! twice, and none ever becomes a path. Nothing that is read is trusted: the importer verifies it as if it came from
//! a server. Tests: `tests/archive.rs`.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};

use protocol::Digest;

const BLOCK_BYTES: usize = 512;
/// The largest size that 11 octal digits hold.
const MAX_SIZE_BYTES: u64 = 0o777_7777_7777;
/// Longest name of a metadata file.
const MAX_FILE_NAME_BYTES: usize = 90;
const METADATA: &str = "metadata/";
const MANIFESTS: &str = "manifests/";
const BLOBS: &str = "blobs/";

/// Bounds of an archive (attacks A8 and D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most files.
    pub files: usize,
    /// Largest metadata file or manifest, in bytes.
    pub small_bytes: u64,
    /// Largest blob, in bytes.
    pub blob_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 1024, small_bytes: 4 * 1024 * 1024, blob_bytes: MAX_SIZE_BYTES }
    }
}

/// What a file of an archive is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A file of signed metadata, by its name in a repository, e.g. `3.targets.json`.
    Metadata(String),
    /// A manifest, by the digest of its bytes.
    Manifest(Digest),
    /// A blob.
    Blob(Digest),
}

impl Name {
    /// Reads a name; anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(file) = text.strip_prefix(METADATA) {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '%');
            let is_good = !file.starts_with('.')
                && file.strip_suffix(".json").is_some()
                && file.len() <= MAX_FILE_NAME_BYTES
                && file.chars().all(is_plain);
            return is_good.then(|| Self::Metadata(file.into()));
        }
        let digest = |hex: &str| hex.parse::<Digest>().ok().filter(|digest| digest.to_hex() == hex);
        match text.strip_prefix(MANIFESTS) {
            Some(hex) => digest(hex).map(Self::Manifest),
            None => text.strip_prefix(BLOBS).and_then(digest).map(Self::Blob),
        }
    }

    /// Files come in this order.
    fn place(&self) -> u8 {
        match self {
            Self::Metadata(_) => 0,
            Self::Manifest(_) => 1,
            Self::Blob(_) => 2,
        }
    }

    fn max_bytes(&self, limits: &Limits) -> u64 {
        match self {
            Self::Metadata(_) | Self::Manifest(_) => limits.small_bytes,
            Self::Blob(_) => limits.blob_bytes,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(file) => write!(f, "{METADATA}{file}"),
            Self::Manifest(digest) => write!(f, "{MANIFESTS}{}", digest.to_hex()),
            Self::Blob(digest) => write!(f, "{BLOBS}{}", digest.to_hex()),
        }
    }
}

/// Why an archive can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file or the disk.
    #[error("the archive can't be {what}")]
    Io {
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It ends too early.
    #[error("the archive is cut off within {at}")]
    Truncated {
        /// Where.
        at: String,
    },
    /// A name that no file of an archive has: absolute, with `..`, of a device, or otherwise unknown.
    #[error("the archive holds {name:?}, which is no name of a file in it")]
    Name {
        /// As it stands there.
        name: String,
    },
    /// A link, a folder, a device or another thing that is no file.
    #[error("{name} in the archive is no ordinary file but of kind {kind:?}")]
    Kind {
        /// Which.
        name: String,
        /// The letter of its kind.
        kind: char,
    },
    /// Twice the same name.
    #[error("{name} is in the archive twice")]
    Duplicate {
        /// Which.
        name: Name,
    },
    /// Metadata after manifests, or either after blobs.
    #[error("{name} comes too late in the archive")]
    Order {
        /// Which.
        name: Name,
    },
    /// Over a bound.
    #[error("{name} in the archive has {got} bytes, at most {max_bytes} are allowed")]
    TooLarge {
        /// Which.
        name: Name,
        /// Its size.
        got: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// More files than any archive has.
    #[error("the archive has more than {max} files")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// A header that our writer does not write.
    #[error("the archive has a damaged or foreign header after {after} files")]
    Header {
        /// Files before it.
        after: usize,
    },
    /// Something follows the end.
    #[error("something follows the archive's end")]
    Trailing,
    /// The content to write has another length than announced.
    #[error("{name} has another length than announced")]
    Length {
        /// Which.
        name: Name,
    },
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// Adds a file of exactly `size_bytes`.
    ///
    /// # Errors
    /// [`ArchiveError`] when either side fails or the length differs.
    pub fn add(&mut self, name: &Name, size_bytes: u64, content: impl Read) -> Result<(), ArchiveError> {
        if size_bytes > MAX_SIZE_BYTES {
            return Err(ArchiveError::TooLarge {
                name: name.clone(),
                got: size_bytes,
                max_bytes: MAX_SIZE_BYTES,
            });
        }
        let written = |source| ArchiveError::Io { what: "written", source };
        self.to.write_all(&header(&name.to_string(), size_bytes)).map_err(written)?;
        let mut content = content.take(size_bytes.saturating_add(1));
        let copied = io::copy(&mut content, &mut self.to).map_err(written)?;
        if copied != size_bytes {
            return Err(ArchiveError::Length { name: name.clone() });
        }
        self.to.write_all(&[0; BLOCK_BYTES][..padding(size_bytes)]).map_err(written)
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let end = self.to.write_all(&[0; 2 * BLOCK_BYTES]).and_then(|()| self.to.flush());
        end.map(|()| self.to).map_err(|source| ArchiveError::Io { what: "written", source })
    }
}

/// Reads an archive from beginning to end.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    limits: Limits,
    seen: BTreeSet<Name>,
    place: u8,
    current: Option<(Name, u64)>,
}

impl<R: Read> Reader<R> {
    /// Begins.
    pub fn new(from: R, limits: Limits) -> Self {
        Self { from, limits, seen: BTreeSet::new(), place: 0, current: None }
    }

    /// The next file and its size, or none at the end. A file that was not read is passed over.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing after it can be read.
    pub fn next_file(&mut self) -> Result<Option<(Name, u64)>, ArchiveError> {
        if self.current.is_some() {
            self.read_to(io::sink())?;
        }
        let block = self.block("a header")?;
        if block == [0; BLOCK_BYTES] {
            return self.end().map(|()| None);
        }
        let (name, size) = self.parse(&block)?;
        if self.seen.len() >= self.limits.files {
            return Err(ArchiveError::TooMany { max: self.limits.files });
        }
        if name.place() < self.place {
            return Err(ArchiveError::Order { name });
        }
        self.place = name.place();
        let max_bytes = name.max_bytes(&self.limits);
        if size > max_bytes {
            return Err(ArchiveError::TooLarge { name, got: size, max_bytes });
        }
        if !self.seen.insert(name.clone()) {
            return Err(ArchiveError::Duplicate { name });
        }
        self.current = Some((name.clone(), size));
        Ok(Some((name, size)))
    }

    /// The content of the file that came last, as far as it was not read.
    ///
    /// # Errors
    /// [`ArchiveError`]; a part may have been written.
    pub fn read_to(&mut self, mut to: impl Write) -> Result<(), ArchiveError> {
        let Some((name, size)) = self.current.take() else { return Ok(()) };
        let copied = io::copy(&mut self.from.by_ref().take(size), &mut to)
            .map_err(|source| ArchiveError::Io { what: "read", source })?;
        if copied != size {
            return Err(ArchiveError::Truncated { at: name.to_string() });
        }
        let mut rest = [0; BLOCK_BYTES];
        let rest = &mut rest[..padding(size)];
        self.fill(rest, || name.to_string())?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Header { after: self.seen.len() });
        }
        Ok(())
    }

    fn parse(&self, block: &[u8; BLOCK_BYTES]) -> Result<(Name, u64), ArchiveError> {
        let foreign = || ArchiveError::Header { after: self.seen.len() };
        let field = &block[..100];
        let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text).into_owned();
        let kind = char::from(block[156]);
        if kind != '0' {
            return Err(ArchiveError::Kind { name: text, kind });
        }
        let name = Name::parse(&text).ok_or(ArchiveError::Name { name: text })?;
        let digits = str::from_utf8(&block[124..135]).map_err(|_| foreign())?;
        let size = u64::from_str_radix(digits, 8).map_err(|_| foreign())?;
        // Owner, time, mode, prefix, link name, checksum: all as we write them, or it is not ours.
        if header(&name.to_string(), size) == *block { Ok((name, size)) } else { Err(foreign()) }
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        if self.block("the end")? != [0; BLOCK_BYTES] {
            return Err(ArchiveError::Header { after: self.seen.len() });
        }
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(ArchiveError::Trailing),
            Err(source) => Err(ArchiveError::Io { what: "read", source }),
        }
    }

    fn block(&mut self, at: &str) -> Result<[u8; BLOCK_BYTES], ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block, || at.to_owned())?;
        Ok(block)
    }

    fn fill(&mut self, to: &mut [u8], at: impl FnOnce() -> String) -> Result<(), ArchiveError> {
        self.from.read_exact(to).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated { at: at() },
            _ => ArchiveError::Io { what: "read", source },
        })
    }
}

fn padding(size: u64) -> usize {
    let over = usize::try_from(size % 512).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK_BYTES - over }
}

/// A ustar header (POSIX.1-1988, `pax` 10.1.1) of an ordinary file.
fn header(name: &str, size: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
