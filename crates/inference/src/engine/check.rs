//! What is looked at before tract sees a model: bounds, names that lead nowhere, constants whose bytes don't
//! fill their shape, operators that the runtime lacks. tract would panic on some of these and take unbounded
//! memory on others. What a graph makes of its constants is bounded here, what it makes of a row where the plan is
//! made. A shape that depends on the values of a request isn't bounded: the signature of the publisher is what a
//! device relies on against that.

use std::collections::{HashMap, HashSet};

use tract_onnx::Onnx;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::attributes::attribute_ints;
use super::limits::{self, Tensors};
use super::ranks::Ranks;
use super::rewrite::has_words_for;
use super::{known, shown};
use crate::error::LoadError;
use crate::int8::lower::{CONTRIB, is_only_int8};

/// Most nodes of a model, subgraphs included. Stops a graph that takes minutes to optimise.
const MAX_NODES: usize = 50_000;
/// Most inputs, and most outputs, of a node. Stops one that takes minutes to wire.
const MAX_ENDS: usize = 4096;
/// Most elements that a constant may ask an operator to make: 256 M, 1 GB of f32.
const MAX_MADE_ELEMENTS: u64 = 256 * 1024 * 1024;
/// Most elements of a window, and of what padding alone makes of an image. Stops pools that would take hours.
const MAX_WINDOW_ELEMENTS: u64 = 1 << 20;

/// Operators that make a tensor as large as one of their inputs says, and which input that is.
const MAKERS: [(&str, usize); 5] =
    [("ConstantOfShape", 0), ("Expand", 1), ("Tile", 1), ("Reshape", 1), ("Resize", 3)];

/// The highest version of ONNX's operators that is taken: beyond ONNX's newest, so that no model in use is refused,
/// but nobody knows what such operators would mean.
const MAX_OPSET: i64 = 30;

/// The version of ONNX's own operators that a file names.
pub(super) fn opset(proto: &ModelProto) -> Result<i64, LoadError> {
    let own = proto.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    match own.map(|set| set.version) {
        Some(version @ 1..=MAX_OPSET) => Ok(version),
        Some(other) => Err(malformed(format!("opset {other}: versions 1 to {MAX_OPSET} are known"))),
        None => Err(malformed("it doesn't say which version of ONNX's operators it uses (opset_import)")),
    }
}

/// Operators of com.microsoft that tract has, or has under the name of one of ONNX's that means the same.
const TRACT_CONTRIB: [&str; 18] = [
    "BiasGelu",
    "DequantizeLinear",
    "FastGelu",
    "GatherBlockQuantized",
    "GatherND",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "Pad",
    "QLinearConv",
    "QuantizeLinear",
    "QuickGelu",
    "Range",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Trilu",
];

/// Whether tract has a node's operator, maybe in other words. tract itself doesn't look at domains.
pub(super) fn has(onnx: &Onnx, node: &NodeProto, opset: i64) -> bool {
    onnx.op_register.0.contains_key(&node.op_type) && is_tracts(node) || has_words_for(node, opset)
}

fn is_tracts(node: &NodeProto) -> bool {
    match node.domain.as_str() {
        "" | "ai.onnx" | "ai.onnx.ml" => true,
        CONTRIB => TRACT_CONTRIB.contains(&node.op_type.as_str()) && !is_only_int8(node),
        _ => false,
    }
}

/// Checks a parsed file; `has_op` says whether the runtime knows a node's operator.
pub(super) fn check(proto: &ModelProto, has_op: impl Fn(&NodeProto) -> bool) -> Result<(), LoadError> {
    let graph = proto.graph.as_ref().ok_or_else(|| malformed("there is no graph"))?;
    let opset = opset(proto).unwrap_or(0);
    let mut checker = Checker { has_op: &has_op, opset, nodes: 0 };
    checker.graph(graph, &HashSet::new()).map_err(|error| of_function(proto, error))
}

