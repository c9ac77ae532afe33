//! Operators of com.microsoft that int8 alone knows, in ONNX's own words, where int8 didn't take the model.

use tract_onnx::pb::GraphProto;

use crate::int8::lower::words_of_onnx;

/// Puts them, in graphs within nodes too, into words that tract knows.
pub(super) fn spell_out(graph: &mut GraphProto, opset: i64) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if let Some(words) = words_of_onnx(&node, opset) {
            nodes.extend(words);
            continue;
        }
        for attribute in &mut node.attribute {
            let inner = attribute.g.iter_mut().chain(&mut attribute.graphs);
            inner.for_each(|graph| spell_out(graph, opset));
        }
        nodes.push(node);
    }
    graph.node = nodes;
}
