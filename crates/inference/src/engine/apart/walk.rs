//! The walk over the graph.

use std::collections::{HashMap, HashSet};

use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};

use super::super::check::opset;
use super::super::guarded;
use super::super::limits::Tensors;
use super::super::plan::Feed;
use super::rules::{Asked, Becomes, Operand, becomes};
use super::sizes::{FEW, Found, Lies, Sizes};
use super::skeleton;

/// What is said of a graph's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A row's answer is its own, and rows are the first axis of all that lies between: any part of the graph leaves them
    /// apart.
    InPlace,
    /// A row's answer is its own, or the graph takes one row only.
    Apart,
    /// The same, as far as rules know; the other operators find rows as they came in, so that what they do to them shows
    /// where they run.
    ApartElsewhere,
    /// A batch's answer isn't those of its rows put together.
    Mixes,
    /// It has to be tried.
    Unknown,
}

/// Whether the rows of a checked graph stay apart.
pub(in super::super) fn verdict(onnx: &Onnx, proto: &ModelProto, feeds: &[Feed]) -> Verdict {
    guarded(|| found(onnx, proto, feeds)).unwrap_or(Verdict::Unknown)
}

fn found(onnx: &Onnx, proto: &ModelProto, feeds: &[Feed]) -> Verdict {
    let Some((bare, fed)) = skeleton::of(proto) else { return Verdict::Unknown };
    let (Some(graph), Ok(opset)) = (&bare.graph, opset(&bare)) else { return Verdict::Unknown };
    match Sizes::of(onnx, &bare, &fed, feeds) {
        Found::Sizes(sizes) => {
            let lies = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), Lies::Nowhere));
            let tensors = Tensors::of(graph);
            Walk {
                sizes: &sizes,
                tensors: &tensors,
                opset,
                lies: lies.collect(),
                knows_all: true,
                is_in_place: true,
            }
            .over(graph)
        }
        Found::OneRow => Verdict::Apart,
        Found::Unknown => Verdict::Unknown,
    }
}

struct Walk<'g> {
    sizes: &'g Sizes,
    tensors: &'g Tensors<'g>,
    opset: i64,
    lies: HashMap<&'g str, Lies>,
    /// There was a rule for each node.
    knows_all: bool,
    /// Nothing was put along another axis than the first.
    is_in_place: bool,
}

impl<'g> Walk<'g> {
    fn over(&mut self, graph: &'g GraphProto) -> Verdict {
        for input in &graph.input {
            self.lies.insert(&input.name, self.sizes.lies(&input.name));
        }
        for node in needed(graph) {
            if !self.node(node) {
                return Verdict::Mixes;
            }
        }
        let apart = match (self.knows_all, self.is_in_place) {
            (true, true) => Verdict::InPlace,
            (true, false) => Verdict::Apart,
            (false, _) => Verdict::ApartElsewhere,
        };
        graph.output.iter().fold(apart, |all, output| match (all, self.of(&output.name)) {
            (all, Lies::Along { axis: 0, outer: 1 }) => all,
            // A row that is the same for all.
            (all, Lies::Nowhere) if self.is_one_row(&output.name) => all,
            (Verdict::Mixes, _) => Verdict::Mixes,
            (_, Lies::Unknown) => Verdict::Unknown,
            _ => Verdict::Mixes,
        })
    }

