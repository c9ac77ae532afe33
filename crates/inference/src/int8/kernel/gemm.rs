//! Convolutions and matrix products as products of rows and packed weights, on any level but the reference.
//!
//! A row is what one output pixel reads: the input's pixel itself for 1x1 convolutions, else the taps copied one
//! behind the other into scratch memory, some pixels at a time, unless the kernel takes them where they lie.

use super::ahead::Region;
use super::conv::Scratch;
use super::curved::Results;
use super::eltwise::AddSpec;
use super::floats::{self, Sums};
use super::fold;
use super::layout::{Act, ActMut, Border, Layout};
use super::level::Level;
use super::panels::{Block, Order, Packing, Panels};
use super::requant::Requant;
use super::rows::Extra;
use super::spec::ConvSpec;
use super::tile::{self, Addend, Finish, Job, Lines, Parts, Places, Sink};
use std::ops::Range;

/// A convolution's packed weights and how they are multiplied.
#[derive(Debug)]
pub(super) struct Gemm {
    panels: Panels,
    level: Level,
    /// As `tile::centres` says.
    is_centred: bool,
    /// The same for packed pixels, where the level takes them where they lie.
    folded: Option<Box<Self>>,
}

/// Bytes of copied rows at a time: they stay in the second-level cache.
const ROWS_BYTES: usize = 128 << 10;

/// Pixels at a time, about, at most.
const MAX_PIXELS: usize = 256;

/// Pixels at a time, at least: the weights are read once for them.
const MIN_PIXELS: usize = 60;

/// Pixels of a line, at least, for the kernels that take 16 of them at once.
const MIN_WIDTH: usize = 12;

impl Gemm {
    pub(super) fn pack(
        spec: &ConvSpec,
        weights: &[i16],
        requant: &Requant,
        in_zero_point: Option<u8>,
        level: Level,
    ) -> Self {
        let plain = Self::pack_as_is(spec, weights, requant, in_zero_point, level);
        // What shifts put right counts the window's values alone.
        let folds = fold::folds(spec, level) && plain.panels.shifts.is_empty();
        let folded = folds.then(|| {
            let (spec, weights) = fold::fold(spec, weights);
            Box::new(Self::pack_as_is(&spec, &weights, requant, in_zero_point, level))
        });
        Self { folded, ..plain }
    }

    fn pack_as_is(
        spec: &ConvSpec,
        weights: &[i16],
        requant: &Requant,
        in_zero_point: Option<u8>,
        level: Level,
    ) -> Self {
        // Where the zero point isn't known yet, the sums are corrected after the product.
        let is_centred =
            in_zero_point.is_some_and(|zero| tile::centres(level, zero) && spec.in_channels >= 16);
        let offset = if is_centred { 128 } else { tile::offset(level) };
        let zero_point = in_zero_point.map_or(0, |zero| i32::from(zero) - offset);
        let lowest = tile::lowest_weight(level);
        // Nothing narrows sums that become f32: they are wanted in the channels' own order.
        let order = if in_zero_point.is_some() { tile::order(level) } else { Order::Plain };
        let (lane, group) = (tile::lane(level), tile::group(level));
        let packing = Packing { order, zero_point, lane, group, lowest };
        let mut panels = Panels::pack(spec, weights, requant, packing);
        if in_zero_point.is_some() {
            // They correct sums by a zero point that comes with the run.
            panels.weight_sums = Vec::new();
        }
        if is_centred {
            panels.weights.bytes_mut().iter_mut().for_each(|weight| *weight ^= 0x80);
        }
        Self { panels, level, is_centred, folded: None }
    }

    /// Takes weights as they lie in an activation: a row for each input, in it an output for each channel.
    pub(super) fn of_rows(
        spec: &ConvSpec,
        weights: &Act<'_>,
        requant: &Requant,
        in_zero_point: u8,
        level: Level,
    ) -> Self {
        if tile::lane(level) != Panels::ROWS || tile::lowest_weight(level) > -128 {
            let zero = i16::from(weights.layout().zero_point);
            let outputs = 0..spec.out_channels;
            let column =
                |c: usize| (0..spec.in_channels).map(move |k| i16::from(weights.get(k, c, 0, 0)) - zero);
            let weights: Vec<i16> = outputs.flat_map(column).collect();
            return Self::pack(spec, &weights, requant, Some(in_zero_point), level);
        }
        let is_centred = tile::centres(level, in_zero_point) && spec.in_channels >= 16;
        let offset = if is_centred { 128 } else { tile::offset(level) };
        let zero_point = i32::from(in_zero_point) - offset;
        let mut panels = Panels::of_rows(spec, weights, requant, (tile::order(level), zero_point));
        if is_centred {
            panels.weights.bytes_mut().iter_mut().for_each(|weight| *weight ^= 0x80);
        }
        Self { panels, level, is_centred, folded: None }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes() + self.folded.as_ref().map_or(0, |folded| folded.bytes())
    }

