//! Convolutions and matrix products with constant weights.

use super::Reason;
use super::graph::Node;
use super::shapes::axis_of;
use super::sink::{End, Sink};
use super::tensor::{self, Bytes};
use super::walk::{Form, Kind, Lowering, Params, Quant};
use crate::int8::kernel::{Conv, ConvSpec, Requant};
use crate::int8::program::Step;
use crate::tensor::volume;

/// Weights and bias of one operator, outputs first (`[out, in / groups, kh, kw]`).
pub(super) struct Linear<'g> {
    pub(super) spec: ConvSpec,
    pub(super) bytes: Bytes<'g>,
    /// One, or one per output.
    pub(super) scales: Vec<f32>,
    /// One, or one per output.
    pub(super) zero_points: Vec<i32>,
    pub(super) bias: Bias,
}

/// What is added to the sums.
#[derive(Debug, Clone)]
pub(super) enum Bias {
    None,
    /// In units of input scale * weight scale.
    Sums(Vec<i64>),
    /// In units of its own scales: one, or one per output.
    Scaled(Vec<i64>, Vec<f32>),
    /// As it is.
    Real(Vec<f32>),
}

/// Quantizers write the product of both scales, rounded to f32, as a bias's scale: so near it is the same.
const SAME_SCALE: f64 = 1e-6;

impl Bias {
    /// How many values it has.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Sums(values) | Self::Scaled(values, _) => Some(values.len()),
            Self::Real(values) => Some(values.len()),
        }
    }
}

/// Packed weights and what they make.
pub(super) struct Packed {
    conv: Box<Conv>,
    macs: usize,
    end: PackedEnd,
}

enum PackedEnd {
    Bytes(Params),
    Float { scales: Vec<f32>, bias: Vec<f32> },
}

impl Linear<'_> {
    fn scale(&self, channel: usize) -> f32 {
        self.scales[if self.scales.len() == 1 { 0 } else { channel }]
    }

    /// Checks the counts.
    pub(super) fn check(&self) -> Result<(), Reason> {
        let outputs = self.spec.out_channels;
        let fits = |count: usize| count == 1 || count == outputs;
        let bias = self.bias.len().unwrap_or(outputs);
        if !fits(self.scales.len()) || !fits(self.zero_points.len()) || bias != outputs {
            return Err(Reason::Form("scales, zero points or bias of the weights have the wrong length"));
        }
        let is_positive = |scale: &f32| scale.is_finite() && *scale > 0.0;
        if self.scales.iter().all(is_positive) { Ok(()) } else { Err(Reason::Form("a scale isn't positive")) }
    }

    /// The bias in sums.
    fn sums(&self, in_scale: f32) -> Result<Vec<i32>, Reason> {
        let unit = |c: usize| f64::from(in_scale) * f64::from(self.scale(c));
        #[expect(clippy::cast_possible_truncation, reason = "saturates; checked against i32 below")]
        let whole = |value: f64| value.round_ties_even() as i64;
        let values = match &self.bias {
            Bias::None => return Ok(vec![0; self.spec.out_channels]),
            Bias::Sums(values) => values.clone(),
            Bias::Scaled(values, scales) => {
                let of_unit = |c: usize| f64::from(scales[c % scales.len()]) / unit(c);
                let steps = |(c, value): (usize, &i64)| match of_unit(c) {
                    ratio if (ratio - 1.0).abs() < SAME_SCALE => *value,
                    ratio => whole(*value as f64 * ratio),
                };
                values.iter().enumerate().map(steps).collect()
            }
            Bias::Real(values) => {
                values.iter().enumerate().map(|(c, value)| whole(f64::from(*value) / unit(c))).collect()
            }
        };
        let values = values.into_iter().map(|value| i32::try_from(value).ok());
        values.collect::<Option<_>>().ok_or(Reason::Form("the bias is out of range"))
    }

    /// The bias as it is.
    fn real(&self, in_scale: f32) -> Vec<f32> {
        match &self.bias {
            Bias::None => Vec::new(),
            Bias::Sums(values) => values
                .iter()
                .enumerate()
                .map(|(c, value)| *value as f32 * (in_scale * self.scale(c)))
                .collect(),
            Bias::Scaled(values, scales) => scaled(values, scales),
            Bias::Real(values) => values.clone(),
        }
    }
}

/// What a bias in units of its own scales stands for.
pub(super) fn scaled(values: &[i64], scales: &[f32]) -> Vec<f32> {
    values.iter().enumerate().map(|(index, value)| *value as f32 * scales[index % scales.len()]).collect()
}

