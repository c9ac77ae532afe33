//! Operators that need a node or two.

use tract_onnx::pb::NodeProto;

use super::super::attributes::{attribute, attribute_floats, float_or, int_or, text};
use super::draft::{Draft, int, ints, real, without, words};

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

/// A value that nothing is padded by: tract pads by it whatever the mode is.
pub(super) fn pad_value(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let mode = text(node, "mode");
    let is_given = node.input.get(2).is_some_and(|value| !value.is_empty());
    if !is_given || mode.is_empty() || mode == "constant" {
        return None;
    }
    let mut node = node.clone();
    node.input[2].clear();
    if node.input.len() == 3 {
        node.input.pop();
    }
    Some(vec![node])
}

/// x * sigmoid(alpha * x): tract leaves alpha out.
pub(super) fn swish(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let alpha = float_or(node, "alpha", 1.0)?;
    let x = node.input.first().filter(|_| alpha.to_bits() != 1.0_f32.to_bits())?;
    let mut draft = Draft::of(node);
    let alpha = draft.float(alpha);
    let product = draft.op("Mul", &[x, &alpha], vec![]);
    let gate = draft.op("Sigmoid", &[&product], vec![]);
    draft.op("Mul", &[x, &gate], vec![]);
    Some(draft.end())
}

/// tract knows one order of the channels that are made: a block's places first, then the channels that there were. In
/// the other one (mode "CRD") these come first.
pub(super) fn space_to_depth(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let size = int_or(node, "blocksize", 2);
    let places = size.checked_mul(size).filter(|_| text(node, "mode") == "CRD")?;
    let mut draft = Draft::of(node);
    let blocks = draft.fresh("blocks");
    let plain = without(node, &["mode"]);
    draft.add(NodeProto { name: blocks.clone(), output: vec![blocks.clone()], ..plain });
    let perm = |order: &[i64]| vec![ints("perm", order)];
    let [apart, joined] = [&[0, 0, 0, places, -1][..], &[0, 0, 0, -1]].map(|shape| draft.ints(shape));
    let last = draft.op("Transpose", &[&blocks], perm(&[0, 2, 3, 1]));
    let last = draft.op("Reshape", &[&last, &apart], vec![]);
    let last = draft.op("Transpose", &[&last], perm(&[0, 1, 2, 4, 3]));
    let last = draft.op("Reshape", &[&last, &joined], vec![]);
    draft.op("Transpose", &[&last], perm(&[0, 3, 1, 2]));
    Some(draft.end())
}

/// What ONNX Runtime adds to a variance where a node doesn't say.
const LEAST_VARIANCE: f32 = 1e-12;

/// SkipLayerNormalization and SkipSimplifiedLayerNormalization: tract leaves the bias of the latter out, and adds more to
/// a variance than the operator does where it doesn't say how much.
pub(super) fn skip_norm(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let is_simplified = node.op_type == "SkipSimplifiedLayerNormalization";
    let bias = node.input.get(3).filter(|bias| is_simplified && !bias.is_empty());
    let says = attribute(node, "epsilon").is_some();
    if bias.is_none() && says {
        return None;
    }
    let mut draft = Draft::of(node);
    let mut norm = node.clone();
    if !says {
        norm.attribute.push(real("epsilon", LEAST_VARIANCE));
    }
    if let Some(bias) = bias {
        norm.input[1] = draft.op("Add", &[&node.input[1], bias], vec![]);
        norm.input.truncate(3);
    }
    draft.add(norm);
    Some(draft.into_nodes())
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

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, TensorProto};

    use super::super::super::plan::tests::{constant, fed, model, node, plan};
    use super::*;
    use crate::tensor::Data;

    fn answer(one: NodeProto, constants: Vec<TensorProto>, shape: &[usize], values: &[f32]) -> Vec<f32> {
        let plan = plan(&model(vec![one], constants), shape).unwrap();
        match plan.run(&fed(shape, values.to_vec()), 1).unwrap().remove(0).1 {
            Data::Fp32(values) => values,
            other => panic!("{other:?}"),
        }
    }

    fn with(node: NodeProto, attribute: AttributeProto) -> NodeProto {
        NodeProto { attribute: [&node.attribute[..], &[attribute]].concat(), ..node }
    }

    fn are_close(got: &[f32], wanted: &[f32]) {
        let is_close = |(got, wanted): (&f32, &f32)| (got - wanted).abs() < 1e-4;
        assert!(got.len() == wanted.len() && got.iter().zip(wanted).all(is_close), "{got:?} {wanted:?}");
    }

    #[test]
    fn swish_has_a_slope() {
        let values = [-2.0, 0.5, 3.0];
        for slope in [1.0, 0.5, 1.702] {
            let swish = with(node("Swish", &["x"], "y", &[]), real("alpha", slope));
            let wanted = values.map(|x: f32| x / (1.0 + (-slope * x).exp()));
            are_close(&answer(swish, vec![], &[1, 3], &values), &wanted);
        }
    }

    #[test]
    fn channels_come_first_in_blocks_where_the_mode_says_so() {
        let values: Vec<f32> = (0..32_u8).map(f32::from).collect();
        let plain = node("SpaceToDepth", &["x"], "y", &[("blocksize", &[2])]);
        for (mode, is_first) in [("DCR", false), ("CRD", true)] {
            let mut wanted = Vec::new();
            for made in 0..8 {
                let (channel, place) = if is_first { (made / 4, made % 4) } else { (made % 2, made / 2) };
                for pixel in 0..4 {
                    let (row, column) = (pixel / 2 * 2 + place / 2, pixel % 2 * 2 + place % 2);
                    wanted.push(values[channel * 16 + row * 4 + column]);
                }
            }
            let blocks = with(plain.clone(), words("mode", mode));
            assert_eq!(answer(blocks, vec![], &[1, 2, 4, 4], &values), wanted, "{mode}");
        }
    }

    #[test]
    fn what_is_skipped_to_has_its_bias_and_no_more_variance_than_it_has() {
        let floats = |name: &str, dims: &[i64], floats: [f32; 2]| {
            constant(name, 1, dims, floats.into_iter().flat_map(f32::to_le_bytes).collect())
        };
        for (scale, names) in
            [(1.0, &["x", "s", "g", "b"][..]), (1e-4, &["x", "s", "g", "b"]), (1e-4, &["x", "s", "g"])]
        {
            let norm = NodeProto {
                domain: "com.microsoft".to_owned(),
                ..node("SkipSimplifiedLayerNormalization", names, "y", &[])
            };
            let bias = if names.len() > 3 { [0.5 * scale, -scale] } else { [0.0; 2] };
            let constants = vec![
                floats("s", &[1, 1, 2], [2.0 * scale, scale]),
                floats("g", &[2], [1.0, 3.0]),
                floats("b", &[2], bias),
            ];
            let sums = [3.0 * scale + bias[0], 5.0 * scale + bias[1]];
            let size = f32::midpoint(sums[0] * sums[0], sums[1] * sums[1]).sqrt();
            let wanted = [sums[0] / size, 3.0 * sums[1] / size];
            are_close(&answer(norm, constants, &[1, 1, 2], &[scale, 4.0 * scale]), &wanted);
        }
    }
}