    /// The whole convolution, requantized; with `other` an addition follows, as `Conv::run_add` says.
    pub(super) fn run(
        &self,
        spec: &ConvSpec,
        requant: &Requant,
        (input, other): (&Act<'_>, Option<(&Act<'_>, &AddSpec)>),
        output: &mut ActMut<'_>,
        scratch: &mut Scratch,
    ) {
        let to = *output.layout();
        let from = From { spec, input, other: other.map(|(other, _)| other.layout()), may_leave_gaps: true };
        if let Some(folded) = self.folded(&from, &to) {
            return folded.run(spec, requant, (input, other), output, scratch);
        }
        self.for_blocks(from, &to, scratch, |turn, work| {
            let block = turn.block;
            let finish = Finish {
                multiplier: &self.panels.multiplier[block.out..][..block.columns],
                zero_point: requant.zero_point,
                limits: [requant.lo, requant.hi],
            };
            let addend = other.map(|(other, spec)| Addend {
                data: &other.data()[block.out..],
                places: turn.others,
                spec,
                zero_points: [other.layout().zero_point, to.zero_point],
            });
            let data = &mut output.data_mut()[block.out..];
            let sink = Sink::Bytes { finish, data, places: turn.places, addend };
            tile::run(self.level, self.job(&turn), sink, work);
        });
    }

    /// The sums of (value - zero point) * weight, whatever the zero point, as f32.
    pub(super) fn floats(
        &self,
        spec: &ConvSpec,
        input: &Act<'_>,
        to: &Layout,
        values: &mut Results<'_, '_>,
        scratch: &mut Scratch,
    ) {
        let from = From { spec, input, other: None, may_leave_gaps: false };
        if let Some(folded) = self.folded(&from, to) {
            return folded.floats(spec, input, to, values, scratch);
        }
        let zero = i32::from(input.layout().zero_point) - tile::offset(self.level);
        let mut floats = std::mem::take(&mut scratch.floats);
        floats.bias.clear();
        floats.bias.extend(self.panels.weight_sums.iter().map(|sum| sum.wrapping_mul(-zero)));
        self.for_blocks(from, to, scratch, |turn, work| {
            let Block { out, columns, .. } = *turn.block;
            let data = floats::room(&mut floats.sums, turn.rows.count * columns);
            let job = Job { bias: &floats.bias[out..][..columns], ..self.job(&turn) };
            tile::run(self.level, job, Sink::Sums(&mut *data), work);
            values.put(Sums { data, columns, channel: out, pixel: turn.first }, &floats.channels);
        });
        scratch.floats = floats;
    }

    /// What takes packed pixels where they lie, if it can here.
    fn folded(&self, from: &From<'_>, to: &Layout) -> Option<&Self> {
        let folded = self.folded.as_deref().filter(|_| from.input.layout().is_packed)?;
        folded.image_way(from, to).map(|_| folded)
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

    fn job<'a>(&'a self, turn: &Turn<'a>) -> Job<'a> {
        let (rows, block) = (turn.rows, turn.block);
        Job {
            ahead: turn.ahead,
            is_centred: self.is_centred,
            rows: rows.data,
            stride: rows.stride,
            count: rows.count,
            k: block.k,
            weights: &self.panels.weights.bytes()[block.start..][..block.bytes()],
            bias: &self.panels.bias[block.out..][..block.columns],
            parts: rows.parts,
            lines: rows.lines,
            extra: turn
                .sums
                .map(|rows| Extra { rows, factors: &self.panels.shifts[block.out..][..block.columns] }),
        }
    }

    /// Calls `each` with memory for the kernel over all pixels and blocks.
    fn for_blocks(
        &self,
        from: From<'_>,
        to: &Layout,
        scratch: &mut Scratch,
        mut each: impl FnMut(Turn<'_>, &mut [u8]),
    ) {
        let (spec, layout) = (from.spec, from.input.layout());
        let stride = self.panels.longest();
        let way = self.way(&from, to);
        let grid = if way == Way::Image { Grid::over(to, layout) } else { Grid::dense(to) };
        let is_copied = matches!(way, Way::Apart | Way::Copies);
        let step = step(grid.pixels(), if is_copied { stride } else { 0 }, self.level);
        let step = if way == Way::Lines { step.next_multiple_of(to.width) } else { step };
        let copied = if way == Way::Copies { (step + tile::LINE_ROWS) * stride + Layout::SLACK } else { 0 };
        let work = tile::work_bytes(self.level, stride);
        scratch.bytes.reserve(copied + work);
        let (work, copies) = scratch.bytes.bytes_mut().split_at_mut(work);
        let next = scratch.sequence.after(Region::new(self.panels.weights.bytes()));
        let corner = corner(spec, layout);
        let mut runs = (Vec::new(), 0);
        let mut first = 0;
        let has_shifts = !self.panels.shifts.is_empty();
        if has_shifts {
            scratch.rows.start(from.input);
        }
        while first < grid.pixels() {
            // No few are left for a turn of their own.
            let is_rest = grid.pixels() - first < step + tile::LINE_ROWS;
            let pixels = first..if is_rest { grid.pixels() } else { first + step };
            grid.places(pixels.clone(), Steps::new(to, [1, 1]), to.pixel(0, 0, 0), &mut scratch.places);
            if let Some(other) = from.other {
                let start = other.pixel(0, 0, 0);
                grid.places(pixels.clone(), Steps::new(other, [1, 1]), start, &mut scratch.others);
            }
            if is_copied {
                grid.places(pixels.clone(), Steps::new(layout, spec.stride), corner, &mut scratch.starts);
            }
            let sums = has_shifts.then(|| {
                scratch.rows.rows(spec, layout, |[image, row, pixel], start, places| {
                    grid.places(pixels.clone(), Steps { image, row, pixel }, start, places);
                })
            });
            let mut gathered = None;
            let is_last = pixels.end == grid.pixels();
            for (index, block) in self.panels.blocks.iter().enumerate() {
                let window = (block.window, block.window_bytes);
                let data = &from.input.data()[block.window..];
                if gathered != Some(window) {
                    runs = self.runs(spec, layout, block);
                    if way == Way::Copies {
                        tile::gather(data, &scratch.starts, (&mut *copies, stride), (&runs.0, runs.1));
                    }
                    gathered = Some(window);
                }
                let parts = |starts| Some(Parts { starts, offsets: &runs.0, bytes: runs.1 });
                let steps = Steps::new(layout, spec.stride);
                let (data, stride, parts) = match way {
                    Way::Direct => (&data[first * steps.pixel..], steps.pixel, None),
                    Way::Image => (&data[corner + first * steps.pixel..], steps.pixel, parts(None)),
                    Way::Lines => (&data[corner + first / to.width * steps.row..], steps.pixel, parts(None)),
                    Way::Apart => (data, 0, parts(Some(&scratch.starts))),
                    Way::Copies => (&*copies, stride, None),
                };
                let lines = Lines { width: to.width, step: steps.row };
                let lines = Some(lines).filter(|_| way == Way::Lines);
                let turn = Turn {
                    rows: Rows { data, stride, count: pixels.len(), parts, lines },
                    block,
                    ahead: self.ahead(index, [first == 0, is_last], next),
                    first,
                    places: &scratch.places,
                    others: &scratch.others,
                    sums,
                };
                each(turn, work);
            }
            first = pixels.end;
        }
    }

    /// How to take the rows.
    fn way(&self, from: &From<'_>, to: &Layout) -> Way {
        let (spec, layout) = (from.spec, from.input.layout());
        if self.panels.taps.len() == 1 && spec.is_pointwise() && layout.is_dense() {
            return Way::Direct;
        }
        if tile::takes_images(self.level)
            && let Some(way) = self.image_way(from, to)
        {
            return way;
        }
        if tile::takes_parts(self.level, self.panels.longest_row()) { Way::Apart } else { Way::Copies }
    }

    /// Whether rows can be taken where they lie in the image, for levels that can.
    fn image_way(&self, From { spec, input, may_leave_gaps, .. }: &From<'_>, to: &Layout) -> Option<Way> {
        let layout = input.layout();
        let steps = Steps::new(layout, spec.stride);
        let last_row =
            to.height.saturating_sub(1) * steps.row + (to.width.max(tile::LINE_ROWS) - 1) * steps.pixel;
        let mut may_be_lines = layout.batch == 1 && to.width >= MIN_WIDTH;
        for block in &self.panels.blocks {
            let (offsets, bytes) = self.runs(spec, layout, block);
            if !bytes.is_multiple_of(64) {
                return None;
            }
            let end = corner(spec, layout) + block.window + last_row;
            let end = end + offsets.iter().max().copied().unwrap_or(0) + bytes;
            may_be_lines &= end <= input.data().len();
        }
        // Pixels of the border are multiplied as well: not too many of them.
        let pixels = Grid::over(to, layout).pixels();
        let is_worth = (tile::LINE_ROWS..=2 * to.pixels()).contains(&pixels);
        if *may_leave_gaps && spec.stride == [1, 1] && is_worth {
            return Some(Way::Image);
        }
        may_be_lines.then_some(Way::Lines)
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

/// Where the window of the first output pixel starts in the input.
fn corner(spec: &ConvSpec, from: &Layout) -> usize {
    from.pixel(0, 0, 0) - spec.pads.top * from.row_bytes() - spec.pads.left * from.pixel_bytes()
}

/// How many of `pixels` to take at a time, so that no few are left for a turn of their own.
fn step(pixels: usize, row_bytes: usize, level: Level) -> usize {
    let about = (ROWS_BYTES / row_bytes.max(1)).clamp(MIN_PIXELS, MAX_PIXELS);
    pixels.div_ceil((pixels / about).max(1)).next_multiple_of(tile::rows(level)).max(1)
}

/// How rows are taken from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A row is a pixel, all of them one behind the other.
    Direct,
    /// A row's parts lie apart, at the same places behind each pixel of the input, the border's included.
    Image,
    /// The same, but behind the pixels of each line of the output.
    Lines,
    /// A row's parts lie apart.
    Apart,
    /// The parts are copied.
    Copies,
}

/// What is multiplied.
#[derive(Debug, Clone, Copy)]
struct From<'a> {
    spec: &'a ConvSpec,
    input: &'a Act<'a>,
    /// An activation of the output's shape whose places are needed too.
    other: Option<&'a Layout>,
    /// Whether some rows may have no place in the output.
    may_leave_gaps: bool,
}

/// Some pixels and one block.
#[derive(Debug)]
struct Turn<'a> {
    rows: Rows<'a>,
    block: &'a Block,
    /// Weights to fetch meanwhile.
    ahead: Region,
    /// The first pixel.
    first: usize,
    /// Where the results belong.
    places: &'a Places,
    /// The same in the other activation.
    others: &'a Places,
    /// Sums of the rows' values, if they are needed.
    sums: Option<&'a [i32]>,
}

