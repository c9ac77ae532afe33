//! Convolution: weights packed once for a CPU level, and the run over an activation.

use super::ahead::Sequence;
use super::curved::{Curved, Results, ToBytes};
use super::depthwise::Depthwise;
use super::eltwise::{self, AddSpec};
use super::floats::{Floats, Planes, ToFloat};
use super::gemm::Gemm;
use super::layout::{Act, ActMut, Border, Buffer, Layout};
use super::level::Level;
use super::requant::Requant;
use super::rows::RowSums;
use super::scalar::Plain;
use super::spec::{ConvSpec, PackError, Weights, check_length};
use super::tile::{self, Places};

/// Memory that operators need while they run; one per thread, reused, grows to the largest need.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) bytes: Buffer,
    pub(super) places: Places,
    pub(super) others: Places,
    pub(super) starts: Places,
    pub(super) sequence: Sequence,
    pub(super) floats: Floats,
    pub(super) rows: RowSums,
    /// Rows between two convolutions.
    pub(super) middle: Buffer,
}

/// A convolution with packed weights.
#[derive(Debug)]
pub struct Conv {
    spec: ConvSpec,
    level: Level,
    in_zero_point: u8,
    gives_floats: bool,
    requant: Requant,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Plain(Plain),
    Gemm(Gemm),
    Depthwise(Depthwise),
}

impl Scratch {
    /// How much it has grown to.
    pub fn bytes(&self) -> usize {
        let bytes = self.bytes.bytes().len() + self.middle.bytes().len();
        bytes + self.floats.bytes() + self.rows.bytes()
    }
}

impl Conv {
    /// Packs `weights` for `level`. `weight_zero_points` has one element, or one per output channel.
    ///
    /// # Errors
    /// If the shape isn't possible, a count of elements is wrong, or a zero point or multiplier is out of range.
    pub fn pack(
        spec: &ConvSpec,
        weights: Weights<'_>,
        weight_zero_points: &[i32],
        requant: &Requant,
        in_zero_point: u8,
        level: Level,
    ) -> Result<Self, PackError> {
        let weights = centred(spec, weights, weight_zero_points)?;
        check_requant(spec, requant)?;
        let requant = requant.with_room(&reaches(&weights, spec.out_channels));
        Ok(Self::pack_centred(spec, weights, &requant, Some(in_zero_point), level))
    }

    fn pack_centred(
        spec: &ConvSpec,
        weights: Vec<i16>,
        requant: &Requant,
        in_zero_point: Option<u8>,
        level: Level,
    ) -> Self {
        let level = if may_overflow(&weights, requant) { Level::Scalar } else { level };
        let packed = match in_zero_point {
            _ if level == Level::Scalar => Packed::Plain(Plain::new(weights)),
            _ if spec.is_depthwise() => {
                Packed::Depthwise(Depthwise::pack(spec, &weights, requant, in_zero_point, level))
            }
            _ => Packed::Gemm(Gemm::pack(spec, &weights, requant, in_zero_point, level)),
        };
        let gives_floats = in_zero_point.is_none();
        let in_zero_point = in_zero_point.unwrap_or(0);
        // Panels hold their own multipliers and biases, in the order of their columns.
        let requant = match packed {
            Packed::Plain(_) => requant.clone(),
            Packed::Gemm(_) | Packed::Depthwise(_) => requant.without_channels(),
        };
        Self { spec: *spec, level, in_zero_point, gives_floats, requant, packed }
    }

    /// Packs `weights` for [`run_float`](Self::run_float) only (ConvInteger, MatMulInteger, and what isn't quantized
    /// again).
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pack_float(
        spec: &ConvSpec,
        weights: Weights<'_>,
        weight_zero_points: &[i32],
        level: Level,
    ) -> Result<Self, PackError> {
        let count = spec.out_channels;
        let (multiplier, bias) = (vec![0.0; count], vec![0; count]);
        let requant = Requant { multiplier, bias, zero_point: 0, lo: 0, hi: 255 };
        let weights = centred(spec, weights, weight_zero_points)?;
        Ok(Self::pack_centred(spec, weights, &requant, None, level))
    }

