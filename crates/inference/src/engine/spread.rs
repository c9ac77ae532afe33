//! Expand along inner axes of f32, as a node that tract takes as it is. Where one feeds a Concat and a convolution over a
//! single pixel, tract (0.23.9) moves the axes that it drops through its own, from one side only, and then fails at
//! what doesn't fit. Heads of segmentation nets are made like that.

use std::collections::HashMap;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceModel;
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, Expansion, InferenceNode, StaticName, as_op, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::tract_core::internal::TypedOp;
use tract_onnx::tract_hir::tract_core::ops::array::MultiBroadcastTo;

use super::ops::{Built, Wiring, around, inner, original};

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("Expand", build);
}

fn build(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    Ok((inner(op.as_ref()).map_or(op, |inner| around(inner, Opaque)), names))
}

/// An Expand as tract wires it, with our own node in place of its.
#[derive(Debug, Clone)]
struct Opaque;

/// Puts ours in place of the node that was wired, if it spreads what isn't rows.
fn replaced(model: &mut TypedModel, wired: TVec<OutletId>) -> TractResult<TVec<OutletId>> {
    let node = model.node(wired[0].node);
    let Some(MultiBroadcastTo { shape }) = node.op_as::<MultiBroadcastTo>() else { return Ok(wired) };
    let from = model.outlet_fact(node.inputs[0])?;
    let is_same = from.rank() == shape.rank() && from.datum_type == DatumType::F32;
    let is_spread = || from.shape.iter().zip(shape.iter()).skip(1).any(|(from, to)| from != to);
    if from.konst.is_none() && is_same && is_spread() {
        let op = Spread(MultiBroadcastTo { shape: shape.clone() });
        model.node_mut(wired[0].node).op = Box::new(op);
    }
    Ok(wired)
}

impl Wiring for Opaque {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let wired = inner.wire(prefix, model, inputs)?;
        replaced(model, wired)
    }

    fn wire_from(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        (source, node): (&InferenceModel, &InferenceNode),
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let wired = inner.wire_with_inference_model_and_node(prefix, source, node, model, inputs)?;
        replaced(model, wired)
    }
}

/// The same, of which tract knows nothing but what it makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spread(MultiBroadcastTo);

impl tract_onnx::tract_hir::internal::Op for Spread {
    fn name(&self) -> StaticName {
        "Spread".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Spread {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(context, inputs)
    }
}

impl TypedOp for Spread {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    fn set_symbols(
        &self,
        _source: &TypedModel,
        node: &TypedNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
        subs: &HashMap<Symbol, TDim>,
    ) -> TractResult<TVec<OutletId>> {
        let dims = self.0.shape.iter().map(|dim| dim.substitute_all(subs));
        let shape: TVec<TDim> = dims.collect::<TractResult<_>>()?;
        let op = Self(MultiBroadcastTo { shape: shape.into() });
        target.wire_node(&node.name, op, &[mapping[&node.inputs[0]]])
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{constant, fed, ints, model, node, plan};
    use crate::tensor::Data;

    #[test]
    fn what_an_image_is_like_on_the_whole_stands_beside_its_pixels() {
        let kernel = |name: &str, outs: i64, ins: i64| {
            let count = usize::try_from(outs * ins).unwrap();
            let values = (0..count).flat_map(|at| [0.5_f32, -0.25, 1.0][at % 3].to_le_bytes());
            constant(name, 1, &[outs, ins, 1, 1], values.collect())
        };
        let nodes = vec![
            node("Relu", &["x"], "r", &[]),
            node("GlobalAveragePool", &["r"], "mean", &[]),
            node("Conv", &["mean", "k"], "c", &[]),
            node("Relu", &["c"], "d", &[]),
            node("Expand", &["d", "shape"], "e", &[]),
            node("Concat", &["r", "e"], "both", &[("axis", &[1])]),
            node("Conv", &["both", "l"], "f", &[]),
            node("Relu", &["f"], "y", &[]),
        ];
        let constants = vec![ints("shape", &[1, 3, 2, 2]), kernel("k", 3, 2), kernel("l", 1, 5)];
        let plan = plan(&model(nodes, constants), &[1, 2, 2, 2]).unwrap();
        let image = vec![1.0, 2.0, 3.0, 4.0, 4.0, 0.0, 0.0, 0.0];
        let whole = [2.5 * 0.5 - 0.25, 2.5 + 0.5, -0.25 * 2.5 + 1.0].map(|value: f32| value.max(0.0));
        let pixel = |at: usize| {
            let beside = whole[0] + whole[1] * 0.5 - whole[2] * 0.25;
            (image[at] * 0.5 - image[4 + at] * 0.25 + beside).max(0.0)
        };
        let want: Vec<f32> = (0..4).map(pixel).collect();
        assert_eq!(plan.run(&fed(&[1, 2, 2, 2], image.clone()), 1).unwrap()[0].1, Data::Fp32(want));
    }
}
