//! Making deltas: both ways, the smaller one wins.

use zstd::zstd_safe::{self, CCtx, CParameter};

use super::onnx;
use super::words::{self, Segment};
use super::{Delta, DeltaError, MAX_SEGMENTS, failed, header, memory_bytes};

/// A segment must save at least this part of its estimated size, in percent.
const WORTH_PERCENT: f64 = 3.0;
/// Shorter tensors are not worth their place in the table.
const SHORTEST_SEGMENT: usize = 64;

/// A delta from `base` to `target`, tried out: what it gives is `target`. Takes time in proportion to both.
///
/// # Errors
/// [`DeltaError::TooLarge`] before any work; [`DeltaError::Zstd`] when the compressor fails.
pub fn make(base: &[u8], target: &[u8], max_bytes: u64) -> Result<Vec<u8>, DeltaError> {
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let needed = memory_bytes(size(base), size(target));
    if needed > max_bytes {
        return Err(DeltaError::TooLarge { needed, max_bytes });
    }
    let mut best = encode(base, target, &[])?;
    let segments = segments(base, target);
    if !segments.is_empty() {
        let other = encode(base, target, &segments)?;
        if other.len() < best.len() {
            best = other;
        }
    }
    Delta::parse(&best)?.apply(base, max_bytes)?;
    Ok(best)
}

/// A blob as one zstd frame, as it travels when there is no base. A reader needs a window of 8 MiB at most.
///
/// # Errors
/// [`DeltaError::Zstd`] when the compressor fails.
pub fn compress(content: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut context = CCtx::create();
    set(&mut context, CParameter::CompressionLevel(level(content.len())))?;
    set(&mut context, CParameter::WindowLog(super::WINDOW_LOG))?;
    set(&mut context, CParameter::ChecksumFlag(true))?;
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    context.compress2(&mut frame, content).map_err(failed)?;
    Ok(frame)
}

fn set(context: &mut CCtx<'_>, parameter: CParameter) -> Result<(), DeltaError> {
    context.set_parameter(parameter).map(drop).map_err(failed)
}

/// Large content is compressed faster, so that a delta of any allowed size is made within a minute or two.
fn level(bytes: usize) -> i32 {
    match bytes >> 20 {
        0..16 => 19,
        16..64 => 13,
        _ => 7,
    }
}

fn encode(base: &[u8], target: &[u8], segments: &[Segment]) -> Result<Vec<u8>, DeltaError> {
    let mut content = words::write_table(segments);
    let table_bytes = content.len();
    content.extend_from_slice(target);
    for segment in segments {
        let at = table_bytes + segment.target;
        content[at..at + segment.length].copy_from_slice(&words::difference(segment, base, target));
    }
    let reach = (base.len() + content.len()).next_power_of_two().ilog2().clamp(17, 31);
    let mut context = CCtx::create();
    set(&mut context, CParameter::CompressionLevel(level(base.len() + target.len())))?;
    set(&mut context, CParameter::WindowLog(reach))?;
    set(&mut context, CParameter::EnableLongDistanceMatching(true))?;
    context.ref_prefix(base).map_err(failed)?;
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    context.compress2(&mut frame, &content).map_err(failed)?;
    let mut delta = header(base, target, segments);
    delta.append(&mut frame);
    Ok(delta)
}

/// Tensors of the same name and size whose differences are simpler than the numbers themselves. Files that are no
/// ONNX but have the same length are compared byte by byte.
fn segments(base: &[u8], target: &[u8]) -> Vec<Segment> {
    let (before, after) = (onnx::tensors(base), onnx::tensors(target));
    let pairs = after.iter().filter_map(|(name, tensor)| {
        let same = before.get(name).filter(|old| old.bytes.len() == tensor.bytes.len())?;
        Some(Segment {
            target: tensor.bytes.start,
            base: same.bytes.start,
            length: tensor.bytes.len(),
            width: tensor.width,
        })
    });
    let mut segments: Vec<Segment> = pairs.collect();
    if after.is_empty() && base.len() == target.len() {
        segments.push(Segment { target: 0, base: 0, length: target.len(), width: 1 });
    }
    segments.retain(|segment| segment.length >= SHORTEST_SEGMENT && is_worth(segment, base, target));
    segments.sort_by_key(|segment| segment.target);
    segments.truncate(usize::try_from(MAX_SEGMENTS).unwrap_or(usize::MAX));
    segments
}

fn is_worth(segment: &Segment, base: &[u8], target: &[u8]) -> bool {
    let own = &target[segment.target..segment.target + segment.length];
    if own == &base[segment.base..segment.base + segment.length] {
        // Found whole in the base, for less than a plane of zeros.
        return false;
    }
    let words = segment.length / segment.width;
    let planes = words::difference(segment, base, target);
    let moved: f64 = planes.chunks(words).map(entropy_bits).sum();
    // The same planes without a difference are the fair comparison: interleaving alone must not decide.
    let plane = |at: usize| own.iter().skip(at).step_by(segment.width).copied().collect::<Vec<u8>>();
    let plain: f64 = (0..segment.width).map(|at| entropy_bits(&plane(at))).sum();
    moved < plain * (1.0 - WORTH_PERCENT / 100.0)
}

/// Bits of these bytes if each stood for itself.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn entropy_bits(bytes: &[u8]) -> f64 {
    let mut counts = [0_u64; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| -(*count as f64) * (*count as f64 / total).log2())
        .sum()
}
