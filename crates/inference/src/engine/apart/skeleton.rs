//! A file without what is large in it: weights become inputs of the same shape.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use super::super::attributes::{attribute, int_or};
use super::super::check::opset;
use super::super::rewrite::rewrite;
use crate::int8::lower::words_of_onnx;

/// Most elements of a constant that is kept: all that say a shape are smaller.
const MAX_KEPT: i64 = 4096;

/// The file without its weights, in words that tract knows, and the names of what is fed; none for graphs in graphs.
pub(super) fn of(proto: &ModelProto) -> Option<(ModelProto, Vec<String>)> {
    let (graph, opset) = (proto.graph.as_ref()?, opset(proto).ok()?);
    let mut attributes = graph.node.iter().flat_map(|node| &node.attribute);
    if attributes.any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()) {
        return None;
    }
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let fed = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
    let mut bare =
        GraphProto { input: fed.cloned().collect(), output: graph.output.clone(), ..GraphProto::default() };
    let names = bare.input.iter().map(|input| input.name.clone()).collect();
    for tensor in &graph.initializer {
        if is_large(tensor) {
            bare.input.push(input(&tensor.name, tensor));
        } else {
            bare.initializer.push(tensor.clone());
        }
    }
    for node in &graph.node {
        let value = attribute(node, "value").and_then(|value| value.t.as_ref());
        match (node.output.first(), value.filter(|value| node.op_type == "Constant" && is_large(value))) {
            (Some(name), Some(value)) => bare.input.push(input(name, value)),
            _ => bare.node.extend(known(node, opset)),
        }
    }
    let mut bare = ModelProto {
        ir_version: proto.ir_version,
        opset_import: proto.opset_import.clone(),
        graph: Some(bare),
        ..ModelProto::default()
    };
    rewrite(&mut bare).ok()?;
    Some((bare, names))
}

fn is_large(tensor: &TensorProto) -> bool {
    tensor.dims.iter().fold(1, |all: i64, dim| all.saturating_mul(*dim)) > MAX_KEPT
}

fn input(name: &str, tensor: &TensorProto) -> ValueInfoProto {
    let dim =
        |size: &i64| Dimension { value: Some(dimension::Value::DimValue(*size)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: tensor.dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: tensor.data_type, shape: Some(shape) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// A node in operators that tract has, with the same shapes and along the same axes; what it calculates may differ.
fn known(node: &NodeProto, opset: i64) -> Vec<NodeProto> {
    let (op, operands, result): (_, &[usize], _) = match node.op_type.as_str() {
        "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" => ("MatMul", &[0, 1], None),
        "QGemm" => ("Gemm", &[0, 3], Some(7)),
        "QLinearGlobalAveragePool" if int_or(node, "channels_last", 0) == 0 => {
            ("GlobalAveragePool", &[0], Some(3))
        }
        "QLinearSoftmax" => ("Softmax", &[0], Some(3)),
        _ => return words_of_onnx(node, opset).unwrap_or_else(|| vec![node.clone()]),
    };
    let made = |op: &str, input: Vec<String>, output: String| NodeProto {
        op_type: op.to_owned(),
        input,
        output: vec![output],
        ..NodeProto::default()
    };
    let output = node.output.first().cloned().unwrap_or_default();
    let operand = |slot: &usize| node.input.get(*slot).cloned().unwrap_or_default();
    let float = |slot: &usize| format!("{output}/float_{slot}");
    let to_float = super::super::rewrite::int("to", i64::from(DataType::Float as i32));
    let mut nodes: Vec<NodeProto> = operands
        .iter()
        .map(|slot| NodeProto {
            attribute: vec![to_float.clone()],
            ..made("Cast", vec![operand(slot)], float(slot))
        })
        .collect();
    let result = result.filter(|slot| !operand(slot).is_empty());
    let plain = if result.is_some() { format!("{output}/plain") } else { output.clone() };
    let input = operands.iter().map(float).collect();
    nodes.push(NodeProto { attribute: node.attribute.clone(), ..made(op, input, plain.clone()) });
    nodes.extend(result.map(|slot| {
        let params = [slot, slot + 1].map(|slot| operand(&slot)).into_iter().filter(|name| !name.is_empty());
        made("QuantizeLinear", [plain].into_iter().chain(params).collect(), output)
    }));
    nodes
}
