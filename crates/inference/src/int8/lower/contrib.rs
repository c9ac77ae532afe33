//! Operators of com.microsoft in ONNX's own words: f32 between DequantizeLinear and QuantizeLinear. So tract runs a form
//! of them that int8 doesn't know, and a model that int8 doesn't take as a whole.

use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

use super::graph::Node;
use super::nhwc::is_channels_last;

/// Since this version Softmax is over one axis, and a scale may belong to one, too.
const HAS_AXES: i64 = 13;
/// Attributes that only the operators of com.microsoft have.
const OWN: [&str; 2] = ["channels_last", "opset"];

/// Where a node has its 8-bit operands, and what its result is quantized by: each time the place of a scale or of
/// an operand right before its scale, with the zero point behind.
struct Places {
    op: &'static str,
    operands: Vec<usize>,
    result: usize,
}

fn places(node: Node<'_>, opset: i64) -> Option<Places> {
    let (op, operands, result) = match node.op() {
        "QLinearAdd" => ("Add", vec![0, 3], 6),
        "QLinearMul" => ("Mul", vec![0, 3], 6),
        "QLinearConcat" => ("Concat", (2..node.0.input.len()).step_by(3).collect(), 0),
        "QLinearLeakyRelu" => ("LeakyRelu", vec![0], 3),
        "QLinearSigmoid" => ("Sigmoid", vec![0], 3),
        "QLinearSoftmax" if is_same_softmax(node, opset) => ("Softmax", vec![0], 3),
        "QLinearGlobalAveragePool" if !is_channels_last(node) => ("GlobalAveragePool", vec![0], 3),
        "QLinearAveragePool" if divides_alike(node) => ("AveragePool", vec![0], 3),
        _ => return None,
    };
    Some(Places { op, operands, result })
}

/// Where a node that makes 8-bit values names their scale.
pub(super) fn result_scale(node: Node<'_>) -> Option<usize> {
    match node.op() {
        "QuantizeLinear" => Some(1),
        "QLinearConv" | "QLinearMatMul" => Some(6),
        _ => places(node, HAS_AXES).map(|places| places.result),
    }
}

/// Whether the version of Softmax that the node means is the graph's.
fn is_same_softmax(node: Node<'_>, opset: i64) -> bool {
    (softmax_version(node) < HAS_AXES) == (opset < HAS_AXES)
}

/// The version of Softmax that a QLinearSoftmax means.
pub(super) fn softmax_version(node: Node<'_>) -> i64 {
    node.int("opset").unwrap_or(HAS_AXES)
}

/// Whether the pool divides by the counts that ONNX's does: not where a last window reaches beyond the padding.
fn divides_alike(node: Node<'_>) -> bool {
    let [is_ceil, counts_pads] = ["ceil_mode", "count_include_pad"].map(|name| node.int(name) == Some(1));
    !(is_channels_last(node) || is_ceil && counts_pads)
}

/// The nodes of ONNX that make of the same inputs the same output, in a graph of that version; none for operators that
/// ONNX can't say like this.
pub(crate) fn in_onnx(node: &NodeProto, opset: i64) -> Option<Vec<NodeProto>> {
    let node = Node(node);
    if node.op() == "QGemm" {
        return gemm(node, opset);
    }
    let Places { op, operands, result } = places(node, opset)?;
    let mut words = Words::of(node);
    let plain: Option<Vec<String>> =
        operands.into_iter().map(|slot| words.dequantized(slot, Vec::new())).collect();
    let mut attribute: Vec<AttributeProto> = node.0.attribute.clone();
    attribute.retain(|one| !OWN.contains(&one.name.as_str()));
    if op == "Softmax" && node.int("axis").is_none() {
        attribute.push(int("axis", if opset < HAS_AXES { 1 } else { -1 }));
    }
    let float = words.op(op, plain?, attribute);
    words.end(float, result)
}

/// A product in f32, and the bias, which has the scale of the product's steps.
fn gemm(node: Node<'_>, opset: i64) -> Option<Vec<NodeProto>> {
    let mut words = Words::of(node);
    let along = i64::from(node.int("transB").unwrap_or(0) == 0);
    let along = if opset < HAS_AXES { Vec::new() } else { vec![int("axis", along)] };
    let factors = [words.dequantized(0, Vec::new())?, words.dequantized(3, along)?];
    let mut sum = words.op("Gemm", factors.to_vec(), node.0.attribute.clone());
    if let Some(bias) = node.input(6) {
        let steps = [1, 4].map(|slot| node.input(slot).map(str::to_owned));
        let [Some(a), Some(b)] = steps else { return None };
        let alpha = words.float(node.float("alpha").unwrap_or(1.0));
        let step = words.op("Mul", vec![a, b], Vec::new());
        let step = words.op("Mul", vec![step, alpha], Vec::new());
        let bias = words.op("Cast", vec![bias.to_owned()], vec![int("to", 1)]);
        let bias = words.op("Mul", vec![bias, step], Vec::new());
        sum = words.op("Add", vec![sum, bias], Vec::new());
    }
    words.end(sum, 7)
}

