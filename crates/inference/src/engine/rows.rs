//! Whether a model's answer to one row depends on the other rows of a batch. Most models don't mix rows; one that does
//! must not be asked row by row, which would be another model.

use std::borrow::Cow;
use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::attributes::{attribute, attribute_ints, int_or};
use super::limits::Tensors;
use super::plan::{Fed, Feed, Value};
use crate::error::InferError;
use crate::tensor::{Data, volume};

/// Rows of the batches that are tried.
pub(super) const ROWS: usize = 3;

/// Operators that do the same to each value, whatever their attributes.
pub(super) const BY_VALUE: [&str; 60] = [
    "Abs",
    "Add",
    "And",
    "BiasGelu",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "QuantizeLinear",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
];
/// Operators that do the same to each image or signal of a row, whatever their attributes.
pub(super) const BY_IMAGE: [&str; 16] = [
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "QLinearConv",
    "Resize",
    "SpaceToDepth",
    "Upsample",
];
/// Operators whose attribute `axis` says along what they work.
const ALONG_AXIS: [&str; 8] =
    ["Concat", "Flatten", "Gather", "LayerNormalization", "LogSoftmax", "QLinearSoftmax", "Softmax", "Split"];

/// Whether a graph could mix rows, by its operators. Where it says no, nothing has to be tried.
pub(super) fn may_mix(proto: &ModelProto) -> bool {
    let Some(graph) = &proto.graph else { return false };
    let tensors = Tensors::of(graph);
    let mut around = Around {
        fixed: graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect(),
        loses_axes: graph.node.iter().any(|node| loses_axes(node, &tensors)),
        tensors,
    };
    for node in &graph.node {
        let mut inputs = node.input.iter().filter(|input| !input.is_empty());
        if node.op_type == "Shape" || inputs.all(|input| around.fixed.contains(input.as_str())) {
            around.fixed.extend(node.output.iter().map(String::as_str));
        } else if !is_by_row(node, &around) {
            return true;
        }
    }
    false
}

/// What is known around a node.
struct Around<'g> {
    /// Values that no request changes.
    fixed: HashSet<&'g str>,
    tensors: Tensors<'g>,
    /// A node makes tensors of fewer axes: then the last one may be the rows'.
    loses_axes: bool,
}

fn loses_axes(node: &NodeProto, tensors: &Tensors<'_>) -> bool {
    match node.op_type.as_str() {
        "Squeeze" => true,
        "Gather" => tensors.rank(node, 1) == Some(0),
        "MatMul" => tensors.rank(node, 0) == Some(1) || tensors.rank(node, 1) == Some(1),
        "Reshape" => tensors.ints(node, 1).is_some_and(|shape| shape.len() < 2),
        op => op.starts_with("Reduce") && int_or(node, "keepdims", 1) == 0,
    }
}

