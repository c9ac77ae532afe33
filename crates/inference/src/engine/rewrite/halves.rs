//! Graphs in f16, as the same graphs in f32. tract has no fast f16 on most CPUs: it multiplies number by number, 50 to
//! 700 times slower than in f32. ONNX Runtime calculates them in f32 on a CPU, too. What callers give and get is f32
//! either way, since nothing that speaks to a model has 16-bit floats.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto,
};
use tract_onnx::prelude::f16;

/// The two types, as ONNX numbers them.
const HALF: i32 = DataType::Float16 as i32;
const FLOAT: i32 = DataType::Float as i32;

/// Attributes that name a type.
const TYPES: [&str; 5] = ["dtype", "output_dtype", "softmax_precision", "stash_type", "to"];

/// Operators whose results have the type of their first input, or of their scale.
const ALIKE: [&str; 61] = [
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "BiasGelu",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "FastGelu",
    "Flatten",
    "GRU",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "RNN",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
];

/// Makes f32 of all that a file has in f16: constants, inputs, outputs, types that operators name. Its constants take
/// twice the bytes then, converted one by one.
pub(in super::super) fn widen(proto: &mut ModelProto) {
    let Some(graph) = proto.graph.as_mut().filter(|graph| has_half(graph)) else { return };
    widen_graph(graph);
    drop_casts(graph);
}

fn has_half(graph: &GraphProto) -> bool {
    let in_attribute = |one: &AttributeProto| {
        one.t.iter().chain(&one.tensors).any(is_half) || names_half(one) || graphs(one).any(has_half)
    };
    let mut values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    graph.initializer.iter().any(is_half)
        || values.any(|value| element(value) == Some(HALF))
        || graph.node.iter().flat_map(|node| &node.attribute).any(in_attribute)
}

fn graphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

fn is_half(tensor: &TensorProto) -> bool {
    tensor.data_type == HALF
}

fn names_half(attribute: &AttributeProto) -> bool {
    attribute.i == i64::from(HALF) && TYPES.contains(&attribute.name.as_str())
}

fn element(value: &ValueInfoProto) -> Option<i32> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor.elem_type),
    }
}

fn widen_graph(graph: &mut GraphProto) {
    graph.initializer.iter_mut().for_each(widen_tensor);
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    for value in values {
        let tensor = value.r#type.as_mut().and_then(|kind| kind.value.as_mut());
        if let Some(type_proto::Value::TensorType(tensor)) = tensor
            && tensor.elem_type == HALF
        {
            tensor.elem_type = FLOAT;
        }
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(widen_tensor);
        attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(widen_graph);
        if names_half(attribute) {
            attribute.i = i64::from(FLOAT);
        }
    }
}

/// A constant whose bytes aren't whole numbers of 16 bits stays as it is, to be refused.
fn widen_tensor(tensor: &mut TensorProto) {
    if !is_half(tensor) || !tensor.raw_data.len().is_multiple_of(2) {
        return;
    }
    let raw = std::mem::take(&mut tensor.raw_data);
    let listed = std::mem::take(&mut tensor.int32_data);
    let bytes = raw.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes));
    // Each number of the list is one of 16 bits; what is above them means nothing.
    let words = listed.iter().map(|word| {
        let [low, high, ..] = word.to_le_bytes();
        f16::from_le_bytes([low, high])
    });
    tensor.raw_data.reserve_exact(2 * raw.len() + 4 * listed.len());
    for half in bytes.chain(words) {
        tensor.raw_data.extend(half.to_f32().to_le_bytes());
    }
    tensor.data_type = FLOAT;
}

/// Casts from f32 to f32 do nothing; int8 would stop at them.
fn drop_casts(graph: &mut GraphProto) {
    let inputs = graph.input.iter().chain(&graph.value_info).filter(|value| element(value) == Some(FLOAT));
    let stored = graph.initializer.iter().filter(|tensor| tensor.data_type == FLOAT);
    let names = inputs.map(|value| &value.name).chain(stored.map(|tensor| &tensor.name));
    let mut floats: HashSet<String> = names.cloned().collect();
    for node in &mut graph.node {
        // What is dequantized has its scale's type.
        let typed = usize::from(node.op_type == "DequantizeLinear");
        let reads_float = node.input.get(typed).is_some_and(|name| floats.contains(name));
        let is_cast = node.op_type == "Cast" && casts_to_float(node);
        if is_cast && reads_float {
            "Identity".clone_into(&mut node.op_type);
            node.attribute.clear();
        }
        if is_cast || is_float(node) || reads_float && ALIKE.contains(&node.op_type.as_str()) {
            floats.extend(node.output.first().cloned());
        }
    }
}

