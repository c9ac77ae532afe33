//! Segments of a delta: numbers of the target as differences to numbers of the base.
//!
//! The difference of two little-endian words is folded so that small ones, positive or negative, have zeros in all
//! high bytes, and all first bytes stand together, then all second ones: what entropy coding sees are planes.

use super::{DeltaError, MAX_SEGMENTS};

/// A stretch of the target as differences to an equally long stretch of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins in the target.
    pub(super) target: usize,
    /// Where it begins in the base.
    pub(super) base: usize,
    /// Its bytes.
    pub(super) length: usize,
    /// Bytes of one number: 1, 2, 4 or 8.
    pub(super) width: usize,
}

const ENTRY_BYTES: usize = 25;

pub(super) fn table_bytes(segments: u32) -> usize {
    usize::try_from(segments.min(MAX_SEGMENTS)).unwrap_or(0) * ENTRY_BYTES
}

pub(super) fn write_table(segments: &[Segment]) -> Vec<u8> {
    let mut table = Vec::with_capacity(segments.len() * ENTRY_BYTES);
    for segment in segments {
        for number in [segment.target, segment.base, segment.length] {
            table.extend_from_slice(&u64::try_from(number).unwrap_or(u64::MAX).to_le_bytes());
        }
        table.push(u8::try_from(segment.width).unwrap_or(0));
    }
    table
}

/// Segments in the order of the target, apart from each other, within both blobs.
pub(super) fn read_table(
    table: &[u8],
    base_len: usize,
    target_len: usize,
) -> Result<Vec<Segment>, DeltaError> {
    let mut end_of_last = 0;
    let (entries, _) = table.as_chunks::<ENTRY_BYTES>();
    let read = |(at, entry): (usize, &[u8; ENTRY_BYTES])| {
        let segment = read_entry(entry).ok_or(DeltaError::Segment { at })?;
        let ends = segment.target.checked_add(segment.length).zip(segment.base.checked_add(segment.length));
        let is_inside = ends.is_some_and(|(target, base)| target <= target_len && base <= base_len);
        let is_whole = matches!(segment.width, 1 | 2 | 4 | 8)
            && segment.length > 0
            && segment.length.is_multiple_of(segment.width);
        if !is_inside || !is_whole || segment.target < end_of_last {
            return Err(DeltaError::Segment { at });
        }
        end_of_last = segment.target + segment.length;
        Ok(segment)
    };
    entries.iter().enumerate().map(read).collect()
}

fn read_entry(entry: &[u8; ENTRY_BYTES]) -> Option<Segment> {
    let number = |at: usize| {
        let bytes = entry.get(at..at + 8)?.first_chunk::<8>()?;
        usize::try_from(u64::from_le_bytes(*bytes)).ok()
    };
    Some(Segment { target: number(0)?, base: number(8)?, length: number(16)?, width: usize::from(entry[24]) })
}

/// The folded differences, in planes.
pub(super) fn difference(segment: &Segment, base: &[u8], target: &[u8]) -> Vec<u8> {
    let base = &base[segment.base..segment.base + segment.length];
    let target = &target[segment.target..segment.target + segment.length];
    let mut planes = vec![0; segment.length];
    let words = segment.length / segment.width;
    for word in 0..words {
        let at = word * segment.width;
        let moved = load(target, at, segment.width).wrapping_sub(load(base, at, segment.width));
        let folded = fold(moved, segment.width).to_le_bytes();
        for (plane, byte) in folded.iter().enumerate().take(segment.width) {
            planes[plane * words + word] = *byte;
        }
    }
    planes
}

/// Puts the target's own bytes in place of the differences.
pub(super) fn restore(segment: &Segment, base: &[u8], body: &mut [u8]) {
    let base = &base[segment.base..segment.base + segment.length];
    let body = &mut body[segment.target..segment.target + segment.length];
    let planes = body.to_vec();
    let words = segment.length / segment.width;
    for word in 0..words {
        let at = word * segment.width;
        let mut folded = [0; 8];
        for (plane, byte) in folded.iter_mut().enumerate().take(segment.width) {
            *byte = planes[plane * words + word];
        }
        let moved = unfold(u64::from_le_bytes(folded), segment.width);
        let number = load(base, at, segment.width).wrapping_add(moved).to_le_bytes();
        body[at..at + segment.width].copy_from_slice(&number[..segment.width]);
    }
}

fn load(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut word = [0; 8];
    word[..width].copy_from_slice(&bytes[at..at + width]);
    u64::from_le_bytes(word)
}

fn mask(width: usize) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

/// The sign goes to the lowest bit: 0, -1, 1, -2 become 0, 1, 2, 3.
fn fold(moved: u64, width: usize) -> u64 {
    let moved = moved & mask(width);
    let is_negative = moved >> (8 * width - 1) == 1;
    let doubled = moved << 1;
    (if is_negative { !doubled } else { doubled }) & mask(width)
}

fn unfold(folded: u64, width: usize) -> u64 {
    let half = (folded & mask(width)) >> 1;
    (if folded & 1 == 1 { !half } else { half }) & mask(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_undone_for_every_width() {
        for width in [1, 2, 4, 8] {
            for moved in
                [0, 1, 2, 127, 128, 255, 256, 0x7fff_ffff, 0x8000_0000, u64::MAX, u64::MAX / 2, 1 << 63]
            {
                let moved = moved & mask(width);
                assert_eq!(unfold(fold(moved, width), width), moved, "{moved:x} of {width}");
            }
            assert_eq!(fold(u64::MAX, width), 1);
        }
    }
}
