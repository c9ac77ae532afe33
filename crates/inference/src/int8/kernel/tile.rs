//! The border between safe code and the matrix kernels of each level: bounds are asserted here, once per call.
#![expect(
    unsafe_code,
    reason = "calls kernels of a CPU level that was detected, with bounds asserted above each call"
)]

use super::ahead::Region;
#[cfg(target_arch = "aarch64")]
use super::arm;
use super::eltwise::AddSpec;
use super::level::Level;
use super::panels::Order;
use super::portable;
use super::rows::Extra;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Memory that a kernel may use while it runs, on a cache line, for rows of so many bytes.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "only kernels for x86 depend on it")
)]
pub(super) const fn work_bytes(level: Level, k: usize) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => x86::look::work_bytes(k).next_multiple_of(64),
        #[cfg(target_arch = "x86_64")]
        Level::Amx => x86::amx::WORK,
        _ => 64,
    }
}

/// Rows of values times a block of weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    /// The first row; rows may overlap, and are read up to the next multiple of 64 bytes.
    pub(super) rows: &'a [u8],
    /// Distance of two rows.
    pub(super) stride: usize,
    /// How many.
    pub(super) count: usize,
    /// Bytes of a row, a multiple of 4.
    pub(super) k: usize,
    /// `[padded k / lane][columns][lane]`, or in groups of columns; on a cache line.
    pub(super) weights: &'a [u8],
    /// One for each column.
    pub(super) bias: &'a [i32],
    /// Where the parts of each row lie, if not one behind the other; only for levels with [`takes_parts`] or
    /// [`takes_images`].
    pub(super) parts: Option<Parts<'a>>,
    /// Rows that lie in lines; only for levels with [`takes_images`].
    pub(super) lines: Option<Lines>,
    /// Whether weights are packed for values less 128, as [`centres`] said.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX2's kernel does that"))]
    pub(super) is_centred: bool,
    /// What is added to each sum besides.
    pub(super) extra: Option<Extra<'a>>,
    /// Weights to fetch meanwhile.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(dead_code, reason = "only kernels with vector instructions fetch ahead")
    )]
    pub(super) ahead: Region,
}

/// Rows in lines that lie further apart than the rows of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    /// Rows of a line.
    pub(super) width: usize,
    /// From one line to the next.
    pub(super) step: usize,
}

/// Rows that a kernel for lines reads at once, whether or not a line has as many.
pub(super) const LINE_ROWS: usize = 16;

impl Lines {
    /// Where the last row that is read starts.
    fn last(self, count: usize, stride: usize) -> Option<usize> {
        let down = (count / self.width.max(1)).checked_sub(1)?.checked_mul(self.step)?;
        down.checked_add((self.width.max(LINE_ROWS) - 1).checked_mul(stride)?)
    }
}

/// Rows whose parts lie apart, as the rows of a window do in an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    /// Where each row starts, if not at the job's equal distances.
    pub(super) starts: Option<&'a Places>,
    /// From a row's start to its parts.
    pub(super) offsets: &'a [usize],
    /// Length of each part, a multiple of 4.
    pub(super) bytes: usize,
}

impl Parts<'_> {
    /// The end of the furthest part of rows of which the last starts there.
    fn end(&self, last: usize) -> Option<usize> {
        let furthest = self.offsets.iter().copied().max().unwrap_or(0);
        last.checked_add(furthest)?.checked_add(self.bytes)
    }
}

