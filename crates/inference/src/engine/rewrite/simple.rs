//! Operators that need a node or two.

use tract_onnx::pb::NodeProto;

use super::super::attributes::{attribute, attribute_floats, float_or, text};
use super::draft::{Draft, int, without, words};

/// Softmax and LogSoftmax. Where nothing but functions of single values is between a DequantizeLinear and a
/// QuantizeLinear, tract makes a table of 256 results of them, and takes a softmax for such a function. The greater of a
/// value and itself is no function of one input to tract.
pub(super) fn softmax(node: &NodeProto) -> Vec<NodeProto> {
    let mut draft = Draft::of(node);
    let scores = draft.fresh(&node.op_type);
    draft.add(NodeProto { name: scores.clone(), output: vec![scores.clone()], ..node.clone() });
    draft.op("Max", &[&scores, &scores], vec![]);
    draft.end()
}

/// max(0, x) + min(0, alpha * (exp(x / alpha) - 1)): tract leaves the product with alpha out.
pub(super) fn celu(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let alpha = float_or(node, "alpha", 1.0)?;
    let x = node.input.first().filter(|_| alpha.to_bits() != 1.0_f32.to_bits())?;
    let mut draft = Draft::of(node);
    let [zero, one, alpha] = [0.0, 1.0, alpha].map(|value| draft.float(value));
    let quotient = draft.op("Div", &[x, &alpha], vec![]);
    let power = draft.op("Exp", &[&quotient], vec![]);
    let less = draft.op("Sub", &[&power, &one], vec![]);
    let product = draft.op("Mul", &[&less, &alpha], vec![]);
    let below = draft.op("Min", &[&product, &zero], vec![]);
    let above = draft.op("Relu", &[x], vec![]);
    draft.op("Add", &[&above, &below], vec![]);
    Some(draft.end())
}

/// (x - offset) * scale, each one for all features or one of each.
pub(super) fn scaler(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let x = node.input.first()?;
    let mut draft = Draft::of(node);
    let plain = draft.op("Cast", &[x], vec![int("to", 1)]);
    let [offset, scale] = ["offset", "scale"].map(|name| draft.floats(attribute_floats(node, name)));
    let moved = draft.op("Sub", &[&plain, &offset], vec![]);
    draft.op("Mul", &[&moved, &scale], vec![]);
    Some(draft.end())
}

/// Version 10 has no `nearest_mode` and means the pixel before; tract takes the nearest one, as later versions have it.
pub(super) fn resize(node: &NodeProto) -> Option<Vec<NodeProto>> {
    if !matches!(text(node, "mode"), "" | "nearest") {
        return None;
    }
    let mut before = without(node, &["nearest_mode"]);
    before.attribute.push(words("nearest_mode", "floor"));
    Some(vec![before])
}

/// tract forgets `ceil_mode` where `auto_pad` says VALID, and takes `pads` where ONNX takes what `auto_pad` says.
pub(super) fn pads(node: &NodeProto) -> Option<Vec<NodeProto>> {
    match text(node, "auto_pad") {
        "VALID" => Some(vec![without(node, &["auto_pad", "pads"])]),
        "SAME_UPPER" | "SAME_LOWER" if attribute(node, "pads").is_some() => {
            Some(vec![without(node, &["pads"])])
        }
        _ => None,
    }
}
