//! Weights as the matrix kernels read them: blocks of up to 64 output channels, some input bytes to a lane.
//!
//! A block is `[k / lane][columns][lane]`, where k runs over the taps and, within a tap, the input's channels, and a
//! column is one output channel. The order of the columns is the kernel's choice ([`Order`]): that in which its
//! narrowing instructions put them right again.

use super::layout::{Act, Buffer};
use super::requant::Requant;
use super::spec::ConvSpec;
use super::wide::wide;

/// Which output channel stands in which column of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they come.
    Plain,
    /// For the packs of AVX-512, which narrow within lanes of 128 bits: 64 columns at once, or 32, or 16.
    Lanes512,
    /// For the packs of AVX2: 16 columns at once.
    Lanes256,
}

impl Order {
    /// The channel, within its block of `columns`, of one column.
    pub(super) const fn channel(self, columns: usize, column: usize) -> usize {
        match self {
            Self::Plain => column,
            Self::Lanes256 => {
                let (vector, lane) = (column % 16 / 8, column % 8);
                column / 16 * 16 + lane / 4 * 8 + vector * 4 + lane % 4
            }
            Self::Lanes512 => {
                let (first, group) = match columns {
                    64 => (0, 64),
                    _ if column < 32 && columns >= 32 => (0, 32),
                    _ => (columns / 32 * 32, 16),
                };
                let (vector, lane) = ((column - first) / 16, (column - first) % 16);
                first + lane / 4 * (group / 4) + vector * 4 + lane % 4
            }
        }
    }
}

/// Up to 64 output channels and the input channels that they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// First output channel; also the place of its multipliers and biases.
    pub(super) out: usize,
    /// Output channels, a multiple of 16; the last may be of no meaning.
    pub(super) columns: usize,
    /// First byte of the input's pixel.
    pub(super) window: usize,
    /// Bytes of the input's pixel.
    pub(super) window_bytes: usize,
    /// Bytes of a row: window times taps.
    pub(super) k: usize,
    /// Where its weights start.
    pub(super) start: usize,
}

impl Block {
    /// `k` as the weights are padded to it.
    pub(super) const fn padded_k(&self) -> usize {
        self.k.next_multiple_of(64)
    }

    /// Bytes of the weights.
    pub(super) const fn bytes(&self) -> usize {
        self.padded_k() * self.columns
    }
}

/// All blocks of one operator.
#[derive(Debug)]
pub(super) struct Panels {
    pub(super) blocks: Vec<Block>,
    /// Taps, all of them twice or thrice where a weight doesn't fit into a byte.
    pub(super) taps: Vec<[usize; 2]>,
    pub(super) weights: Buffer,
    pub(super) multiplier: Vec<f32>,
    /// The biases, in the order of the columns, less what the input's zero point adds to the sums.
    pub(super) bias: Vec<i32>,
    /// Sums of each column's weights; none where the input's zero point is known.
    pub(super) weight_sums: Vec<i32>,
    /// What was taken from each column's weights to make them fit into a byte; none where all fit as they are.
    pub(super) shifts: Vec<i32>,
    pub(super) order: Order,
}

/// What [`Panels::pack`] needs besides the weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    pub(super) order: Order,
    /// Subtracted from each value in the sums: the input's zero point, less what the kernel subtracts.
    pub(super) zero_point: i32,
    /// How many values of a column lie side by side.
    pub(super) lane: usize,
    /// How many columns' weights lie together, if not those of a whole block.
    pub(super) group: Option<usize>,
    /// The lowest weight that the kernel takes.
    pub(super) lowest: i16,
}

impl Panels {
    /// From weights less their zero points, `[out, in / groups, kh, kw]`.
    pub(super) fn pack(spec: &ConvSpec, weights: &[i16], requant: &Requant, packing: Packing) -> Self {
        let [height, width] = spec.kernel;
        let shifts = shifts(spec, weights, packing.lowest);
        // Weights less their zero points may need nine bits: if nothing makes them fit, they are sums of two or three.
        let copies = if shifts.is_empty() { copies(weights, packing.lowest) } else { 1 };
        let taps: Vec<_> = (0..copies)
            .flat_map(|_| (0..height).flat_map(move |ky| (0..width).map(move |kx| [ky, kx])))
            .collect();
        let blocks = blocks(spec, taps.len());
        let columns: usize = blocks.iter().map(|block| block.columns).sum();
        let size = blocks.last().map_or(0, |block| block.start + block.bytes());
        let mut panels = Self {
            blocks,
            taps,
            weights: Buffer::new(size),
            multiplier: vec![0.0; columns],
            bias: vec![0; columns],
            weight_sums: vec![0; columns],
            shifts: vec![0; if shifts.is_empty() { 0 } else { columns }],
            order: packing.order,
        };
        for index in 0..panels.blocks.len() {
            panels.fill(spec, (weights, &shifts), requant, index, packing);
        }
        panels
    }