fn casts_to_float(node: &NodeProto) -> bool {
    node.attribute.iter().any(|one| one.name == "to" && one.i == i64::from(FLOAT))
}

fn is_float(node: &NodeProto) -> bool {
    let constant = |one: &AttributeProto| one.t.as_ref().is_some_and(|tensor| tensor.data_type == FLOAT);
    node.op_type == "Constant" && node.attribute.iter().any(constant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::tests::{constant, model, node};

    fn halves(name: &str, values: &[f32]) -> TensorProto {
        let raw = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        constant(name, HALF, &[i64::try_from(values.len()).unwrap()], raw)
    }

    fn shown(tensor: &TensorProto) -> (i32, Vec<f32>) {
        let words = tensor.raw_data.as_chunks().0.iter();
        (tensor.data_type, words.map(|word| f32::from_le_bytes(*word)).collect())
    }

    #[test]
    fn all_that_is_f16_becomes_f32() {
        let listed =
            TensorProto { int32_data: vec![0x3c00, 0xbe00, 0x7c00], ..constant("b", HALF, &[3], Vec::new()) };
        let filled = NodeProto {
            attribute: vec![AttributeProto {
                name: "value".to_owned(),
                t: Some(halves("", &[2.0])),
                ..AttributeProto::default()
            }],
            ..node("ConstantOfShape", &["s"], "filled", &[])
        };
        let nodes = vec![
            node("Cast", &["x"], "h", &[("to", &[10])]),
            filled,
            node("Mul", &["h", "a"], "p", &[]),
            node("Cast", &["s"], "sizes", &[("to", &[10])]),
            node("Shape", &["p"], "shape", &[]),
            node("Cast", &["shape"], "counts", &[("to", &[1])]),
            node("RandomNormal", &[], "r", &[("dtype", &[10])]),
            node("Cast", &["p"], "y", &[("to", &[1])]),
        ];
        let sizes = constant("s", 7, &[1], 1_i64.to_le_bytes().to_vec());
        let mut file = model(nodes, vec![halves("a", &[0.5, -0.0, 65504.0, 6e-8]), listed, sizes]);
        widen(&mut file);
        let graph = file.graph.unwrap();
        let least = 1.0 / f32::from(1_u16 << 12) / f32::from(1_u16 << 12);
        assert_eq!(shown(&graph.initializer[0]), (FLOAT, vec![0.5, -0.0, 65504.0, least]));
        assert_eq!(shown(&graph.initializer[1]), (FLOAT, vec![1.0, -1.5, f32::INFINITY]));
        assert!(graph.initializer[1].int32_data.is_empty());
        let ops: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        let casts = ["Cast", "Shape", "Cast", "RandomNormal", "Identity"];
        assert_eq!(ops, [&["Identity", "ConstantOfShape", "Mul"][..], &casts].concat());
        let kinds = [3, 6].map(|at| graph.node[at].attribute[0].i);
        assert_eq!(
            (kinds, shown(graph.node[1].attribute[0].t.as_ref().unwrap())),
            ([1, 1], (FLOAT, vec![2.0]))
        );
    }

    #[test]
    fn graphs_within_and_what_goes_in_and_out_become_f32() {
        let mut inner = model(vec![node("Cast", &["x"], "z", &[("to", &[10])])], vec![halves("w", &[3.0])]);
        let branch = AttributeProto { g: inner.graph.take(), ..AttributeProto::default() };
        let choice = NodeProto { attribute: vec![branch], ..node("If", &["is"], "y", &[]) };
        let mut file = model(vec![choice], Vec::new());
        for value in file.graph.iter_mut().flat_map(|graph| graph.input.iter_mut().chain(&mut graph.output)) {
            let Some(kind) = value.r#type.as_mut().and_then(|kind| kind.value.as_mut()) else { continue };
            let type_proto::Value::TensorType(tensor) = kind;
            tensor.elem_type = HALF;
        }
        widen(&mut file);
        let graph = file.graph.unwrap();
        assert_eq!((element(&graph.input[0]), element(&graph.output[0])), (Some(FLOAT), Some(FLOAT)));
        let inner = graph.node[0].attribute[0].g.as_ref().unwrap();
        assert_eq!((shown(&inner.initializer[0]), inner.node[0].attribute[0].i), ((FLOAT, vec![3.0]), 1));
    }

    #[test]
    fn files_without_f16_and_constants_that_are_none_stay_as_they_are() {
        let mut plain = model(vec![node("Cast", &["x"], "y", &[("to", &[1])])], Vec::new());
        let before = plain.clone();
        widen(&mut plain);
        assert_eq!(plain, before);
        let mut odd = constant("a", HALF, &[1], vec![0; 3]);
        widen_tensor(&mut odd);
        assert_eq!((odd.data_type, odd.raw_data.len()), (HALF, 3));
    }
}
