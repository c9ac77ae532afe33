//! The border between safe code and the depthwise kernels: bounds are asserted here, once per image and channels.
#![expect(
    unsafe_code,
    reason = "calls kernels of a CPU level that was detected, with bounds asserted above each call"
)]

use super::ahead::Region;
#[cfg(target_arch = "aarch64")]
use super::arm;
use super::depthwise::Shape;
use super::level::Level;
use super::portable;
use super::tile::Finish;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Some channels of a depthwise convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip<'a> {
    /// Which function.
    pub(super) shape: Shape,
    /// Channels: 64, 32 or 16.
    pub(super) lanes: usize,
    /// `columns` bytes for each tap, in the level's own order; on a cache line where the level interleaves.
    pub(super) weights: &'a [u8],
    /// One for each column: 64, or as many as lanes.
    pub(super) bias: &'a [i32],
    /// Places of the taps for [`Shape::Any`], as many as [`tap_step`] wants.
    pub(super) taps: &'a [usize],
    /// From sums to bytes.
    pub(super) finish: Finish<'a>,
    /// Distance of the input's rows and pixels.
    pub(super) inner: [usize; 2],
    /// Weights to fetch meanwhile.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only kernels for x86 fetch ahead"))]
    pub(super) ahead: Region,
    /// Output rows.
    pub(super) height: usize,
    /// Output pixels of a row.
    pub(super) width: usize,
}

/// Where pixels lie: for the input, those that a kernel's corner stands on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    /// The first.
    pub(super) start: usize,
    /// From one output row to the next.
    pub(super) row: usize,
    /// From one output pixel to the next.
    pub(super) pixel: usize,
}

impl Plane {
    /// The first byte after the last pixel's `lanes`.
    fn end(&self, height: usize, width: usize, lanes: usize) -> Option<usize> {
        let down = self.row.checked_mul(height.checked_sub(1)?)?;
        let along = self.pixel.checked_mul(width.checked_sub(1)?)?;
        self.start.checked_add(down)?.checked_add(along)?.checked_add(lanes)
    }
}

/// Where the results go.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// Requantized, into an activation's pixels.
    Bytes(&'a mut [u8], Plane),
    /// As they are, `[height][width][lanes]`.
    Sums(&'a mut [i32]),
}

/// Whether a level's kernels interleave four taps, and hold 64 lanes; otherwise they take bare taps.
pub(super) const fn interleaves(level: Level) -> bool {
    !matches!(level, Level::Portable | Level::Neon | Level::NeonDot)
}

/// How many taps a level's kernel takes at once.
pub(super) const fn tap_step(level: Level) -> usize {
    if interleaves(level) { 4 } else { 1 }
}

/// Columns of a strip with so many lanes.
pub(super) const fn columns(level: Level, lanes: usize) -> usize {
    if interleaves(level) { 64 } else { lanes }
}

/// Computes all rows of some channels.
///
/// # Panics
/// If a place lies outside.
pub(super) fn run(level: Level, strip: &Strip<'_>, (input, read): (&[u8], Plane), sink: Sink<'_>) {
    let inner = strip.inner;
    if strip.height == 0 || strip.width == 0 {
        return;
    }
    assert!(matches!(strip.lanes, 16 | 32 | 64), "lanes of a strip");
    let columns = columns(level, strip.lanes);
    assert!(strip.bias.len() == columns && strip.finish.multiplier.len() == columns, "columns of a strip");
    let is_aligned = strip.weights.as_ptr().addr().is_multiple_of(64);
    assert!(is_aligned || !interleaves(level), "weights lie on cache lines");
    let (vectors, reach) = match strip.shape {
        Shape::Three => (24, 2 * inner[0] + 2 * inner[1]),
        Shape::ThreeBy2 => (12, 2 * inner[0] + 2 * inner[1]),
        Shape::Any => (strip.taps.len(), strip.taps.iter().copied().max().unwrap_or(0)),
    };
    assert!(
        strip.weights.len() == vectors * columns && strip.taps.len().is_multiple_of(tap_step(level)),
        "weights of a strip"
    );
    let end = read.end(strip.height, strip.width, strip.lanes).and_then(|end| end.checked_add(reach));
    assert!(end.is_some_and(|end| end <= input.len()), "input of a strip");
    match sink {
        Sink::Bytes(output, write) => {
            let end = write.end(strip.height, strip.width, strip.lanes);
            assert!(end.is_some_and(|end| end <= output.len()), "output of a strip");
            if level == Level::Portable {
                return portable::strip(strip, (input, read), (output, write));
            }
            // SAFETY: each output pixel writes `lanes` bytes, which was asserted; for what is read, see above.
            unsafe { run_level::<false>(level, strip, (input.as_ptr(), read), (output.as_mut_ptr(), write)) }
        }
        Sink::Sums(sums) => {
            assert_eq!(sums.len(), strip.height * strip.width * strip.lanes, "sums of a strip");
            if level == Level::Portable {
                return portable::strip_sums(strip, (input, read), sums);
            }
            let pixel = strip.lanes * size_of::<i32>();
            let write = Plane { start: 0, row: strip.width * pixel, pixel };
            // SAFETY: each output pixel writes `lanes` sums, which was asserted; for what is read, see above.
            unsafe {
                run_level::<true>(level, strip, (input.as_ptr(), read), (sums.as_mut_ptr().cast(), write));
            }
        }
    }
}

#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(unused_variables, reason = "other CPUs have no kernel of their own")
)]
/// Runs a level's kernel; for `SUMS` the places in the output are of sums, but counted in bytes.
///
/// # Safety
/// The checks of [`run`]: each output pixel reads `lanes` bytes at taps up to the reach behind its corner, and has
/// room for `lanes` bytes, or sums.
unsafe fn run_level<const SUMS: bool>(
    level: Level,
    strip: &Strip<'_>,
    from: (*const u8, Plane),
    to: (*mut u8, Plane),
) {
    match level {
        // SAFETY: the level is only chosen where the CPU has it; the bounds are the caller's.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni | Level::Amx => unsafe { x86::depthwise512::run::<SUMS>(strip, from, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { x86::depthwise256::run::<true, SUMS>(strip, from, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::depthwise256::run::<false, SUMS>(strip, from, to) },
        // SAFETY: as above; weights are packed to be at least -127.
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::NeonDot => unsafe {
            assert!(strip.shape == Shape::Any && strip.lanes == 16, "shape of a strip");
            arm::depthwise::run::<SUMS>(strip, from, to);
        },
        _ => unreachable!("level {level} has no depthwise kernel"),
    }
}
