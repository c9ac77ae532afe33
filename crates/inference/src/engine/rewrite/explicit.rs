//! What a file may leave out, said: before anything else reads the graph, so that all of them read the same. A
//! QuantizeLinear whose type is an attribute (from opset 21 on) has a zero point of that type, which tract, and the
//! steps in int8, go by; so has a node of com.microsoft that leaves one out; inputs that are left out at the end of a node
//! aren't there, as tract counts them.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::super::check::node_name;
use super::super::limits::other_width;
use super::implied::{self, Types};
use crate::error::LoadError;

/// The attribute that says what a QuantizeLinear makes.
const MAKES: &str = "output_dtype";

/// Types that are quantized to. No zero point is one of u8.
const UNSIGNED: i64 = DataType::Uint8 as i64;
const SIGNED: i64 = DataType::Int8 as i64;

/// Shape and type of constants, by name.
type Constants = HashMap<String, (Vec<i64>, i32)>;

/// Says it, in graphs within nodes too.
///
/// # Errors
///
/// A QuantizeLinear that makes another type than 8 bits, or another one than that of its zero point.
pub(in super::super) fn spell(proto: &mut ModelProto) -> Result<(), LoadError> {
    let Some(graph) = proto.graph.as_mut() else { return Ok(()) };
    let mut names = HashSet::new();
    collect(graph, &mut names);
    spell_graph(graph, &Constants::new(), &mut names)?;
    imply(graph, &Types::new(), &mut names);
    Ok(())
}

/// Zero points that follow from what a node reads; a graph within a node reads values around it, too.
fn imply(graph: &mut GraphProto, outer: &Types, names: &mut HashSet<String>) {
    let holds_graph = graph.node.iter().any(|node| graphs(node).next().is_some());
    if !holds_graph && !implied::is_left_out(graph) {
        return;
    }
    let mut types = implied::known(graph, outer);
    implied::fill_in(graph, &mut types, names);
    let inner = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let inner = inner.flat_map(|one| one.g.iter_mut().chain(&mut one.graphs));
    inner.for_each(|inner| imply(inner, &types, names));
}

fn collect(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.input.iter().map(|input| input.name.clone()));
    names.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    for node in &graph.node {
        names.extend(node.output.iter().cloned());
        graphs(node).for_each(|inner| collect(inner, names));
    }
}

fn graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|one| one.g.iter().chain(&one.graphs))
}

fn spell_graph(
    graph: &mut GraphProto,
    outer: &Constants,
    names: &mut HashSet<String>,
) -> Result<(), LoadError> {
    let names_type = |node: &NodeProto| node.attribute.iter().any(|one| one.name == MAKES);
    let holds_graph = |node: &NodeProto| graphs(node).next().is_some();
    let needs_constants = graph.node.iter().any(|node| names_type(node) || holds_graph(node));
    let constants = if needs_constants { constants(graph, outer) } else { Constants::new() };
    for node in &mut graph.node {
        let given = node.input.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        node.input.truncate(given);
        let zero = zero_point(node, &constants).map_err(|why| LoadError::Runtime {
            why: format!("node {:?} (QuantizeLinear) {why}", node_name(node)),
        })?;
        if let Some(zero) = zero {
            let name = free(format!("{}/zero_point", node.output.first().map_or("", String::as_str)), names);
            node.input.push(name.clone());
            graph.initializer.push(TensorProto { name, ..zero });
        }
        let inner = node.attribute.iter_mut().flat_map(|one| one.g.iter_mut().chain(&mut one.graphs));
        inner.into_iter().try_for_each(|inner| spell_graph(inner, &constants, names))?;
    }
    Ok(())
}

fn constants(graph: &GraphProto, outer: &Constants) -> Constants {
    let what = |tensor: &TensorProto| (tensor.dims.clone(), tensor.data_type);
    let mut constants = outer.clone();
    constants.extend(graph.initializer.iter().map(|tensor| (tensor.name.clone(), what(tensor))));
    for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
        let value = node.attribute.iter().find_map(|one: &AttributeProto| one.t.as_ref());
        constants.extend(value.and_then(|value| Some((node.output.first()?.clone(), what(value)))));
    }
    constants
}