fn is_by_row(node: &NodeProto, around: &Around<'_>) -> bool {
    let Around { fixed, tensors, loses_axes } = around;
    let op = node.op_type.as_str();
    let inner = |axis: &i64| *axis >= 1 || (*axis == -1 && !loses_axes);
    let is_fixed = |slot: usize| node.input.get(slot).is_some_and(|input| fixed.contains(input.as_str()));
    let axes = |slot: usize| {
        let named = tensors.ints(node, slot).unwrap_or_default();
        let mut all = attribute_ints(node, "axes").iter().chain(&named).peekable();
        all.peek().is_some() && all.all(inner)
    };
    match op {
        "Concat" | "Gather" | "Split" => attribute(node, "axis").is_some_and(|axis| inner(&axis.i)),
        _ if ALONG_AXIS.contains(&op) => inner(&int_or(node, "axis", -1)),
        "Gemm" => int_or(node, "transA", 0) == 0 && is_fixed(1),
        "MatMul" => is_fixed(0) || is_fixed(1),
        "DynamicQuantizeMatMul" | "MatMulInteger" | "MatMulIntegerToFloat" => is_fixed(1),
        "QGemm" => int_or(node, "transA", 0) == 0 && is_fixed(3),
        "Reshape" => tensors.ints(node, 1).is_some_and(|shape| matches!(shape.first(), Some(0 | -1))),
        "Transpose" => attribute_ints(node, "perm").first() == Some(&0),
        "Slice" => axes(3),
        // Before and behind the rows nothing is put.
        "Pad" if node.input.len() > 3 => axes(3),
        "Pad" => {
            let named = tensors.ints(node, 1).unwrap_or_else(|| attribute_ints(node, "pads").to_vec());
            let (before, after) = named.split_at(named.len() / 2);
            matches!((before.first(), after.first()), (Some(0), Some(0)))
        }
        "Squeeze" => axes(1),
        // A second axis of one is stretched to as many as there are rows beside a tensor of fewer axes.
        "Unsqueeze" => {
            let named = tensors.ints(node, 1).unwrap_or_default();
            axes(1) && attribute_ints(node, "axes").iter().chain(&named).all(|axis| *axis >= 2)
        }
        _ if op.starts_with("Reduce") => axes(1),
        "QLinearMatMul" => is_fixed(3),
        "QLinearConcat" => attribute(node, "axis").is_some_and(|axis| inner(&axis.i)),
        _ if op.starts_with("QLinear") => true,
        _ => BY_VALUE.contains(&op) || BY_IMAGE.contains(&op) || op == "DynamicQuantizeLinear",
    }
}

/// Whether a value is quantized by the range that a whole batch has. There each row is to have a range of its own.
pub(super) fn is_dynamic(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| node.op_type.starts_with("DynamicQuantize"))
}

