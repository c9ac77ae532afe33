//! Nodes that do the same to the same values. tract looks for them by comparing each reader of a value with each other
//! one, and each time goes over all that it has found: 4,000 of them took a quarter of a minute.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

/// Operators whose answer isn't the same each time.
pub(crate) const RANDOM: [&str; 7] = [
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Most values of an attribute that are compared: trees have lists of millions.
const MAX_VALUES: usize = 64;

/// Leaves one of each; what read another one reads it. Graphs with graphs in them stay as they are: those read by name.
pub(super) fn merge(graph: &mut GraphProto) {
    let holds_graph =
        |node: &NodeProto| node.attribute.iter().any(|one| one.g.is_some() || !one.graphs.is_empty());
    if graph.node.iter().any(holds_graph) {
        return;
    }
    let outputs: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let is_alone = |node: &NodeProto| {
        RANDOM.contains(&node.op_type.as_str())
            || node.input.is_empty()
            || node.attribute.iter().any(is_large)
    };
    let mut firsts: HashMap<String, Vec<String>> = HashMap::new();
    let mut same: HashMap<String, String> = HashMap::new();
    graph.node.retain_mut(|node| {
        for input in &mut node.input {
            if let Some(first) = same.get(input) {
                input.clone_from(first);
            }
        }
        if is_alone(node) {
            return true;
        }
        let left_out: Vec<bool> = node.output.iter().map(String::is_empty).collect();
        let NodeProto { domain, op_type, input, attribute, .. } = node;
        let what = format!("{domain:?} {op_type:?} {input:?} {attribute:?} {left_out:?}");
        let Some(first) = firsts.get(&what) else {
            firsts.insert(what, node.output.clone());
            return true;
        };
        same.extend(
            node.output.iter().cloned().zip(first.iter().cloned()).filter(|(output, _)| !output.is_empty()),
        );
        // What the graph gives out keeps its name.
        node.output.iter().any(|output| outputs.contains(output.as_str()))
    });
}

fn is_large(attribute: &AttributeProto) -> bool {
    let AttributeProto { t, tensors, s, ints, floats, strings, .. } = attribute;
    let counts = [s.len(), ints.len(), floats.len(), strings.len()];
    t.is_some() || !tensors.is_empty() || counts.iter().any(|count| *count > MAX_VALUES)
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::ValueInfoProto;

    use super::*;

    #[test]
    fn what_does_the_same_is_done_once() {
        let node = |op: &str, input: &str, output: &str, alpha: f32| NodeProto {
            name: format!("of_{output}"),
            op_type: op.to_owned(),
            input: vec![input.to_owned()],
            output: vec![output.to_owned()],
            attribute: vec![AttributeProto {
                name: "alpha".to_owned(),
                f: alpha,
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        };
        let sum = NodeProto {
            input: ["b", "c", "e", "g", "y"].map(str::to_owned).to_vec(),
            ..node("Sum", "", "z", 0.0)
        };
        let nodes = vec![
            node("Elu", "x", "a", 1.0),
            node("Elu", "x", "b", 1.0),
            node("Elu", "x", "c", 2.0),
            node("Relu", "a", "d", 1.0),
            node("Relu", "b", "e", 1.0),
            node("Dropout", "x", "f", 1.0),
            node("Dropout", "x", "g", 1.0),
            node("Elu", "x", "y", 1.0),
            sum,
        ];
        let output =
            ["y", "z"].map(|name| ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() });
        let mut graph = GraphProto { node: nodes, output: output.to_vec(), ..GraphProto::default() };
        merge(&mut graph);
        let left: Vec<&str> = graph.node.iter().map(|node| node.output[0].as_str()).collect();
        assert_eq!(left, ["a", "c", "d", "f", "g", "y", "z"]);
        assert_eq!(graph.node[6].input, ["a", "c", "d", "g", "a"]);

        let inner = AttributeProto { g: Some(GraphProto::default()), ..AttributeProto::default() };
        graph.node[0].attribute.push(inner);
        graph.node.push(node("Elu", "x", "h", 2.0));
        merge(&mut graph);
        assert_eq!(graph.node.len(), 8);
    }
}
