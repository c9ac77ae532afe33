//! Small constants that the graph works out itself: shapes, and constants reshaped or cast.

use super::Reason;
use super::graph::Node;
use super::tensor;
use super::walk::Lowering;
use crate::int8::report::Runs;
use crate::tensor::volume;

/// Most elements of what is worked out here.
const MAX_FOLDED: usize = 4096;

impl<'a> Lowering<'a> {
    /// Works a node out if all that it reads is known; whether it did.
    pub(super) fn fold(&mut self, node: Node<'a>) -> bool {
        let value = match node.op() {
            "Shape" => self.shape_values(node),
            "Gather" => self.gathered(node),
            "Concat" => self.joined(node),
            "Unsqueeze" | "Squeeze" => self.integers(node, 0).map(|values| {
                let is_scalar = node.op() == "Squeeze" && values.len() == 1;
                (if is_scalar { Vec::new() } else { vec![values.len()] }, values)
            }),
            "Slice" => self.sliced(node),
            "Cast" if node.int("to") == Some(7) => {
                self.integers(node, 0).map(|values| (self.constant_shape(node, 0), values))
            }
            "Reshape" | "Identity" => return self.fold_floats(node),
            _ => None,
        };
        let Some((shape, values)) = value.filter(|(_, values)| values.len() <= MAX_FOLDED) else {
            return false;
        };
        let dims: Option<Vec<i64>> = shape.iter().map(|size| i64::try_from(*size).ok()).collect();
        let Some(dims) = dims else { return false };
        self.graph.fold(node.output(), tensor::of_ints(node.output(), dims, values));
        true
    }

    /// Works out what depends on constants alone, wherever it stands.
    pub(super) fn fold_constants(&mut self) {
        for index in 0..self.graph.nodes.len() {
            let node = self.graph.nodes[index];
            if matches!(node.op(), "Reshape" | "Identity") && self.fold_floats(node) {
                self.runs[index] = Some(Runs::Float);
            }
        }
    }

    fn shape_values(&mut self, node: Node<'a>) -> Option<(Vec<usize>, Vec<i64>)> {
        let name = node.input(0)?;
        let is_plain = node.int("start").is_none() && node.int("end").is_none();
        let shape = self.bound.get(name).filter(|_| is_plain)?.shape.clone();
        let values: Option<Vec<i64>> = shape.iter().map(|size| i64::try_from(*size).ok()).collect();
        Some((vec![shape.len()], values?))
    }

    fn integers(&self, node: Node<'a>, slot: usize) -> Option<Vec<i64>> {
        self.graph.constant(node.input(slot)?).and_then(tensor::ints)
    }

    fn constant_shape(&self, node: Node<'a>, slot: usize) -> Vec<usize> {
        let constant = node.input(slot).and_then(|name| self.graph.constant(name));
        constant.and_then(tensor::shape).unwrap_or_default()
    }

    fn gathered(&self, node: Node<'a>) -> Option<(Vec<usize>, Vec<i64>)> {
        let (values, indices) = (self.integers(node, 0)?, self.integers(node, 1)?);
        if self.constant_shape(node, 0).len() != 1 || node.int("axis").unwrap_or(0) != 0 {
            return None;
        }
        let size = i64::try_from(values.len()).ok()?;
        let pick = |index: &i64| {
            let index = if *index < 0 { index + size } else { *index };
            usize::try_from(index).ok().and_then(|index| values.get(index)).copied()
        };
        Some((self.constant_shape(node, 1), indices.iter().map(pick).collect::<Option<_>>()?))
    }

    fn joined(&self, node: Node<'a>) -> Option<(Vec<usize>, Vec<i64>)> {
        let parts: Option<Vec<_>> = (0..node.0.input.len()).map(|slot| self.integers(node, slot)).collect();
        let is_flat = (0..node.0.input.len()).all(|slot| self.constant_shape(node, slot).len() == 1);
        let values: Vec<i64> = parts.filter(|_| is_flat)?.concat();
        Some((vec![values.len()], values))
    }

    fn sliced(&self, node: Node<'a>) -> Option<(Vec<usize>, Vec<i64>)> {
        let values = self.integers(node, 0)?;
        let one = |slot: usize| match self.integers(node, slot)?[..] {
            [value] => Some(value),
            _ => None,
        };
        let size = i64::try_from(values.len()).ok()?;
        let inside = |value: i64| if value < 0 { value.saturating_add(size) } else { value }.clamp(0, size);
        let (start, end) = (inside(one(1)?), inside(one(2)?));
        let step = if node.input(4).is_some() { one(4)? } else { 1 };
        let is_plain = step == 1 && self.constant_shape(node, 0).len() == 1;
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        let values = values.get(range).filter(|_| is_plain)?.to_vec();
        Some((vec![values.len()], values))
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
        self.graph.fold(node.output(), constant);
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
