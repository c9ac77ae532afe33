//! Matrix products with constant weights, in each of the ways that ONNX writes them.

use super::Reason;
use super::graph::Node;
use super::linear::{Bias, Channels, Linear, Packed, narrow, scaled};
use super::shapes::axis_of;
use super::sink::Sink;
use super::tensor::{self, Bytes};
use super::walk::{Form, Lowering, Quant};
use crate::int8::kernel::ConvSpec;
use crate::tensor::volume;

impl<'a> Lowering<'a> {
    /// Gemm and MatMul between DequantizeLinear and QuantizeLinear.
    pub(super) fn matmul(&mut self, index: usize, node: Node<'a>) -> Result<(), Reason> {
        if let Some(done) = self.view_product(index, node) {
            return done;
        }
        let quant = self.view(Self::input(node, 0)?)?;
        let is_gemm = node.op() == "Gemm";
        let mut extra = Vec::new();
        let mut output = node.output();
        let mut added = None;
        let weights_name = Self::input(node, 1)?;
        if !is_gemm && let Some((bias, next)) = self.bias_after(output, weights_name, quant.shape.len()) {
            output = self.graph.nodes[next].output();
            extra.push(next);
            added = Some(bias);
        }
        let mut sink = self.sink(output);
        sink.absorbed.extend(extra);
        let (packed, shape) = {
            let weights = self.dequantized_constant(weights_name)?;
            let is_turned = node.int("transB").unwrap_or(0) != 0;
            let (spec, bytes) = matrix(node, weights.tensor, is_turned, &quant.shape)?;
            let alpha = node.float("alpha").unwrap_or(1.0);
            let scales: Vec<f32> = weights.scales.iter().map(|scale| scale * alpha).collect();
            if scales.len() != 1 && axis_of(weights.axis, 2) != Some(usize::from(!is_turned)) {
                return Err(Reason::Form("the weights are quantized along another axis than the outputs"));
            }
            let bias = match (added, node.input(2)) {
                (Some(bias), _) => Bias::Real(bias),
                (None, None) => Bias::None,
                (None, Some(name)) => self.gemm_bias(node, name, spec.out_channels)?,
            };
            let zero_points = narrow(&weights.zero_points)?;
            self.packed_rows(&Linear { spec, bytes, scales, zero_points, bias }, &quant, &sink)?
        };
        let quant = self.with_form(quant, Form::Last)?;
        self.linear(index, &quant, packed, &sink, (&shape, Form::Last))
    }

    /// QGemm and QLinearMatMul.
    pub(super) fn qlinear_matmul(&mut self, index: usize, node: Node<'a>) -> Result<(), Reason> {
        if let Some(done) = self.bytes_product(index, node) {
            return done;
        }
        let is_gemm = node.op() == "QGemm";
        let quant = self.operand(node, 0)?;
        let sink = match node.input(7) {
            None if is_gemm => self.sink(node.output()),
            _ => self.named_sink(node, if is_gemm { 7 } else { 6 })?,
        };
        let (packed, shape) = {
            let is_turned = is_gemm && node.int("transB").unwrap_or(0) != 0;
            let tensor = self.graph.constant(Self::input(node, 3)?);
            let tensor = tensor.ok_or(Reason::NotConstant { what: "the weights" })?;
            let (spec, bytes) = matrix(node, tensor, is_turned, &quant.shape)?;
            let (_, mut scales, zero_points) = self.weights(node, [3, 4, 5])?;
            let alpha = if is_gemm { node.float("alpha").unwrap_or(1.0) } else { 1.0 };
            for scale in &mut scales {
                *scale *= alpha;
            }
            let bias = match node.input(6).filter(|_| is_gemm) {
                None => Bias::None,
                Some(name) => {
                    self.refuse_column(name, spec.out_channels)?;
                    Bias::Sums(self.int_constant(name, "the bias")?)
                }
            };
            self.packed_rows(&Linear { spec, bytes, scales, zero_points, bias }, &quant, &sink)?
        };
        let quant = self.with_form(quant, Form::Last)?;
        self.linear(index, &quant, packed, &sink, (&shape, Form::Last))
    }

