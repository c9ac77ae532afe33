//! Small constants that the graph works out itself: shapes, and constants reshaped or cast.

use tract_onnx::pb::tensor_proto::DataType;

use super::Reason;
use super::graph::Node;
use super::tensor;
use super::walk::Lowering;
use crate::int8::report::Runs;
use crate::tensor::volume;

/// Most elements of what is worked out here.
const MAX_FOLDED: usize = 4096;

/// Whole numbers that are known while the graph is read.
struct Known {
    kind: DataType,
    shape: Vec<usize>,
    values: Vec<i64>,
}

impl<'a> Lowering<'a> {
    /// Works a node out if all that it reads is known; whether it did.
    pub(super) fn fold(&mut self, node: Node<'a>) -> bool {
        let known = match node.op() {
            "Shape" => self.shape_values(node),
            "Gather" => self.gathered(node),
            "Concat" => self.joined(node),
            "Unsqueeze" | "Squeeze" => self.moved_axes(node),
            "Slice" => self.sliced(node),
            "Cast" => self.cast(node),
            "Reshape" | "Identity" => return self.fold_floats(node),
            _ => None,
        };
        let fits =
            |known: &Known| known.values.len() <= MAX_FOLDED && volume(&known.shape) == known.values.len();
        let folded = known
            .filter(fits)
            .and_then(|known| tensor::of_ints(node.output(), known.kind, &known.shape, known.values));
        let Some(folded) = folded else { return false };
        self.graph.fold(node.output(), folded);
        true
    }

    /// Works out what depends on constants alone, wherever it stands.
    pub(super) fn fold_constants(&mut self) {
        for index in 0..self.graph.nodes.len() {
            if self.runs[index].is_some() {
                continue;
            }
            let node = self.graph.nodes[index];
            self.runs[index] = match node.op() {
                "Reshape" | "Identity" if self.fold_floats(node) => Some(Runs::Float),
                "QuantizeLinear" if self.fold_quantized(node) => Some(Runs::Int8),
                "Transpose" if self.turn_constant(node) => Some(Runs::Int8),
                _ => None,
            };
        }
    }

    fn shape_values(&mut self, node: Node<'a>) -> Option<Known> {
        let name = node.input(0)?;
        let bound = self.bound.get(name).map(|bound| &bound.shape);
        let shape = bound.or_else(|| Some(&self.given.get(name)?.shape))?;
        let shape = asked(shape, node.int("start"), node.int("end"));
        let values: Option<Vec<i64>> = shape.iter().map(|size| i64::try_from(*size).ok()).collect();
        Some(Known { kind: DataType::Int64, shape: vec![shape.len()], values: values? })
    }

    fn known(&self, node: Node<'a>, slot: usize) -> Option<Known> {
        let constant = self.graph.constant(node.input(slot)?)?;
        let shape = tensor::shape(constant).filter(|shape| volume(shape) <= MAX_FOLDED)?;
        Some(Known { kind: tensor::data_type(constant)?, shape, values: tensor::ints(constant)? })
    }

    /// To INT32 or INT64.
    fn cast(&self, node: Node<'a>) -> Option<Known> {
        let kinds = [DataType::Int32, DataType::Int64];
        let kind = kinds.into_iter().find(|kind| node.int("to") == Some(i64::from(*kind as i32)))?;
        self.known(node, 0).map(|known| Known { kind, ..known })
    }

    /// Unsqueeze and Squeeze.
    fn moved_axes(&self, node: Node<'a>) -> Option<Known> {
        let known = self.known(node, 0)?;
        let shape = self.new_shape(node, &known.shape).ok()?;
        Some(Known { shape, ..known })
    }

    fn gathered(&self, node: Node<'a>) -> Option<Known> {
        let (from, indices) = (self.known(node, 0)?, self.known(node, 1)?);
        if from.shape.len() != 1 || node.int("axis").unwrap_or(0) != 0 {
            return None;
        }
        let size = i64::try_from(from.values.len()).ok()?;
        let pick = |index: &i64| {
            let index = if *index < 0 { index + size } else { *index };
            usize::try_from(index).ok().and_then(|index| from.values.get(index)).copied()
        };
        let values = indices.values.iter().map(pick).collect::<Option<_>>()?;
        Some(Known { kind: from.kind, shape: indices.shape, values })
    }

    fn joined(&self, node: Node<'a>) -> Option<Known> {
        let parts: Option<Vec<Known>> = (0..node.0.input.len()).map(|slot| self.known(node, slot)).collect();
        let parts = parts?;
        let kind = parts.first()?.kind;
        if parts.iter().any(|part| part.shape.len() != 1 || part.kind != kind) {
            return None;
        }
        let values: Vec<i64> = parts.into_iter().flat_map(|part| part.values).collect();
        Some(Known { kind, shape: vec![values.len()], values })
    }

    fn sliced(&self, node: Node<'a>) -> Option<Known> {
        let from = self.known(node, 0)?;
        let one = |slot: usize| match self.known(node, slot)?.values[..] {
            [value] => Some(value),
            _ => None,
        };
        let size = i64::try_from(from.values.len()).ok()?;
        let inside = |value: i64| if value < 0 { value.saturating_add(size) } else { value }.clamp(0, size);
        let (start, end) = (inside(one(1)?), inside(one(2)?));
        let step = if node.input(4).is_some() { one(4)? } else { 1 };
        let is_plain = step == 1 && from.shape.len() == 1;
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        let values = from.values.get(range).filter(|_| is_plain)?.to_vec();
        Some(Known { kind: from.kind, shape: vec![values.len()], values })
    }

    /// A reshaped f32 constant, such as the bias that is added to a convolution.
    fn fold_floats(&mut self, node: Node<'a>) -> bool {
        let Some(constant) = node.input(0).and_then(|name| self.graph.constant(name)) else { return false };
        let mut constant = constant.clone();
        if node.op() == "Reshape" {
            let Ok(Some(wanted)) = self.reshape_of(node, &constant.dims.clone()) else { return false };
            constant.dims = wanted;
        }
        let size = tensor::shape(&constant).map_or(usize::MAX, |shape| volume(&shape));
        if size > MAX_FOLDED * 16 {
            return false;
        }
        node.output().clone_into(&mut constant.name);
        if node.0.input.iter().any(|input| self.graph.is_of_row(input)) {
            self.graph.fold(node.output(), constant);
        } else {
            self.graph.fold_for_all_rows(node.output(), constant);
        }
        true
    }

    fn reshape_of(&self, node: Node<'a>, dims: &[i64]) -> Result<Option<Vec<i64>>, Reason> {
        let wanted = self.int_constant(Self::input(node, 1)?, "the shape")?;
        let from: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let allows_zero = node.int("allowzero").unwrap_or(0) != 0;
        let shape = from.and_then(|from| {
            super::shapes::reshaped(&from, &wanted, allows_zero)
                .filter(|shape| volume(shape) == volume(&from))
        });
        Ok(shape.and_then(|shape| shape.iter().map(|size| i64::try_from(*size).ok()).collect()))
    }
}
/// The sizes of which `Shape` tells, from `start` up to `end`; negative ones count from the last.
fn asked(shape: &[usize], start: Option<i64>, end: Option<i64>) -> &[usize] {
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let place = |at: i64| {
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        usize::try_from(at.clamp(0, rank)).unwrap_or(0)
    };
    shape.get(place(start.unwrap_or(0))..place(end.unwrap_or(rank))).unwrap_or_default()
}