impl<'a> Lowering<'a> {
    /// The step of a node: the operand through the weights to the sink. `output` is the result's shape.
    pub(super) fn linear(
        &mut self,
        index: usize,
        quant: &Quant,
        packed: Packed,
        sink: &Sink<'a>,
        (output, form): (&[usize], Form),
    ) -> Result<(), Reason> {
        let from = quant.act;
        let (step, kind) = match packed.end {
            PackedEnd::Bytes(params) => {
                let to = self.act(output, form, params)?;
                (Step::Linear { conv: packed.conv, from, to }, Kind::Bytes(to, form))
            }
            PackedEnd::Float { scales, bias } => {
                let to = self.values.add_float(volume(output), None);
                let bounds = sink.bounds;
                (Step::LinearFloat { conv: packed.conv, from, scales, bias, bounds, to }, Kind::Float(to))
            }
        };
        self.work[index] = (packed.macs, step.convs().first().map(|conv| conv.level()));
        self.steps.push(step);
        self.finish(sink, output, kind);
        Ok(())
    }

    /// Packs the weights for a sink.
    pub(super) fn packed(
        &self,
        linear: &Linear<'_>,
        quant: &Quant,
        sink: &Sink<'a>,
        pixels: usize,
    ) -> Result<Packed, Reason> {
        linear.check()?;
        let (spec, scale, macs) = (linear.spec, quant.params.scale, linear.spec.macs(pixels));
        let weights = linear.bytes.weights();
        let End::Bytes(params, _) = &sink.end else {
            let conv = Box::new(Conv::pack_float(&spec, weights, &linear.zero_points, self.level)?);
            let end = PackedEnd::Float { scales: linear.scales.clone(), bias: linear.real(scale) };
            return Ok(Packed { conv, macs, end });
        };
        let requant = requant(linear, scale, *params, sink)?;
        let zero = quant.params.zero_point;
        let conv = Conv::pack(&spec, weights, &linear.zero_points, &requant, zero, self.level)?;
        Ok(Packed { conv: Box::new(conv), macs, end: PackedEnd::Bytes(*params) })
    }

    /// Conv between DequantizeLinear and QuantizeLinear.
    pub(super) fn conv(&mut self, index: usize, node: Node<'a>) -> Result<(), Reason> {
        let (quant, reads) = self.channel_view(Self::input(node, 0)?)?;
        let channels = self.weights_shape(Self::input(node, 1)?)?.first().copied().unwrap_or(0);
        let (sink, writes) = self.channel_sink(node.output(), channels);
        self.conv_of(index, node, quant, &sink, |this, spec| {
            let weights = this.dequantized_constant(Self::input(node, 1)?)?;
            let bias = node.input(2).map(|name| this.bias(name)).transpose()?.unwrap_or(Bias::None);
            let rank = weights.tensor.dims.len();
            if weights.scales.len() != 1 && axis_of(weights.axis, rank) != Some(0) {
                return Err(Reason::Form("the weights are quantized along another axis than the outputs"));
            }
            let bytes = tensor::bytes(weights.tensor).ok_or(Reason::NotConstant { what: "the weights" })?;
            let zero_points = narrow(&weights.zero_points)?;
            let mut linear = Linear { spec, bytes, scales: weights.scales, zero_points, bias };
            // Before the scales are joined: there may be too few.
            linear.check()?;
            if let Some(scales) = &reads {
                linear.read_by_channel(scales);
            }
            if let Some(scales) = &writes {
                linear.write_by_channel(scales);
            }
            Ok(linear)
        })
    }

    /// QLinearConv.
    pub(super) fn qlinear_conv(&mut self, index: usize, node: Node<'a>) -> Result<(), Reason> {
        let quant = self.operand(node, 0)?;
        let quant = self.images(node, quant)?;
        let sink = self.named_sink(node, 6)?;
        self.conv_of(index, node, quant, &sink, |this, spec| {
            let (bytes, scales, zero_points) = this.weights(node, [3, 4, 5])?;
            let bias = match node.input(8) {
                None => Bias::None,
                Some(name) => Bias::Sums(this.int_constant(name, "the bias")?),
            };
            Ok(Linear { spec, bytes, scales, zero_points, bias })
        })?;
        self.channels_back(node)
    }

    fn conv_of(
        &mut self,
        index: usize,
        node: Node<'a>,
        quant: Quant,
        sink: &Sink<'a>,
        linear: impl Fn(&Self, ConvSpec) -> Result<Linear<'_>, Reason>,
    ) -> Result<(), Reason> {
        let slot = if node.op() == "QLinearConv" { 3 } else { 1 };
        let weights = self.weights_shape(Self::input(node, slot)?)?;
        let (spec, output) = super::pools::conv_spec(node, &quant.shape, &weights)?;
        let pixels = volume(output.get(2..).unwrap_or_default());
        let packed = self.packed(&linear(self, spec)?, &quant, sink, pixels)?;
        let quant = self.with_form(quant, Form::First)?;
        self.linear(index, &quant, packed, sink, (&output, Form::First))
    }

    /// The shape of constant weights, dequantized or not.
    pub(super) fn weights_shape(&self, name: &str) -> Result<Vec<usize>, Reason> {
        let tensor = match self.graph.constant(name) {
            Some(tensor) => tensor,
            None => self.dequantized_constant(name)?.tensor,
        };
        tensor::shape(tensor).ok_or(Reason::NotConstant { what: "the weights" })
    }