    /// Goes on over a node; whether it may leave rows apart.
    fn node(&mut self, node: &'g NodeProto) -> bool {
        let read = || node.input.iter().filter(|name| !name.is_empty()).map(|name| (name, self.of(name)));
        let is_size = matches!(node.op_type.as_str(), "Shape" | "Size");
        let becomes = if is_size || read().all(|(_, lies)| lies == Lies::Nowhere) {
            Becomes::Along { outer: 1 }
        } else if read().any(|(_, lies)| lies == Lies::Unknown) {
            Becomes::Unknown
        } else {
            becomes(&self.asked(node))
        };
        // What no rule knows is tried where it runs, which shows what it does to rows that lie as they came in.
        let is_tried = read().all(|(name, lies)| lies == Lies::Nowhere || self.is_as_fed(name, lies));
        self.knows_all &= becomes != Becomes::Unknown;
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            let lies = match (becomes, self.sizes.lies(output)) {
                (Becomes::Along { outer }, Lies::Along { axis, .. }) => Lies::Along { axis, outer },
                (Becomes::Along { .. }, found) => found,
                (Becomes::Lie(lies), _) => lies,
                (Becomes::Unknown, found) if is_tried && self.is_as_fed(output, found) => found,
                (Becomes::Unknown | Becomes::Mixed, _) => Lies::Unknown,
            };
            self.is_in_place &= matches!(lies, Lies::Nowhere | Lies::Along { axis: 0, outer: 1 });
            self.lies.insert(output, lies);
        }
        becomes != Becomes::Mixed
    }

    fn of(&self, name: &str) -> Lies {
        self.lies.get(name).copied().unwrap_or(Lies::Unknown)
    }

    /// Whether its first axis is the rows' and nothing else's.
    fn is_as_fed(&self, name: &str, lies: Lies) -> bool {
        lies == (Lies::Along { axis: 0, outer: 1 }) && self.is_one_row(name)
    }

    /// Whether it has a first axis, which is of size 1 where there is one row.
    fn is_one_row(&self, name: &str) -> bool {
        let shapes = self.sizes.shapes(name);
        shapes.is_some_and(|[few, many]| match few.first() {
            Some(first) => *first == if few == many { 1 } else { FEW },
            None => false,
        })
    }

    fn asked(&self, node: &'g NodeProto) -> Asked<'g> {
        let operand = |name: &String| {
            let [few, many] = self.sizes.shapes(name).unwrap_or([&[], &[]]);
            (!name.is_empty()).then(|| Operand { lies: self.of(name), few, many })
        };
        Asked {
            node,
            operands: node.input.iter().map(operand).collect(),
            made: node.output.first().and_then(|name| self.sizes.shapes(name)),
            tensors: self.tensors,
            opset: self.opset,
        }
    }
}

