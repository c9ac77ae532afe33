//! Nodes in an order in which each one reads what is made before it. ONNX asks files for such an order; some tools put
//! their nodes at the end of the list, and runtimes sort them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use tract_onnx::pb::{GraphProto, NodeProto};

/// Sorts nodes, in graphs within nodes too; where nothing asks for another order, that of the file stays. Nodes that read
/// each other in a circle have no order, and the graph stays as it is.
pub(super) fn sort(graph: &mut GraphProto) {
    for node in &mut graph.node {
        let inner = node.attribute.iter_mut().flat_map(|one| one.g.iter_mut().chain(&mut one.graphs));
        inner.into_iter().for_each(sort);
    }
    let Some(order) = order(&graph.node) else { return };
    let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    graph.node = order.into_iter().filter_map(|place| nodes[place].take()).collect();
}

/// The places of nodes in such an order; none where they are in one, or there is none.
fn order(nodes: &[NodeProto]) -> Option<Vec<usize>> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (place, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            makers.entry(output).or_insert(place);
        }
    }
    let reads = |node| {
        let mut names = Vec::new();
        read(node, &mut names);
        names.into_iter().filter_map(|name| makers.get(name).copied()).collect::<Vec<usize>>()
    };
    let before: Vec<Vec<usize>> = nodes.iter().map(reads).collect();
    if before.iter().enumerate().all(|(place, before)| before.iter().all(|maker| *maker < place)) {
        return None;
    }
    let mut behind = vec![Vec::new(); nodes.len()];
    let mut waits: Vec<usize> = before.iter().map(Vec::len).collect();
    for (place, before) in before.into_iter().enumerate() {
        for maker in before {
            behind[maker].push(place);
        }
    }
    let free = waits.iter().enumerate().filter(|(_, count)| **count == 0);
    let mut free: BinaryHeap<Reverse<usize>> = free.map(|(place, _)| Reverse(place)).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(place)) = free.pop() {
        order.push(place);
        for reader in &behind[place] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                free.push(Reverse(*reader));
            }
        }
    }
    (order.len() == nodes.len()).then_some(order)
}

/// What a node reads, by itself and in its graphs.
pub(super) fn read<'n>(node: &'n NodeProto, names: &mut Vec<&'n str>) {
    names.extend(node.input.iter().map(String::as_str));
    for graph in node.attribute.iter().flat_map(|one| one.g.iter().chain(&one.graphs)) {
        names.extend(graph.output.iter().map(|output| output.name.as_str()));
        graph.node.iter().for_each(|node| read(node, names));
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::super::super::load::Engine;
    use super::super::super::onnx;
    use super::super::super::plan::Feed;
    use super::super::super::plan::tests::{fed, model, node};
    use super::*;
    use crate::error::chain;
    use crate::int8::Int8;
    use crate::tensor::Data;

    fn sorted(nodes: Vec<NodeProto>) -> Vec<String> {
        let mut graph = GraphProto { node: nodes, ..GraphProto::default() };
        sort(&mut graph);
        graph.node.iter().map(|node| node.output[0].clone()).collect()
    }

    fn relu(input: &str, output: &str) -> NodeProto {
        node("Relu", &[input], output, &[])
    }

    fn engine(nodes: Vec<NodeProto>) -> Result<Engine, String> {
        let feed = Feed { name: "x".to_owned(), shape: vec![1, 2], is_batched: true };
        let loaded = Engine::of_proto(&onnx(), model(nodes, vec![]), &[feed], Int8::On);
        loaded.map_err(|error| chain(&error))
    }

    #[test]
    fn each_node_stands_behind_what_it_reads_and_else_where_it_stood() {
        assert_eq!(sorted(vec![relu("b", "c"), relu("x", "d"), relu("x", "b")]), ["d", "b", "c"]);
        assert_eq!(sorted(vec![relu("x", "d"), relu("x", "b"), relu("b", "c")]), ["d", "b", "c"]);
        // What a graph within a node reads, or only gives out again, is read by the node.
        let inner = |graph: GraphProto| {
            let branch = AttributeProto { g: Some(graph), ..AttributeProto::default() };
            NodeProto { attribute: vec![branch], ..node("If", &["x"], "y", &[]) }
        };
        let reads = inner(GraphProto { node: vec![relu("u", "v"), relu("b", "u")], ..GraphProto::default() });
        assert_eq!(sorted(vec![reads, relu("x", "b")]), ["b", "y"]);
        let output = tract_onnx::pb::ValueInfoProto { name: "b".to_owned(), ..<_>::default() };
        let gives = inner(GraphProto { output: vec![output], ..GraphProto::default() });
        assert_eq!(sorted(vec![gives, relu("x", "b")]), ["b", "y"]);
    }

    #[test]
    fn a_file_out_of_order_is_answered() {
        let nodes = vec![node("Add", &["b", "x"], "y", &[]), node("Neg", &["a"], "b", &[]), relu("x", "a")];
        let answer = engine(nodes).unwrap().run(&fed(&[1, 2], vec![3.0, -2.0]), 1).unwrap();
        assert_eq!(answer[0].1, Data::Fp32(vec![0.0, -2.0]));
    }

    #[test]
    fn a_circle_and_what_nothing_makes_are_refused_by_name() {
        let why = engine(vec![relu("b", "y"), relu("y", "b")]).err().unwrap_or_default();
        assert!(why.contains("\"of_y\" reads \"b\"") && why.contains("circle"), "{why}");
        let why = engine(vec![relu("nobodys", "y")]).err().unwrap_or_default();
        assert!(why.contains("\"of_y\" reads \"nobodys\", which nothing makes"), "{why}");
    }
}
