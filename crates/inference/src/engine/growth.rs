//! How large constants become when a file's nodes work on them. tract works such nodes out while it plans, whatever they
//! make: what can be known from the file is bounded before.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto};

use super::check::MAX_MADE_ELEMENTS;
use super::limits::{Tensors, attribute_int};

/// Operators whose result has the shape of their first input.
const SAME: [&str; 14] = [
    "Abs",
    "Cast",
    "Ceil",
    "Clip",
    "DequantizeLinear",
    "Dropout",
    "Exp",
    "Floor",
    "Identity",
    "Neg",
    "QuantizeLinear",
    "Relu",
    "Sigmoid",
    "Sqrt",
];
/// Operators that stretch their inputs to a common shape.
const BROADCAST: [&str; 16] = [
    "Add", "And", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub",
    "Where", "Xor",
];

/// Shapes of what is known before the first request, by name.
pub(super) struct Shapes<'g>(HashMap<&'g str, Vec<u64>>);

impl<'g> Shapes<'g> {
    /// Those of a graph's constants.
    pub(super) fn of(graph: &'g GraphProto) -> Self {
        let sizes = |dims: &[i64]| dims.iter().map(|dim| dim.unsigned_abs()).collect();
        let of_nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let value = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
            Some((node.output.first()?.as_str(), sizes(&value.dims)))
        });
        let own = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), sizes(&tensor.dims)));
        Self(own.chain(of_nodes).collect())
    }

    /// Adds what a node makes of them; an error says what is too large.
    pub(super) fn add(&mut self, node: &'g NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
        let Some(shape) = self.made(node, tensors) else { return Ok(()) };
        let made = shape.iter().fold(1_u64, |all, size| all.saturating_mul(*size));
        if made > MAX_MADE_ELEMENTS {
            return Err(format!(
                "makes {made} elements of constants; at most {MAX_MADE_ELEMENTS} are allowed"
            ));
        }
        if let Some(output) = node.output.first().filter(|name| !name.is_empty()) {
            self.0.insert(output, shape);
        }
        Ok(())
    }

    fn made(&self, node: &NodeProto, tensors: &Tensors<'_>) -> Option<Vec<u64>> {
        let input = |slot: usize| node.input.get(slot).and_then(|name| self.0.get(name.as_str()));
        let all = || node.input.iter().map(|name| self.0.get(name.as_str()).map(Vec::as_slice));
        match node.op_type.as_str() {
            op if SAME.contains(&op) => input(0).cloned(),
            op if BROADCAST.contains(&op) => broadcast(&all().collect::<Option<Vec<_>>>()?),
            "Expand" => broadcast(&[input(0)?, &sizes(tensors, node)?]),
            "Tile" => {
                let times = sizes(tensors, node)?;
                let from = input(0).filter(|from| from.len() == times.len())?;
                Some(from.iter().zip(times).map(|(size, times)| size.saturating_mul(times)).collect())
            }
            "Resize" | "Upsample" => {
                let slot = if node.op_type == "Resize" && node.input.len() > 2 { 2 } else { 1 };
                let scales = tensors.floats(node, slot)?;
                let from = input(0).filter(|from| from.len() == scales.len())?;
                Some(from.iter().zip(scales).map(|(size, scale)| scaled(*size, scale)).collect())
            }
            "Concat" => joined(&all().collect::<Option<Vec<_>>>()?, attribute_int(node, "axis")),
            // As many as it holds, one behind the other.
            "ConcatFromSequence" => input(0).cloned(),
            "SequenceConstruct" => {
                let volume = |shape: &[u64]| shape.iter().fold(1_u64, |all, size| all.saturating_mul(*size));
                let parts = all().collect::<Option<Vec<_>>>()?;
                Some(vec![parts.into_iter().map(volume).fold(0, u64::saturating_add)])
            }
            "ConstantOfShape" => tensors.ints(node, 0).map(unsigned),
            _ => None,
        }
    }
}

fn unsigned(sizes: Vec<i64>) -> Vec<u64> {
    sizes.into_iter().map(i64::unsigned_abs).collect()
}

