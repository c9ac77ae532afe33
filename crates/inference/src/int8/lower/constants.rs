//! Weights that the file quantizes or turns while it runs, done once: quantization-aware training exports f32 weights
//! with QuantizeLinear and DequantizeLinear behind them, linear layers a Transpose behind that. Only constants that
//! nothing else reads are taken, so that what is made never outgrows the file.

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::graph::Node;
use super::matmul::turned;
use super::shapes::axis_of;
use super::tensor::{self, Bytes};
use super::walk::Lowering;
use crate::tensor::volume;

/// What a constant is quantized by.
struct Grid {
    kind: DataType,
    /// One for the whole, or one per place along the axis.
    scales: Vec<f32>,
    /// As many.
    zero_points: Vec<i64>,
}

impl<'a> Lowering<'a> {
    /// Quantizes an f32 constant; whether it did.
    pub(super) fn fold_quantized(&mut self, node: Node<'a>) -> bool {
        let Some(quantized) = self.quantized_constant(node) else { return false };
        self.graph.fold_for_all_rows(node.output(), quantized);
        true
    }

    /// Turns the bytes of a dequantized matrix; whether it did.
    pub(super) fn turn_constant(&mut self, node: Node<'a>) -> bool {
        let Some(turned) = self.turned_constant(node) else { return false };
        self.turned.insert(node.output(), turned);
        true
    }

    fn quantized_constant(&self, node: Node<'a>) -> Option<TensorProto> {
        let name = node.input(0).filter(|name| self.graph.only_consumer(name).is_some())?;
        let constant = self.graph.constant(name)?;
        let (values, shape) = (tensor::floats(constant)?, tensor::shape(constant)?);
        let grid = self.grid(node)?;
        let behind = match grid.scales.len() {
            1 => values.len().max(1),
            count => {
                let axis = axis_of(node.int("axis").unwrap_or(1), shape.len())?;
                (shape[axis] == count).then(|| volume(&shape[axis + 1..]))?
            }
        };
        let is_plain = values.len() == volume(&shape) && values.iter().all(|value| value.is_finite());
        let place = |index: usize| index / behind % grid.scales.len();
        let raw_data = values.iter().enumerate().map(|(index, value)| grid.byte(place(index), *value));
        let output = node.output();
        (is_plain && !self.graph.is_output(output)).then(|| TensorProto {
            name: output.to_owned(),
            dims: constant.dims.clone(),
            data_type: grid.kind as i32,
            raw_data: raw_data.collect(),
            ..TensorProto::default()
        })
    }

    fn grid(&self, node: Node<'a>) -> Option<Grid> {
        let is_known = |name: &str| node.int(name).unwrap_or(0) == 0;
        let constant = |slot: usize| self.graph.constant(node.input(slot)?);
        let scales = constant(1).and_then(tensor::floats)?;
        let (kind, zero_points) = match node.input(2) {
            None => (DataType::Uint8, vec![0; scales.len()]),
            Some(_) => (tensor::data_type(constant(2)?)?, constant(2).and_then(tensor::ints)?),
        };
        let is_plain = ["block_size", "precision"].into_iter().all(is_known)
            && matches!(kind, DataType::Uint8 | DataType::Int8)
            && !scales.is_empty()
            && zero_points.len() == scales.len()
            && scales.iter().all(|scale| scale.is_normal() && *scale > 0.0);
        is_plain.then_some(Grid { kind, scales, zero_points })
    }

    fn turned_constant(&self, node: Node<'a>) -> Option<TensorProto> {
        let is_plain =
            matches!(node.ints("perm"), None | Some([1, 0])) && !self.graph.is_output(node.output());
        let name = node.input(0).filter(|name| is_plain && self.graph.only_consumer(name).is_some())?;
        let bytes_name = self.graph.producer(name)?.input(0)?;
        self.graph.only_consumer(bytes_name)?;
        let constant = self.dequantized_as_it_is(name).ok()?.tensor;
        let [rows, columns] = tensor::shape(constant)?[..] else { return None };
        let turned = match tensor::bytes(constant)? {
            Bytes::U8(values) if values.len() == rows * columns => turned(&values, [rows, columns]),
            Bytes::S8(values) if values.len() == rows * columns => {
                turned(&values, [rows, columns]).into_iter().map(i8::cast_unsigned).collect()
            }
            Bytes::U8(_) | Bytes::S8(_) => return None,
        };
        let [rows, columns] = [0, 1].map(|axis| constant.dims[axis]);
        Some(TensorProto {
            dims: vec![columns, rows],
            data_type: constant.data_type,
            raw_data: turned,
            ..TensorProto::default()
        })
    }
}

impl Grid {
    /// A value as it is in the file: rounded half to even, saturated.
    fn byte(&self, place: usize, value: f32) -> u8 {
        let steps = (value / self.scales[place]).round_ties_even();
        #[expect(clippy::cast_possible_truncation, reason = "far beyond 8 bits it saturates anyway")]
        let steps = steps as i32;
        let steps = i64::from(steps) + self.zero_points[place];
        let (low, high) = if self.kind == DataType::Int8 { (-128, 127) } else { (0, 255) };
        steps.clamp(low, high).to_le_bytes()[0]
    }
}
