//! QuantizeLinear and DequantizeLinear by scales that the graph works out, as quantize_dynamic wrote them before
//! DynamicQuantizeLinear was there: tract wants constants. And QLinearMatMul of two values that the graph makes, as
//! attention has them, which tract multiplies byte by byte, many times slower than f32.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto};

use super::draft::{Draft, int};

/// What is known of a graph's values.
#[derive(Default)]
pub(super) struct Scales {
    /// Those that are made of constants alone.
    constants: HashSet<String>,
    /// Those of signed bytes.
    signed: HashSet<String>,
    /// Stored ones of one element.
    single: HashSet<String>,
}

impl Scales {
    /// Looks over a graph within those that were looked over.
    pub(super) fn add(&mut self, graph: &GraphProto) {
        let signed = DataType::Int8 as i32;
        for tensor in &graph.initializer {
            self.constants.insert(tensor.name.clone());
            if tensor.dims.iter().all(|dim| *dim == 1) {
                self.single.insert(tensor.name.clone());
            }
            if tensor.data_type == signed {
                self.signed.insert(tensor.name.clone());
            }
        }
        for node in &graph.node {
            let mut values = node.attribute.iter().filter_map(|one| one.t.as_ref());
            let is_signed = match node.op_type.as_str() {
                "Cast" => node.attribute.iter().any(|one| one.name == "to" && one.i == i64::from(signed)),
                "Constant" => values.any(|value| value.data_type == signed),
                _ => false,
            };
            if is_signed {
                self.signed.extend(node.output.iter().cloned());
            }
            if node.input.iter().all(|name| name.is_empty() || self.constants.contains(name)) {
                self.constants.extend(node.output.iter().cloned());
            }
        }
    }