    /// How many rows of an activation [`Panels::of_rows`] puts side by side.
    pub(super) const ROWS: usize = 4;

    /// From an activation with a row for each input channel: its values less 128 fit into a byte, and the rest of the
    /// zero point is one shift for all columns.
    pub(super) fn of_rows(
        spec: &ConvSpec,
        weights: &Act<'_>,
        requant: &Requant,
        (order, zero_point): (Order, i32),
    ) -> Self {
        let blocks = blocks(spec, 1);
        let columns: usize = blocks.iter().map(|block| block.columns).sum();
        let size = blocks.last().map_or(0, |block| block.start + block.bytes());
        let shift = 128 - i32::from(weights.layout().zero_point);
        let mut panels = Self {
            blocks,
            taps: vec![[0, 0]],
            weights: Buffer::new(size),
            multiplier: vec![0.0; columns],
            bias: vec![0; columns],
            weight_sums: Vec::new(),
            shifts: vec![shift; if shift == 0 { 0 } else { columns }],
            order,
        };
        for index in 0..panels.blocks.len() {
            panels.fill_rows(weights, requant, index, zero_point);
        }
        panels
    }

    fn fill_rows(&mut self, weights: &Act<'_>, requant: &Requant, index: usize, zero_point: i32) {
        /// Less 128 it is 0.
        const NONE: [u8; 64] = [128; 64];
        let Block { out, columns, start, .. } = self.blocks[index];
        let inputs = weights.layout().batch;
        let places: [usize; 64] =
            std::array::from_fn(|column| self.order.channel(columns, column.min(columns - 1)));
        let mut sums = [0; 64];
        let row = |k: usize| {
            let data =
                if k < inputs { &weights.data()[weights.layout().pixel(k, 0, 0) + out..] } else { &NONE };
            &data[..columns]
        };
        let to = self.weights.bytes_mut()[start..].chunks_exact_mut(columns * Self::ROWS);
        for (to, first) in to.zip((0..inputs).step_by(Self::ROWS)) {
            beside(to, [row(first), row(first + 1), row(first + 2), row(first + 3)], &places, &mut sums);
        }
        for (column, channel) in places.iter().enumerate().take(columns) {
            let Some(multiplier) = requant.multiplier.get(out + channel) else { continue };
            self.multiplier[out + column] = *multiplier;
            self.bias[out + column] =
                requant.bias[out + channel].wrapping_sub(sums[*channel].wrapping_mul(zero_point));
        }
    }

    fn fill(
        &mut self,
        spec: &ConvSpec,
        (weights, shifts): (&[i16], &[i16]),
        requant: &Requant,
        index: usize,
        packing: Packing,
    ) {
        let block = self.blocks[index];
        for column in 0..block.columns {
            let channel = block.out + self.order.channel(block.columns, column);
            if channel >= spec.out_channels {
                continue;
            }
            let (place, shift) = (block.out + column, shifts.get(channel).copied());
            if let Some(shift) = shift {
                self.shifts[place] = i32::from(shift);
            }
            let weights = (weights, shift.unwrap_or(0));
            let sum = self.fill_column(spec, weights, &block, [column, channel], packing);
            self.multiplier[place] = requant.multiplier[channel];
            self.bias[place] = requant.bias[channel].wrapping_sub(sum.wrapping_mul(packing.zero_point));
            self.weight_sums[place] = sum;
        }
    }

    /// Writes one column, of weights less a shift; returns the sum of them.
    fn fill_column(
        &mut self,
        spec: &ConvSpec,
        (weights, shift): (&[i16], i16),
        block: &Block,
        [column, channel]: [usize; 2],
        Packing { lowest, lane, group, .. }: Packing,
    ) -> i32 {
        let (group_in, taps) = (spec.group_in(), spec.taps());
        let first = channel / spec.group_out() * group_in - block.window;
        let own = &weights[channel * group_in * taps..][..group_in * taps];
        let data = &mut self.weights.bytes_mut()[block.start..][..block.bytes()];
        let columns = group.unwrap_or(block.columns);
        let data = &mut data[column / columns * columns * block.padded_k()..];
        for tap in 0..self.taps.len() {
            let of_tap = own[tap % taps..].iter().step_by(taps);
            let of_tap = of_tap.map(|whole| part(*whole - shift, tap / taps, lowest));
            let line = Line { first: tap * block.window_bytes + first, column: column % columns, columns };
            match lane {
                1 => line.write::<1>(data, of_tap),
                32 => line.write::<32>(data, of_tap),
                _ => line.write::<4>(data, of_tap),
            }
        }
        own.iter().map(|weight| i32::from(*weight - shift)).sum()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.multiplier.len() + self.bias.len() + self.weight_sums.len() + self.shifts.len();
        self.weights.bytes().len() + numbers * 4
    }

