//! Activations with a scale for each channel, as NNCF quantizes what depthwise convolutions read. A convolution makes
//! them and depthwise ones read them: both take the scales into those of their weights, and the bytes between them
//! count in steps of one.

use super::Reason;
use super::graph::Node;
use super::linear::{Bias, Linear};
use super::sink::{End, Sink, limits};
use super::tensor;
use super::walk::{Form, Kind, Lowering, Params, Quant};
use crate::int8::kernel::Arith;
use crate::int8::program::{ActId, Bounds, FloatId, FloatOp, Step};
use crate::tensor::volume;

/// Scales of an activation's channels.
pub(super) struct Scales {
    values: Vec<f32>,
    zero_point: u8,
    is_signed: bool,
}

impl Scales {
    /// What the bytes are said to be quantized by. Nothing but a depthwise convolution reads them.
    fn params(&self) -> Params {
        Params { scale: 1.0, zero_point: self.zero_point, is_signed: self.is_signed }
    }

    /// Lowest and highest step within bounds, where they are the same in all channels.
    fn bounds(&self, bounds: Bounds) -> Option<Bounds> {
        let mut all =
            self.values.iter().map(|scale| limits(bounds, Params { scale: *scale, ..self.params() }));
        let first = all.next()?;
        let [lo, hi] = first.map(|byte| f32::from(byte) - f32::from(self.zero_point));
        all.all(|limits| limits == first).then_some(Bounds { lo, hi })
    }
}

impl Linear<'_> {
    /// Takes the scales of what it reads into the weights'.
    pub(super) fn read_by_channel(&mut self, scales: &Scales) {
        let each = self.spec.out_channels / scales.values.len();
        self.each_scale(|channel| scales.values[channel / each]);
    }

    /// Makes steps of these scales.
    pub(super) fn write_by_channel(&mut self, scales: &Scales) {
        let values = &scales.values;
        self.each_scale(|channel| 1.0 / values[channel]);
        match &mut self.bias {
            Bias::None | Bias::Sums(_) => {}
            Bias::Scaled(_, own) => {
                *own = values.iter().enumerate().map(|(c, scale)| own[c % own.len()] / scale).collect();
            }
            Bias::Real(bias) => bias.iter_mut().zip(values).for_each(|(bias, scale)| *bias /= scale),
        }
    }

    fn each_scale(&mut self, factor: impl Fn(usize) -> f32) {
        let count = self.scales.len();
        let scale = |channel: usize| self.scales[channel % count] * factor(channel);
        self.scales = (0..self.spec.out_channels).map(scale).collect();
    }
}

impl<'a> Lowering<'a> {
    /// The sink of a convolution of so many channels, and the scales of its end where each channel has its own.
    pub(super) fn channel_sink(&self, name: &'a str, channels: usize) -> (Sink<'a>, Option<Scales>) {
        let mut sink = self.sink(name);
        let End::Float(end) = sink.end else { return (sink, None) };
        let Some(index) = self.graph.only_consumer(end) else { return (sink, None) };
        let node = self.graph.nodes[index];
        let scales = self.channel_scales(node).filter(|scales| scales.values.len() == channels);
        let Some((bounds, scales)) = scales.and_then(|all| Some((all.bounds(sink.bounds)?, all))) else {
            return (sink, None);
        };
        sink.bounds = bounds;
        sink.absorbed.push(index);
        sink.end = End::Bytes(scales.params(), vec![node.output()]);
        (sink, Some(scales))
    }

    /// The operand of a convolution, and its scales where each channel has its own.
    pub(super) fn channel_view(&mut self, name: &'a str) -> Result<(Quant, Option<Scales>), Reason> {
        let made = self.graph.producer(name).filter(|node| node.op() == "DequantizeLinear");
        let quantizer = made.and_then(|node| self.graph.producer(node.input(0)?));
        let scales = quantizer.and_then(|node| self.channel_scales(node));
        if scales.is_none() {
            return Ok((self.view(name)?, None));
        }
        let quant = self.bound.get(name).and_then(|bound| self.quant_of(bound));
        Ok((quant.ok_or_else(|| Reason::NotQuantized { name: name.to_owned() })?, scales))
    }

