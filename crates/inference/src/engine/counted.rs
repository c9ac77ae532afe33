//! Whether a model calculates with the number of rows itself, as in a mean that is written out. A plan for one row takes
//! it for one.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::attributes::int_or;
use super::limits::Tensors;

/// Operators that calculate value by value.
const CALCULATE: [&str; 20] = [
    "Add",
    "And",
    "Clip",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];
/// Operators whose first input alone is what they make something of; the others are sizes.
const OF_FIRST: [&str; 9] =
    ["Expand", "Pad", "Reshape", "Resize", "Split", "Squeeze", "Tile", "Unsqueeze", "Upsample"];

/// Whether a row's value meets the number of rows in a calculation. A size that only says the shape of something
/// doesn't count, nor does one of another axis.
pub(super) fn counts_rows(proto: &ModelProto) -> bool {
    proto.graph.as_ref().is_some_and(in_graph)
}

fn in_graph(graph: &GraphProto) -> bool {
    let tensors = Tensors::of(graph);
    let mut fixed: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut counted: HashSet<&str> = HashSet::new();
    for node in &graph.node {
        let inputs = || node.input.iter().map(String::as_str).filter(|input| !input.is_empty());
        if is_counted(node, &counted, &fixed, &tensors) {
            let meets = inputs().any(|input| !fixed.contains(input) && !counted.contains(input));
            if meets && CALCULATE.contains(&node.op_type.as_str()) {
                return true;
            }
            counted.extend(node.output.iter().map(String::as_str));
            continue;
        }
        let is_size = matches!(node.op_type.as_str(), "Shape" | "Size");
        if is_size || inputs().all(|input| fixed.contains(input) || counted.contains(input)) {
            fixed.extend(node.output.iter().map(String::as_str));
        }
    }
    false
}

