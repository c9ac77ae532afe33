//! Zero points that operators of com.microsoft leave out: 0 of the type of what they read. Who reads such a node looks
//! for the type of a value at the zero point, and would take none for one of u8.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, type_proto};

use super::explicit::free;
use crate::int8::lower::quantized_places;

const UNSIGNED: i32 = DataType::Uint8 as i32;
const SIGNED: i32 = DataType::Int8 as i32;

/// Types of values, by name: only those of 8 bits matter.
pub(super) type Types = HashMap<String, i32>;

/// Whether a node of this graph, not of those within its nodes, leaves a zero point out.
pub(super) fn is_left_out(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| missing(node).next().is_some())
}

/// Gives each a zero point, in the graph's order, since one says what type the next one reads.
pub(super) fn fill_in(graph: &mut GraphProto, types: &mut Types, names: &mut HashSet<String>) {
    let mut made = Vec::new();
    for node in &mut graph.node {
        let slots: Vec<usize> = missing(node).collect();
        for slot in slots {
            let kind = kind_at(node, slot, types);
            let name = free(format!("{}/zero_point", node.input[slot - 1]), names);
            node.input.resize(node.input.len().max(slot + 1), String::new());
            node.input[slot].clone_from(&name);
            types.insert(name.clone(), kind);
            made.push(TensorProto { name, data_type: kind, raw_data: vec![0], ..TensorProto::default() });
        }
        learn(node, types);
    }
    graph.initializer.extend(made);
}

/// What the constants and inputs of a graph say, beside what its nodes will.
pub(super) fn known(graph: &GraphProto, outer: &Types) -> Types {
    let mut types = outer.clone();
    types.extend(graph.initializer.iter().map(|tensor| (tensor.name.clone(), tensor.data_type)));
    let kind = |value: &Option<type_proto::Value>| match value {
        Some(type_proto::Value::TensorType(tensor)) => Some(tensor.elem_type),
        _ => None,
    };
    let inputs = graph
        .input
        .iter()
        .filter_map(|input| Some((input.name.clone(), kind(&input.r#type.as_ref()?.value)?)));
    types.extend(inputs);
    types
}

/// The places of the zero points that aren't there, operands first.
fn missing(node: &NodeProto) -> impl Iterator<Item = usize> + use<> {
    let is_given = |slot: usize| node.input.get(slot).is_some_and(|name| !name.is_empty());
    let (operands, result) = quantized_places(node).unwrap_or_default();
    let scales = operands.into_iter().map(|slot| slot + 1).chain([result]);
    let slots: Vec<usize> =
        scales.filter(|scale| *scale > 0 && is_given(*scale) && !is_given(scale + 1)).collect();
    slots.into_iter().map(|scale| scale + 1)
}

/// The type of the operand that a zero point belongs to; of a result's, that of the first operand.
fn kind_at(node: &NodeProto, slot: usize, types: &Types) -> i32 {
    let (operands, _) = quantized_places(node).unwrap_or_default();
    let own = operands.iter().find(|operand| **operand + 2 == slot);
    let Some(operand) = own.or(operands.first()) else { return UNSIGNED };
    let of = |slot: usize| node.input.get(slot).and_then(|name| types.get(name)).copied();
    let kind = of(*operand).or_else(|| of(*operand + 2));
    kind.filter(|kind| *kind == SIGNED).unwrap_or(UNSIGNED)
}

/// Notes the type of what a node makes.
fn learn(node: &NodeProto, types: &mut Types) {
    let of = |slot: usize| node.input.get(slot).and_then(|name| types.get(name)).copied();
    let kind = match (node.op_type.as_str(), quantized_places(node)) {
        ("Constant", _) => node.attribute.iter().find_map(|one| one.t.as_ref()).map(|value| value.data_type),
        ("Cast", _) => {
            node.attribute.iter().find(|one| one.name == "to").and_then(|to| i32::try_from(to.i).ok())
        }
        ("QuantizeLinear", _) => Some(of(2).unwrap_or(UNSIGNED)),
        ("DynamicQuantizeLinear", _) => Some(UNSIGNED),
        ("QLinearConv" | "QLinearMatMul", _) => of(7),
        (_, Some((_, result))) => of(result + 1),
        // What moves values, or picks the highest, leaves their type.
        _ => node.input.iter().find_map(|name| types.get(name)).copied(),
    };
    let made = node.output.iter().filter(|name| !name.is_empty());
    types.extend(kind.into_iter().flat_map(|kind| made.clone().map(move |name| (name.clone(), kind))));
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::tests::{constant, model, node};
    use super::*;

    #[test]
    fn a_zero_point_that_is_left_out_is_one_of_what_the_node_reads() {
        let add = NodeProto {
            domain: "com.microsoft".to_owned(),
            ..node("QLinearAdd", &["a", "s", "z", "b", "s", "", "s"], "sum", &[])
        };
        let pool = NodeProto {
            domain: "com.microsoft".to_owned(),
            ..node("QLinearAveragePool", &["moved", "s", "", "s"], "mean", &[])
        };
        for (kind, want) in [(SIGNED, SIGNED), (UNSIGNED, UNSIGNED)] {
            let nodes = vec![
                node("QuantizeLinear", &["x", "s", "z"], "a", &[]),
                node("Identity", &["a"], "b", &[]),
                add.clone(),
                node("Reshape", &["sum", "shape"], "moved", &[]),
                pool.clone(),
            ];
            let constants = vec![
                constant("s", 1, &[], vec![0; 4]),
                constant("z", kind, &[], vec![0]),
                constant("shape", 7, &[1], vec![0; 8]),
            ];
            let graph = &mut model(nodes, constants).graph.unwrap();
            assert!(is_left_out(graph));
            let mut types = known(graph, &Types::new());
            fill_in(graph, &mut types, &mut HashSet::from(["s/zero_point".to_owned()]));
            let [add, pool] = [2, 4].map(|place| &graph.node[place].input);
            let added: Vec<&String> = [&add[5], &add[7], &pool[2], &pool[4]].into();
            let of = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name).unwrap();
            assert!(added.iter().all(|name| of(name).data_type == want && of(name).raw_data == [0]));
            assert_eq!(added.iter().collect::<HashSet<_>>().len(), 4);
            assert!(!is_left_out(graph));
        }
    }
}