/// Rows to multiply.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    data: &'a [u8],
    stride: usize,
    count: usize,
    parts: Option<Parts<'a>>,
    lines: Option<Lines>,
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
}

/// The output's pixels, counted in lines that may be longer, and images that may be higher, than the output's.
#[derive(Debug, Clone, Copy)]
struct Grid {
    batch: usize,
    size: [usize; 2],
    whole: [usize; 2],
}

impl Grid {
    /// The output's pixels alone.
    fn dense(to: &Layout) -> Self {
        let size = [to.height, to.width];
        Self { batch: to.batch, size, whole: size }
    }

    /// With lines and images as long as those of the input, border included.
    fn over(to: &Layout, from: &Layout) -> Self {
        let Border { top, left, bottom, right } = from.border;
        Self { whole: [top + from.height + bottom, left + from.width + right], ..Self::dense(to) }
    }

    /// From the first pixel to the last, those between that aren't the output's included.
    fn pixels(self) -> usize {
        let last = |count: usize| count.saturating_sub(1);
        let [height, width] = self.size;
        ((last(self.batch) * self.whole[0] + last(height)) * self.whole[1]) + width
    }

    /// Where these pixels lie.
    fn places(self, pixels: Range<usize>, steps: Steps, start: usize, places: &mut Places) {
        places.clear();
        let mut at = pixels.start;
        while at < pixels.end {
            let (line, x) = (at / self.whole[1], at % self.whole[1]);
            let (image, y) = (line / self.whole[0], line % self.whole[0]);
            let is_wanted = y < self.size[0] && x < self.size[1];
            let end = if is_wanted { self.size[1] } else { self.whole[1] };
            let count = (end - x).min(pixels.end - at);
            if is_wanted {
                let first = start + image * steps.image + y * steps.row + x * steps.pixel;
                places.push(first, steps.pixel, count);
            } else {
                places.push_gap(count);
            }
            at += count;
        }
    }
}