    /// QuantizeLinear of what is there in f32, by a scale for each channel; whether it is one.
    pub(super) fn quantize_channels(&mut self, node: Node<'a>) -> Result<bool, Reason> {
        let Some(scales) = self.channel_scales(node) else { return Ok(false) };
        let name = Self::input(node, 0)?;
        self.lookup_closing(name)?;
        let (from, shape) = self.float(name)?;
        if !matches!(shape.len(), 3 | 4) || shape[1] != scales.values.len() {
            return Err(Reason::Shape { shape });
        }
        let to = self.act(&shape, Form::First, scales.params())?;
        self.steps.push(Step::QuantizeCurve { curve: None, scales: scales.values, from, to });
        self.bind(node.output(), shape, Kind::Bytes(to, Form::First));
        Ok(true)
    }

    /// Gives the name of dequantized values to bytes with a scale for each channel; whether it did.
    pub(super) fn dequantize_channels(&mut self, node: Node<'a>) -> bool {
        let bytes = node.input(0).and_then(|name| Some((self.graph.producer(name)?, self.bound.get(name)?)));
        let Some((quantizer, bound)) = bytes else { return false };
        let Kind::Bytes(act, form @ Form::First) = bound.kind else { return false };
        let shape = bound.shape.clone();
        let Some(scales) = self.channel_scales(quantizer) else { return false };
        self.scales_of.insert(act, scales.values);
        self.bind(node.output(), shape, Kind::View(act, form));
        true
    }

    /// Steps of one for what they stand for, where an activation has scales for each channel.
    pub(super) fn scaled_by_channel(&mut self, act: ActId, from: FloatId, shape: &[usize]) -> FloatId {
        let Some(scales) = self.scales_of.get(&act) else { return from };
        let (each, repeat) = (scales.len(), volume(&shape[2..]));
        let op = FloatOp::Arith { op: Arith::Mul, repeat, each, constant: scales.clone() };
        let to = self.values.add_float(volume(shape), None);
        self.steps.push(Step::Float { op, from: vec![from], to });
        to
    }

    /// The scales of a QuantizeLinear that has one for each channel, where depthwise convolutions are all that reads it.
    fn channel_scales(&self, node: Node<'a>) -> Option<Scales> {
        let scales = self.grid_of_channels(node).filter(|_| node.op() == "QuantizeLinear")?;
        let name = node.output();
        let is_read = |name: &str| !self.graph.is_output(name) && !self.graph.consumers(name).is_empty();
        let suits = |index: &usize| {
            let reader = self.graph.nodes[*index];
            let is_same = reader.op() == "DequantizeLinear"
                && reader.input(0) == Some(name)
                && [1, 2].into_iter().all(|slot| reader.input(slot) == node.input(slot))
                && reader.int("axis").unwrap_or(1) == 1
                && reader.int("block_size").unwrap_or(0) == 0;
            is_same
                && is_read(reader.output())
                && self.graph.consumers(reader.output()).iter().all(|conv| {
                    self.is_depthwise(self.graph.nodes[*conv], reader.output(), scales.values.len())
                })
        };
        (is_read(name) && self.graph.consumers(name).iter().all(suits)).then_some(scales)
    }

    fn grid_of_channels(&self, node: Node<'a>) -> Option<Scales> {
        let constant = |slot: usize| self.graph.constant(node.input(slot)?);
        let is_plain = node.int("axis").unwrap_or(1) == 1
            && ["block_size", "output_dtype"].into_iter().all(|name| node.int(name).unwrap_or(0) == 0);
        let values = constant(1).and_then(tensor::floats).filter(|values| is_plain && values.len() > 1)?;
        let zero_points = tensor::bytes(constant(2)?)?;
        let is_signed = matches!(zero_points, tensor::Bytes::S8(_));
        let zero_points = zero_points.shifted();
        let zero_point = *zero_points.first()?;
        let is_one = zero_points.len() == values.len() && zero_points.iter().all(|zero| *zero == zero_point);
        let are_normal = values.iter().all(|scale| scale.is_normal() && *scale > 0.0);
        (is_one && are_normal).then_some(Scales { values, zero_point, is_signed })
    }

    fn is_depthwise(&self, node: Node<'a>, name: &str, channels: usize) -> bool {
        let is_plain = |shape: Vec<usize>| match shape[..] {
            [outputs, 1, _] | [outputs, 1, _, _] => outputs > 0 && outputs % channels == 0,
            _ => false,
        };
        node.op() == "Conv"
            && node.input(0) == Some(name)
            && node.int("group").and_then(|groups| usize::try_from(groups).ok()) == Some(channels)
            && node.input(2).is_none_or(|bias| self.bias(bias).is_ok())
            && node.input(1).is_some_and(|weights| {
                self.dequantized_constant(weights).is_ok() && self.weights_shape(weights).is_ok_and(is_plain)
            })
    }
}