    /// The weights packed for a product with rows, and the product's shape.
    fn packed_rows(
        &self,
        linear: &Linear<'_>,
        quant: &Quant,
        sink: &Sink<'a>,
    ) -> Result<(Packed, Vec<usize>), Reason> {
        let rows = volume(&quant.shape) / linear.spec.in_channels;
        Ok((self.packed(linear, quant, sink, rows)?, matrix_shape(&quant.shape, &linear.spec)))
    }

    fn gemm_bias(&self, node: Node<'a>, name: &str, outputs: usize) -> Result<Bias, Reason> {
        let beta = node.float("beta").unwrap_or(1.0);
        self.refuse_column(name, outputs)?;
        let bias = self.bias(name)?;
        if bias.len() == Some(outputs)
            && node.float("beta").is_none_or(|beta| beta.to_bits() == 1_f32.to_bits())
        {
            return Ok(bias);
        }
        let values = match bias {
            Bias::Real(values) => values,
            Bias::Scaled(values, scales) => scaled(&values, &scales),
            Bias::None | Bias::Sums(_) => return Err(Reason::Operator),
        };
        let values: Vec<f32> = match values.len() {
            1 => vec![values[0] * beta; outputs],
            _ => values.iter().map(|value| value * beta).collect(),
        };
        Ok(Bias::Real(values))
    }

    /// Gemm's C may also have one value for each row.
    fn refuse_column(&self, name: &str, outputs: usize) -> Result<(), Reason> {
        let channels = Channels { count: outputs, behind: 0, rank: 2 };
        let is_row = channels.fit(&self.weights_shape(name)?);
        is_row.then_some(()).ok_or(Reason::Form("the bias isn't one of outputs"))
    }

    /// The addition of a constant to each row of a product of that rank.
    fn bias_after(&self, name: &'a str, weights: &str, rank: usize) -> Option<(Vec<f32>, usize)> {
        let next = self.graph.only_consumer(name)?;
        let node = self.graph.nodes[next];
        let other = node.0.input.iter().find(|input| *input != name)?;
        let count = *self.weights_shape(weights).ok()?.get(1)?;
        let values = (node.op() == "Add").then(|| self.float_constant(other))??;
        let shape = self.weights_shape(other).ok()?;
        let is_row = values.len() == count && Channels { count, behind: 0, rank }.fit(&shape);
        is_row.then_some((values, next))
    }
}

/// The weights of a matrix product, outputs first.
pub(super) fn matrix<'g>(
    node: Node<'_>,
    weights: &'g tract_onnx::pb::TensorProto,
    is_turned: bool,
    input: &[usize],
) -> Result<(ConvSpec, Bytes<'g>), Reason> {
    let shape = tensor::shape(weights).ok_or(Reason::NotConstant { what: "the weights" })?;
    let [rows, columns] = shape[..] else { return Err(Reason::Form("the weights aren't a matrix")) };
    let [k, n] = if is_turned { [columns, rows] } else { [rows, columns] };
    if node.int("transA").unwrap_or(0) != 0 || input.len() < 2 || input.last() != Some(&k) {
        return Err(Reason::Shape { shape: input.to_vec() });
    }
    let bytes = tensor::bytes(weights).ok_or(Reason::NotConstant { what: "the weights" })?;
    let bytes = match bytes {
        bytes if is_turned => bytes,
        Bytes::S8(values) => Bytes::S8(turned(&values, [k, n])),
        Bytes::U8(values) => Bytes::U8(turned(&values, [k, n]).into()),
    };
    Ok((ConvSpec::pointwise(k, n), bytes))
}

/// What a product with the weights of `spec` makes of rows of this shape.
pub(super) fn matrix_shape(input: &[usize], spec: &ConvSpec) -> Vec<usize> {
    let mut shape = input.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = spec.out_channels;
    }
    shape
}

/// A matrix of k rows and n columns with its columns as rows.
pub(super) fn turned<T: Copy>(values: &[T], [k, n]: [usize; 2]) -> Vec<T> {
    (0..n).flat_map(|column| (0..k).map(move |row| values[row * n + column])).collect()
}