/// Whether what a node makes holds the number of rows, or is made of it.
fn is_counted(
    node: &NodeProto,
    counted: &HashSet<&str>,
    fixed: &HashSet<&str>,
    tensors: &Tensors<'_>,
) -> bool {
    let is_in = |set: &HashSet<&str>, slot: usize| {
        node.input.get(slot).is_some_and(|input| set.contains(input.as_str()))
    };
    let is = |slot: usize| is_in(counted, slot);
    let is_fixed = (0..node.input.len()).all(|slot| node.input[slot].is_empty() || is_in(fixed, slot));
    // Rows' values that are picked by their number stay rows' values; those of a table are the number's own.
    let is_picked = || is(1) && (is_in(fixed, 0) || is(0));
    let places = |slot: usize| tensors.ints(node, slot).unwrap_or_default();
    // The rows are the first axis.
    let is_past_rows = |places: &[i64]| !places.is_empty() && !places.contains(&0);
    match node.op_type.as_str() {
        "Shape" => !is_fixed && int_or(node, "start", 0) == 0,
        "Size" => !is_fixed,
        "ConstantOfShape" => false,
        "Gather" => (is(0) && !is_past_rows(&places(1))) || is_picked(),
        "GatherND" | "GatherElements" => is(0) || is_picked(),
        "Slice" => (is(0) && !is_past_rows(&places(1))) || (1..node.input.len()).any(is),
        op if OF_FIRST.contains(&op) => is(0),
        _ => (0..node.input.len()).any(is),
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::TensorProto;

    use super::*;

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn place(name: &str, place: i64) -> TensorProto {
        TensorProto { name: name.to_owned(), data_type: 7, int64_data: vec![place], ..TensorProto::default() }
    }

    fn asked(nodes: Vec<NodeProto>) -> bool {
        let initializer = vec![place("zero", 0), place("one", 1), place("last", -1)];
        let graph = GraphProto { node: nodes, initializer, ..GraphProto::default() };
        counts_rows(&ModelProto { graph: Some(graph), ..ModelProto::default() })
    }

    #[test]
    fn a_number_of_rows_in_a_calculation_is_found() {
        for (axis, is_counted) in [("zero", true), ("one", false), ("last", false)] {
            let size = || vec![node("Shape", &["x"], "s"), node("Gather", &["s", axis], "n")];
            let share = [node("Cast", &["n"], "f"), node("Div", &["x", "f"], "y")];
            assert_eq!(asked([&size()[..], &share].concat()), is_counted, "{axis}");
            let places = [node("Range", &["zero", "n", "one"], "r"), node("Add", &["x", "r"], "y")];
            assert_eq!(asked([&size()[..], &places].concat()), is_counted, "{axis}");
            // A part of a table of as many rows.
            let part = [node("Slice", &["one", "zero", "n"], "p"), node("Mul", &["p", "x"], "y")];
            assert_eq!(asked([&size()[..], &part].concat()), is_counted, "{axis}");
        }
        // A table's value for each row's number.
        let size = [node("Shape", &["x"], "s"), node("Gather", &["s", "zero"], "n")];
        let table = [node("Gather", &["one", "n"], "t"), node("Mul", &["x", "t"], "y")];
        assert!(asked([&size[..], &table].concat()));
        let first = [node("Shape", &["x"], "s"), node("Slice", &["s", "last", "one"], "n")];
        assert!(!asked([&first[..], &[node("Sqrt", &["n"], "r"), node("Div", &["x", "r"], "y")]].concat()));
        assert!(asked(vec![node("Size", &["x"], "n"), node("Div", &["x", "n"], "y")]));
    }

    #[test]
    fn a_number_of_rows_may_say_a_shape() {
        let size = || vec![node("Shape", &["x"], "s"), node("Gather", &["s", "zero"], "n")];
        let shaped = [
            node("Concat", &["n", "last"], "to"),
            node("Reshape", &["x", "to"], "flat"),
            node("ConstantOfShape", &["to"], "zeros"),
            node("Expand", &["one", "to"], "ones"),
            node("Add", &["flat", "zeros"], "sum"),
            node("Mul", &["sum", "ones"], "y"),
        ];
        assert!(!asked([&size()[..], &shaped].concat()));
        // Sizes may be calculated with each other, and rows be picked by their number.
        let places = [
            node("Add", &["n", "one"], "more"),
            node("Range", &["zero", "n", "one"], "r"),
            node("GatherND", &["x", "r"], "g"),
            node("Gather", &["x", "r"], "h"),
            node("Mul", &["g", "h"], "y"),
        ];
        assert!(!asked([&size()[..], &places].concat()));
    }

    #[test]
    fn batches_are_refused_where_one_row_is_not_answered_by_one() {
        use super::super::plan::tests::{constant, fed, ints, model, node, plan};
        use crate::error::InferError;
        let windows = || node("MaxPool", &["x"], "p", &[("kernel_shape", &[1, 1])]);
        let table = |rows: u8| constant("t", 1, &[i64::from(rows), 2, 1, 1], vec![0; usize::from(rows) * 8]);
        let size = [node("Shape", &["x"], "s", &[]), node("Gather", &["s", "zero"], "n", &[])];
        let share = [node("Cast", &["n"], "f", &[("to", &[1])]), node("Div", &["p", "f"], "y", &[])];
        let more = node("Pad", &["p", "pads"], "y", &[]);
        for (nodes, constants, is_refused) in [
            (vec![node("Add", &["p", "t"], "y", &[])], vec![table(1)], false),
            (vec![node("Add", &["p", "t"], "y", &[])], vec![table(2)], true),
            (vec![node("Add", &["p", "t"], "y", &[])], vec![table(3)], true),
            ([size, share].concat(), vec![ints("zero", &[0])], true),
            (vec![more.clone()], vec![ints("pads", &[0, 0, 1, 0, 0, 0, 0, 0])], false),
            (vec![more], vec![ints("pads", &[0, 0, 0, 0, 1, 0, 0, 0])], true),
        ] {
            let ops: Vec<String> = nodes.iter().map(|node| node.op_type.clone()).collect();
            let plan = plan(&model([vec![windows()], nodes].concat(), constants), &[1, 2, 1, 1]).unwrap();
            let answer = plan.run(&fed(&[3, 2, 1, 1], vec![1.0; 6]), 3);
            assert_eq!(matches!(answer, Err(InferError::MixesRows { got: 3 })), is_refused, "{ops:?}");
            assert!(plan.run(&fed(&[1, 2, 1, 1], vec![1.0; 2]), 1).is_ok(), "{ops:?}");
        }
    }
}