impl Job<'_> {
    /// Output channels.
    pub(super) const fn columns(&self) -> usize {
        self.bias.len()
    }

    fn check(&self) {
        let padded = self.k.next_multiple_of(64);
        assert!(matches!(self.columns(), 16 | 32 | 48 | 64), "columns of a block");
        assert!(self.k > 0 && self.k.is_multiple_of(4), "length of a row");
        assert_eq!(self.weights.len(), padded * self.columns(), "weights of a block");
        assert!(self.weights.as_ptr().addr().is_multiple_of(64), "weights lie on cache lines");
        let fits = |extra: Extra<'_>| extra.rows.len() == self.count && extra.factors.len() == self.columns();
        assert!(self.extra.is_none_or(fits), "what is added to the sums");
        let last = match self.lines {
            Some(lines) => {
                assert!(self.count.is_multiple_of(lines.width), "rows of lines");
                lines.last(self.count, self.stride)
            }
            None => self.count.checked_sub(1).and_then(|last| last.checked_mul(self.stride)),
        };
        let end = if let Some(parts) = self.parts {
            assert!(parts.bytes.is_multiple_of(4), "length of a part");
            assert_eq!(parts.offsets.len() * parts.bytes, self.k, "parts of a row");
            let last = parts.starts.map_or(last, |starts| {
                assert_eq!(starts.at.len(), self.count, "starts of the rows");
                Some(starts.last)
            });
            last.and_then(|last| parts.end(last))
        } else {
            last.and_then(|last| last.checked_add(padded))
        };
        assert!(self.count == 0 || end.is_some_and(|end| end <= self.rows.len()), "rows of a product");
    }
}

/// From sums to bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finish<'a> {
    /// One for each column.
    pub(super) multiplier: &'a [f32],
    /// Of the output.
    pub(super) zero_point: u8,
    /// Lowest and highest output.
    pub(super) limits: [u8; 2],
}

/// What is added to each result: an activation's values at the same columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addend<'a> {
    /// The values.
    pub(super) data: &'a [u8],
    /// Where each row starts.
    pub(super) places: &'a Places,
    /// The factors, and the limits of the sum.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only kernels for x86 add in registers")
    )]
    pub(super) spec: &'a AddSpec,
    /// Of the values and of the sum.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only kernels for x86 add in registers")
    )]
    pub(super) zero_points: [u8; 2],
}

/// The place of a row whose result nobody wants.
pub(super) const NOWHERE: usize = usize::MAX;

/// Where the rows' results start.
#[derive(Debug, Default)]
pub(super) struct Places {
    at: Vec<usize>,
    last: usize,
    has_gaps: bool,
}

impl Places {
    /// Forgets all places.
    pub(super) fn clear(&mut self) {
        self.at.clear();
        self.last = 0;
        self.has_gaps = false;
    }

    /// Adds `count` places, each `step` behind the one before.
    pub(super) fn push(&mut self, first: usize, step: usize, count: usize) {
        self.at.extend((0..count).map(|index| first + index * step));
        self.last = self.last.max(first + count.saturating_sub(1) * step);
    }

    /// Adds `count` rows without a place.
    pub(super) fn push_gap(&mut self, count: usize) {
        self.at.resize(self.at.len() + count, NOWHERE);
        self.has_gaps = true;
    }

    /// The places; none but [`NOWHERE`] is behind the last that was checked.
    pub(super) fn at(&self) -> &[usize] {
        &self.at
    }
}

/// Where the results go.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// Requantized; each row's block starts at its place.
    Bytes {
        /// How.
        finish: Finish<'a>,
        /// The output.
        data: &'a mut [u8],
        /// One for each row; [`NOWHERE`] only for levels with [`takes_images`], and a tile's rows or more.
        places: &'a Places,
        /// Added to each result; only for levels with [`adds`].
        addend: Option<Addend<'a>>,
    },
    /// `[rows][columns]`.
    Sums(&'a mut [i32]),
}