    fn is_worked_out(&self, node: &NodeProto) -> bool {
        let is_linear = matches!(node.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear");
        let mut described = node.input.iter().skip(1).filter(|name| !name.is_empty());
        // One scale for the whole: the axis of others would have to be known.
        is_linear && node.attribute.is_empty() && described.any(|name| !self.constants.contains(name))
    }
}

/// The same in sums and products.
pub(super) fn rewrite(node: &NodeProto, scales: &Scales) -> Option<Vec<NodeProto>> {
    if !scales.is_worked_out(node) {
        return None;
    }
    let [value, scale, zero @ ..] = &node.input[..] else { return None };
    let zero = zero.first().filter(|name| !name.is_empty());
    let mut draft = Draft::of(node);
    let plain_zero = zero.map(|zero| draft.op("Cast", &[zero], vec![int("to", 1)]));
    if node.op_type == "DequantizeLinear" {
        let mut plain = draft.op("Cast", &[value], vec![int("to", 1)]);
        if let Some(zero) = plain_zero {
            plain = draft.op("Sub", &[&plain, &zero], vec![]);
        }
        draft.op("Mul", &[&plain, scale], vec![]);
        return Some(draft.end());
    }
    let steps = draft.op("Div", &[value, scale], vec![]);
    let is_signed = zero.is_some_and(|zero| scales.signed.contains(zero));
    to_bytes(&mut draft, &steps, plain_zero.as_deref(), is_signed);
    Some(draft.end())
}

/// A product of bytes as one of whole numbers in f32: sums below 2^24 are exact, larger ones as exact as f32 is.
pub(super) fn product(node: &NodeProto, scales: &Scales) -> Option<Vec<NodeProto>> {
    let [a, a_scale, a_zero, b, b_scale, b_zero, scale, zero] = &node.input[..] else { return None };
    let described = [a_scale, a_zero, b_scale, b_zero, scale, zero];
    if !described.into_iter().all(|name| scales.single.contains(name)) {
        return None;
    }
    let mut draft = Draft::of(node);
    let mut centred = |value: &str, zero: &str| {
        let [value, zero] = [value, zero].map(|name| draft.op("Cast", &[name], vec![int("to", 1)]));
        draft.op("Sub", &[&value, &zero], vec![])
    };
    let (a, b) = (centred(a, a_zero), centred(b, b_zero));
    let sums = draft.op("MatMul", &[&a, &b], vec![]);
    let by = draft.op("Mul", &[a_scale, b_scale], vec![]);
    let by = draft.op("Div", &[&by, scale], vec![]);
    let steps = draft.op("Mul", &[&sums, &by], vec![]);
    let plain_zero = draft.op("Cast", &[zero], vec![int("to", 1)]);
    to_bytes(&mut draft, &steps, Some(&plain_zero), scales.signed.contains(zero));
    Some(draft.end())
}

/// Rounds, adds the zero point and saturates.
fn to_bytes(draft: &mut Draft<'_>, steps: &str, zero: Option<&str>, is_signed: bool) {
    let (kind, low, high) =
        if is_signed { (DataType::Int8, -128.0, 127.0) } else { (DataType::Uint8, 0.0, 255.0) };
    let mut steps = draft.op("Round", &[steps], vec![]);
    if let Some(zero) = zero {
        steps = draft.op("Add", &[&steps, zero], vec![]);
    }
    let [low, high] = [low, high].map(|bound| draft.float(bound));
    let steps = draft.op("Max", &[&steps, &low], vec![]);
    let steps = draft.op("Min", &[&steps, &high], vec![]);
    draft.op("Cast", &[&steps], vec![int("to", i64::from(kind as i32))]);
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::tests::{constant, fed, model, node, plan};
    use crate::tensor::Data;

    #[test]
    fn a_scale_that_is_worked_out_quantizes_as_a_constant_one_does() {
        let values = [-3.0_f32, -0.25, 0.0, 0.75, 1.25, 200.0];
        for (kind, zero, want) in [
            (2, 10_u8, [7.0_f32, 10.0, 10.0, 11.0, 11.0, 210.0]),
            (3, 246, [-13.0, -10.0, -10.0, -9.0, -9.0, 127.0]),
        ] {
            let one = constant("one", 1, &[], 1_f32.to_le_bytes().to_vec());
            let zero = constant("zero", kind, &[], vec![zero]);
            let nodes = vec![
                // Zero times what comes, and one more: nobody knows that it is one.
                node("ReduceMax", &["x"], "most", &[("keepdims", &[0])]),
                node("Sub", &["most", "most"], "none", &[]),
                node("Add", &["none", "one"], "scale", &[]),
                node("QuantizeLinear", &["x", "scale", "zero"], "q", &[]),
                node("Cast", &["q"], "y", &[("to", &[1])]),
                node("DequantizeLinear", &["q", "scale", "zero"], "z", &[]),
            ];
            let mut file = model(nodes, vec![one, zero]);
            let graph = file.graph.as_mut().unwrap();
            let second = tract_onnx::pb::ValueInfoProto { name: "z".to_owned(), ..graph.output[0].clone() };
            graph.output.push(second);
            let plan = plan(&file, &[1, 6]).unwrap();
            let outputs = plan.run(&fed(&[1, 6], values.to_vec()), 1).unwrap();
            assert_eq!(outputs[0].1, Data::Fp32(want.to_vec()));
            let offset = if kind == 2 { 10.0 } else { -10.0 };
            assert_eq!(outputs[1].1, Data::Fp32(want.map(|value| value - offset).to_vec()));
        }
    }

    #[test]
    fn a_product_of_two_values_in_bytes_is_that_of_whole_numbers() {
        let float = |name: &str, value: f32| constant(name, 1, &[], value.to_le_bytes().to_vec());
        let all = vec![
            float("s", 0.5),
            constant("z", 2, &[], vec![10]),
            float("out_s", 4.0),
            constant("out_z", 3, &[], vec![(-3_i8).cast_unsigned()]),
        ];
        let nodes = vec![
            node("QuantizeLinear", &["x", "s", "z"], "a", &[]),
            node("Transpose", &["a"], "b", &[]),
            node("QLinearMatMul", &["a", "s", "z", "b", "s", "z", "out_s", "out_z"], "q", &[]),
            node("Cast", &["q"], "y", &[("to", &[1])]),
        ];
        let plan = plan(&model(nodes, all), &[2, 3]).unwrap();
        let outputs = plan.run(&fed(&[2, 3], vec![1.0, 2.0, 3.0, -1.0, 0.5, 40.0]), 1).unwrap();
        // 14, 120 and 1601.25 by steps of 4, three below, the last one saturated.
        assert_eq!(outputs[0].1, Data::Fp32(vec![1.0, 27.0, 27.0, 127.0]));
    }
}
