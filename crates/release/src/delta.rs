//! A delta: what turns one blob, which a device holds, into another.
//!
//! ```text
//! magic "FLDT" · version 1 · 3 zero bytes · base digest · target digest · base size · target size · segments   92 bytes
//! one zstd frame, its prefix is the base: the table of segments, then the body, exactly as long as the target
//! ```
//! Bytes of the body outside every segment are the target's own. Within a segment stands the difference of numbers:
//! target minus base, byte plane by byte plane, so that weights that moved a little become runs of zeros (`words`).
//! Without segments it is plain `zstd --patch-from`. All sizes are checked before anything is decoded, and the
//! result is nothing until its digest is the target's: a delta is never trusted, only tried.
//! Tests: `tests/delta.rs`.

mod make;
mod onnx;
mod words;

use protocol::Digest;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{self, DCtx};

pub use make::{compress, make};
use words::Segment;

const MAGIC: &[u8; 4] = b"FLDT";
const VERSION: u8 = 1;
/// Bytes before the zstd frame.
pub const HEADER_BYTES: usize = 92;
/// Largest window of a blob that travels as one zstd frame, as a power of two: what a reader keeps in memory.
pub const WINDOW_LOG: u32 = 23;
/// Most segments of a delta; stops tables that are larger than what they describe.
const MAX_SEGMENTS: u32 = 65_536;

/// Why a delta can't be made or applied. Nothing of it is used then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// Too short, or it begins otherwise.
    #[error("this is no delta")]
    NotADelta,
    /// Another format.
    #[error("the delta has format {got}, this build knows {VERSION}")]
    UnknownVersion {
        /// What it says.
        got: u8,
    },
    /// It is between other blobs.
    #[error("the delta's {what} is {got}, not {expected}")]
    OtherBlob {
        /// `base` or `target`.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What it says.
        got: Digest,
    },
    /// A size is not the one of the blob.
    #[error("the delta's {what} has {got} bytes, not {expected}")]
    OtherSize {
        /// `base` or `target`.
        what: &'static str,
        /// What is true.
        expected: u64,
        /// What it says.
        got: u64,
    },
    /// It would take more memory than allowed.
    #[error("the delta needs {needed} bytes of memory, allowed are {max_bytes}")]
    TooLarge {
        /// What it would take.
        needed: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// More segments than any delta has.
    #[error("the delta has {got} segments, at most {MAX_SEGMENTS} are allowed")]
    Segments {
        /// What it says.
        got: u32,
    },
    /// A segment lies outside, overlaps or has another width.
    #[error("segment {at} of the delta is not acceptable")]
    Segment {
        /// Which, from 0.
        at: usize,
    },
    /// The compressed part is damaged or has another length.
    #[error("the delta can't be decoded: {0}")]
    Zstd(&'static str),
    /// It decodes to something else.
    #[error("the delta gives content with digest {got}, not {expected}")]
    Digest {
        /// What it was meant to give.
        expected: Digest,
        /// What it gives.
        got: Digest,
    },
}

/// Memory that applying or making a delta takes at most, in bytes.
pub fn memory_bytes(base_bytes: u64, target_bytes: u64) -> u64 {
    // The base, the body that becomes the target, and one segment's copy while its planes are put together.
    base_bytes.saturating_add(target_bytes.saturating_mul(2)).saturating_add(1 << 20)
}

/// The header, and the frame behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Digest of what it starts from.
    pub base: Digest,
    /// Digest of what it gives.
    pub target: Digest,
    /// Size of the base.
    pub base_bytes: u64,
    /// Size of the target.
    pub target_bytes: u64,
    segments: u32,
    frame: &'a [u8],
}