    /// The shape.
    pub const fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Widens the padding of a window of several places; the packed weights are the same for any.
    pub fn pad(&mut self, more: Border) {
        let Border { top, left, bottom, right } = self.spec.pads;
        self.spec.pads = Border {
            top: top + more.top,
            left: left + more.left,
            bottom: bottom + more.bottom,
            right: right + more.right,
        };
    }

    /// The level that was packed for; lower than asked for where that one can't run this convolution.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        let weights = match &self.packed {
            Packed::Plain(plain) => plain.bytes(),
            Packed::Gemm(gemm) => gemm.bytes(),
            Packed::Depthwise(depthwise) => depthwise.bytes(),
        };
        weights + self.requant.bias.len() * 8
    }

    /// Runs it. `input` has the zero point that was packed, and at least the border [`ConvSpec::border`].
    ///
    /// # Panics
    /// If a layout doesn't fit the shape.
    pub fn run(&self, input: &Act<'_>, output: &mut ActMut<'_>, scratch: &mut Scratch) {
        let size = self.check_run(input, output.layout());
        output.fill_border();
        match &self.packed {
            Packed::Plain(plain) => plain.sums(&self.spec, input, size, |[n, y, x], c, sum| {
                let value = self.requant.apply(c, i64::from(sum) + i64::from(self.requant.bias[c]));
                output.set(n, c, y, x, value);
            }),
            Packed::Gemm(gemm) => gemm.run(&self.spec, &self.requant, (input, None), output, scratch),
            Packed::Depthwise(depthwise) => {
                depthwise.run(&self.spec, &self.requant, input, output, scratch);
            }
        }
    }

    /// Runs it and adds `other`, as [`run`](Self::run) into an activation of `own_zero_point` and then
    /// [`add`](super::add) (the convolution is the first operand) would.
    ///
    /// # Panics
    /// If a layout doesn't fit the shape.
    pub fn run_add(
        &self,
        input: &Act<'_>,
        other: &Act<'_>,
        add: &AddSpec,
        output: &mut ActMut<'_>,
        scratch: &mut Scratch,
    ) {
        assert!(other.layout().same_shape(output.layout()), "the operands of an addition differ in shape");
        if let Packed::Gemm(gemm) = &self.packed
            && tile::adds(self.level)
            && add.fits()
        {
            self.check_run(input, output.layout());
            output.fill_border();
            return gemm.run(&self.spec, &self.requant, (input, Some((other, add))), output, scratch);
        }
        self.run(input, output, scratch);
        eltwise::add_to(output, self.requant.zero_point, other, add);
    }

    /// The sums of (value - zero point) * (weight - zero point) as f32, in ONNX's order; the zero point is that of the
    /// input's layout.
    ///
    /// # Panics
    /// If it was packed by [`pack`](Self::pack), or a layout doesn't fit the shape or `values` has another length.
    pub fn run_float(&self, input: &Act<'_>, by: &ToFloat<'_>, values: &mut [f32], scratch: &mut Scratch) {
        let to = self.float_layout(input);
        assert_eq!(values.len(), to.elements(), "length of the values");
        let planes = Planes::new(values, [to.channels, to.height, to.width], self.level);
        self.results(input, by, &to, Results::Floats(planes), scratch);
    }

    /// The same, and what becomes of it in bytes, as [`quantize`](super::quantize) would.
    ///
    /// # Panics
    /// As [`run_float`](Self::run_float), and if there is another number of scales.
    pub fn run_curve(
        &self,
        input: &Act<'_>,
        (by, then): (&ToFloat<'_>, &ToBytes<'_>),
        output: &mut ActMut<'_>,
        scratch: &mut Scratch,
    ) {
        let to = self.float_layout(input);
        assert!(to.same_shape(output.layout()), "shape of the output");
        assert!(!output.layout().is_packed, "a convolution doesn't write packed pixels");
        output.fill_border();
        self.results(input, by, &to, Results::Bytes(Curved::new(output, then)), scratch);
    }

    fn float_layout(&self, input: &Act<'_>) -> Layout {
        assert!(self.gives_floats, "weights were packed for bytes, not for f32");
        let [height, width] = self.check_input(input);
        Layout::new(input.layout().batch, self.spec.out_channels, height, width, 0)
    }

    fn results(
        &self,
        input: &Act<'_>,
        by: &ToFloat<'_>,
        to: &Layout,
        mut results: Results<'_, '_>,
        scratch: &mut Scratch,
    ) {
        scratch.floats.channels.fill(by, to.channels);
        match &self.packed {
            Packed::Plain(plain) => {
                plain.sums(&self.spec, input, [to.height, to.width], |[n, y, x], c, sum| {
                    results.set(n, c, [y, x], scratch.floats.channels.apply(c, sum));
                });
            }
            Packed::Gemm(gemm) => gemm.floats(&self.spec, input, to, &mut results, scratch),
            Packed::Depthwise(depthwise) => depthwise.floats(&self.spec, input, to, &mut results, scratch),
        }
    }

    fn check_run(&self, input: &Act<'_>, output: &Layout) -> [usize; 2] {
        assert_eq!(input.layout().zero_point, self.in_zero_point, "zero point of the input");
        let size = self.check_input(input);
        assert_eq!([output.height, output.width], size, "size of the output");
        assert_eq!(output.batch, input.layout().batch, "batch of the output");
        assert_eq!(output.channels, self.spec.out_channels, "channels of the output");
        assert!(!output.is_packed, "a convolution doesn't write packed pixels");
        size
    }

    fn check_input(&self, input: &Act<'_>) -> [usize; 2] {
        let layout = input.layout();
        assert_eq!(layout.channels, self.spec.in_channels, "channels of the input");
        assert!(layout.border.covers(self.spec.border()), "the input's border is too small");
        let size = self.spec.output(layout.height, layout.width);
        assert!(size.is_some(), "the window is larger than the input");
        size.unwrap_or_default()
    }
}

