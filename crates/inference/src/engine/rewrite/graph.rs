//! The walk over a graph and the graphs in it, and which rule is whose.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::super::check::{node_name, opset};
use super::{forest, gemm, recurrent, simple};
use crate::error::LoadError;

/// What stands for a node: nothing else, other nodes, or why it can't run.
pub(super) type Rewritten = Result<Option<Vec<NodeProto>>, String>;

/// What rules ask of the graph around a node.
pub(super) struct Around {
    /// Version of ONNX's operators.
    pub(super) opset: i64,
    /// Something is quantized from f32.
    is_quantized: bool,
    /// Constants in f16.
    halves: HashSet<String>,
}

impl Around {
    /// Whether a node reads a constant in f16.
    pub(super) fn reads_half(&self, node: &NodeProto) -> bool {
        node.input.iter().any(|name| self.halves.contains(name))
    }
}

/// Puts a checked file into words that tract understands.
pub(in super::super) fn rewrite(proto: &mut ModelProto) -> Result<(), LoadError> {
    let opset = opset(proto)?;
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    let mut around = Around { opset, is_quantized: is_quantized(graph), halves: HashSet::new() };
    graph_in_place(graph, &mut around)
}

fn is_quantized(graph: &GraphProto) -> bool {
    let inner = |node: &NodeProto| node.attribute.iter().any(|one| one.g.as_ref().is_some_and(is_quantized));
    graph.node.iter().any(|node| node.op_type == "QuantizeLinear" || inner(node))
}

fn graph_in_place(graph: &mut GraphProto, around: &mut Around) -> Result<(), LoadError> {
    collect_halves(graph, &mut around.halves);
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        let rewritten = rule(&node, around).map_err(|why| LoadError::Runtime {
            why: format!("node {:?} ({}) {why}", node_name(&node), node.op_type),
        })?;
        if let Some(rewritten) = rewritten {
            nodes.extend(rewritten);
            continue;
        }
        for attribute in &mut node.attribute {
            let inner = attribute.g.iter_mut().chain(&mut attribute.graphs);
            inner.into_iter().try_for_each(|graph| graph_in_place(graph, around))?;
        }
        nodes.push(node);
    }
    graph.node = nodes;
    Ok(())
}

fn collect_halves(graph: &GraphProto, halves: &mut HashSet<String>) {
    let half = DataType::Float16 as i32;
    let stored = graph.initializer.iter().filter(|tensor| tensor.data_type == half);
    halves.extend(stored.map(|tensor| tensor.name.clone()));
    for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
        let mut values = node.attribute.iter().filter_map(|attribute| attribute.t.as_ref());
        if values.any(|tensor| tensor.data_type == half) {
            halves.extend(node.output.iter().cloned());
        }
    }
}

fn rule(node: &NodeProto, around: &Around) -> Rewritten {
    match node.op_type.as_str() {
        "Gemm" if around.reads_half(node) => Ok(gemm::rewrite(node)),
        "LSTM" | "GRU" | "RNN" => recurrent::rewrite(node, around.opset),
        "Softmax" | "LogSoftmax" if around.is_quantized => Ok(Some(simple::softmax(node))),
        "TreeEnsembleClassifier" => forest::rewrite(node),
        "Celu" => Ok(simple::celu(node)),
        "GlobalLpPool" => Err("is one that the runtime answers wrongly".to_owned()),
        "ConvTranspose" => simple::conv_transpose(node),
        "AveragePool" | "Conv" | "ConvInteger" | "MaxPool" | "QLinearConv" => Ok(simple::pads(node)),
        _ => Ok(None),
    }
}
