//! Names of nodes. ONNX asks for none, and for none of their own where there are some; tract wants one for each input,
//! constant and node that nothing else has.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, NodeProto};

/// Gives nodes without a name, and those whose name is taken, one that is free: that of what they make, if it is.
pub(super) fn keep_apart(graph: &mut GraphProto) {
    let values = graph.input.iter().map(|input| &input.name);
    let values = values.chain(graph.initializer.iter().map(|tensor| &tensor.name));
    let mut taken: HashSet<String> = values.cloned().collect();
    for node in &mut graph.node {
        if !taken.insert(node.name.clone()) {
            node.name.clear();
        }
    }
    for (place, node) in graph.node.iter_mut().enumerate().filter(|(_, node)| node.name.is_empty()) {
        node.name = free(node, place, &taken);
        taken.insert(node.name.clone());
    }
}

fn free(node: &NodeProto, place: usize, taken: &HashSet<String>) -> String {
    let made = node.output.iter().find(|name| !name.is_empty());
    let made = made.map_or(node.op_type.as_str(), String::as_str);
    let numbered = (place..).map(|number| format!("{made}/node_{number}"));
    let mut names = std::iter::once(made.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::TensorProto;

    use super::*;

    #[test]
    fn each_node_has_a_name_of_its_own() {
        let node = |name: &str, output: &str| NodeProto {
            name: name.to_owned(),
            op_type: "Relu".to_owned(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        };
        let constant = TensorProto { name: "c".to_owned(), ..TensorProto::default() };
        let nodes = [("", "a"), ("a", "b"), ("d", "e"), ("d", "f"), ("c", "g"), ("", ""), ("", "")];
        let node = nodes.map(|(name, output)| node(name, output)).to_vec();
        let mut graph = GraphProto { node, initializer: vec![constant], ..GraphProto::default() };
        keep_apart(&mut graph);
        let names: Vec<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["a/node_0", "a", "d", "f", "g", "Relu", "Relu/node_6"]);
    }
}