/// Weights less their zero points.
fn centred(spec: &ConvSpec, weights: Weights<'_>, zero_points: &[i32]) -> Result<Vec<i16>, PackError> {
    let count = spec.check()?;
    check_length("weights", weights.len(), count)?;
    if zero_points.len() != 1 {
        check_length("zero points of the weights", zero_points.len(), spec.out_channels)?;
    }
    let range = match weights {
        Weights::S8(_) => -128..=127,
        Weights::U8(_) => 0..=255,
    };
    if let Some(got) = zero_points.iter().find(|zero| !range.contains(*zero)) {
        return Err(PackError::ZeroPoint { got: *got });
    }
    let each = count / spec.out_channels;
    let zeroes = zero_points.iter().cycle().take(spec.out_channels).map(|zero| *zero as i16);
    let mut centred = Vec::with_capacity(count);
    match weights {
        Weights::S8(values) => values
            .chunks_exact(each)
            .zip(zeroes)
            .for_each(|(own, zero)| centred.extend(own.iter().map(|weight| i16::from(*weight) - zero))),
        Weights::U8(values) => values
            .chunks_exact(each)
            .zip(zeroes)
            .for_each(|(own, zero)| centred.extend(own.iter().map(|weight| i16::from(*weight) - zero))),
    }
    Ok(centred)
}

/// How far from zero each channel's sum can be.
fn reaches(weights: &[i16], channels: usize) -> Vec<i64> {
    let each = (weights.len() / channels.max(1)).max(1);
    let reach = |own: &[i16]| own.iter().map(|weight| i64::from(weight.unsigned_abs()) * 255).sum();
    weights.chunks_exact(each).map(reach).collect()
}

/// Whether a sum with its bias, or its product with the multiplier, may leave i32: additions would wrap, and the
/// vector units' conversion would get it wrong. The reference adds in 64 bits.
fn may_overflow(weights: &[i16], requant: &Requant) -> bool {
    let reaches = reaches(weights, requant.bias.len());
    let mut channels = reaches.iter().zip(&requant.bias).zip(&requant.multiplier);
    channels.any(|((reach, bias), multiplier)| {
        let most = reach + i64::from(bias.unsigned_abs());
        most > i64::from(i32::MAX) || f64::from(*multiplier) * most as f64 >= f64::from(1 << 30)
    })
}

fn check_requant(spec: &ConvSpec, requant: &Requant) -> Result<(), PackError> {
    check_length("multipliers", requant.multiplier.len(), spec.out_channels)?;
    check_length("bias", requant.bias.len(), spec.out_channels)?;
    let mut multipliers = requant.multiplier.iter().enumerate();
    match multipliers.find(|(_, value)| !value.is_finite() || **value < 0.0) {
        Some((channel, got)) => Err(PackError::Multiplier { channel, got: *got }),
        None => Ok(()),
    }
}