    /// Bytes of the longest row, without what pads it.
    pub(super) fn longest_row(&self) -> usize {
        self.blocks.iter().map(|block| block.k).max().unwrap_or(0)
    }

    /// Bytes of the longest row as the weights are padded to it.
    pub(super) fn longest(&self) -> usize {
        self.blocks.iter().map(Block::padded_k).max().unwrap_or(0)
    }
}

wide! {
    /// Puts four rows less 128 side by side, a column's values together, in the order of `places`; adds each column's up.
    fn beside(to: &mut [u8], rows: [&[u8]; 4], places: &[usize; 64], sums: &mut [i32; 64]) {
        let mut columns = [[0_u8; 4]; 64];
        let [a, b, c, d] = rows;
        for ((((column, a), b), c), d) in columns.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *column = [*a ^ 128, *b ^ 128, *c ^ 128, *d ^ 128];
        }
        for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum += i32::from(*a) + i32::from(*b) + i32::from(*c) + i32::from(*d) - 4 * 128;
        }
        for (to, place) in to.as_chunks_mut::<4>().0.iter_mut().zip(places) {
            *to = columns[*place % 64];
        }
    }
}

/// Some weights of one column, one behind the other.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Place of the first one in the row.
    first: usize,
    column: usize,
    columns: usize,
}

impl Line {
    /// Writes them, `LANE` side by side; a constant, since this is most of the time that loading a model takes.
    fn write<const LANE: usize>(self, data: &mut [u8], weights: impl Iterator<Item = i16>) {
        for (k, weight) in (self.first..).zip(weights) {
            data[(k / LANE * self.columns + self.column) * LANE + k % LANE] = weight.to_le_bytes()[0];
        }
    }
}

/// What makes each channel's weights fit into a byte where they are more than that off zero, but not far apart; none
/// where they fit as they are, where that isn't enough, and in groups, of which each would need sums of its own.
fn shifts(spec: &ConvSpec, weights: &[i16], lowest: i16) -> Vec<i16> {
    let each = spec.group_in() * spec.taps();
    if spec.groups > 1 || each == 0 || copies(weights, lowest) == 1 {
        return Vec::new();
    }
    let shift = |own: &[i16]| {
        let (least, most) =
            own.iter().fold((0, 0), |(least, most), &weight| (weight.min(least), weight.max(most)));
        let (under, over) = ((least - lowest).min(0), (most - 127).max(0));
        (under == 0 || over == 0)
            .then_some(under + over)
            .filter(|shift| own.iter().all(|weight| (lowest..=127).contains(&(weight - shift))))
    };
    weights.chunks_exact(each).map(shift).collect::<Option<_>>().unwrap_or_default()
}

/// How many parts the weights have at most.
pub(super) fn copies(weights: &[i16], lowest: i16) -> usize {
    let is_enough = |copies: &usize| weights.iter().all(|weight| part(*weight, *copies, lowest) == 0);
    (1..3).find(is_enough).unwrap_or(3)
}

/// The parts of a weight, of which each fits into a byte; after the last all are zero.
pub(super) fn part(whole: i16, index: usize, lowest: i16) -> i16 {
    let rest = (0..index).fold(whole, |rest, _| rest - rest.clamp(lowest, 127));
    rest.clamp(lowest, 127)
}

fn blocks(spec: &ConvSpec, taps: usize) -> Vec<Block> {
    // Few channels: as packed pixels have them, and so that one vector takes several taps.
    let lanes = if spec.in_channels < 16 { 4 } else { 16 };
    let mut start = 0;
    let firsts = (0..spec.out_channels).step_by(64);
    let block = firsts.map(|out| {
        let channels = (spec.out_channels - out).min(64);
        let groups = [out / spec.group_out(), (out + channels - 1) / spec.group_out() + 1];
        let [window, end] = groups.map(|group| group * spec.group_in());
        let window_bytes = (end - window).next_multiple_of(lanes);
        let columns = channels.next_multiple_of(16);
        let block = Block { out, columns, window, window_bytes, k: window_bytes * taps, start };
        start += block.bytes();
        block
    });
    block.collect()
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn each_channel_has_one_column() {
        for columns in [16, 32, 48, 64] {
            for order in [Order::Plain, Order::Lanes256, Order::Lanes512] {
                let mut seen: Vec<_> = (0..columns).map(|column| order.channel(columns, column)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..columns).collect::<Vec<_>>(), "{order:?} {columns}");
            }
        }
    }
}