/// Whether a row's answer changes with the rows around it. Each batch has as many rows, so that all is calculated in
/// the same order: bits are compared. Where it can't be tried the answer is no.
pub(super) fn mixes(
    feeds: &[Feed],
    are_whole: &[bool],
    run: impl Fn(&[Fed<'_>]) -> Result<Vec<Value>, InferError>,
) -> bool {
    let batch = |seeds: [u64; ROWS]| {
        let fed = feeds.iter().zip(are_whole).map(|(feed, is_whole)| some_rows(feed, seeds, *is_whole));
        run(&fed.collect::<Vec<_>>())
    };
    let Ok(all) = batch([1, 2, 3]) else { return false };
    (0..ROWS).any(|row| {
        let mut seeds = [11, 12, 13];
        seeds[row] = row as u64 + 1;
        batch(seeds).is_ok_and(|others| all.iter().zip(&others).any(|(a, b)| !has_same_row(a, b, row)))
    })
}

/// Numbers that depend on the seed of their row alone; for whole ones 0 and 1, which any table has.
fn some_rows(feed: &Feed, seeds: [u64; ROWS], is_whole: bool) -> Fed<'static> {
    let (mut shape, width) = (feed.shape.clone(), volume(&feed.shape));
    let seeds = if feed.is_batched { &seeds[..] } else { &[0] };
    if let Some(first) = shape.first_mut() {
        *first *= seeds.len();
    }
    let value = |(seed, place): (u64, usize)| {
        let mixed = (seed << 40 | place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 48;
        let share = f32::from(mixed as u16) / 65536.0;
        if is_whole { share.round() } else { share * 2.0 - 0.5 }
    };
    let places = seeds.iter().flat_map(|seed| (0..width).map(move |place| (*seed, place)));
    (shape, Cow::Owned(Data::Fp32(places.map(value).collect())))
}

fn has_same_row((shape, a): &Value, (other, b): &Value, row: usize) -> bool {
    let is_of_rows = shape.first().is_some_and(|first| first % ROWS == 0);
    let (start, count) = if is_of_rows { (row * (a.len() / ROWS), a.len() / ROWS) } else { (0, a.len()) };
    shape == other && same_bits(&a.slice(start, count), &b.slice(start, count))
}

fn same_bits(a: &Data, b: &Data) -> bool {
    match (a, b) {
        (Data::Fp32(a), Data::Fp32(b)) => a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::*;

    fn node(op: &str, input: &str, attribute: Option<(&str, i64)>) -> NodeProto {
        let attribute = attribute.map(|(name, i)| AttributeProto {
            name: name.to_owned(),
            i,
            ints: vec![i],
            ..AttributeProto::default()
        });
        NodeProto {
            op_type: op.to_owned(),
            input: vec![input.to_owned()],
            output: vec![format!("{op} of {input}")],
            attribute: attribute.into_iter().collect(),
            ..NodeProto::default()
        }
    }

    #[test]
    fn operators_that_work_along_the_rows_may_mix_them() {
        let asked = |nodes: Vec<NodeProto>| {
            let graph = GraphProto { node: nodes, ..GraphProto::default() };
            may_mix(&ModelProto { graph: Some(graph), ..ModelProto::default() })
        };
        let net = || vec![node("Conv", "x", None), node("Relu", "Conv of x", None)];
        assert!(!asked(net()));
        for (op, attribute, is_mixing) in [
            ("Concat", Some(("axis", 1)), false),
            ("Concat", Some(("axis", 0)), true),
            ("Softmax", None, false),
            ("Softmax", Some(("axis", 0)), true),
            ("ReduceMean", Some(("axes", 2)), false),
            ("ReduceMean", Some(("axes", 0)), true),
            ("ReduceMean", None, true),
            ("Transpose", Some(("perm", 0)), false),
            ("Transpose", Some(("perm", 1)), true),
            ("CumSum", None, true),
            ("Pad", Some(("pads", 0)), true),
            ("Unsqueeze", Some(("axes", 2)), false),
            ("Unsqueeze", Some(("axes", 1)), true),
            ("MatMul", None, true),
            ("Gemm", None, true),
            ("Reshape", None, true),
        ] {
            let mut nodes = net();
            nodes.push(node(op, "Relu of Conv of x", attribute));
            assert_eq!(asked(nodes), is_mixing, "{op} {attribute:?}");
        }
        // What is worked out of a shape isn't of rows.
        assert!(!asked(vec![node("Shape", "x", None), node("Gather", "Shape of x", Some(("axis", 0)))]));
    }

    #[test]
    fn a_row_that_changes_with_others_is_found() {
        let feed = [Feed { name: "x".to_owned(), shape: vec![1, 4], is_batched: true }];
        let values = |fed: &[Fed<'_>]| super::super::plan::plain_f32(&fed[0].1).unwrap().to_vec();
        let answer = |values: Vec<f32>| Ok(vec![(vec![3, 4], Data::Fp32(values))]);
        assert!(!mixes(&feed, &[false], |fed| answer(values(fed))));
        let minus_mean = |fed: &[Fed<'_>]| {
            let x = values(fed);
            answer((0..12).map(|i| x[i] - (x[i % 4] + x[i % 4 + 4] + x[i % 4 + 8]) / 3.0).collect())
        };
        assert!(mixes(&feed, &[false], minus_mean));
        // The first row of running sums is its own, the last isn't.
        let sums = |fed: &[Fed<'_>]| {
            let x = values(fed);
            answer((0..12).map(|i| (0..=i / 4).map(|row| x[row * 4 + i % 4]).sum()).collect())
        };
        assert!(mixes(&feed, &[false], sums));
        assert!(!mixes(&feed, &[false], |_| Err(InferError::Batch { got: 3, max: 1 })));
        let (shape, data) = some_rows(&feed[0], [1, 2, 3], true);
        assert_eq!(shape, [3, 4]);
        assert!(plainly(&data).iter().all(|value| [0.0, 1.0].contains(value)));
    }

    fn plainly(data: &Data) -> Vec<f32> {
        super::super::plan::plain_f32(data).unwrap().to_vec()
    }
}