impl<'a> Delta<'a> {
    /// Reads the header; nothing is decoded.
    ///
    /// # Errors
    /// [`DeltaError`] by cause.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DeltaError> {
        let (header, frame) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(DeltaError::NotADelta)?;
        let (magic, rest) = header.split_first_chunk::<4>().ok_or(DeltaError::NotADelta)?;
        let (&[version, z1, z2, z3], rest) = rest.split_first_chunk::<4>().ok_or(DeltaError::NotADelta)?;
        if magic != MAGIC || [z1, z2, z3] != [0; 3] {
            return Err(DeltaError::NotADelta);
        }
        if version != VERSION {
            return Err(DeltaError::UnknownVersion { got: version });
        }
        let (base, rest) = rest.split_first_chunk::<32>().ok_or(DeltaError::NotADelta)?;
        let (target, rest) = rest.split_first_chunk::<32>().ok_or(DeltaError::NotADelta)?;
        let (base_bytes, rest) = rest.split_first_chunk::<8>().ok_or(DeltaError::NotADelta)?;
        let (target_bytes, rest) = rest.split_first_chunk::<8>().ok_or(DeltaError::NotADelta)?;
        let segments = rest.first_chunk::<4>().ok_or(DeltaError::NotADelta)?;
        let segments = u32::from_le_bytes(*segments);
        if segments > MAX_SEGMENTS {
            return Err(DeltaError::Segments { got: segments });
        }
        Ok(Self {
            base: Digest::from_bytes(*base),
            target: Digest::from_bytes(*target),
            base_bytes: u64::from_le_bytes(*base_bytes),
            target_bytes: u64::from_le_bytes(*target_bytes),
            segments,
            frame,
        })
    }

    /// Checks that it is between these two blobs and needs no more than `max_bytes` of memory.
    ///
    /// # Errors
    /// [`DeltaError`] names what differs.
    pub fn expect(
        &self,
        base: (Digest, u64),
        target: (Digest, u64),
        max_bytes: u64,
    ) -> Result<(), DeltaError> {
        for (what, expected, got) in [("base", base.0, self.base), ("target", target.0, self.target)] {
            if expected != got {
                return Err(DeltaError::OtherBlob { what, expected, got });
            }
        }
        let sizes = [("base", base.1, self.base_bytes), ("target", target.1, self.target_bytes)];
        for (what, expected, got) in sizes {
            if expected != got {
                return Err(DeltaError::OtherSize { what, expected, got });
            }
        }
        let needed = memory_bytes(self.base_bytes, self.target_bytes);
        if needed > max_bytes { Err(DeltaError::TooLarge { needed, max_bytes }) } else { Ok(()) }
    }

    /// The target, verified against the digest that [`expect`](Self::expect) compared. Takes
    /// [`memory_bytes`] at most, whatever the frame holds.
    ///
    /// # Errors
    /// [`DeltaError`] by cause.
    pub fn apply(&self, base: &[u8], max_bytes: u64) -> Result<Vec<u8>, DeltaError> {
        let base_bytes = u64::try_from(base.len()).unwrap_or(u64::MAX);
        self.expect((self.base, base_bytes), (self.target, self.target_bytes), max_bytes)?;
        let mut content = self.decode(base)?;
        let table_bytes = words::table_bytes(self.segments);
        let body = content.split_off(table_bytes.min(content.len()));
        let segments = words::read_table(&content, base.len(), body.len())?;
        drop(content);
        let mut target = body;
        for segment in &segments {
            words::restore(segment, base, &mut target);
        }
        let got = Digest::from_bytes(Sha256::digest(&target).into());
        if got == self.target {
            return Ok(target);
        }
        Err(DeltaError::Digest { expected: self.target, got })
    }

    fn decode(&self, base: &[u8]) -> Result<Vec<u8>, DeltaError> {
        let too_large = DeltaError::TooLarge { needed: self.target_bytes, max_bytes: u64::MAX };
        let length = usize::try_from(self.target_bytes).map_err(|_| too_large)?;
        let length = length.saturating_add(words::table_bytes(self.segments));
        let mut content = Vec::with_capacity(length);
        let mut context = DCtx::create();
        context.ref_prefix(base).map_err(failed)?;
        // The buffer's capacity is the bound: a frame that holds more fails.
        context.decompress(&mut content, self.frame).map_err(failed)?;
        if content.len() == length {
            Ok(content)
        } else {
            Err(DeltaError::Zstd("another length than announced"))
        }
    }
}

fn failed(code: zstd_safe::ErrorCode) -> DeltaError {
    DeltaError::Zstd(zstd_safe::get_error_name(code))
}

fn header(base: &[u8], target: &[u8], segments: &[Segment]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[VERSION, 0, 0, 0]);
    header.extend_from_slice(&Sha256::digest(base));
    header.extend_from_slice(&Sha256::digest(target));
    for bytes in [base, target] {
        header.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    }
    header.extend_from_slice(&u32::try_from(segments.len()).unwrap_or(u32::MAX).to_le_bytes());
    header
}
