//! Depthwise convolution: channels stay in their lanes, each lane sums its own taps four at a time.
//!
//! A vector holds 64 channels of one pixel; what is left of the channels (32 or 16) is held for two or four pixels
//! of different parts of a row, so that no lane is idle.

use super::ahead::{Region, Sequence};
use super::conv::Scratch;
use super::curved::Results;
use super::floats::{self, Floats, Sums};
use super::layout::{Act, ActMut, Buffer, Layout};
use super::level::Level;
use super::panels::{self, Order};
use super::requant::Requant;
use super::spec::ConvSpec;
use super::strip::{self, Plane, Sink, Strip};
use super::tile::{self, Finish};

/// Packed weights of a depthwise convolution.
#[derive(Debug)]
pub(super) struct Depthwise {
    level: Level,
    shape: Shape,
    groups: Vec<Group>,
    /// Multipliers and biases of a group.
    columns: usize,
    /// Place of each tap as (row, column) of the input, in the order of the weights, in groups of four.
    taps: Vec<[usize; 2]>,
    weights: Buffer,
    multiplier: Vec<f32>,
    bias: Vec<i32>,
    /// Sums of each column's weights; none where the input's zero point is known.
    weight_sums: Vec<i32>,
}

/// Which function computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// 3x3 without dilation at stride 1.
    Three,
    /// 3x3 without dilation at stride 2.
    ThreeBy2,
    /// Anything else.
    Any,
}

/// Some channels that are computed together.
#[derive(Debug, Clone, Copy)]
struct Group {
    channel: usize,
    /// 64, 32 or 16.
    lanes: usize,
}

impl Depthwise {
    pub(super) fn pack(
        spec: &ConvSpec,
        weights: &[i16],
        requant: &Requant,
        in_zero_point: Option<u8>,
        level: Level,
    ) -> Self {
        // Weights less their zero points may need nine bits: then they are the sum of two or three.
        let copies = panels::copies(weights, tile::lowest_weight(level));
        let shape = match (spec.kernel, spec.dilation, spec.stride) {
            _ if !strip::interleaves(level) || copies > 1 => Shape::Any,
            ([3, 3], [1, 1], [1, 1]) => Shape::Three,
            ([3, 3], [1, 1], [2, 2]) => Shape::ThreeBy2,
            _ => Shape::Any,
        };
        let groups = groups(spec.out_channels, level);
        let [height, width] = spec.kernel;
        let (taps, rows) = match shape {
            Shape::Three | Shape::ThreeBy2 => (Vec::new(), vectors(shape)),
            Shape::Any => {
                let all = (0..height).flat_map(|ky| (0..width).map(move |kx| [ky, kx]));
                let mut taps: Vec<_> = (0..copies).flat_map(|_| all.clone()).collect();
                taps.resize(taps.len().next_multiple_of(strip::tap_step(level)), [0, 0]);
                let rows = taps.len();
                (taps, rows)
            }
        };
        let columns = groups.first().map_or(0, |group| strip::columns(level, group.lanes));
        let lanes = groups.len() * columns;
        let mut packed = Self {
            level,
            shape,
            groups,
            columns,
            taps,
            weights: Buffer::new(lanes * rows),
            multiplier: vec![0.0; lanes],
            bias: vec![0; lanes],
            weight_sums: vec![0; if in_zero_point.is_none() { lanes } else { 0 }],
        };
        for index in 0..packed.groups.len() {
            packed.fill(spec, weights, requant, index, in_zero_point.map(|zero| packed.offset(zero)));
        }
        packed
    }

    /// What a zero point adds to each value, as the kernel takes them.
    fn offset(&self, zero_point: u8) -> i32 {
        i32::from(zero_point) - tile::offset(self.level)
    }