/// An operator that the file itself defines isn't one that nobody knows.
fn of_function(proto: &ModelProto, error: LoadError) -> LoadError {
    let LoadError::UnknownOp { op, domain, node } = &error else { return error };
    let is_it = |name: &Option<String>, is: &str| name.as_ref().is_some_and(|name| shown(name) == is);
    if !proto.functions.iter().any(|one| is_it(&one.name, op) && is_it(&one.domain, domain)) {
        return error;
    }
    let why = format!(
        "node {node:?} calls {domain}.{op}, a function of the file; these aren't inlined here \
         (onnx.inliner.inline_local_functions does that)"
    );
    LoadError::Runtime { why }
}

struct Checker<'a> {
    has_op: &'a dyn Fn(&NodeProto) -> bool,
    opset: i64,
    nodes: usize,
}

impl Checker<'_> {
    fn graph<'g>(&mut self, graph: &'g GraphProto, outer: &HashSet<&'g str>) -> Result<(), LoadError> {
        self.nodes += graph.node.len();
        if self.nodes > MAX_NODES {
            return Err(malformed(format!("more than {MAX_NODES} nodes")));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(malformed("sparse initializers are not supported"));
        }
        graph.initializer.iter().try_for_each(tensor)?;
        let (constants, tensors, mut ranks) = (constants(graph), Tensors::of(graph), Ranks::of(graph));
        let mut known = outer.clone();
        known.extend(graph.input.iter().map(|input| input.name.as_str()));
        known.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
        let mut made = named_once(graph)?;
        for node in &graph.node {
            self.node(node, &known, &constants)
                .map_err(|error| in_a_circle(graph, node, &known).unwrap_or(error))?;
            let checked = known::check(node, self.opset).and_then(|()| limits::check(node, &tensors));
            checked.and_then(|()| ranks.check(node, &tensors)).map_err(|why| {
                malformed(format!("node {:?} ({}) {why}", node_name(node), shown(&node.op_type)))
            })?;
            for output in node.output.iter().filter(|output| !output.is_empty()) {
                if !made.insert(output) {
                    return Err(malformed(format!(
                        "{:?} is made twice, again by {:?}",
                        shown(output),
                        node_name(node)
                    )));
                }
                known.insert(output);
            }
        }
        match graph.output.iter().find(|output| !known.contains(output.name.as_str())) {
            Some(output) => Err(malformed(format!("nothing makes the output {:?}", shown(&output.name)))),
            None => Ok(()),
        }
    }

    fn node<'g>(
        &mut self,
        node: &'g NodeProto,
        known: &HashSet<&'g str>,
        constants: &HashMap<&str, Vec<i64>>,
    ) -> Result<(), LoadError> {
        let ends = node.input.len().max(node.output.len());
        if ends > MAX_ENDS {
            return Err(malformed(format!(
                "node {:?} ({}) has {ends} inputs or outputs; at most {MAX_ENDS} are allowed",
                node_name(node),
                shown(&node.op_type)
            )));
        }
        if !(self.has_op)(node) {
            return Err(LoadError::UnknownOp {
                op: shown(&node.op_type),
                domain: shown(&node.domain),
                node: node_name(node),
            });
        }
        if let Some(input) =
            node.input.iter().find(|input| !input.is_empty() && !known.contains(input.as_str()))
        {
            return Err(malformed(format!(
                "node {:?} reads {:?}, which nothing makes",
                node_name(node),
                shown(input)
            )));
        }
        made_size(node, constants)?;
        window_size(node)?;
        node.attribute.iter().try_for_each(|attribute| self.attribute(attribute, known))
    }

    fn attribute<'g>(
        &mut self,
        attribute: &'g AttributeProto,
        known: &HashSet<&'g str>,
    ) -> Result<(), LoadError> {
        attribute.t.iter().chain(&attribute.tensors).try_for_each(tensor)?;
        attribute.g.iter().chain(&attribute.graphs).try_for_each(|graph| self.graph(graph, known))
    }
}

