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
    let has_words = match node.op() {
        "QLinearSoftmax" => is_same_softmax(node, opset),
        "QLinearAveragePool" => divides_alike(node),
        _ => true,
    };
    all_places(node).filter(|_| has_words)
}

/// Where a node of com.microsoft has its 8-bit operands and its result's scale, a zero point behind each scale.
pub(crate) fn quantized_places(node: &NodeProto) -> Option<(Vec<usize>, usize)> {
    let node = Node(node);
    // Its weights may have many zero points, and are read as they are.
    let gemm = (node.op() == "QGemm").then(|| (vec![0], 7));
    gemm.or_else(|| all_places(node).map(|places| (places.operands, places.result)))
}

fn all_places(node: Node<'_>) -> Option<Places> {
    let (op, operands, result) = match node.op() {
        "QLinearAdd" => ("Add", vec![0, 3], 6),
        "QLinearMul" => ("Mul", vec![0, 3], 6),
        "QLinearConcat" => ("Concat", (2..node.0.input.len()).step_by(3).collect(), 0),
        "QLinearLeakyRelu" => ("LeakyRelu", vec![0], 3),
        "QLinearSigmoid" => ("Sigmoid", vec![0], 3),
        "QLinearSoftmax" => ("Softmax", vec![0], 3),
        "QLinearGlobalAveragePool" => ("GlobalAveragePool", vec![0], 3),
        "QLinearAveragePool" => ("AveragePool", vec![0], 3),
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
    !(is_ceil && counts_pads)
}

/// The nodes of ONNX that make of the same inputs the same output, in a graph of that version; none for operators that
/// ONNX can't say like this.
pub(crate) fn in_onnx(node: &NodeProto, opset: i64) -> Option<Vec<NodeProto>> {
    let node = Node(node);
    match node.op() {
        "QGemm" => return gemm(node, opset),
        "DynamicQuantizeMatMul" => return dynamic_matmul(node),
        "MatMulIntegerToFloat" => return float_matmul(node),
        "NhwcMaxPool" | "QLinearConv" => return images(node),
        _ => {}
    }
    let Places { op, operands, result } = places(node, opset)?;
    let mut words = Words::of(node);
    let plain: Option<Vec<String>> =
        operands.into_iter().map(|slot| words.dequantized(slot, Vec::new())).collect();
    let mut attribute = own_left_out(node);
    if op == "Softmax" && node.int("axis").is_none() {
        attribute.push(int("axis", if opset < HAS_AXES { 1 } else { -1 }));
    }
    if !is_channels_last(node) {
        let float = words.op(op, plain?, attribute);
        return words.end(float, result);
    }
    let [first, last] = orders(node)?;
    let image = words.op("Transpose", plain?, first);
    let float = words.op(op, vec![image], attribute);
    let float = words.op("Transpose", vec![float], last);
    words.end(float, result)
}

/// How many axes an image has, channels and rows included: as many more than a window. A pool over all pixels doesn't say;
/// of anything but two axes of pixels its order of axes isn't one, and is refused where the shape is known.
fn image_axes(node: Node<'_>) -> Option<usize> {
    let said =
        |name: &str, each: usize| node.ints(name).map(|list| list.len() / each).filter(|axes| *axes > 0);
    let axes = said("kernel_shape", 1).or_else(|| said("strides", 1)).or_else(|| said("pads", 2));
    axes.or((node.op() == "QLinearGlobalAveragePool").then_some(2)).map(|axes| axes + 2)
}

/// The order of axes that brings channels before the pixels, and the one that brings them back.
fn orders(node: Node<'_>) -> Option<[Vec<AttributeProto>; 2]> {
    let axes = i64::try_from(image_axes(node)?).ok()?;
    let perm = |order: Vec<i64>| vec![AttributeProto { r#type: 7, ints: order, ..int("perm", 0) }];
    let first = [0, axes - 1].into_iter().chain(1..axes - 1).collect();
    let last = std::iter::once(0).chain(2..axes).chain([1]).collect();
    Some([perm(first), perm(last)])
}

/// A convolution or pool of bytes whose channels come last.
fn images(node: Node<'_>) -> Option<Vec<NodeProto>> {
    let [first, last] = orders(node)?;
    let mut words = Words::of(node);
    let mut input = node.0.input.clone();
    input[0] = words.op("Transpose", vec![node.input(0)?.to_owned()], first);
    let op = if node.op() == "NhwcMaxPool" { "MaxPool" } else { node.op() };
    let made = words.op(op, input, own_left_out(node));
    words.op("Transpose", vec![made], last);
    words.rename_last()
}

/// The attributes that ONNX's own operator has.
fn own_left_out(node: Node<'_>) -> Vec<AttributeProto> {
    node.0.attribute.iter().filter(|one| !OWN.contains(&one.name.as_str())).cloned().collect()
}

/// Rows are quantized by their own range, then multiplied as whole numbers.
fn dynamic_matmul(node: Node<'_>) -> Option<Vec<NodeProto>> {
    let mut words = Words::of(node);
    let stem = format!("{}/quantized", node.output());
    let [bytes, scale, zero] = ["bytes", "scale", "zero"].map(|what| format!("{stem}_{what}"));
    words.nodes.push(NodeProto {
        op_type: "DynamicQuantizeLinear".to_owned(),
        input: vec![node.input(0)?.to_owned()],
        output: vec![bytes.clone(), scale.clone(), zero.clone()],
        ..NodeProto::default()
    });
    let own = |slot: usize| node.input(slot).map(str::to_owned);
    words.product([Some(bytes), own(1), Some(zero), own(3)], &[scale, own(2)?], own(4))
}

fn float_matmul(node: Node<'_>) -> Option<Vec<NodeProto>> {
    let own = |slot: usize| node.input(slot).map(str::to_owned);
    Words::of(node).product([own(0), own(1), own(4), own(5)], &[own(2)?, own(3)?], own(6))
}

/// A product in f32, and the bias, which has the scale of the product's steps.
fn gemm(node: Node<'_>, opset: i64) -> Option<Vec<NodeProto>> {
    let mut words = Words::of(node);
    let is_turned = node.int("transB").unwrap_or(0) != 0;
    let mut own = node.0.attribute.clone();
    let b = if is_turned && opset < HAS_AXES {
        // A scale per channel can't say that it lies along the first axis.
        own.retain(|one| one.name != "transB");
        let turned = words.op("Transpose", vec![node.input(3)?.to_owned()], Vec::new());
        words.dequantized_as(turned, 4, Vec::new())?
    } else {
        let along = if opset < HAS_AXES { Vec::new() } else { vec![int("axis", i64::from(!is_turned))] };
        words.dequantized(3, along)?
    };
    let a = words.dequantized(0, Vec::new())?;
    let mut sum = words.op("Gemm", vec![a, b], own);
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

    /// Adds a node; the name of what it makes.
    fn op(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let made = format!("{}/plain_{}", self.node.output(), self.nodes.len());
        let output = vec![made.clone()];
        self.nodes.push(NodeProto { op_type: op.to_owned(), input, output, attribute, ..<_>::default() });
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
        self.dequantized_as(self.node.input(slot)?.to_owned(), slot + 1, along)
    }

    /// `value` in f32, by the scale at that place.
    fn dequantized_as(&mut self, value: String, scale: usize, along: Vec<AttributeProto>) -> Option<String> {
        let input = self.quantized(value, scale)?;
        Some(self.op("DequantizeLinear", input, along))
    }

    /// A product of whole numbers with their zero points, times both scales, plus a bias.
    fn product(
        mut self,
        [a, b, a_zero, b_zero]: [Option<String>; 4],
        scales: &[String; 2],
        bias: Option<String>,
    ) -> Option<Vec<NodeProto>> {
        let zeros = [a_zero.unwrap_or_default(), b_zero.unwrap_or_default()];
        let sums = self.op("MatMulInteger", [a?, b?].into_iter().chain(zeros).collect(), Vec::new());
        let sums = self.op("Cast", vec![sums], vec![int("to", 1)]);
        let step = self.op("Mul", scales.to_vec(), Vec::new());
        let float = self.op("Mul", vec![sums, step], Vec::new());
        if let Some(bias) = bias {
            self.op("Add", vec![float, bias], Vec::new());
        }
        self.rename_last()
    }

    /// Gives what was made last the node's name.
    fn rename_last(mut self) -> Option<Vec<NodeProto>> {
        self.nodes.last_mut()?.output = vec![self.node.output().to_owned()];
        Some(self.nodes)
    }

    /// Quantizes the result, if it has a scale.
    fn end(mut self, float: String, scale: usize) -> Option<Vec<NodeProto>> {
        if self.node.input(scale).is_some() {
            let input = self.quantized(float, scale)?;
            self.op("QuantizeLinear", input, Vec::new());
        }
        self.rename_last()
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
        let other = NodeProto { op_type: "QLinearSoftmax".to_owned(), ..node };
        assert!(in_onnx(&other, 11).is_none());
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
        // Over all axes behind the first one, as the graph's own Softmax isn't.
        "QLinearSoftmax".clone_into(&mut product.op_type);
        product.attribute = vec![int("opset", 11)];
        let name = product.name.clone();
        let Err(report) = lower(&model, &[feed], Level::detect(), Verdict::InPlace) else {
            panic!("it was lowered")
        };
        assert_eq!(report.stuck, Some(("QLinearSoftmax".to_owned(), name.clone())));
        let why = report.why_whole();
        assert!(why.contains(&format!("QLinearSoftmax {name:?} exists in int8 only")), "{why}");
    }
}
