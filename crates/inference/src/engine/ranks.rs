//! How many axes tensors have, as far as a file says so, and whether nodes name such as are there. tract counts on where
//! an axis isn't, some operators without end.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, type_proto};

use super::attributes::{attribute, attribute_ints, int_or};
use super::forms;
use super::limits::Tensors;

/// Operators that name an axis of their first input.
const WITH_AXIS: [&str; 15] = [
    "ArgMax",
    "ArgMin",
    "Compress",
    "Concat",
    "Flatten",
    "Gather",
    "GatherElements",
    "Hardmax",
    "LayerNormalization",
    "LogSoftmax",
    "LpNormalization",
    "ScatterElements",
    "Softmax",
    "Split",
    "TopK",
];
/// Operators that name several, and in which input since they don't do it in an attribute.
const WITH_AXES: [(&str, usize); 12] = [
    ("ReduceL1", 1),
    ("ReduceL2", 1),
    ("ReduceLogSum", 1),
    ("ReduceLogSumExp", 1),
    ("ReduceMax", 1),
    ("ReduceMean", 1),
    ("ReduceMin", 1),
    ("ReduceProd", 1),
    ("ReduceSum", 1),
    ("ReduceSumSquare", 1),
    ("Slice", 3),
    ("Squeeze", 1),
];
/// Operators whose results have as many axes as their first input.
const OF_FIRST: [&str; 47] = [
    "Abs",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MaxPool",
    "Neg",
    "PRelu",
    "Pad",
    "QuantizeLinear",
    "Relu",
    "Resize",
    "Round",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Tanh",
    "Transpose",
];
/// Operators whose results have as many as the input that has most.
const OF_MOST: [&str; 9] = ["Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum"];
/// Operators that name an axis of their first input where their second one stands, before opset 7.
const BROADCAST: [&str; 11] =
    ["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"];

/// Numbers of axes by name.
pub(super) struct Ranks<'g> {
    ranks: HashMap<&'g str, usize>,
    /// Lengths of constant lists: a Reshape by one has as many axes.
    lists: HashMap<&'g str, usize>,
}

impl<'g> Ranks<'g> {
    /// Those of a graph's inputs and constants.
    pub(super) fn of(graph: &'g GraphProto) -> Self {
        let mut known = Self { ranks: HashMap::new(), lists: HashMap::new() };
        for input in &graph.input {
            let kind = input.r#type.as_ref().and_then(|kind| kind.value.as_ref());
            let Some(type_proto::Value::TensorType(tensor)) = kind else { continue };
            // None may also mean that nobody says.
            let count = tensor.shape.as_ref().map(|shape| shape.dim.len()).filter(|count| *count > 0);
            known.ranks.extend(count.map(|count| (input.name.as_str(), count)));
        }
        for tensor in &graph.initializer {
            known.constant(&tensor.name, &tensor.dims);
        }
        known
    }

    fn constant(&mut self, name: &'g str, dims: &[i64]) {
        self.ranks.insert(name, dims.len());
        if let [length] = dims {
            self.lists.extend(usize::try_from(*length).ok().map(|length| (name, length)));
        }
    }

    fn rank(&self, node: &NodeProto, slot: usize) -> Option<usize> {
        node.input.get(slot).and_then(|name| self.ranks.get(name.as_str())).copied()
    }

    /// Checks the axes that a node names, and learns what it makes; an error says what about it can't be.
    pub(super) fn check(&mut self, node: &'g NodeProto, tensors: &Tensors<'_>) -> Result<(), String> {
        if let Some(rank) = self.rank(node, 0) {
            let slot = WITH_AXES.iter().find(|(op, _)| *op == node.op_type).map(|(_, slot)| *slot);
            check(node, slot.and_then(|slot| tensors.ints(node, slot)).unwrap_or_default(), rank)?;
            let shape = vec![None; rank];
            forms::of_shape(node, &shape)?;
            let weights = forms::weights_of(&node.op_type).and_then(|slot| tensors.sizes(node, slot));
            weights.map_or(Ok(()), |weights| forms::of_weights(node, &shape, &weights))?;
        }
        self.broadcast(node)?;
        let value = node.attribute.iter().find_map(|one: &'g AttributeProto| one.t.as_ref());
        if let ("Constant", Some(value), [output]) = (node.op_type.as_str(), value, &node.output[..]) {
            self.constant(output, &value.dims);
        } else if let Some(rank) = self.made(node) {
            self.ranks.extend(node.output.iter().map(|output| (output.as_str(), rank)));
        }
        Ok(())
    }

    /// Before opset 7 a second input may stand at any axis of the first one; tract has it at the last ones.
    fn broadcast(&self, node: &NodeProto) -> Result<(), String> {
        let Some(axis) = attribute(node, "axis").filter(|_| BROADCAST.contains(&node.op_type.as_str()))
        else {
            return Ok(());
        };
        let ranks = self.rank(node, 0).zip(self.rank(node, 1));
        let ends = |(all, few): (usize, usize)| {
            let axis =
                usize::try_from(axis.i).ok().or_else(|| all.checked_add_signed(axis.i.try_into().ok()?));
            axis.and_then(|axis| axis.checked_add(few)) == Some(all)
        };
        if ranks.is_some_and(ends) {
            return Ok(());
        }
        Err(format!(
            "has the attribute axis of opset 6 and before ({}), which is known where it means the last axes; \
             onnx.version_converter says it in another way",
            axis.i
        ))
    }

    fn made(&self, node: &NodeProto) -> Option<usize> {
        match node.op_type.as_str() {
            "Flatten" | "Gemm" => Some(2),
            "Reshape" => self.lists.get(node.input.get(1)?.as_str()).copied(),
            op if op.starts_with("Reduce") && int_or(node, "keepdims", 1) == 1 => self.rank(node, 0),
            op if OF_FIRST.contains(&op) => self.rank(node, 0),
            op if OF_MOST.contains(&op) => {
                let ranks: Option<Vec<usize>> =
                    (0..node.input.len()).map(|slot| self.rank(node, slot)).collect();
                ranks?.into_iter().max()
            }
            _ => None,
        }
    }
}

/// Operators that name axes or have a window.
pub(super) fn with_axis() -> impl Iterator<Item = &'static str> {
    WITH_AXIS.into_iter().chain(WITH_AXES.map(|(op, _)| op)).chain(forms::windowed())
}