/// The nodes of which something reaches an output, in their order.
fn needed(graph: &GraphProto) -> Vec<&NodeProto> {
    let mut read: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|name| read.contains(name.as_str())) {
            read.extend(node.input.iter().map(String::as_str));
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::onnx;
    use crate::engine::plan::tests::{constant, ints, model, node};

    /// What is said of nodes from `x`, of 4 by 6, to `y`.
    fn said(nodes: Vec<NodeProto>) -> Verdict {
        let list = |(name, values): (&str, &[i64])| ints(name, values);
        let constants = [
            ("zero", &[0][..]),
            ("one", &[1]),
            ("end", &[i64::MAX]),
            ("flat", &[-1, 24]),
            ("folded", &[1, -1]),
            ("all", &[-1]),
            ("rows", &[-1, 4, 6]),
            ("halves", &[-1, 2, 6]),
            ("turned", &[4, -1]),
            ("places", &[-1, 6]),
            ("steps", &[4, -1, 5]),
            ("pads", &[0, 1, 0, 0, 0, 0]),
            ("pads_rows", &[1, 0, 0, -1, 0, 0]),
        ];
        let mut constants: Vec<_> = constants.into_iter().map(list).collect();
        constants.push(constant("w", 1, &[6, 5], vec![0; 120]));
        constants.push(constant("large", 1, &[6, 900], vec![0; 21_600]));
        constants.extend(
            [("first", 1_i64), ("second", 2)]
                .map(|(name, axis)| constant(name, 7, &[], axis.to_le_bytes().to_vec())),
        );
        let feed = Feed { name: "x".to_owned(), shape: vec![1, 4, 6], is_batched: true };
        match verdict(&onnx(), &model(nodes, constants), &[feed]) {
            Verdict::InPlace => Verdict::Apart,
            said => said,
        }
    }

    fn op(op: &str, input: &[&str], output: &str) -> NodeProto {
        node(op, input, output, &[])
    }

    fn along(op: &str, input: &[&str], output: &str, axis: i64) -> NodeProto {
        node(op, input, output, &[("axis", &[axis])])
    }

    #[test]
    fn rows_are_followed_to_the_axis_that_they_are_moved_to() {
        let turned = |x: &str, y: &str| node("Transpose", &[x], y, &[("perm", &[1, 0, 2])]);
        let sizes = || vec![op("Shape", &["x"], "s"), op("Gather", &["s", "zero"], "n")];
        let computed = |x: &str, y: &str| {
            vec![node("Concat", &["n", "turned"], "to", &[("axis", &[0])]), op("Reshape", &[x, "to"], y)]
        };
        for (nodes, verdict) in [
            (vec![op("Relu", &["x"], "y")], Verdict::Apart),
            (vec![along("Softmax", &["x"], "y", 1)], Verdict::Apart),
            (vec![along("Softmax", &["x"], "y", 0)], Verdict::Mixes),
            (vec![op("MatMul", &["x", "large"], "y")], Verdict::Apart),
            (vec![turned("x", "t"), along("Softmax", &["t"], "u", 0), turned("u", "y")], Verdict::Apart),
            (vec![turned("x", "t"), along("Softmax", &["t"], "u", 1), turned("u", "y")], Verdict::Mixes),
            (vec![turned("x", "y")], Verdict::Mixes),
            (
                vec![turned("x", "t"), along("CumSum", &["t", "second"], "u", 0), turned("u", "y")],
                Verdict::Apart,
            ),
            (
                vec![turned("x", "t"), along("CumSum", &["t", "first"], "u", 0), turned("u", "y")],
                Verdict::Mixes,
            ),
            // As many before them as there were, or they are scattered.
            (
                vec![
                    op("Reshape", &["x", "halves"], "h"),
                    along("Softmax", &["h"], "i", 1),
                    op("Reshape", &["i", "rows"], "y"),
                ],
                Verdict::Apart,
            ),
            (vec![op("Reshape", &["x", "turned"], "y")], Verdict::Mixes),
            (
                vec![
                    op("Reshape", &["x", "turned"], "s"),
                    op("Neg", &["s"], "t"),
                    op("Reshape", &["t", "rows"], "y"),
                ],
                Verdict::Apart,
            ),
            (
                vec![
                    op("Reshape", &["x", "turned"], "s"),
                    along("Softmax", &["s"], "t", 0),
                    op("Reshape", &["t", "rows"], "y"),
                ],
                Verdict::Mixes,
            ),
            // Steps of a sequence before the rows, in one axis and apart again.
            (
                vec![
                    turned("x", "t"),
                    op("Reshape", &["t", "places"], "p"),
                    op("MatMul", &["p", "w"], "m"),
                    op("Reshape", &["m", "steps"], "u"),
                    turned("u", "y"),
                ],
                Verdict::Apart,
            ),
            (vec![turned("x", "t"), op("Reshape", &["t", "rows"], "y")], Verdict::Mixes),
            (
                vec![
                    op("Reshape", &["x", "all"], "a"),
                    op("Neg", &["a"], "b"),
                    op("Reshape", &["b", "rows"], "y"),
                ],
                Verdict::Apart,
            ),
            (
                vec![
                    op("Reshape", &["x", "all"], "a"),
                    along("Softmax", &["a"], "b", -1),
                    op("Reshape", &["b", "rows"], "y"),
                ],
                Verdict::Mixes,
            ),
            ([sizes(), computed("x", "y")].concat(), Verdict::Apart),
            // Rows meet rows.
            (vec![op("Unsqueeze", &["x", "one"], "u"), op("Add", &["u", "x"], "y")], Verdict::Mixes),
            (vec![op("Squeeze", &["g", "zero"], "y")], Verdict::Unknown),
            (
                vec![node("Transpose", &["x"], "t", &[("perm", &[0, 2, 1])]), op("MatMul", &["x", "t"], "y")],
                Verdict::Apart,
            ),
            (
                vec![op("Reshape", &["x", "flat"], "f"), node("Gemm", &["f", "f"], "y", &[("transB", &[1])])],
                Verdict::Mixes,
            ),
            (vec![node("Gather", &["x", "zero"], "y", &[("axis", &[1])])], Verdict::Apart),
            (vec![node("Gather", &["x", "zero"], "y", &[("axis", &[0])])], Verdict::Mixes),
            (vec![op("Slice", &["x", "zero", "end", "zero"], "y")], Verdict::Apart),
            (vec![op("Slice", &["x", "zero", "one", "zero"], "y")], Verdict::Mixes),
            (vec![op("Slice", &["x", "zero", "one", "one"], "y")], Verdict::Apart),
            (vec![op("Pad", &["x", "pads"], "y")], Verdict::Apart),
            (vec![op("Pad", &["x", "pads_rows"], "y")], Verdict::Mixes),
            (vec![node("ReduceMax", &["x"], "y", &[("axes", &[2]), ("keepdims", &[0])])], Verdict::Apart),
            (vec![node("ReduceMax", &["x"], "y", &[("keepdims", &[1])])], Verdict::Mixes),
            (vec![node("Concat", &["x", "x"], "y", &[("axis", &[1])])], Verdict::Apart),
            (vec![node("Concat", &["x", "x"], "y", &[("axis", &[0])])], Verdict::Mixes),
            (vec![op("MaxPool", &["x"], "y")], Verdict::Unknown),
            // Nobody reads it.
            (vec![along("Softmax", &["x"], "z", 0), op("Relu", &["x"], "y")], Verdict::Apart),
        ] {
            let ops: Vec<String> =
                nodes.iter().map(|node| format!("{}{:?}", node.op_type, node.input)).collect();
            assert_eq!(said(nodes), verdict, "{ops:?}");
        }
    }

    #[test]
    fn rows_stay_in_place_where_nothing_moves_them() {
        let feed = [Feed { name: "x".to_owned(), shape: vec![1, 4, 6], is_batched: true }];
        let said = |nodes| verdict(&onnx(), &model(nodes, vec![ints("flat", &[-1, 24])]), &feed);
        let flat = || op("Reshape", &["x", "flat"], "f");
        assert_eq!(said(vec![flat(), along("Softmax", &["f"], "y", 1)]), Verdict::InPlace);
        let turned = |x: &str, y: &str| node("Transpose", &[x], y, &[("perm", &[1, 0])]);
        assert_eq!(said(vec![flat(), turned("f", "t"), turned("t", "y")]), Verdict::Apart);
    }

    #[test]
    fn a_graph_that_takes_one_row_only_has_none_to_mix() {
        let one = ints("to", &[1, 24]);
        let reshape = vec![op("Reshape", &["x", "to"], "f"), op("Relu", &["f"], "y")];
        let feed = Feed { name: "x".to_owned(), shape: vec![1, 4, 6], is_batched: true };
        assert_eq!(verdict(&onnx(), &model(reshape, vec![one]), &[feed]), Verdict::Apart);
    }

    #[test]
    fn a_product_by_letters_says_where_the_rows_are() {
        for (equation, verdict) in [
            ("nij,jk->nik", Verdict::Apart),
            ("nij,jk->ik", Verdict::Mixes),
            ("nij,nkj->nik", Verdict::Apart),
            ("nij,mij->nm", Verdict::Mixes),
        ] {
            let second = if equation.contains("jk") { "w" } else { "x" };
            let mut product = op("Einsum", &["x", second], "y");
            product.attribute.push(tract_onnx::pb::AttributeProto {
                name: "equation".to_owned(),
                r#type: 3,
                s: equation.into(),
                ..Default::default()
            });
            assert_eq!(said(vec![product]), verdict, "{equation}");
        }
    }
}