/// Why a node isn't where what it reads is made before it, though something makes that: nodes are in order here, if they
/// have one.
fn in_a_circle(graph: &GraphProto, node: &NodeProto, known: &HashSet<&str>) -> Option<LoadError> {
    let input = node.input.iter().find(|input| !input.is_empty() && !known.contains(input.as_str()))?;
    let is_made = graph.node.iter().any(|node| node.output.contains(input));
    let why = format!(
        "node {:?} reads {:?}, which is made of what the node makes: a circle",
        node_name(node),
        shown(input)
    );
    is_made.then(|| malformed(why))
}

/// The names that stand for something before any node ran. ONNX allows each name one meaning; only a constant may have
/// that of an input, for which it stands where that isn't fed.
fn named_once(graph: &GraphProto) -> Result<HashSet<&str>, LoadError> {
    let twice = |what: &str, name: &str| {
        Err(malformed(format!("{:?} is the name of two {what}; each has one of its own", shown(name))))
    };
    let mut inputs: HashSet<&str> = HashSet::new();
    if let Some(input) = graph.input.iter().find(|input| !inputs.insert(&input.name)) {
        return twice("inputs", &input.name);
    }
    let mut constants: HashSet<&str> = HashSet::new();
    if let Some(tensor) = graph.initializer.iter().find(|tensor| !constants.insert(&tensor.name)) {
        return twice("constants", &tensor.name);
    }
    constants.extend(inputs);
    Ok(constants)
}

/// A constant's bytes fill its shape exactly and stand in the file itself.
fn tensor(tensor: &TensorProto) -> Result<(), LoadError> {
    let bad = |why: String| Err(malformed(format!("constant {:?} {why}", shown(&tensor.name))));
    if tensor.data_location == Some(DataLocation::External as i32) {
        return bad("lies outside the file; a release holds the model in one blob".into());
    }
    let mut elements: u64 = 1;
    for dim in &tensor.dims {
        let Some(product) = u64::try_from(*dim).ok().and_then(|dim| elements.checked_mul(dim)) else {
            return bad(format!("has the impossible shape {:?}", tensor.dims));
        };
        elements = product;
    }
    let Some(width) = width(tensor.data_type) else {
        let texts = (tensor.data_type == DataType::String as i32).then_some("texts");
        let name = texts.or(limits::other_width(tensor.data_type)).unwrap_or("one without a name here");
        return bad(format!(
            "has element type {} ({name}), which the runtime doesn't know",
            tensor.data_type
        ));
    };
    let raw = tensor.raw_data.len() as u64;
    if raw > 0 && elements.checked_mul(width) != Some(raw) {
        return bad(format!("has shape {:?} of {width}-byte elements, but {raw} bytes", tensor.dims));
    }
    let listed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    if raw > 0 && listed.iter().any(|count| *count > 0) {
        return bad("has its values twice, raw and listed".into());
    }
    let (field, count) = listed_for(tensor);
    if raw == 0 && count as u64 != elements {
        return bad(format!("has shape {:?}, but {count} values of its element type ({field})", tensor.dims));
    }
    Ok(())
}

/// The field that lists a constant's values where they aren't raw, and how many stand there. ONNX puts u32 and u64
/// into `uint64_data`; the runtime reads them elsewhere, so that they have to be raw.
fn listed_for(tensor: &TensorProto) -> (&'static str, usize) {
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => ("float_data", tensor.float_data.len()),
        Ok(DataType::Double) => ("double_data", tensor.double_data.len()),
        Ok(DataType::Int64) => ("int64_data", tensor.int64_data.len()),
        Ok(DataType::Uint32 | DataType::Uint64) => ("raw_data", 0),
        _ => ("int32_data", tensor.int32_data.len()),
    }
}

/// Bytes of one element as it stands in `raw_data`; none for types that the runtime can't load.
fn width(data_type: i32) -> Option<u64> {
    match DataType::try_from(data_type).ok()? {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
        DataType::Uint16 | DataType::Int16 | DataType::Float16 => Some(2),
        DataType::Float | DataType::Int32 | DataType::Uint32 => Some(4),
        DataType::Double | DataType::Int64 | DataType::Uint64 => Some(8),
        _ => None,
    }
}