/// The sizes that an operator's second input names.
fn sizes(tensors: &Tensors<'_>, node: &NodeProto) -> Option<Vec<u64>> {
    tensors.ints(node, 1).map(unsigned)
}

/// The shape that all of them are stretched to; none where they don't fit each other.
fn broadcast(shapes: &[&[u64]]) -> Option<Vec<u64>> {
    let rank = shapes.iter().map(|shape| shape.len()).max()?;
    let mut whole = vec![1; rank];
    for shape in shapes {
        for (to, size) in whole.iter_mut().rev().zip(shape.iter().rev()) {
            match (*to, *size) {
                (_, 1) => (),
                (1, size) => *to = size,
                (one, other) if one == other => (),
                _ => return None,
            }
        }
    }
    Some(whole)
}

fn joined(shapes: &[&[u64]], axis: i64) -> Option<Vec<u64>> {
    let mut whole = shapes.first()?.to_vec();
    let rank = i64::try_from(whole.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let along: Option<Vec<u64>> = shapes.iter().map(|shape| shape.get(axis).copied()).collect();
    *whole.get_mut(axis)? = along?.into_iter().fold(0, u64::saturating_add);
    Some(whole)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a bound: what is beyond a number's range is refused"
)]
fn scaled(size: u64, scale: f32) -> u64 {
    (size as f64 * f64::from(scale)) as u64
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, TensorProto};

    use super::*;

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        let axis = AttributeProto { name: "axis".to_owned(), i: 0, ..AttributeProto::default() };
        NodeProto {
            op_type: op.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: vec![axis],
            ..NodeProto::default()
        }
    }

    fn constant(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
        TensorProto {
            name: name.to_owned(),
            data_type: 7,
            dims: dims.to_vec(),
            int64_data: values.to_vec(),
            ..TensorProto::default()
        }
    }

    fn refused(nodes: &[NodeProto]) -> Option<String> {
        let initializer = vec![
            constant("c", &[1024, 1], &[]),
            constant("row", &[1, 1 << 20], &[]),
            constant("few", &[2], &[4, 8]),
            constant("many", &[2], &[1024, 1024]),
        ];
        let graph = GraphProto { initializer, node: nodes.to_vec(), ..GraphProto::default() };
        let (tensors, mut shapes) = (Tensors::of(&graph), Shapes::of(&graph));
        graph
            .node
            .iter()
            .find_map(|node| shapes.add(node, &tensors).err().map(|why| node.output[0].clone() + ": " + &why))
    }

    #[test]
    fn what_grows_in_one_step_is_bounded() {
        assert_eq!(refused(&[node("Tile", &["c", "few"], "y")]), None);
        assert_eq!(refused(&[node("Expand", &["c", "many"], "y")]), None);
        assert_eq!(refused(&[node("Mul", &["c", "c"], "y")]), None);
        assert!(
            refused(&[node("Tile", &["c", "many"], "y")])
                .is_some_and(|why| why.starts_with("y: makes 1073741824"))
        );
        assert!(refused(&[node("Add", &["c", "row"], "y")]).is_some());
    }

    #[test]
    fn what_grows_in_several_steps_is_bounded() {
        for op in ["Concat", "SequenceConstruct"] {
            let names: Vec<String> = (0..40).map(|step| format!("v{step}")).collect();
            let doubled = |step: usize| node(op, &[names[step].as_str(); 2], &names[step + 1]);
            let mut nodes = vec![node("Identity", &["c"], "v0")];
            nodes.extend((0..10).map(doubled));
            assert_eq!(refused(&nodes), None, "{op}");
            nodes.extend((10..39).map(doubled));
            assert!(refused(&nodes).is_some_and(|why| why.starts_with("v19")), "{op}");
        }
        let steps: Vec<String> = (0..5).map(|step| format!("v{step}")).collect();
        let mut nodes = vec![node("ConstantOfShape", &["few"], "v0")];
        nodes.extend((0..4).map(|step| node("Tile", &[&steps[step], "few"], &steps[step + 1])));
        assert_eq!(refused(&nodes), None);
        nodes.extend([node("Tile", &["v4", "few"], "v5"), node("Tile", &["v5", "few"], "v6")]);
        assert!(refused(&nodes).is_some_and(|why| why.starts_with("v5")));
    }
}