impl Sink<'_> {
    fn check(&self, job: &Job<'_>, level: Level) {
        match self {
            Self::Bytes { finish, data, places, addend } => {
                assert_eq!(finish.multiplier.len(), job.columns(), "multipliers of a block");
                assert_eq!(places.at.len(), job.count, "places of the rows");
                let may_have_gaps = takes_images(level) && job.count >= LINE_ROWS && job.k >= 64;
                assert!(!places.has_gaps || may_have_gaps, "a place for each row");
                let end = places.last.checked_add(job.columns());
                assert!(end.is_some_and(|end| end <= data.len()), "places of the rows in the output");
                if let Some(addend) = addend {
                    assert!(adds(level), "an addend for a level that adds");
                    assert_eq!(addend.places.at.len(), job.count, "places of the addend's rows");
                    let end = addend.places.last.checked_add(job.columns());
                    assert!(end.is_some_and(|end| end <= addend.data.len()), "places in the addend");
                }
            }
            Self::Sums(sums) => assert_eq!(sums.len(), job.count * job.columns(), "length of the sums"),
        }
    }
}

/// The order of the columns that a level's kernel wants.
pub(super) const fn order(level: Level) -> Order {
    match level {
        Level::Avx512Vnni | Level::Amx => Order::Lanes512,
        Level::Avx2 | Level::AvxVnni => Order::Lanes256,
        _ => Order::Plain,
    }
}

/// Whether a level's kernel multiplies rows of `k` bytes whose parts lie apart.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "only kernels for x86 depend on it")
)]
pub(super) const fn takes_parts(level: Level, k: usize) -> bool {
    match level {
        Level::Avx512Vnni => true,
        #[cfg(target_arch = "x86_64")]
        Level::Amx => k <= x86::amx::SHORT,
        _ => false,
    }
}

/// Whether a level's kernel multiplies the pixels of an image where they lie, a part being a multiple of 64 bytes.
pub(super) const fn takes_images(level: Level) -> bool {
    matches!(level, Level::Amx)
}

/// Of how many rows a level's kernel would have a multiple.
pub(super) const fn rows(level: Level) -> usize {
    if takes_images(level) { 32 } else { 1 }
}

/// Whether a level's kernels add another activation before they write.
pub(super) const fn adds(level: Level) -> bool {
    matches!(level, Level::Avx512Vnni | Level::Amx)
}

/// What a level's kernels subtract from values before they multiply.
pub(super) const fn offset(level: Level) -> i32 {
    match level {
        Level::Neon | Level::NeonDot => 128,
        _ => 0,
    }
}

/// Whether a level's kernel takes values less 128, and weights with 128 added, where the input has this zero point.
pub(super) const fn centres(level: Level, zero_point: u8) -> bool {
    matches!(level, Level::Avx2) && matches!(zero_point, 64..=192)
}

/// How many values of a column lie side by side, for the product of a lane.
pub(super) const fn lane(level: Level) -> usize {
    match level {
        Level::Portable => 1,
        Level::Neon => 32,
        _ => 4,
    }
}

/// How many columns' weights lie together: `[columns / group][padded k / lane][group][lane]`.
pub(super) const fn group(level: Level) -> Option<usize> {
    match level {
        Level::Neon => Some(8),
        Level::NeonDot => Some(16),
        _ => None,
    }
}

/// The lowest weight that a level's kernels take; lower ones are split.
pub(super) const fn lowest_weight(level: Level) -> i16 {
    match level {
        Level::Neon | Level::NeonDot => -127,
        _ => -128,
    }
}

