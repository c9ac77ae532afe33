//! The walk over a graph and the graphs in it, and which rule is whose.

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::super::check::{node_name, opset};
use super::scales::{self, Scales};
use super::{forest, labels, names, order, recurrent, simple, spelled, twins};
use crate::error::LoadError;
use crate::int8::lower::words_of_onnx;

/// What stands for a node: nothing else, other nodes, or why it can't run.
pub(super) type Rewritten = Result<Option<Vec<NodeProto>>, String>;

/// What rules ask of the graph around a node.
pub(super) struct Around {
    /// Version of ONNX's operators.
    pub(super) opset: i64,
    /// Something is quantized from f32.
    is_quantized: bool,
    /// What values are quantized by.
    scales: Scales,
}

/// Whether a node's operator is one that tract lacks, and ONNX has other words for.
pub(in super::super) fn has_words_for(node: &NodeProto, opset: i64) -> bool {
    node.domain == "ai.onnx.ml" && node.op_type == "Scaler" || words_of_onnx(node, opset).is_some()
}

/// Puts a file's nodes in order and leaves texts out that nothing is made of: before anything else reads the graph.
///
/// # Errors
///
/// An output that gives texts.
pub(in super::super) fn put_in_order(proto: &mut ModelProto) -> Result<(), LoadError> {
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    order::sort(graph);
    labels::leave_out(graph)
}

/// Puts a checked file into words that tract understands.
pub(in super::super) fn rewrite(proto: &mut ModelProto) -> Result<(), LoadError> {
    let opset = opset(proto)?;
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    spelled::spell_out(graph, opset);
    let mut around = Around { opset, is_quantized: is_quantized(graph), scales: Scales::default() };
    graph_in_place(graph, &mut around)
}

fn is_quantized(graph: &GraphProto) -> bool {
    let inner = |node: &NodeProto| node.attribute.iter().any(|one| one.g.as_ref().is_some_and(is_quantized));
    graph.node.iter().any(|node| node.op_type == "QuantizeLinear" || inner(node))
}

fn graph_in_place(graph: &mut GraphProto, around: &mut Around) -> Result<(), LoadError> {
    around.scales.add(graph);
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
    twins::merge(graph);
    names::keep_apart(graph);
    Ok(())
}

fn rule(node: &NodeProto, around: &Around) -> Rewritten {
    match node.op_type.as_str() {
        "QuantizeLinear" | "DequantizeLinear" => Ok(scales::rewrite(node, &around.scales)),
        "QLinearMatMul" => Ok(scales::product(node, &around.scales)),
        "LSTM" | "GRU" | "RNN" => recurrent::rewrite(node, around.opset),
        "Softmax" | "LogSoftmax" if around.is_quantized => Ok(Some(simple::softmax(node))),
        "TreeEnsembleClassifier" => forest::rewrite(node),
        "Celu" => Ok(simple::celu(node)),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => Ok(simple::skip_norm(node)),
        "SpaceToDepth" => Ok(simple::space_to_depth(node)),
        "Swish" => Ok(simple::swish(node)),
        "Resize" if around.opset == 10 => Ok(simple::resize(node)),
        "Scaler" => Ok(simple::scaler(node)),
        "Pad" => Ok(simple::pad_value(node)),
        "GlobalLpPool" => Err("is one that the runtime answers wrongly".to_owned()),
        "AveragePool" | "Conv" | "ConvInteger" | "MaxPool" | "QLinearConv" => Ok(simple::pads(node)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, OperatorSetIdProto};

    use super::*;

    fn node(op: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto {
            name: format!("the_{op}"),
            op_type: op.to_owned(),
            input: ["x", "w", "r"].map(str::to_owned).to_vec(),
            output: vec!["y".to_owned()],
            attribute,
            ..NodeProto::default()
        }
    }

    fn attribute(name: &str) -> AttributeProto {
        AttributeProto { name: name.to_owned(), r#type: 2, i: 1, ints: vec![3], ..AttributeProto::default() }
    }

    fn texts(name: &str, texts: &[&str]) -> AttributeProto {
        let strings = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        AttributeProto { s: texts[0].into(), strings, ..attribute(name) }
    }

    fn file(version: i64, nodes: Vec<NodeProto>) -> ModelProto {
        let set = OperatorSetIdProto { version, ..OperatorSetIdProto::default() };
        let graph = GraphProto { node: nodes, ..GraphProto::default() };
        ModelProto { opset_import: vec![set], graph: Some(graph), ..ModelProto::default() }
    }

    fn rewritten(version: i64, nodes: Vec<NodeProto>) -> Result<Vec<String>, String> {
        let mut file = file(version, nodes);
        rewrite(&mut file).map_err(|error| error.to_string())?;
        Ok(file.graph.unwrap_or_default().node.into_iter().map(|node| node.op_type).collect())
    }

    #[test]
    fn what_tract_would_not_look_at_is_refused_with_the_nodes_name() {
        let other = ["Relu", "Tanh", "Tanh"];
        for (node, word) in [
            (node("LSTM", vec![attribute("clip")]), "clip"),
            (node("GRU", vec![texts("activations", &other)]), "Relu"),
            (node("LSTM", vec![attribute("input_forget")]), "input_forget"),
            (node("GlobalLpPool", vec![]), "wrongly"),
        ] {
            let name = format!("node {:?}", node.name);
            let why = rewritten(17, vec![node]).unwrap_err();
            assert!(why.contains(&name) && why.contains(word), "{why}");
        }
        let old = rewritten(9, vec![node("GRU", vec![texts("direction", &["reverse"])])]).unwrap_err();
        assert!(old.contains("the_GRU") && old.contains("opset 10"), "{old}");
    }

    #[test]
    fn what_tract_does_right_stays_as_it_is() {
        let usual = texts("activations", &["Sigmoid", "tanh", "Tanh", "Sigmoid", "Tanh", "Tanh"]);
        let two_ways = texts("direction", &["bidirectional"]);
        for node in [
            node("LSTM", vec![usual, two_ways]),
            node("Softmax", vec![]),
            node("Gemm", vec![]),
            node("Celu", vec![]),
            node("ConvTranspose", vec![attribute("output_shape")]),
            node("MaxPool", vec![attribute("pads")]),
        ] {
            let op = node.op_type.clone();
            assert_eq!(rewritten(17, vec![node]), Ok(vec![op]));
        }
    }

    #[test]
    fn a_graph_within_a_node_is_rewritten_too() {
        let inner = GraphProto { node: vec![node("Softmax", vec![])], ..GraphProto::default() };
        let branch = AttributeProto { g: Some(inner), ..attribute("then_branch") };
        let mut file = file(17, vec![node("If", vec![branch]), node("QuantizeLinear", vec![])]);
        rewrite(&mut file).unwrap();
        let graph = file.graph.unwrap();
        let inner = graph.node[0].attribute[0].g.as_ref().unwrap();
        let ops: Vec<&str> = inner.node.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Softmax", "Max"]);
        assert_eq!((inner.node[1].name.as_str(), &inner.node[1].output[0]), ("the_Softmax", &"y".to_owned()));
    }

    #[test]
    fn texts_for_one_of_two_classes_are_refused() {
        let ids = AttributeProto { ints: vec![0, 0], ..attribute("class_ids") };
        let trees = node("TreeEnsembleClassifier", vec![ids, texts("classlabels_strings", &["no", "yes"])]);
        let why = rewritten(17, vec![trees]).unwrap_err();
        assert!(why.contains("the_TreeEnsembleClassifier") && why.contains("texts as labels"), "{why}");
    }
}
