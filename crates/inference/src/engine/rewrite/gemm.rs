//! Gemm in f16: tract makes its factors in f32 and then refuses to multiply by them.

use tract_onnx::pb::NodeProto;

use super::super::attributes::{float_or, int_or};
use super::draft::{Draft, int, ints};

/// What casts to f16.
const TO_HALF: i64 = 10;

/// A product, and what is multiplied and added.
pub(super) fn rewrite(node: &NodeProto) -> Option<Vec<NodeProto>> {
    let (alpha, beta) = (float_or(node, "alpha", 1.0)?, float_or(node, "beta", 1.0)?);
    let mut draft = Draft::of(node);
    let a = operand(&mut draft, node.input.first()?, int_or(node, "transA", 0));
    let b = operand(&mut draft, node.input.get(1)?, int_or(node, "transB", 0));
    let product = draft.op("MatMul", &[&a, &b], vec![]);
    let product = times(&mut draft, product, alpha);
    let bias = node.input.get(2).filter(|name| !name.is_empty() && beta != 0.0);
    if let Some(bias) = bias {
        let bias = times(&mut draft, bias.clone(), beta);
        draft.op("Add", &[&product, &bias], vec![]);
    }
    Some(draft.end())
}

fn operand(draft: &mut Draft<'_>, name: &str, is_turned: i64) -> String {
    if is_turned == 0 { name.to_owned() } else { draft.op("Transpose", &[name], vec![ints("perm", &[1, 0])]) }
}

fn times(draft: &mut Draft<'_>, value: String, factor: f32) -> String {
    if factor.to_bits() == 1.0_f32.to_bits() {
        return value;
    }
    let factor = draft.float(factor);
    let factor = draft.op("Cast", &[&factor], vec![int("to", TO_HALF)]);
    draft.op("Mul", &[&value, &factor], vec![])
}