/// Checks the axes that a node names in attributes, and `listed`, against the axes that there are.
pub(super) fn check(node: &NodeProto, listed: Vec<i64>, rank: usize) -> Result<(), String> {
    let op = node.op_type.as_str();
    let named: Vec<i64> = if WITH_AXES.iter().any(|(name, _)| *name == op) {
        attribute_ints(node, "axes").iter().copied().chain(listed).collect()
    } else if WITH_AXIS.contains(&op) {
        attribute(node, "axis").map(|axis| axis.i).into_iter().collect()
    } else {
        Vec::new()
    };
    // A Flatten names the axis before which it cuts: behind the last one it may do so, too.
    let most = if op == "Flatten" { rank + 1 } else { rank };
    let is_there = |axis: &i64| {
        usize::try_from(axis.unsigned_abs()).is_ok_and(|at| if *axis < 0 { at <= rank } else { at < most })
    };
    match named.iter().find(|axis| !is_there(axis)) {
        Some(axis) => Err(format!("names axis {axis} of a tensor that has {rank}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{ints, model, node};
    use super::*;

    fn why(nodes: &[NodeProto]) -> String {
        let lists = vec![ints("far", &[1, -5]), ints("near", &[-1]), ints("sizes", &[2, 3, 4])];
        let mut graph = model(nodes.to_vec(), lists).graph.unwrap();
        let kind = graph.input[0].r#type.as_mut().and_then(|kind| kind.value.as_mut());
        let Some(type_proto::Value::TensorType(tensor)) = kind else { panic!("no tensor") };
        let shape = tensor.shape.get_or_insert_default();
        shape.dim = vec![tract_onnx::pb::tensor_shape_proto::Dimension::default(); 4];
        let (mut ranks, tensors) = (Ranks::of(&graph), Tensors::of(&graph));
        let checked = graph.node.iter().try_for_each(|node| ranks.check(node, &tensors));
        checked.map_or_else(|why| why, |()| String::new())
    }

    #[test]
    fn an_axis_that_is_not_there_is_refused() {
        let of = |op: &str, axis: i64| why(&[node(op, &["x"], "y", &[("axis", &[axis])])]);
        for op in ["LayerNormalization", "Softmax", "Split", "Concat", "Flatten"] {
            assert_eq!((of(op, -4), of(op, 3)), (String::new(), String::new()), "{op}");
            assert_eq!(of(op, -9), "names axis -9 of a tensor that has 4", "{op}");
            assert_eq!(of(op, 4).is_empty(), op == "Flatten", "{op}");
        }
        let mean = |axes: &[i64]| why(&[node("ReduceMean", &["x"], "y", &[("axes", axes)])]);
        assert_eq!(mean(&[2, -1]), "");
        assert_eq!(mean(&[2, 4]), "names axis 4 of a tensor that has 4");
        assert_eq!(why(&[node("ReduceSum", &["x", "near"], "y", &[])]), "");
        assert_eq!(
            why(&[node("ReduceSum", &["x", "far"], "y", &[])]),
            "names axis -5 of a tensor that has 4"
        );
    }

    #[test]
    fn what_nodes_make_of_known_ranks_is_known() {
        let last = |node_before: NodeProto| {
            why(&[
                node_before,
                node("Relu", &["a"], "b", &[]),
                node("Softmax", &["b"], "y", &[("axis", &[3])]),
            ])
        };
        assert_eq!(last(node("Add", &["x", "near"], "a", &[])), "");
        assert!(last(node("Reshape", &["x", "sizes"], "a", &[])).contains("that has 3"));
        assert!(last(node("Flatten", &["x"], "a", &[])).contains("that has 2"));
        assert_eq!(last(node("OfSomebody", &["x"], "a", &[])), "");
    }
}