    /// An 8-bit operand with its scale and zero point in the next two inputs.
    pub(super) fn operand(&mut self, node: Node<'a>, slot: usize) -> Result<Quant, Reason> {
        let quant = self.bytes(Self::input(node, slot)?)?;
        let params = self.params(Self::input(node, slot + 1)?, node.input(slot + 2), node)?;
        if params != quant.params {
            return Err(Reason::Form("an operand is read with another scale than it was made with"));
        }
        Ok(quant)
    }

    /// The sink of a node that names its output's scale and zero point itself.
    pub(super) fn named_sink(&self, node: Node<'a>, slot: usize) -> Result<Sink<'a>, Reason> {
        let params = self.params(Self::input(node, slot)?, node.input(slot + 1), node)?;
        let bounds = crate::int8::program::Bounds::NONE;
        Ok(Sink { bounds, absorbed: Vec::new(), end: End::Bytes(params, vec![node.output()]) })
    }

    /// 8-bit constants with their scales and zero points, by their inputs.
    pub(super) fn weights(
        &self,
        node: Node<'a>,
        [bytes, scales, zeroes]: [usize; 3],
    ) -> Result<(Bytes<'_>, Vec<f32>, Vec<i32>), Reason> {
        let constant = |slot: usize| node.input(slot).and_then(|name| self.graph.constant(name));
        let missing = |what: &'static str| Reason::NotConstant { what };
        let bytes = constant(bytes).and_then(tensor::bytes).ok_or(missing("the weights"))?;
        let scales = constant(scales).and_then(tensor::floats).ok_or(missing("the weights' scale"))?;
        let zero_points = match node.input(zeroes) {
            None => Vec::new(),
            Some(name) => self.int_constant(name, "the weights' zero point")?,
        };
        Ok((bytes, scales, narrow(&zero_points)?))
    }

    /// Whole numbers.
    pub(super) fn int_constant(&self, name: &str, what: &'static str) -> Result<Vec<i64>, Reason> {
        self.graph.constant(name).and_then(tensor::ints).ok_or(Reason::NotConstant { what })
    }

    /// A bias in f32, or in i32 under a DequantizeLinear.
    pub(super) fn bias(&self, name: &str) -> Result<Bias, Reason> {
        if let Some(constant) = self.graph.constant(name) {
            let values = tensor::floats(constant).ok_or(Reason::NotConstant { what: "the bias" })?;
            return Ok(Bias::Real(values));
        }
        let constant = self.dequantized_constant(name)?;
        let values = tensor::ints(constant.tensor).ok_or(Reason::NotConstant { what: "the bias" })?;
        if constant.zero_points.iter().any(|zero| *zero != 0) {
            return Err(Reason::Form("the bias has a zero point"));
        }
        let scales = &constant.scales;
        if scales.len() != 1 && scales.len() != values.len() {
            return Err(Reason::Form("the bias has a wrong number of scales"));
        }
        Ok(Bias::Scaled(values, constant.scales))
    }
}

/// Where a product's channels stand among its axes.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    pub(super) count: usize,
    /// Axes behind theirs.
    pub(super) behind: usize,
    /// All axes.
    pub(super) rank: usize,
}

impl Channels {
    /// Whether a constant of this shape, broadcast against the product, has one value for each channel, or one in all.
    pub(super) fn fit(self, shape: &[usize]) -> bool {
        let is_of_channels =
            |(at, size): (usize, &usize)| *size == 1 || (at == self.behind && *size == self.count);
        shape.len() <= self.rank && shape.iter().rev().enumerate().all(is_of_channels)
    }
}

/// i32 zero points; none means zero.
pub(super) fn narrow(zero_points: &[i64]) -> Result<Vec<i32>, Reason> {
    if zero_points.is_empty() {
        return Ok(vec![0]);
    }
    let narrow = zero_points.iter().map(|zero| i32::try_from(*zero).ok());
    narrow.collect::<Option<_>>().ok_or(Reason::Form("a zero point is out of range"))
}

fn requant(linear: &Linear<'_>, scale: f32, to: Params, sink: &Sink<'_>) -> Result<Requant, Reason> {
    let channels = 0..linear.spec.out_channels;
    let [lo, hi] = sink.limits(to);
    Ok(Requant {
        multiplier: channels.map(|channel| scale * linear.scale(channel) / to.scale).collect(),
        bias: linear.sums(scale)?,
        zero_point: to.zero_point,
        lo,
        hi,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_of_another_axis_is_none_of_channels() {
        let matrix = Channels { count: 6, behind: 0, rank: 3 };
        for shape in [&[6][..], &[1, 6], &[1, 1, 6], &[], &[1]] {
            assert!(matrix.fit(shape), "{shape:?}");
        }
        for shape in [&[6, 1][..], &[1, 6, 1], &[1, 1, 1, 6], &[5], &[6, 6]] {
            assert!(!matrix.fit(shape), "{shape:?}");
        }
        let image = Channels { count: 5, behind: 2, rank: 4 };
        assert!(image.fit(&[5, 1, 1]) && image.fit(&[1, 5, 1, 1]));
        assert!(!image.fit(&[5]) && !image.fit(&[5, 1]), "numpy counts axes from the end");
    }
}