/// Small integer constants by name: the ones that can be shapes.
fn constants(graph: &GraphProto) -> HashMap<&str, Vec<i64>> {
    let of_nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let values = node.attribute.iter().find_map(|attribute| match attribute.name.as_str() {
            "value_int" => Some(vec![attribute.i]),
            "value_ints" => Some(attribute.ints.clone()),
            _ => attribute.t.as_ref().and_then(integers),
        });
        Some((node.output.first()?.as_str(), values?))
    });
    let of_graph = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), integers(tensor)));
    of_graph.filter_map(|(name, values)| Some((name, values?))).chain(of_nodes).collect()
}

fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type != DataType::Int64 as i32 || tensor.dims.len() > 1 {
        return None;
    }
    if tensor.raw_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    let words = tensor.raw_data.chunks_exact(8);
    Some(words.filter_map(|word| word.try_into().ok().map(i64::from_le_bytes)).collect())
}

fn made_size(node: &NodeProto, constants: &HashMap<&str, Vec<i64>>) -> Result<(), LoadError> {
    let Some((_, slot)) = MAKERS.iter().find(|(op, _)| *op == node.op_type) else { return Ok(()) };
    let Some(shape) = node.input.get(*slot).and_then(|name| constants.get(name.as_str())) else {
        return Ok(());
    };
    let made = shape.iter().fold(1_u64, |all, dim| all.saturating_mul(dim.unsigned_abs().max(1)));
    if made <= MAX_MADE_ELEMENTS {
        return Ok(());
    }
    Err(malformed(format!("node {:?} ({}) makes {made} elements", node_name(node), node.op_type)))
}

/// The window of a convolution or pool, and what is put around its input, are bounded.
fn window_size(node: &NodeProto) -> Result<(), LoadError> {
    let ints = |name: &str| attribute_ints(node, name);
    let volume =
        |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(1_u64, |all, size| all.saturating_mul(size.max(1)));
    let window = volume(&mut ints("kernel_shape").iter().map(|size| size.unsigned_abs()));
    let pads = ints("pads");
    let (before, after) = pads.split_at(pads.len() / 2);
    let around = before.iter().zip(after).map(|(a, b)| a.unsigned_abs().saturating_add(b.unsigned_abs()));
    let around = volume(&mut { around });
    if window.max(around) <= MAX_WINDOW_ELEMENTS {
        return Ok(());
    }
    Err(malformed(format!(
        "node {:?} ({}) has a window of {window} elements (kernel_shape), with {around} around its input (pads); \
         at most {MAX_WINDOW_ELEMENTS} are allowed",
        node_name(node),
        node.op_type
    )))
}

/// What a node is called: tools leave names empty, those of outputs never are.
pub(super) fn node_name(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    name.map(|name| shown(name)).unwrap_or_default()
}