/// The words for a node, while they are found.
struct Words<'a> {
    node: Node<'a>,
    nodes: Vec<NodeProto>,
}

impl<'a> Words<'a> {
    fn of(node: Node<'a>) -> Self {
        Self { node, nodes: Vec::new() }
    }

    fn add(&mut self, op: &str, input: Vec<String>, output: String, attribute: Vec<AttributeProto>) {
        let output = vec![output];
        self.nodes.push(NodeProto { op_type: op.to_owned(), input, output, attribute, ..<_>::default() });
    }

    /// Adds a node; the name of what it makes.
    fn op(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let made = format!("{}/plain_{}", self.node.output(), self.nodes.len());
        self.add(op, input, made.clone(), attribute);
        made
    }

    fn float(&mut self, value: f32) -> String {
        let value = TensorProto { data_type: 1, float_data: vec![value], ..<_>::default() };
        let value = AttributeProto { name: "value".to_owned(), r#type: 4, t: Some(value), ..<_>::default() };
        self.op("Constant", Vec::new(), vec![value])
    }

    /// A value with its scale, and its zero point where there is one.
    fn quantized(&self, value: String, scale: usize) -> Option<Vec<String>> {
        let zero = self.node.input(scale + 1).map(str::to_owned);
        Some([value, self.node.input(scale)?.to_owned()].into_iter().chain(zero).collect())
    }

    fn dequantized(&mut self, slot: usize, along: Vec<AttributeProto>) -> Option<String> {
        let input = self.quantized(self.node.input(slot)?.to_owned(), slot + 1)?;
        Some(self.op("DequantizeLinear", input, along))
    }

    /// Quantizes the result, if it has a scale.
    fn end(mut self, float: String, scale: usize) -> Option<Vec<NodeProto>> {
        let output = self.node.output().to_owned();
        if self.node.input(scale).is_some() {
            let input = self.quantized(float, scale)?;
            self.add("QuantizeLinear", input, output, Vec::new());
        } else {
            self.nodes.last_mut()?.output = vec![output];
        }
        Some(self.nodes)
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 2, i, ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::Framework as _;

    use super::*;
    use crate::engine::{Feed, Verdict};
    use crate::int8::kernel::Level;
    use crate::int8::lower::lower;

    #[test]
    fn an_addition_reads_and_writes_as_it_was_quantized() {
        let input = ["a", "as", "az", "b", "bs", "", "ys", "yz"].map(str::to_owned).to_vec();
        let node = NodeProto {
            op_type: "QLinearAdd".to_owned(),
            domain: "com.microsoft".to_owned(),
            input,
            output: vec!["y".to_owned()],
            ..NodeProto::default()
        };
        let nodes = in_onnx(&node, 17).unwrap();
        let said: Vec<String> =
            nodes.iter().map(|node| format!("{}({})", node.op_type, node.input.join(" "))).collect();
        assert_eq!(said[..2], ["DequantizeLinear(a as az)", "DequantizeLinear(b bs)"]);
        assert_eq!(said[2..], ["Add(y/plain_0 y/plain_1)", "QuantizeLinear(y/plain_2 ys yz)"]);
        assert!(nodes.iter().all(|node| node.domain.is_empty()) && nodes[3].output == ["y"]);
        let other = NodeProto { op_type: "MatMulIntegerToFloat".to_owned(), ..node };
        assert!(in_onnx(&other, 17).is_none());
    }

    #[test]
    fn a_form_that_nothing_runs_is_named_not_the_layers_around_it() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/made");
        let bytes = std::fs::read(format!("{folder}/dynamic_quantize_matmul_u8.onnx")).unwrap();
        let mut model = tract_onnx::onnx().proto_model_for_read(&mut bytes.as_slice()).unwrap();
        let feed = Feed { name: "input".to_owned(), shape: vec![1, 5, 24], is_batched: true };
        assert!(lower(&model, std::slice::from_ref(&feed), Level::detect(), Verdict::InPlace).is_ok());
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let product = nodes.iter_mut().find(|node| node.op_type == "DynamicQuantizeMatMul").unwrap();
        // Weights that the request brings.
        product.input[1] = product.input[0].clone();
        let name = product.name.clone();
        let Err(report) = lower(&model, &[feed], Level::detect(), Verdict::InPlace) else {
            panic!("it was lowered")
        };
        assert_eq!(report.stuck, Some(("DynamicQuantizeMatMul".to_owned(), name.clone())));
        let why = report.why_whole();
        assert!(
            why.contains(&format!("DynamicQuantizeMatMul {name:?} exists in int8 only"))
                && why.contains("weights"),
            "{why}"
        );
    }
}
