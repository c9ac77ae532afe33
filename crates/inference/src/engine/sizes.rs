//! Whether a node's result becomes a size, an axis or something else that tract takes from a shape. Only then need it
//! be what tract makes shapes of; such numbers have 32 bits wherever they meet others.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, NodeProto};

use super::attributes::int_or;

/// Operators that take whole numbers as they are, and make something else of them: places, answers, floats.
const ENDS: [&str; 12] = [
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonZero",
    "Not",
    "OneHot",
];
/// Operators that make whole numbers of whole numbers, from all their inputs alike.
const ALIKE: [&str; 22] = [
    "Abs",
    "Add",
    "Clip",
    "Concat",
    "Div",
    "Identity",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Pow",
    "Relu",
    "Sign",
    "Sub",
    "Sum",
    "Transpose",
    "Trilu",
    "Unique",
    "Where",
    "Xor",
];
/// Operators that make whole numbers of those of their first input; what else they read are sizes and axes.
const OF_FIRST: [&str; 25] = [
    "CumSum",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Pad",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Reshape",
    "ReverseSequence",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "TopK",
    "Unsqueeze",
    "Upsample",
    "Compress",
];
/// Operators that take places from their second input.
const BY_PLACE: [&str; 5] = ["Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"];

/// What becomes of a value that a node reads.
enum Use {
    /// It may be a size.
    Size,
    /// It ends there.
    End,
    /// The node's results are made of it.
    Goes,
}

/// Whether what a node makes may become a size. What isn't known here may.
pub(super) fn is_size(graph: &GraphProto, node: &NodeProto) -> bool {
    let is_of_graph = graph.node.iter().any(|other| other.output == node.output);
    let mut names: HashSet<&str> = named(&node.output).collect();
    // Nodes stand behind those that make what they read.
    for reader in graph.node.iter().filter(|_| is_of_graph) {
        let has_graphs = reader.attribute.iter().any(|one| one.g.is_some() || !one.graphs.is_empty());
        if has_graphs && !names.is_empty() && reads_inside(reader, &names) {
            return true;
        }
        let slots = reader.input.iter().enumerate().filter(|(_, name)| names.contains(name.as_str()));
        let mut goes = false;
        for (slot, _) in slots {
            match use_of(reader, slot) {
                Use::Size => return true,
                Use::End => {}
                Use::Goes => goes = true,
            }
        }
        if goes {
            names.extend(named(&reader.output));
        }
    }
    !is_of_graph
}

fn named(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str).filter(|name| !name.is_empty())
}

fn use_of(node: &NodeProto, slot: usize) -> Use {
    let op = node.op_type.as_str();
    match op {
        // To INT32 and INT64, and to unsigned ones, it stays a whole number.
        "Cast" => match int_or(node, "to", 0) {
            1 | 9..=11 => Use::End,
            _ => Use::Goes,
        },
        "OneHot" if slot > 0 => Use::Size,
        _ if ENDS.contains(&op) => Use::End,
        _ if ALIKE.contains(&op) => Use::Goes,
        _ if OF_FIRST.contains(&op) && slot == 0 => Use::Goes,
        _ if BY_PLACE.contains(&op) => {
            if slot == 1 {
                Use::End
            } else {
                Use::Goes
            }
        }
        _ => Use::Size,
    }
}

/// Whether a graph within a node reads one of these values.
fn reads_inside(node: &NodeProto, names: &HashSet<&str>) -> bool {
    let graphs = node.attribute.iter().flat_map(|one| one.g.iter().chain(&one.graphs));
    let reads = |node: &NodeProto| {
        node.input.iter().any(|name| names.contains(name.as_str())) || reads_inside(node, names)
    };
    { graphs }.any(|graph| {
        graph.node.iter().any(reads) || graph.output.iter().any(|output| names.contains(output.name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::AttributeProto;

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn asked(readers: Vec<NodeProto>) -> bool {
        let cast = node("Cast", &["x"], "n");
        let graph = GraphProto { node: [vec![cast.clone()], readers].concat(), ..GraphProto::default() };
        is_size(&graph, &cast)
    }

    #[test]
    fn what_shapes_are_made_of_is_a_size() {
        let clip = || node("Clip", &["n", "low", "high"], "c");
        assert!(!asked(vec![]));
        assert!(!asked(vec![clip(), node("Gather", &["table", "c"], "y")]));
        assert!(asked(vec![clip(), node("Reshape", &["x", "c"], "y")]));
        assert!(asked(vec![clip(), node("Concat", &["one", "c"], "s"), node("Expand", &["x", "s"], "y")]));
        assert!(!asked(vec![clip(), node("Reshape", &["c", "s"], "y")]));
        assert!(asked(vec![node("Range", &["zero", "n", "one"], "y")]));
        assert!(
            asked(vec![node("OneHot", &["i", "n", "v"], "y")])
                && !asked(vec![node("OneHot", &["n", "d", "v"], "y")])
        );
        assert!(asked(vec![node("OfSomebody", &["n"], "y")]));
    }

    #[test]
    fn what_a_graph_within_a_node_reads_may_be_a_size() {
        let inner = |name: &str| {
            let body = GraphProto { node: vec![node("Neg", &[name], "b")], ..GraphProto::default() };
            let branch = AttributeProto { g: Some(body), ..AttributeProto::default() };
            NodeProto { attribute: vec![branch], ..node("If", &["is"], "y") }
        };
        assert!(asked(vec![inner("n")]) && !asked(vec![inner("x")]));
        // A cast that isn't of the graph itself is of one within it.
        assert!(is_size(&GraphProto::default(), &node("Cast", &["x"], "n")));
    }
}