fn malformed(why: impl Into<String>) -> LoadError {
    LoadError::Malformed { why: why.into() }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{
        AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
        ValueInfoProto,
    };

    use super::{check, is_tracts, opset};

    fn pool(name: &str, kernel: &[i64], pads: &[i64]) -> NodeProto {
        let ints = |name: &str, ints: &[i64]| AttributeProto {
            name: name.to_owned(),
            ints: ints.to_vec(),
            ..AttributeProto::default()
        };
        NodeProto {
            op_type: "MaxPool".to_owned(),
            input: vec!["x".to_owned()],
            output: vec![name.to_owned()],
            attribute: vec![ints("kernel_shape", kernel), ints("pads", pads)],
            ..NodeProto::default()
        }
    }

    fn refusal(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> String {
        let input = vec![ValueInfoProto { name: "x".to_owned(), ..ValueInfoProto::default() }];
        let graph = GraphProto { input, node, initializer, ..GraphProto::default() };
        let checked = check(&ModelProto { graph: Some(graph), ..ModelProto::default() }, |_| true);
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn windows_and_what_is_around_them_are_bounded() {
        assert_eq!(refusal(vec![pool("y", &[224, 224], &[3; 4])], vec![]), "");
        // A causal convolution over a long signal.
        assert_eq!(refusal(vec![pool("y", &[3], &[100_000, 0])], vec![]), "");
        for (kernel, pads) in [(vec![1 << 19; 2], vec![1 << 19; 4]), (vec![3; 2], vec![1900; 4])] {
            let why = refusal(vec![pool("y", &kernel, &pads)], vec![]);
            assert!(why.contains("node \"y\" (MaxPool)") && why.contains("at most 1048576"), "{why}");
        }
        assert_ne!(refusal(vec![pool("y", &[i64::MIN, i64::MAX], &[i64::MIN, i64::MIN])], vec![]), "");
    }

    #[test]
    fn sizes_that_stand_in_a_constant_node_are_bounded() {
        let node = |op: &str, input: &[&str], attribute| NodeProto {
            op_type: op.to_owned(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![format!("of_{op}")],
            attribute,
            ..NodeProto::default()
        };
        for (size, is_refused) in [(1 << 10, false), (1 << 40, true)] {
            let sizes = AttributeProto {
                name: "value_ints".to_owned(),
                ints: vec![size],
                ..AttributeProto::default()
            };
            let nodes =
                vec![node("Constant", &[], vec![sizes]), node("ConstantOfShape", &["of_Constant"], vec![])];
            let why = refusal(nodes, vec![]);
            assert_eq!(why.contains("elements"), is_refused, "{size}: {why}");
        }
    }

    #[test]
    fn an_operator_of_another_domain_is_not_onnxs_of_that_name() {
        let node = |domain: &str, op: &str| NodeProto {
            op_type: op.to_owned(),
            domain: domain.to_owned(),
            ..NodeProto::default()
        };
        let is_known = |(domain, op): (&str, &str)| is_tracts(&node(domain, op));
        let same = [("", "Relu"), ("ai.onnx", "Relu"), ("ai.onnx.ml", "Normalizer")];
        assert!(same.into_iter().chain([("com.microsoft", "QuantizeLinear")]).all(is_known));
        let other = [("acme", "Relu"), ("com.microsoft", "Attention"), ("com.microsoft", "QLinearAdd")];
        assert!(!other.into_iter().any(is_known));
        let images = AttributeProto { name: "channels_last".to_owned(), i: 1, ..AttributeProto::default() };
        let conv = NodeProto { attribute: vec![images], ..node("com.microsoft", "QLinearConv") };
        assert!(!is_tracts(&conv) && is_tracts(&node("com.microsoft", "QLinearConv")));
    }

    #[test]
    fn a_file_says_which_operators_it_means() {
        let of = |sets: &[(&str, i64)]| {
            let set = |(domain, version): &(&str, i64)| OperatorSetIdProto {
                domain: (*domain).to_owned(),
                version: *version,
            };
            opset(&ModelProto { opset_import: sets.iter().map(set).collect(), ..ModelProto::default() })
        };
        assert_eq!(of(&[("com.microsoft", 1), ("", 17)]).unwrap(), 17);
        assert_eq!(of(&[("ai.onnx", 7)]).unwrap(), 7);
        assert!(of(&[("com.microsoft", 1)]).unwrap_err().to_string().contains("opset_import"));
        for odd in [0, -1, 99, i64::MAX] {
            assert!(of(&[("", odd)]).unwrap_err().to_string().contains(&format!("opset {odd}")), "{odd}");
        }
    }

    #[test]
    fn a_constants_values_stand_in_the_field_of_its_type() {
        let of = |data_type: i32| {
            let (name, dims) = ("scale".to_owned(), vec![1]);
            let float_data = vec![0.5];
            let tensor = TensorProto { name, dims, data_type, float_data, ..TensorProto::default() };
            refusal(vec![], vec![tensor])
        };
        assert_eq!(of(1), "");
        for (data_type, field) in
            [(3, "int32_data"), (7, "int64_data"), (11, "double_data"), (12, "raw_data")]
        {
            let why = of(data_type);
            assert!(why.contains("\"scale\" has shape [1], but 0 values") && why.contains(field), "{why}");
        }
    }

    #[test]
    fn a_name_is_made_once() {
        let twice = vec![pool("y", &[1], &[]), pool("y", &[1], &[])];
        assert!(refusal(twice, vec![]).contains("\"y\" is made twice"));
        assert!(refusal(vec![pool("x", &[1], &[])], vec![]).contains("\"x\" is made twice"));
        let constant = |name: &str| TensorProto {
            name: name.to_owned(),
            data_type: 3,
            dims: vec![1; 3],
            raw_data: vec![1],
            ..TensorProto::default()
        };
        let why = refusal(vec![], vec![constant("c"), constant("c")]);
        assert!(why.contains("\"c\" is the name of two constants"), "{why}");
        let why = refusal(vec![pool("c", &[1], &[])], vec![constant("c")]);
        assert!(why.contains("\"c\" is made twice, again by \"c\""), "{why}");
        // A constant stands for an input that isn't fed.
        assert_eq!(refusal(vec![pool("y", &[1], &[])], vec![constant("x")]), "");
    }

    #[test]
    fn a_name_is_made_once_in_graphs_within_nodes_too() {
        let twice = vec![pool("b", &[1], &[]), pool("b", &[1], &[])];
        let body = GraphProto { node: twice, ..GraphProto::default() };
        let branch = AttributeProto { g: Some(body), ..AttributeProto::default() };
        let node = NodeProto { attribute: vec![branch], ..pool("y", &[1], &[]) };
        let why = refusal(vec![node], vec![]);
        assert!(why.contains("\"b\" is made twice"), "{why}");
    }

    #[test]
    fn what_a_node_reads_is_bounded() {
        let sum = |count| NodeProto {
            op_type: "Sum".to_owned(),
            input: vec!["x".to_owned(); count],
            output: vec!["y".to_owned()],
            ..NodeProto::default()
        };
        assert_eq!(refusal(vec![sum(4096)], vec![]), "");
        let why = refusal(vec![sum(4097)], vec![]);
        assert!(why.contains("node \"y\" (Sum) has 4097 inputs") && why.contains("at most 4096"), "{why}");
    }

    #[test]
    fn an_axis_that_is_not_there_is_refused_by_the_nodes_name() {
        let mut mean = pool("y", &[], &[]);
        mean.op_type = "ReduceMean".to_owned();
        mean.input = vec!["c".to_owned()];
        mean.attribute.truncate(1);
        mean.attribute[0].name = "axes".to_owned();
        mean.attribute[0].ints = vec![-9];
        let constant = TensorProto {
            name: "c".to_owned(),
            data_type: 3,
            dims: vec![1; 4],
            raw_data: vec![1],
            ..TensorProto::default()
        };
        let why = refusal(vec![mean], vec![constant]);
        assert!(why.contains("node \"y\" (ReduceMean) names axis -9 of a tensor that has 4"), "{why}");
    }

    #[test]
    fn a_constant_has_its_values_once() {
        let constant = TensorProto {
            name: "c".to_owned(),
            data_type: 3,
            dims: vec![1],
            raw_data: vec![1],
            int32_data: vec![2],
            ..TensorProto::default()
        };
        assert!(refusal(vec![], vec![constant]).contains("raw and listed"));
    }

    #[test]
    fn a_function_of_the_file_is_named_as_such() {
        let call =
            NodeProto { op_type: "Twice".to_owned(), domain: "custom".to_owned(), ..pool("y", &[1], &[]) };
        let input = vec![ValueInfoProto { name: "x".to_owned(), ..ValueInfoProto::default() }];
        let graph = GraphProto { input, node: vec![call], ..GraphProto::default() };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let why = |model: &ModelProto| check(model, |_| false).unwrap_err().to_string();
        assert!(why(&model).contains("has no operator custom.Twice"));
        let [name, domain] = ["Twice", "custom"].map(|name| Some(name.to_owned()));
        model.functions.push(FunctionProto { name, domain, ..FunctionProto::default() });
        assert!(why(&model).contains("a function of the file"), "{}", why(&model));
    }
}
