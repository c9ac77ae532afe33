//! What a model is made of, counted from its file and from the graph that tract makes of it.

use std::collections::{BTreeMap, HashSet};

use tract_onnx::pb::{GraphProto, ModelProto, TensorProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::Factoid as _;
use tract_onnx::tract_hir::tract_core::internal::Cost;

use super::plan::{Feed, match_inputs, planned_shape};
use super::rewrite::{put_in_order, rewrite, spell, widen};
use super::{check, guarded, shapes};
use crate::error::LoadError;

/// Versions of ONNX's operators that tests cover; others are tried, and nothing is promised of them.
pub const TESTED_OPSETS: std::ops::RangeInclusive<i64> = 10..=21;

/// What a model is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Makeup {
    /// Version of ONNX's own operators.
    pub opset: i64,
    /// How often each operator is used, by name.
    pub operators: BTreeMap<String, usize>,
    /// Numbers that were learnt: all constants but scales, zero points, bounds and shapes.
    pub parameters: u64,
    /// Multiply-accumulates of one row; none where the runtime can't tell, as for ONNX's quantized operators.
    pub macs: Option<u64>,
}

/// Inputs of operators that describe a quantization or a bound: they are no learnt numbers.
const DESCRIBING: [(&str, &[usize]); 18] = [
    ("Clip", &[1, 2]),
    ("ConvInteger", &[2, 3]),
    ("DequantizeLinear", &[1, 2]),
    ("DynamicQuantizeMatMul", &[2, 3]),
    ("MatMulInteger", &[2, 3]),
    ("MatMulIntegerToFloat", &[2, 3, 4, 5]),
    ("QGemm", &[1, 2, 4, 5, 7, 8]),
    ("QLinearAdd", &[1, 2, 4, 5, 6, 7]),
    ("QLinearAveragePool", &[1, 2, 3, 4]),
    ("QLinearConv", &[1, 2, 4, 5, 6, 7]),
    ("QLinearGlobalAveragePool", &[1, 2, 3, 4]),
    ("QLinearLeakyRelu", &[1, 2, 3, 4]),
    ("QLinearMatMul", &[1, 2, 4, 5, 6, 7]),
    ("QLinearMul", &[1, 2, 4, 5, 6, 7]),
    ("QLinearSigmoid", &[1, 2, 3, 4]),
    ("QLinearSoftmax", &[1, 2, 3, 4]),
    ("QuantizeLinear", &[1, 2]),
    ("Resize", &[1, 2, 3]),
];

/// Counts what the file holds and what one row costs.
pub(crate) fn count(bytes: &[u8], feeds: &[Feed]) -> Result<Makeup, LoadError> {
    guarded(|| count_unguarded(bytes, feeds))
        .unwrap_or_else(|why| Err(LoadError::Runtime { why: format!("it panicked: {why}") }))
}

fn count_unguarded(mut bytes: &[u8], feeds: &[Feed]) -> Result<Makeup, LoadError> {
    let onnx = super::onnx();
    let mut proto = onnx
        .proto_model_for_read(&mut bytes)
        .map_err(|e| LoadError::Parse { why: super::shorten(&format!("{e:#}")) })?;
    let graph =
        proto.graph.as_ref().ok_or_else(|| LoadError::Malformed { why: "there is no graph".into() })?;
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        *operators.entry(node.op_type.clone()).or_insert(0) += 1;
    }
    Ok(Makeup {
        opset: check::opset(&proto)?,
        operators,
        parameters: parameters(graph),
        macs: macs(&onnx, &mut proto, feeds),
    })
}

fn parameters(graph: &GraphProto) -> u64 {
    let mut describing = HashSet::new();
    for node in &graph.node {
        if node.op_type == "QLinearConcat" {
            // Its own scale and zero point, then each operand with its two.
            let places = node.input.iter().enumerate().filter(|(place, _)| *place < 2 || place % 3 != 2);
            describing.extend(places.map(|(_, name)| name.as_str()));
        }
        let places =
            DESCRIBING.iter().find(|(op, _)| *op == node.op_type).map_or(&[][..], |(_, places)| places);
        describing.extend(places.iter().filter_map(|place| node.input.get(*place)).map(String::as_str));
    }
    let is_learnt = |tensor: &&TensorProto| {
        let is_shape = tensor.data_type == tract_onnx::pb::tensor_proto::DataType::Int64 as i32;
        !is_shape && !describing.contains(tensor.name.as_str())
    };
    let elements = |tensor: &TensorProto| -> u64 {
        let dims = tensor.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(0));
        dims.fold(1, u64::saturating_mul)
    };
    graph.initializer.iter().filter(is_learnt).map(elements).fold(0, u64::saturating_add)
}

/// What the graph multiplies and adds for one row, by the runtime's own reckoning.
fn macs(onnx: &tract_onnx::Onnx, proto: &mut ModelProto, feeds: &[Feed]) -> Option<u64> {
    put_in_order(proto).ok()?;
    spell(proto).ok()?;
    widen(proto);
    let opset = check::opset(proto).ok()?;
    check::check(proto, |node| check::has(onnx, node, opset)).ok()?;
    rewrite(proto).ok()?;
    let mut graph = onnx.model_for_proto_model(proto).ok()?;
    let feeds_of = match_inputs(&graph, feeds).ok()?;
    for (slot, feed) in feeds_of.iter().enumerate() {
        let fact = graph.input_fact(slot).ok()?;
        let datum_type = fact.datum_type.concretize().unwrap_or(DatumType::F32);
        let shape = planned_shape(fact, &feeds[*feed], &1.to_dim()).ok()?;
        graph.set_input_fact(slot, InferenceFact::dt_shape(datum_type, shape)).ok()?;
    }
    let typed = shapes::typed(graph, &1.to_dim()).ok()?.into_decluttered().ok()?;
    let mut macs: u64 = 0;
    for node in &typed.nodes {
        let facts = typed.node_input_facts(node.id).ok()?;
        for (kind, count) in node.op.cost(&facts).ok()? {
            if matches!(kind, Cost::FMA(_)) {
                macs = macs.saturating_add(u64::try_from(count.to_i64().ok()?).ok()?);
            }
        }
    }
    Some(macs)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{constant, model, node};
    use super::*;

    #[test]
    fn scales_and_zero_points_are_no_learnt_numbers() {
        let count = |op: &str, inputs: &[&str]| {
            let constants = inputs.iter().map(|name| constant(name, 1, &[], vec![0; 4])).collect();
            parameters(&model(vec![node(op, inputs, "y", &[])], constants).graph.unwrap())
        };
        for (op, inputs, want) in [
            ("QLinearConcat", &["s", "z", "a", "as", "az", "b", "bs", "bz"][..], 2),
            ("QLinearSoftmax", &["a", "as", "az", "s", "z"], 1),
            ("MatMulIntegerToFloat", &["a", "b", "as", "bs", "az", "bz", "bias"], 3),
            ("QLinearConv", &["a", "as", "az", "b", "bs", "bz", "s", "z", "bias"], 3),
        ] {
            assert_eq!(count(op, inputs), want, "{op}");
        }
    }
}
