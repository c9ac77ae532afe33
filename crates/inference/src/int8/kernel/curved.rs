//! From sums (i32) to bytes by way of a function in f32, some pixels at a time: what is between stays in the cache, and
//! in the order of pixels.

use super::arith::Curve;
use super::divide::Divisors;
use super::floats::{Channels, Planes, Sums};
use super::layout::ActMut;

/// What becomes of a convolution's results in f32.
#[derive(Debug, Clone, Copy)]
pub struct ToBytes<'a> {
    /// A function of each.
    pub curve: Option<Curve>,
    /// What they are divided by then, as QuantizeLinear does: one, or one for each channel.
    pub scales: &'a [f32],
}

/// Where results go.
#[derive(Debug)]
pub(super) enum Results<'a, 'b> {
    /// To f32.
    Floats(Planes<'a>),
    /// To bytes.
    Bytes(Curved<'a, 'b>),
}

impl Results<'_, '_> {
    /// Writes the results of some sums.
    pub(super) fn put(&mut self, sums: Sums<'_>, by: &Channels) {
        match self {
            Self::Floats(planes) => planes.put(sums, by),
            Self::Bytes(curved) => curved.put(sums, by),
        }
    }

    /// Writes one result.
    pub(super) fn set(&mut self, image: usize, channel: usize, [y, x]: [usize; 2], value: f32) {
        match self {
            Self::Floats(planes) => planes.set(image, channel, [y, x], value),
            Self::Bytes(curved) => curved.set(image, channel, [y, x], value),
        }
    }
}

/// Values at a time: they stay in the first-level cache.
const VALUES: usize = 2048;

/// An activation that results are written to, and memory on the way.
#[derive(Debug)]
pub(super) struct Curved<'a, 'b> {
    output: &'a mut ActMut<'b>,
    curve: Option<Curve>,
    divisors: Divisors,
    values: Vec<f32>,
    made: Vec<f32>,
    bytes: Vec<u8>,
}

impl<'a, 'b> Curved<'a, 'b> {
    pub(super) fn new(output: &'a mut ActMut<'b>, by: &ToBytes<'_>) -> Self {
        let divisors = Divisors::new(by.scales, output.layout().channels);
        let (values, made, bytes) = (Vec::new(), Vec::new(), Vec::new());
        Self { output, curve: by.curve, divisors, values, made, bytes }
    }

    fn put(&mut self, sums: Sums<'_>, by: &Channels) {
        let Sums { columns, channel, .. } = sums;
        let layout = *self.output.layout();
        let wanted = columns.min(layout.channels - channel);
        let (width, pixels) = (layout.width, layout.height * layout.width);
        let at_once = (VALUES / columns).max(1);
        let mut pixel = sums.pixel;
        for data in sums.data.chunks(at_once * columns) {
            self.quantize(Sums { data, ..sums }, by);
            for row in self.bytes[..data.len()].chunks_exact(columns) {
                let at = pixel % pixels;
                let to = layout.pixel(pixel / pixels, at / width, at % width) + channel;
                self.output.data_mut()[to..][..wanted].copy_from_slice(&row[..wanted]);
                pixel += 1;
            }
        }
    }

    /// The bytes of some sums, in their order; those of columns without a channel have no meaning.
    fn quantize(&mut self, sums: Sums<'_>, by: &Channels) {
        let count = sums.data.len();
        if self.bytes.len() < count {
            self.values.resize(count, 0.0);
            self.made.resize(count, 0.0);
            self.bytes.resize(count, 0);
        }
        let (values, made) = (&mut self.values[..count], &mut self.made[..count]);
        by.rows(values, sums);
        let values = match self.curve {
            Some(curve) => {
                curve.run(values, made);
                made
            }
            None => values,
        };
        let places = [sums.channel, sums.columns];
        self.divisors.divide(&mut self.bytes[..count], values, places, self.output.layout().zero_point);
    }

    fn set(&mut self, image: usize, channel: usize, [y, x]: [usize; 2], value: f32) {
        let mut made = [value];
        if let Some(curve) = self.curve {
            curve.run(&[value], &mut made);
        }
        let mut byte = [0];
        self.divisors.divide(&mut byte, &made, [channel, 1], self.output.layout().zero_point);
        self.output.set(image, channel, y, x, byte[0]);
    }
}