    fn fill(
        &mut self,
        spec: &ConvSpec,
        weights: &[i16],
        requant: &Requant,
        index: usize,
        zero_point: Option<i32>,
    ) {
        let (group, taps) = (self.groups[index], spec.taps());
        let size = self.weights.bytes().len() / self.groups.len();
        for column in 0..self.columns {
            // The order that unpacking bytes and words of a vector gives, which packing turns back.
            let order = if strip::interleaves(self.level) { Order::Lanes512 } else { Order::Plain };
            let channel = group.channel + order.channel(self.columns, column) % group.lanes;
            if channel >= spec.out_channels {
                continue;
            }
            let own = &weights[channel * taps..][..taps];
            let lowest = tile::lowest_weight(self.level);
            let parts = (0..self.taps.len() / taps)
                .flat_map(|index| own.iter().map(move |weight| panels::part(*weight, index, lowest)));
            let data = &mut self.weights.bytes_mut()[index * size..][..size];
            let byte = |four: usize, tap: usize| (four * 4 + column / 16) * 64 + column % 16 * 4 + tap;
            match self.shape {
                Shape::Any if !strip::interleaves(self.level) => {
                    for (tap, weight) in parts.enumerate() {
                        data[tap * self.columns + column] = weight.to_le_bytes()[0];
                    }
                }
                Shape::Any => {
                    for (tap, weight) in parts.enumerate() {
                        data[byte(tap / 4, tap % 4)] = weight.to_le_bytes()[0];
                    }
                }
                // A column of the kernel goes into one lane; for the second of two output rows one row lower.
                Shape::Three | Shape::ThreeBy2 => {
                    let lower = if self.shape == Shape::Three { 2 } else { 1 };
                    for (tap, weight) in own.iter().enumerate() {
                        for low in 0..lower {
                            data[byte(low * 3 + tap % 3, tap / 3 + low)] = weight.to_le_bytes()[0];
                        }
                    }
                }
            }
            let place = index * self.columns + column;
            let sum: i32 = own.iter().map(|weight| i32::from(*weight)).sum();
            self.multiplier[place] = requant.multiplier[channel];
            match zero_point {
                Some(zero) => self.bias[place] = requant.bias[channel].wrapping_sub(sum.wrapping_mul(zero)),
                None => self.weight_sums[place] = sum,
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.weights.bytes().len() + (self.bias.len() * 2 + self.weight_sums.len()) * 4
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
        let finish = (requant.zero_point, [requant.lo, requant.hi]);
        let turn = Turn { spec, input, to: &to, finish, bias: &self.bias };
        self.for_strips(&turn, &mut scratch.sequence, |n, channel, strip, read| {
            let start = to.pixel(n, 0, 0) + channel;
            let write = Plane { start, row: to.row_bytes(), pixel: to.pixel_bytes() };
            strip::run(self.level, strip, (input.data(), read), Sink::Bytes(output.data_mut(), write));
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
        let Floats { channels, bias, sums } = &mut scratch.floats;
        let zero = self.offset(input.layout().zero_point);
        bias.clear();
        bias.extend(self.weight_sums.iter().map(|sum| sum.wrapping_mul(-zero)));
        let turn = Turn { spec, input, to, finish: (0, [0, 255]), bias };
        self.for_strips(&turn, &mut scratch.sequence, |n, channel, strip, read| {
            let columns = strip.lanes;
            // Two rows at a time, which some kernels need.
            let at_once = (MOST_SUMS / (columns * to.width).max(1)).next_multiple_of(2).max(2);
            for y in (0..to.height).step_by(at_once) {
                let height = at_once.min(to.height - y);
                let part = Strip { height, ..*strip };
                let read = Plane { start: read.start + y * read.row, ..read };
                let data = floats::room(sums, height * to.width * columns);
                strip::run(self.level, &part, (input.data(), read), Sink::Sums(&mut *data));
                let pixel = (n * to.height + y) * to.width;
                values.put(Sums { data, columns, channel, pixel }, channels);
            }
        });
    }

    /// Calls `each` with the image, the first channel, and what to compute from where.
    fn for_strips(
        &self,
        Turn { spec, input, to, finish: (zero_point, limits), bias }: &Turn<'_>,
        sequence: &mut Sequence,
        mut each: impl FnMut(usize, usize, &Strip<'_>, Plane),
    ) {
        let next = sequence.after(Region::new(self.weights.bytes()));
        let from = *input.layout();
        let size = self.weights.bytes().len() / self.groups.len();
        let taps = self.taps.iter().map(|[ky, kx]| {
            ky * spec.dilation[0] * from.row_bytes() + kx * spec.dilation[1] * from.pixel_bytes()
        });
        let taps: Vec<usize> = taps.collect();
        for n in 0..to.batch {
            let corner =
                from.pixel(n, 0, 0) - spec.pads.top * from.row_bytes() - spec.pads.left * from.pixel_bytes();
            for (index, group) in self.groups.iter().enumerate() {
                let strip = Strip {
                    shape: self.shape,
                    lanes: group.lanes,
                    weights: &self.weights.bytes()[index * size..][..size],
                    bias: &bias[index * self.columns..][..self.columns],
                    taps: &taps,
                    finish: Finish {
                        multiplier: &self.multiplier[index * self.columns..][..self.columns],
                        zero_point: *zero_point,
                        limits: *limits,
                    },
                    ahead: next.part(index, self.groups.len()),
                    inner: [from.row_bytes(), from.pixel_bytes()],
                    height: to.height,
                    width: to.width,
                };
                let read = Plane {
                    start: corner + group.channel,
                    row: from.row_bytes() * spec.stride[0],
                    pixel: from.pixel_bytes() * spec.stride[1],
                };
                each(n, group.channel, &strip, read);
            }
        }
    }
}

/// One run.
struct Turn<'a> {
    spec: &'a ConvSpec,
    input: &'a Act<'a>,
    to: &'a Layout,
    /// Zero point and limits of the output.
    finish: (u8, [u8; 2]),
    /// In the order of the columns.
    bias: &'a [i32],
}

/// Sums at a time on their way to f32, about: they stay in the first-level cache.
const MOST_SUMS: usize = 4 << 10;

/// Weights of one lane: for each column of the kernel (and each of two output rows) four.
const fn vectors(shape: Shape) -> usize {
    match shape {
        Shape::Three => 2 * 3 * 4,
        _ => 3 * 4,
    }
}

fn groups(channels: usize, level: Level) -> Vec<Group> {
    let padded = channels.next_multiple_of(16);
    if !strip::interleaves(level) {
        return (0..padded).step_by(16).map(|channel| Group { channel, lanes: 16 }).collect();
    }
    let mut groups: Vec<Group> =
        (0..padded / 64).map(|index| Group { channel: index * 64, lanes: 64 }).collect();
    let mut channel = padded / 64 * 64;
    for lanes in [32, 16] {
        if padded - channel >= lanes {
            groups.push(Group { channel, lanes });
            channel += lanes;
        }
    }
    groups
}
