//! Convolutions and matrix products as products of rows and packed weights, on any level but the reference.
//!
//! A row is what one output pixel reads: the input's pixel itself for 1x1 convolutions, else the taps copied one
//! behind the other into scratch memory, some pixels at a time, unless the kernel takes them where they lie.

use super::ahead::Region;
use super::conv::Scratch;
use super::layout::{Act, ActMut, Layout};
use super::level::Level;
use super::panels::{Block, Packing, Panels};
use super::requant::Requant;
use super::spec::ConvSpec;
use super::tile::{self, Finish, Job, Parts, Places, Sink};
use std::ops::Range;

/// A convolution's packed weights and how they are multiplied.
#[derive(Debug)]
pub(super) struct Gemm {
    panels: Panels,
    level: Level,
}

/// Bytes of copied rows at a time: they stay in the second-level cache.
const ROWS_BYTES: usize = 128 << 10;

/// Pixels at a time, about, at most.
const MAX_PIXELS: usize = 256;

/// Pixels at a time, at least: the weights are read once for them.
const MIN_PIXELS: usize = 60;

impl Gemm {
    pub(super) fn pack(
        spec: &ConvSpec,
        weights: &[i16],
        requant: &Requant,
        in_zero_point: Option<u8>,
        level: Level,
    ) -> Self {
        // Where the zero point isn't known yet, the sums are corrected after the product.
        let zero_point = in_zero_point.map_or(0, |zero| i32::from(zero) - tile::offset(level));
        let lowest = tile::lowest_weight(level);
        let packing = Packing { order: tile::order(level), zero_point, lane: tile::lane(level), lowest };
        Self { panels: Panels::pack(spec, weights, requant, packing), level }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// The whole convolution, requantized.
    pub(super) fn run(
        &self,
        spec: &ConvSpec,
        requant: &Requant,
        input: &Act<'_>,
        output: &mut ActMut<'_>,
        scratch: &mut Scratch,
    ) {
        let to = *output.layout();
        self.for_blocks(spec, input, &to, scratch, |rows, (block, ahead), _, places, work| {
            let finish = Finish {
                multiplier: &self.panels.multiplier[block.out..][..block.columns],
                zero_point: requant.zero_point,
                limits: [requant.lo, requant.hi],
            };
            let sink = Sink::Bytes { finish, data: &mut output.data_mut()[block.out..], places };
            tile::run(self.level, self.job(rows, block, ahead), sink, work);
        });
    }

    /// The sums of (value - zero point) * weight.
    pub(super) fn sums(
        &self,
        spec: &ConvSpec,
        input: &Act<'_>,
        to: &Layout,
        sums: &mut [i32],
        scratch: &mut Scratch,
    ) {
        let zero = i32::from(input.layout().zero_point) - tile::offset(self.level);
        let mut raw = Vec::new();
        self.for_blocks(spec, input, to, scratch, |rows, (block, ahead), pixels, _, work| {
            raw.clear();
            raw.resize(pixels.len() * block.columns, 0);
            tile::run(self.level, self.job(rows, block, ahead), Sink::Sums(&mut raw), work);
            for (row, pixel) in raw.chunks_exact(block.columns).zip(pixels) {
                for (column, sum) in row.iter().enumerate() {
                    let channel = block.out + self.panels.order.channel(block.columns, column);
                    if channel < spec.out_channels {
                        let whole = self.panels.weight_sums[block.out + column].wrapping_mul(zero);
                        sums[pixel * spec.out_channels + channel] = sum.wrapping_sub(whole);
                    }
                }
            }
        });
    }

    /// What to fetch while a block is multiplied: at first the block after it, at last the next layer's.
    fn ahead(&self, index: usize, [is_first, is_last]: [bool; 2], next: Region) -> Region {
        let count = self.panels.blocks.len();
        match self.panels.blocks.get(index + 1) {
            Some(after) if is_first => {
                Region::new(&self.panels.weights.bytes()[after.start..][..after.bytes()])
            }
            None if is_first && is_last => next,
            _ if is_last => next.part(index, count),
            _ => Region::default(),
        }
    }

    fn job<'a>(&'a self, rows: Rows<'a>, block: &Block, ahead: Region) -> Job<'a> {
        Job {
            ahead,
            rows: rows.data,
            stride: rows.stride,
            count: rows.count,
            k: block.k,
            weights: &self.panels.weights.bytes()[block.start..][..block.bytes()],
            bias: &self.panels.bias[block.out..][..block.columns],
            parts: rows.parts,
        }
    }

    /// Calls `each(rows, (block, weights to fetch meanwhile), output pixels, their places, memory for the kernel)` over all pixels and blocks.
    fn for_blocks(
        &self,
        spec: &ConvSpec,
        input: &Act<'_>,
        to: &Layout,
        scratch: &mut Scratch,
        mut each: impl FnMut(Rows<'_>, (&Block, Region), Range<usize>, &Places, &mut [u8]),
    ) {
        let stride = self.panels.longest();
        let step = step(to.pixels(), stride);
        let is_direct = self.panels.taps.len() == 1 && spec.is_pointwise() && input.layout().is_dense();
        let is_apart = !is_direct && tile::takes_parts(self.level, stride);
        let copied = if is_direct || is_apart { 0 } else { step * stride + Layout::SLACK };
        let work = tile::work_bytes(self.level, stride);
        scratch.bytes.reserve(copied + work);
        let (work, copies) = scratch.bytes.bytes_mut().split_at_mut(work);
        let next = scratch.sequence.after(Region::new(self.panels.weights.bytes()));
        let from = input.layout();
        let (outer, inner) = (Steps::new(to, [1, 1]), Steps::new(from, spec.stride));
        let corner =
            from.pixel(0, 0, 0) - spec.pads.top * from.row_bytes() - spec.pads.left * from.pixel_bytes();
        let mut runs = (Vec::new(), 0);
        for first in (0..to.pixels()).step_by(step) {
            let pixels = first..(first + step).min(to.pixels());
            scratch.places.fill(to.pixel(0, 0, 0), |put| outer.walk(to, pixels.clone(), put));
            if !is_direct {
                scratch.starts.fill(corner, |put| inner.walk(to, pixels.clone(), put));
            }
            let mut gathered = None;
            let is_last = pixels.end == to.pixels();
            for (index, block) in self.panels.blocks.iter().enumerate() {
                let ahead = self.ahead(index, [first == 0, is_last], next);
                let window = (block.window, block.window_bytes);
                if gathered != Some(window) {
                    runs = self.runs(spec, from, block);
                    if !is_direct && !is_apart {
                        let bytes = &input.data()[block.window..];
                        tile::gather(bytes, &scratch.starts, (&mut *copies, stride), (&runs.0, runs.1));
                    }
                    gathered = Some(window);
                }
                let rows = if is_direct {
                    let data = &input.data()[first * from.pixel_bytes() + block.window..];
                    Rows { data, stride: from.pixel_bytes(), count: pixels.len(), parts: None }
                } else if is_apart {
                    let parts = Parts { starts: &scratch.starts, offsets: &runs.0, bytes: runs.1 };
                    let data = &input.data()[block.window..];
                    Rows { data, stride: 0, count: pixels.len(), parts: Some(parts) }
                } else {
                    Rows { data: copies, stride, count: pixels.len(), parts: None }
                };
                each(rows, (block, ahead), pixels.clone(), &scratch.places, work);
            }
        }
    }

    /// What lies one behind the other in the input: from an output pixel's corner to each run, and its bytes.
    fn runs(&self, spec: &ConvSpec, from: &Layout, block: &Block) -> (Vec<usize>, usize) {
        // Neighbouring taps that take whole pixels lie one behind the other in the input as well.
        let is_whole = block.window_bytes == from.pixel_bytes() && spec.dilation[1] == 1;
        let run = if is_whole { spec.kernel[1] } else { 1 };
        let taps = self.panels.taps.iter().step_by(run).map(|[ky, kx]| {
            ky * spec.dilation[0] * from.row_bytes() + kx * spec.dilation[1] * from.pixel_bytes()
        });
        (taps.collect(), run * block.window_bytes)
    }
}

/// How many of `pixels` to take at a time, so that no few are left for a turn of their own.
fn step(pixels: usize, row_bytes: usize) -> usize {
    let about = (ROWS_BYTES / row_bytes.max(1)).clamp(MIN_PIXELS, MAX_PIXELS);
    pixels.div_ceil((pixels / about).max(1)).max(1)
}

/// Distances from one output pixel to the next.
#[derive(Debug, Clone, Copy)]
struct Steps {
    image: usize,
    row: usize,
    pixel: usize,
}

impl Steps {
    fn new(layout: &Layout, stride: [usize; 2]) -> Self {
        Self {
            image: layout.image_bytes(),
            row: layout.row_bytes() * stride[0],
            pixel: layout.pixel_bytes() * stride[1],
        }
    }

    /// Calls `each` with the place of each of `pixels`, counted over the images and rows of `to`.
    fn walk(self, to: &Layout, pixels: Range<usize>, mut each: impl FnMut(usize)) {
        let mut at = pixels.start;
        while at < pixels.end {
            let (line, x) = (at / to.width, at % to.width);
            let run = (to.width - x).min(pixels.end - at);
            let start = line / to.height * self.image + line % to.height * self.row + x * self.pixel;
            for index in 0..run {
                each(start + index * self.pixel);
            }
            at += run;
        }
    }
}

/// Rows to multiply.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    data: &'a [u8],
    stride: usize,
    count: usize,
    parts: Option<Parts<'a>>,
}
