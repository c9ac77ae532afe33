//! What becomes of an operator's result: clipped or not, quantized again or left in f32.

use super::Reason;
use super::graph::Node;
use super::tensor;
use super::walk::{Kind, Lowering, Params};
use crate::int8::program::Bounds;

/// Where a result goes.
pub(super) struct Sink<'a> {
    /// Of the clips that follow.
    pub(super) bounds: Bounds,
    /// The nodes that are folded in.
    pub(super) absorbed: Vec<usize>,
    pub(super) end: End<'a>,
}

/// The last tensor of a sink.
pub(super) enum End<'a> {
    /// 8-bit, under each of these names.
    Bytes(Params, Vec<&'a str>),
    /// Dequantized, under this name: the end of a clip whose source is quantized alike.
    Float(&'a str),
}

impl Sink<'_> {
    /// Lowest and highest u8 for a quantized end.
    pub(super) fn limits(&self, params: Params) -> [u8; 2] {
        limits(self.bounds, params)
    }
}

/// Lowest and highest u8 of what lies within bounds.
pub(super) fn limits(bounds: Bounds, params: Params) -> [u8; 2] {
    [bounds.lo, bounds.hi].map(|bound| quantize(bound, params))
}

/// QuantizeLinear of one value.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to u8's range before")]
pub(super) fn quantize(value: f32, params: Params) -> u8 {
    let steps = (value / params.scale).round_ties_even() + f32::from(params.zero_point);
    steps.clamp(0.0, 255.0) as u8
}

impl<'a> Lowering<'a> {
    /// Follows the result of a node through clips to its quantization.
    pub(super) fn sink(&self, name: &'a str) -> Sink<'a> {
        let mut sink = Sink { bounds: Bounds::NONE, absorbed: Vec::new(), end: End::Float(name) };
        let mut name = name;
        while let Some(next) = self.graph.only_consumer(name) {
            let node = self.graph.nodes[next];
            let Some(bounds) = self.clip(node) else { break };
            sink.bounds = Bounds { lo: bounds.apply(sink.bounds.lo), hi: bounds.apply(sink.bounds.hi) };
            sink.absorbed.push(next);
            name = node.output();
        }
        sink.end = End::Float(name);
        if let Some((params, names, nodes)) = self.quantizers(name) {
            sink.absorbed.extend(nodes);
            sink.end = End::Bytes(params, names);
        }
        sink
    }

    /// The bounds of a Relu or Clip; none for other nodes and bounds that aren't constant.
    pub(super) fn clip(&self, node: Node<'a>) -> Option<Bounds> {
        match node.op() {
            "Relu" => Some(Bounds { lo: 0.0, ..Bounds::NONE }),
            "Clip" => {
                let bound = |slot: usize, name: &str, default: f32| match node.input(slot) {
                    Some(input) => self.float_constant(input).and_then(|values| values.first().copied()),
                    None => Some(node.float(name).unwrap_or(default)),
                };
                let lo = bound(1, "min", f32::NEG_INFINITY)?;
                let hi = bound(2, "max", f32::INFINITY)?;
                // Where they cross, ONNX gives the upper one for everything.
                (!lo.is_nan() && !hi.is_nan()).then_some(Bounds { lo: lo.min(hi), hi })
            }
            _ => None,
        }
    }

    /// Scale and zero point, names and nodes of the QuantizeLinears that are all that reads a tensor.
    fn quantizers(&self, name: &str) -> Option<(Params, Vec<&'a str>, Vec<usize>)> {
        let consumers = self.graph.consumers(name);
        if consumers.is_empty() || self.graph.is_output(name) {
            return None;
        }
        let mut all = None;
        for consumer in consumers {
            let node = self.graph.nodes[*consumer];
            if node.op() != "QuantizeLinear" || node.input(0) != Some(name) {
                return None;
            }
            let params = self.params(node.input(1)?, node.input(2), node).ok()?;
            if *all.get_or_insert(params) != params {
                return None;
            }
        }
        let names = consumers.iter().map(|index| self.graph.nodes[*index].output()).collect();
        Some((all?, names, consumers.to_vec()))
    }

    /// f32 constants, dequantized ones too.
    pub(super) fn float_constant(&self, name: &str) -> Option<Vec<f32>> {
        if let Some(constant) = self.graph.constant(name) {
            return tensor::floats(constant);
        }
        let constant = self.dequantized_constant(name).ok()?;
        let [scale] = constant.scales[..] else { return None };
        let zero = constant.zero_points.first().copied().unwrap_or(0);
        let values = tensor::ints(constant.tensor)?;
        #[expect(clippy::cast_precision_loss, reason = "ONNX computes this in f32 as well")]
        Some(values.iter().map(|value| (value - zero) as f32 * scale).collect())
    }

    /// Scale and zero point by the names of the constants, of one whole tensor.
    pub(super) fn params(&self, scale: &str, zero: Option<&str>, node: Node<'a>) -> Result<Params, Reason> {
        let constant = self.graph.constant(scale).and_then(tensor::floats);
        let scale = match constant.as_deref() {
            Some([scale]) => *scale,
            Some(_) => return Err(Reason::Form("activations are quantized per axis")),
            None => return Err(Reason::NotConstant { what: "the scale" }),
        };
        if !scale.is_normal() || scale < 0.0 {
            return Err(Reason::Form("the scale isn't a positive number"));
        }
        if node.int("block_size").is_some_and(|size| size != 0) {
            return Err(Reason::Form("activations are quantized in blocks"));
        }
        let Some(zero) = zero else { return without_zero_point(node, scale) };
        let zero = self.graph.constant(zero).ok_or(Reason::NotConstant { what: "the zero point" })?;
        match tensor::bytes(zero).map(|bytes| (bytes.shifted(), matches!(bytes, tensor::Bytes::S8(_)))) {
            Some((zero, is_signed)) if zero.len() == 1 => {
                Ok(Params { scale, zero_point: zero[0], is_signed })
            }
            _ => Err(Reason::NotConstant { what: "the zero point" }),
        }
    }

    /// Gives an activation to the names of a sink and notes the nodes.
    pub(super) fn finish(&mut self, sink: &Sink<'a>, shape: &[usize], kind: Kind) {
        self.absorb(&sink.absorbed);
        match &sink.end {
            End::Bytes(_, names) => names.iter().for_each(|name| self.bind(name, shape.to_vec(), kind)),
            End::Float(name) => self.bind(name, shape.to_vec(), kind),
        }
    }
}

fn without_zero_point(node: Node<'_>, scale: f32) -> Result<Params, Reason> {
    // UINT8 = 2, INT8 = 3; 0 means the default, UINT8.
    match node.int("output_dtype") {
        None | Some(0 | 2) => Ok(Params { scale, zero_point: 0, is_signed: false }),
        Some(3) => Ok(Params { scale, zero_point: 128, is_signed: true }),
        Some(_) => Err(Reason::Form("values are quantized to another type than 8 bits")),
    }
}