/// Multiplies.
///
/// # Panics
/// If the job, the sink and the memory don't fit each other.
pub(super) fn run(level: Level, job: Job<'_>, sink: Sink<'_>, work: &mut [u8]) {
    job.check();
    sink.check(&job, level);
    let fits = |parts: Parts<'_>| parts.starts.is_none() && parts.bytes.is_multiple_of(64);
    let may_be_apart = |parts| takes_parts(level, job.k) || takes_images(level) && fits(parts);
    assert!(job.parts.is_none_or(may_be_apart), "parts of the rows for this level");
    let may_be_lines = takes_images(level) && job.parts.is_some_and(fits);
    assert!(job.lines.is_none() || may_be_lines, "lines of rows for this level");
    assert!(
        work.len() >= work_bytes(level, job.k) && work.as_ptr().addr().is_multiple_of(64),
        "memory of a kernel"
    );
    match level {
        // SAFETY: a level other than the reference is only chosen where the CPU has it; bounds are checked above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => unsafe { x86::gemm512::run(&job, sink) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::AvxVnni => unsafe { x86::gemm256::run(&job, sink) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::gemm_avx2::run(&job, sink, work) },
        // SAFETY: as above; the process may use tiles, which `Level` found out.
        #[cfg(target_arch = "x86_64")]
        Level::Amx => unsafe { x86::amx::run(&job, sink, work) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::NeonDot => unsafe { arm::gemm_dot::run(&job, sink) },
        // SAFETY: as above; weights are packed to be at least `lowest_weight`.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe { arm::gemm::run(&job, sink) },
        Level::Portable => portable::multiply(&job, sink),
        _ => unreachable!("level {level} has no matrix kernel"),
    }
}

/// Copies `bytes` bytes from each tap behind each start into a row.
///
/// # Panics
/// If a place lies outside.
pub(super) fn gather(
    input: &[u8],
    starts: &Places,
    (rows, stride): (&mut [u8], usize),
    (taps, bytes): (&[usize], usize),
) {
    let reach = taps.iter().copied().max().unwrap_or(0) + bytes.next_multiple_of(16);
    let need = taps.len() * bytes + 16;
    assert!(taps.len() * bytes <= stride, "length of a row");
    let end = starts.at.len().saturating_sub(1).checked_mul(stride).and_then(|end| end.checked_add(need));
    assert!(starts.at.is_empty() || end.is_some_and(|end| end <= rows.len()), "copied rows");
    let furthest = starts.last.checked_add(reach);
    assert!(starts.at.is_empty() || furthest.is_some_and(|end| end <= input.len()), "rows to copy");
    // SAFETY: each tap reads `bytes` rounded up to 16 from `start + tap`, which `reach` covers, and the writes of at
    // most 15 bytes more than `bytes` end within `need`; the slices are distinct.
    unsafe {
        match bytes {
            ..=16 => copy_all::<1>(input, starts, (rows, stride), (taps, bytes)),
            17..=32 => copy_all::<2>(input, starts, (rows, stride), (taps, bytes)),
            33..=48 => copy_all::<3>(input, starts, (rows, stride), (taps, bytes)),
            _ => copy_all::<0>(input, starts, (rows, stride), (taps, bytes)),
        }
    }
}

/// Copies each row; a loop for each count of bytes, so that none is called row by row.
///
/// # Safety
/// As for [`copy`], from each place and to each row.
unsafe fn copy_all<const N: usize>(
    input: &[u8],
    starts: &Places,
    (rows, stride): (&mut [u8], usize),
    (taps, bytes): (&[usize], usize),
) {
    for (row, start) in starts.at.iter().enumerate() {
        // SAFETY: as the caller says.
        unsafe { copy::<N>(input.as_ptr().add(*start), rows.as_mut_ptr().add(row * stride), taps, bytes) };
    }
}

/// Copies one row, `N` times 16 bytes from each tap, or as many as it takes where `N` is 0.
///
/// # Safety
/// `bytes` rounded up to 16 are readable at each tap, and 16 more than `taps * bytes` writable.
#[inline]
unsafe fn copy<const N: usize>(from: *const u8, mut to: *mut u8, taps: &[usize], bytes: usize) {
    for tap in taps {
        // SAFETY: as the caller says.
        unsafe {
            let from = from.add(*tap);
            let count = if N == 0 { bytes.div_ceil(16) } else { N };
            for at in 0..count {
                let value = from.add(16 * at).cast::<[u8; 16]>().read_unaligned();
                to.add(16 * at).cast::<[u8; 16]>().write_unaligned(value);
            }
            to = to.add(bytes);
        }
    }
}
