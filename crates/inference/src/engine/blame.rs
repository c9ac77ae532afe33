//! Which node tract panicked at, while it optimised a graph or ran it.

use std::cell::Cell;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::tract_core::plan::eval;

use super::ops::NoPlace;
use super::plan::text;
use super::{guarded, shown, softmax};
use crate::error::InferError;

/// Most nodes that are tried one by one: a graph that tract panics at is to be refused soon.
const MAX_TRIED: usize = 4096;

/// Optimises a graph and plans it.
pub(super) fn plan(typed: TypedModel) -> TractResult<Arc<TypedRunnableModel>> {
    let mut typed = typed.into_decluttered()?;
    softmax::put(&mut typed)?;
    typed.optimize()?;
    typed.into_runnable()
}

/// Runs a plan; a panic names its node.
pub(super) fn run(
    runnable: &Arc<TypedRunnableModel>,
    inputs: impl FnOnce() -> TractResult<TVec<TValue>>,
) -> Result<TVec<TValue>, InferError> {
    let at = Cell::new(None);
    let ran = guarded(|| {
        runnable.spawn()?.run_plan_with_eval(inputs()?, |context, state, node, inputs| {
            at.set(Some(node.id));
            eval(context, state, node, inputs)
        })
    });
    match ran {
        Ok(result) => result.map_err(|error| failed(&error)),
        Err(why) => {
            let node = at.get().map(|id| name(runnable.model(), id));
            Err(InferError::Panic { why: node.map_or_else(|| why.clone(), |node| format!("{node}: {why}")) })
        }
    }
}

/// What a request brought, or the runtime's own failure.
fn failed(error: &TractError) -> InferError {
    match error.chain().find_map(|cause| cause.downcast_ref::<NoPlace>()) {
        Some(NoPlace { node, place, size }) => {
            InferError::NoPlace { node: node.clone(), place: *place, size: *size }
        }
        None => InferError::Runtime { why: text(error) },
    }
}

fn name(model: &TypedModel, id: usize) -> String {
    let node = &model.nodes[id];
    format!("node {:?} ({})", shown(&node.name), node.op.name())
}

/// The node that makes tract panic while it optimises a graph, as far as that can be found out: one that does so alone,
/// else the one without which those before it don't.
pub(super) fn culprit(typed: &TypedModel) -> Option<String> {
    let order = typed.eval_order().ok()?;
    let panics = |model: Option<TypedModel>| model.is_some_and(|model| guarded(|| plan(model)).is_err());
    let tried = order.iter().take(MAX_TRIED).copied();
    let alone = { tried }.find(|id| panics(guarded(|| alone(typed, *id)).ok().flatten()));
    let found = alone.or_else(|| {
        let (mut fine, mut too_many) = (0, order.len());
        if !panics(first(typed, &order)) {
            return None;
        }
        while too_many - fine > 1 {
            let middle = usize::midpoint(fine, too_many);
            *(if panics(first(typed, &order[..middle])) { &mut too_many } else { &mut fine }) = middle;
        }
        order.get(fine).copied()
    });
    found.map(|id| name(typed, id))
}

/// A graph of one node.
fn alone(typed: &TypedModel, id: usize) -> Option<TypedModel> {
    let node = &typed.nodes[id];
    let mut model = TypedModel { symbols: typed.symbols.clone(), ..TypedModel::default() };
    let mut inputs = TVec::new();
    for (slot, outlet) in node.inputs.iter().enumerate() {
        let fact = typed.outlet_fact(*outlet).ok()?.clone();
        let name = format!("{}.input_{slot}", node.name);
        inputs.push(match &fact.konst {
            Some(value) => model.add_const(name, value.clone()).ok()?,
            None => model.add_source(name, fact).ok()?,
        });
    }
    let outputs = model.wire_node(&node.name, node.op.clone(), &inputs).ok()?;
    model.select_output_outlets(&outputs).ok()?;
    Some(model)
}

/// A graph of some of its nodes, which read none of the others.
fn first(typed: &TypedModel, nodes: &[usize]) -> Option<TypedModel> {
    let mut model = typed.clone();
    let is_among: std::collections::HashSet<usize> = nodes.iter().copied().collect();
    let ends = nodes.iter().flat_map(|id| {
        let outputs = typed.nodes[*id].outputs.iter().enumerate();
        let is_end =
            |outlet: &Outlet<TypedFact>| !outlet.successors.iter().any(|to| is_among.contains(&to.node));
        outputs.filter(move |(_, outlet)| is_end(outlet)).map(|(slot, _)| OutletId::new(*id, slot))
    });
    let ends: Vec<OutletId> = ends.collect();
    model.select_output_outlets(&ends).ok()?;
    Some(model)
}

#[cfg(test)]
mod tests {
    use tract_onnx::tract_hir::internal::{
        EvalContext, EvalOp, StaticName, TypedModelPatch, as_op, op_as_typed_op, op_out_of_plan,
    };

    use super::super::plan::tests::{constant, fed, model, node, plan as plan_of};
    use super::*;

    /// Hands on what it reads, and panics in a graph where that comes from a node of this name.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Fragile(&'static str);

    impl Op for Fragile {
        fn name(&self) -> StaticName {
            "Fragile".into()
        }

        op_as_typed_op!();
    }

    impl EvalOp for Fragile {
        op_out_of_plan!();

        fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
            Ok(inputs)
        }
    }

    impl TypedOp for Fragile {
        fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
            Ok(tvec!(inputs[0].clone()))
        }

        fn declutter(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
            assert!(!model.node(node.inputs[0].node).name.ends_with(self.0), "it was found");
            Ok(None)
        }

        as_op!();
    }

    fn chain(fragile: &'static str) -> TypedModel {
        let mut model = TypedModel::default();
        let mut last = model.add_source("x", f32::fact([2])).unwrap();
        for (name, op) in [("a", "-"), ("b", "-"), ("c", fragile), ("d", "-"), ("e", "-")] {
            last = model.wire_node(name, Fragile(op), &[last]).unwrap()[0];
        }
        model.select_output_outlets(&[last]).unwrap();
        model
    }

    #[test]
    fn a_node_at_which_a_graph_cannot_be_optimised_is_found() {
        let named = Some("node \"c\" (Fragile)".to_owned());
        assert_eq!(culprit(&chain("input_0")), named);
        assert_eq!(culprit(&chain("b")), named);
        assert_eq!(culprit(&chain("-")), None);
    }

    #[test]
    fn a_node_that_panics_while_it_runs_is_named() {
        let nodes = |one: &str| {
            vec![
                node("Add", &["x", one], "more", &[]),
                node("Cast", &["more"], "whole", &[("to", &[6])]),
                node("Div", &["seven", "whole"], "y", &[]),
            ]
        };
        let float = |name, value: f32| constant(name, 1, &[1, 1], value.to_le_bytes().to_vec());
        let seven = || constant("seven", 6, &[1, 1], 7_i32.to_le_bytes().to_vec());
        let fine = plan_of(&model(nodes("one"), vec![float("one", 1.0), seven()]), &[1, 1]).unwrap();
        let why = fine.run(&fed(&[1, 1], vec![-1.0]), 1).unwrap_err().to_string();
        assert!(why.contains("node \"of_y\"") && why.contains("panicked"), "{why}");
        // At the row of zeros that a loaded model runs first.
        let never = plan_of(&model(nodes("zero"), vec![float("zero", 0.0), seven()]), &[1, 1]).err().unwrap();
        let why = crate::error::chain(&never);
        assert!(why.contains("node \"of_y\""), "{why}");
    }
}
