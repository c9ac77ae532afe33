//! tract's operators behind a look at the shapes that they get. Many of them count on an axis, a group or a window being
//! there, and panic or answer nothing useful where it isn't; a file alone doesn't always say.

use std::sync::OnceLock;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceModel;
use tract_onnx::tract_hir::internal::{
    DimLike, Expansion, InferenceNode, InferenceResult, Solver, StaticName, TensorProxy, expand,
};

use super::super::forms::{Refused, forms, of_count, of_shape, of_weights, weights_of};
use super::super::ranks;
use super::{Built, inner};

/// Operators that are looked at and neither name an axis nor have a window.
const OTHERS: [&str; 3] = ["DepthToSpace", "SpaceToDepth", "Transpose"];

/// Puts the look before all of them that are registered.
pub(super) fn register(operators: &mut OnnxOpRegister) {
    for op in ranks::with_axis().chain(OTHERS) {
        if operators.0.contains_key(op) {
            operators.insert(op, build);
        }
    }
}

fn build(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    static REGISTER: OnceLock<OnnxOpRegister> = OnceLock::new();
    let register = REGISTER.get_or_init(|| super::replaced().op_register);
    let Some(build) = register.0.get(&node.op_type) else {
        return Err(TractError::msg("tract doesn't have it"));
    };
    let (op, names) = build(context, node)?;
    let Some(inner) = inner(op.as_ref()) else { return Ok((op, names)) };
    let weights = weights_of(&node.op_type);
    let count = (node.op_type == "TopK" && node.input.len() > 1).then_some(1);
    Ok((expand(Checked { inner, node: forms(node), weights, count }), names))
}

#[derive(Debug, Clone)]
struct Checked {
    inner: Box<dyn Expansion>,
    /// Its attributes.
    node: NodeProto,
    /// Which input is a convolution's weights.
    weights: Option<usize>,
    /// Which input says how many are taken.
    count: Option<usize>,
}

fn sizes(shape: &[TDim]) -> Vec<Option<usize>> {
    shape.iter().map(|dim| dim.to_usize().ok()).collect()
}

impl Checked {
    fn said(&self, checked: Result<(), String>) -> InferenceResult {
        checked.map_err(|why| Refused { op: self.node.op_type.clone(), why }.into())
    }
}

impl Expansion for Checked {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn validation(&self) -> tract_onnx::tract_hir::internal::Validation {
        self.inner.validation()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.inner.info()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.inner.nboutputs()
    }

    fn runs_out_of_plan(&self) -> bool {
        self.inner.runs_out_of_plan()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        if let Some(first) = inputs.first() {
            solver.given(&first.rank, move |_, rank| {
                let rank = usize::try_from(rank).unwrap_or(0);
                self.said(
                    ranks::check(&self.node, Vec::new(), rank)
                        .and_then(|()| of_shape(&self.node, &vec![None; rank])),
                )
            })?;
            solver.given(&first.shape, move |_, shape| self.said(of_shape(&self.node, &sizes(&shape))))?;
            if let Some(weights) = self.weights.and_then(|slot| inputs.get(slot)) {
                solver.given_2(&first.shape, &weights.shape, move |_, shape, weights| {
                    self.said(of_weights(&self.node, &sizes(&shape), &sizes(&weights)))
                })?;
            }
            if let Some(count) = self.count.and_then(|slot| inputs.get(slot)) {
                solver.given_2(&first.shape, &count.value, move |_, shape, count| {
                    let counts = count.cast_to::<i64>()?;
                    let counts = counts.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
                    { counts.into_iter() }
                        .try_for_each(|count| self.said(of_count(&self.node, &sizes(&shape), count)))
                })?;
            }
        }
        self.inner.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        self.inner.wire(prefix, model, inputs)
    }

    fn wire_with_inference_model_and_node(
        &self,
        prefix: &str,
        source: &InferenceModel,
        node: &InferenceNode,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.inner.wire_with_inference_model_and_node(prefix, source, node, model, inputs)
    }
}