/// Takes the type from a QuantizeLinear; the zero point that says the same, if it has none and needs one.
fn zero_point(node: &mut NodeProto, constants: &Constants) -> Result<Option<TensorProto>, String> {
    let is_own = matches!(node.domain.as_str(), "" | "ai.onnx") && node.op_type == "QuantizeLinear";
    let place = node.attribute.iter().position(|one| is_own && one.name == MAKES);
    // 0 says nothing.
    let Some(kind) = place.map(|place| node.attribute.remove(place).i).filter(|kind| *kind != 0) else {
        return Ok(None);
    };
    let named = |kind: i64| match kind {
        UNSIGNED => "UINT8".to_owned(),
        SIGNED => "INT8".to_owned(),
        other => match i32::try_from(other).ok().and_then(other_width) {
            Some(name) => name.to_owned(),
            None => format!("element type {other}"),
        },
    };
    if !matches!(kind, SIGNED | UNSIGNED) {
        return Err(format!("is quantized to {}; 8-bit integers are known", named(kind)));
    }
    let [_, scale, rest @ ..] = &node.input[..] else { return Ok(None) };
    let zero = rest.first().and_then(|zero| constants.get(zero)).map(|(_, own)| i64::from(*own));
    if let Some(own) = zero.filter(|own| *own != kind) {
        return Err(format!("is quantized to {}, and its zero point is one of {}", named(kind), named(own)));
    }
    if kind == UNSIGNED || !rest.is_empty() {
        return Ok(None);
    }
    // A scale that the graph works out is one for the whole.
    let dims = constants.get(scale).map_or_else(Vec::new, |(dims, _)| dims.clone());
    let count = dims.iter().try_fold(1_usize, |count, dim| count.checked_mul(usize::try_from(*dim).ok()?));
    let count = count.filter(|count| *count <= MAX_SCALES);
    let count = count.ok_or_else(|| format!("has a scale of shape {dims:?}, which is over a bound"))?;
    let raw_data = vec![0; count];
    Ok(Some(TensorProto { dims, data_type: DataType::Int8 as i32, raw_data, ..TensorProto::default() }))
}

/// Most scales of one tensor. A file says a shape in a few bytes; whether it has as many scales is looked at later.
const MAX_SCALES: usize = 1 << 20;

/// The name, or one like it that nothing has.
pub(super) fn free(mut name: String, names: &mut HashSet<String>) -> String {
    while !names.insert(name.clone()) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::tests::{constant, model, node};
    use super::*;

    #[test]
    fn the_zero_point_has_as_many_places_as_the_scale_and_a_name_of_its_own() {
        let says = [("output_dtype", &[3_i64][..])];
        let quantized = node("QuantizeLinear", &["x", "scales", ""], "y", &says);
        let mut file = model(vec![quantized.clone()], vec![constant("scales", 1, &[2], vec![0; 8])]);
        let graph = file.graph.as_mut().unwrap();
        graph.initializer.push(constant("y/zero_point", 1, &[], vec![0; 4]));
        let branch = AttributeProto {
            g: Some(GraphProto {
                node: vec![NodeProto { output: vec!["z".to_owned()], ..quantized }],
                ..GraphProto::default()
            }),
            ..AttributeProto::default()
        };
        graph.node.push(NodeProto { attribute: vec![branch], ..node("If", &["c", "", ""], "u", &[]) });
        spell(&mut file).unwrap();
        let graph = file.graph.unwrap();
        assert_eq!(graph.node[0].input, ["x", "scales", "y/zero_point_"]);
        assert!(graph.node[0].attribute.is_empty());
        let zero = &graph.initializer[2];
        assert_eq!(
            (&zero.name[..], &zero.dims[..], &zero.raw_data[..]),
            ("y/zero_point_", &[2][..], &[0, 0][..])
        );
        assert_eq!(graph.node[1].input, ["c"]);
        let inner = graph.node[1].attribute[0].g.as_ref().unwrap();
        assert_eq!(
            (&inner.node[0].input[2], inner.initializer[0].data_type),
            (&"z/zero_point".to_owned(), 3)
        );
    }

    #[test]
    fn a_type_that_is_not_known_or_not_that_of_the_zero_point_is_refused_by_name() {
        for (kind, zero, word) in [(5, "", "16-bit"), (7, "", "type 7"), (22, "", "4-bit"), (2, "z", "INT8")]
        {
            let says = [("output_dtype", &[kind][..])];
            let quantized = node("QuantizeLinear", &["x", "s", zero], "y", &says);
            let constants = vec![constant("s", 1, &[], vec![0; 4]), constant("z", 3, &[], vec![0])];
            let why = spell(&mut model(vec![quantized], constants)).unwrap_err().to_string();
            assert!(why.contains("of_y") && why.contains(word), "{why}");
        }
    }
}
