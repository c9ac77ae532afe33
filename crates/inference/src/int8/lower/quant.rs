//! QuantizeLinear and DequantizeLinear themselves, and dequantized constants.

use tract_onnx::pb::TensorProto;

use super::Reason;
use super::graph::Node;
use super::nhwc::is_channels_last;
use super::tensor;
use super::walk::{Form, Kind, Lowering, Params};
use crate::int8::kernel::Table;
use crate::int8::program::Step;

/// A constant that is dequantized where it is read.
pub(super) struct Dequantized<'g> {
    pub(super) tensor: &'g TensorProto,
    /// One for the whole, or one per place along `axis`.
    pub(super) scales: Vec<f32>,
    /// As many, or none.
    pub(super) zero_points: Vec<i64>,
    pub(super) axis: i64,
}

impl<'a> Lowering<'a> {
    /// The constant under a DequantizeLinear, or under a Transpose behind it.
    pub(super) fn dequantized_constant(&self, name: &str) -> Result<Dequantized<'_>, Reason> {
        let Some(tensor) = self.turned.get(name) else { return self.dequantized_as_it_is(name) };
        let missing = Reason::NotConstant { what: "an operand" };
        let source = self.graph.producer(name).and_then(|turn| turn.input(0)).ok_or(missing)?;
        let constant = self.dequantized_as_it_is(source)?;
        let axis = match constant.axis {
            0 | -2 => 1,
            1 | -1 => 0,
            none => none,
        };
        Ok(Dequantized { tensor, axis, ..constant })
    }

    /// The constant under a DequantizeLinear.
    pub(super) fn dequantized_as_it_is(&self, name: &str) -> Result<Dequantized<'_>, Reason> {
        let missing = || Reason::NotConstant { what: "an operand" };
        let node =
            self.graph.producer(name).filter(|node| node.op() == "DequantizeLinear").ok_or_else(missing)?;
        if node.int("block_size").is_some_and(|size| size != 0) {
            return Err(Reason::Form("a constant is quantized in blocks"));
        }
        let constant = |slot: usize| node.input(slot).and_then(|name| self.graph.constant(name));
        let tensor = constant(0).ok_or_else(missing)?;
        let scales = constant(1).and_then(tensor::floats).ok_or(Reason::NotConstant { what: "the scale" })?;
        let zero_points = match node.input(2) {
            None => Vec::new(),
            Some(_) => {
                constant(2).and_then(tensor::ints).ok_or(Reason::NotConstant { what: "the zero point" })?
            }
        };
        Ok(Dequantized { tensor, scales, zero_points, axis: node.int("axis").unwrap_or(1) })
    }

    /// Whether a node dequantizes a constant: it runs where it is read.
    pub(super) fn is_constant_view(&self, node: Node<'a>) -> bool {
        matches!(node.op(), "DequantizeLinear" | "Transpose")
            && self.dequantized_constant(node.output()).is_ok()
    }

    /// Tensors from u8 or s8 to f32: nothing runs, the reader says what it needs.
    pub(super) fn dequantize(&mut self, node: Node<'a>) -> Result<(), Reason> {
        if self.dequantize_channels(node) {
            return Ok(());
        }
        let quant = self.bytes(Self::input(node, 0)?)?;
        let params = self.params(Self::input(node, 1)?, node.input(2), node);
        let mut params = params?;
        if node.input(2).is_none() && quant.params.is_signed {
            params = Params { zero_point: 128, is_signed: true, ..params };
        }
        if params != quant.params {
            return Err(Reason::Form("it is dequantized otherwise than it was quantized"));
        }
        self.bind(node.output(), quant.shape, Kind::View(quant.act, quant.form));
        Ok(())
    }

    /// Tensors from f32 to u8 or s8.
    pub(super) fn quantize(&mut self, node: Node<'a>) -> Result<(), Reason> {
        if self.quantize_channels(node)? {
            return Ok(());
        }
        let name = Self::input(node, 0)?;
        let params = self.params(Self::input(node, 1)?, node.input(2), node)?;
        let bound = self.lookup_closing(name)?;
        match bound.kind {
            Kind::View(act, form) => {
                let quant = self.view(name)?;
                if quant.params == params {
                    self.bind(node.output(), bound.shape, Kind::Bytes(act, form));
                    return Ok(());
                }
                let to = self.act(&bound.shape, form, params)?;
                let table = Box::new(table(quant.params, params, |value| value));
                self.steps.push(Step::Lookup { from: act, table, to });
                self.bind(node.output(), bound.shape, Kind::Bytes(to, form));
            }
            Kind::Float(from) => {
                let form = self.form_for(node.output(), &bound.shape);
                let to = self.act(&bound.shape, form, params)?;
                self.steps.push(Step::Quantize { from, to });
                self.bind(node.output(), bound.shape, Kind::Bytes(to, form));
            }
            Kind::Bytes(..) => return Err(Reason::Form("it is quantized twice")),
        }
        Ok(())
    }

    /// The place of the channels that suits the readers of a tensor.
    pub(super) fn form_for(&self, name: &str, shape: &[usize]) -> Form {
        let wants_last = |index: &usize| {
            let node = self.graph.nodes[*index];
            match node.op() {
                "DequantizeLinear" => self
                    .graph
                    .consumers(node.output())
                    .iter()
                    .any(|reader| matches!(self.graph.nodes[*reader].op(), "MatMul" | "Gemm")),
                _ if is_channels_last(node) => true,
                "QLinearMatMul" | "QGemm" | "MatMulInteger" | "MatMulIntegerToFloat" => true,
                _ => false,
            }
        };
        match shape.len() {
            3 | 4 if self.graph.consumers(name).iter().any(wants_last) => Form::Last,
            rank @ (3 | 4) if self.graph.has_images(rank) => Form::First,
            _ => Form::Last,
        }
    }
}

/// The table of a function between two quantizations.
pub(super) fn table(from: Params, to: Params, function: impl Fn(f32) -> f32) -> Table {
    Table::new((from.scale, from.zero_point), (to.scale, to.zero_point), function)
}
