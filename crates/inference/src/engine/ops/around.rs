//! tract's own operators, wired in another way: names, types and shapes stay tract's.

use std::fmt::Debug;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceModel;
use tract_onnx::tract_hir::internal::{
    Expansion, InferenceNode, InferenceOp, InferenceResult, Solver, StaticName, TensorProxy, expand,
};

/// What is wired in an operator's place.
pub(crate) trait Wiring: Debug + Clone + Send + Sync + 'static {
    /// Wires `inner`, or what stands for it.
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>>;

    /// The same for an operator that looks at the graph it comes from.
    fn wire_from(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        _from: (&InferenceModel, &InferenceNode),
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.wire(inner, prefix, model, inputs)
    }
}

/// What tract expands to typed operators, if it is an operator of that kind.
pub(in super::super) fn inner(op: &dyn InferenceOp) -> Option<Box<dyn Expansion>> {
    op.as_op().downcast_ref::<Box<dyn Expansion>>().cloned()
}

/// `inner`, wired so.
pub(in super::super) fn around(inner: Box<dyn Expansion>, wiring: impl Wiring) -> Box<dyn InferenceOp> {
    expand(Around { inner, wiring })
}

#[derive(Debug, Clone)]
struct Around<W> {
    inner: Box<dyn Expansion>,
    wiring: W,
}

impl<W: Wiring> Expansion for Around<W> {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.inner.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        self.wiring.wire(self.inner.as_ref(), prefix, model, inputs)
    }

    fn wire_with_inference_model_and_node(
        &self,
        prefix: &str,
        source: &InferenceModel,
        node: &InferenceNode,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.wiring.wire_from(self.inner.as_ref(), prefix, (source, node), model, inputs)
    }
}
