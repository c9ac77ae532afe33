//! Softmax by our own kernel: tract goes through the values of an inner axis one by one, to which it also moves
//! transpositions of a graph, and takes a third of a microsecond for each row, however short, of the last one.

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, StaticName, args_1, as_op, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::tract_core::internal::TypedOp;
use tract_onnx::tract_hir::tract_core::ops::nn::{Softmax, SoftmaxKind};

use crate::int8::kernel;

/// Puts ours in the place of tract's; in a graph whose transpositions have found their places.
pub(super) fn put(graph: &mut TypedModel) -> TractResult<()> {
    join_logarithms(graph)?;
    for id in 0..graph.nodes.len() {
        let node = &graph.nodes[id];
        let Some(softmax) = node.op_as::<Softmax>().filter(|op| op.axes.len() == 1) else { continue };
        let fact = graph.outlet_fact(node.inputs[0])?;
        let along = Along { axis: softmax.axes[0], inner: softmax.clone() };
        if fact.datum_type == DatumType::F32 && softmax.kind == SoftmaxKind::Softmax {
            graph.nodes[id].op = Box::new(along);
        }
    }
    Ok(())
}

/// tract writes LogSoftmax as the logarithm of a softmax: -inf for every share that f32 can't hold. Its own operator for
/// both at once takes the logarithm of the sum.
fn join_logarithms(graph: &mut TypedModel) -> TractResult<()> {
    for id in 0..graph.nodes.len() {
        let node = &graph.nodes[id];
        let [from] = node.inputs[..] else { continue };
        let made_by = &graph.nodes[from.node];
        let softmax = made_by.op_as::<Softmax>().filter(|softmax| softmax.kind == SoftmaxKind::Softmax);
        let Some(softmax) = softmax.filter(|_| node.op.name() == "Ln") else { continue };
        let (both, of) = (Softmax { kind: SoftmaxKind::LogSoftmax, ..softmax.clone() }, made_by.inputs[0]);
        graph.nodes[id].op = Box::new(both);
        graph.add_edge(of, InletId::new(id, 0))?;
    }
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Along {
    axis: usize,
    inner: Softmax,
}

impl Op for Along {
    fn name(&self) -> StaticName {
        "SoftmaxAlong".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Along {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut values = args_1!(inputs).into_tensor();
        let length = values.shape()[self.axis];
        let step: usize = values.shape()[self.axis + 1..].iter().product();
        kernel::softmax(values.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, length, step);
        Ok(tvec!(values.into_tvalue()))
    }
}

impl TypedOp for Along {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.inner.output_facts(inputs)
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::blame;
    use super::*;

    #[test]
    fn along_any_axis_each_row_is_what_it_is_along_the_last() {
        for (shape, axis) in [
            ([2, 16, 3, 5], 1),
            ([1, 3, 7, 600], 2),
            ([3, 5000, 2, 1], 1),
            ([4, 3, 2, 2], 0),
            ([2, 3, 5, 16], 3),
            ([1, 2, 3, 500], 3),
        ] {
            let count: usize = shape.iter().product();
            let numbers: Vec<f32> = (0..count).map(|place| (place * 37 % 101) as f32 / 9.0 - 5.0).collect();
            let input = tensor1(&numbers).into_shape(&shape).unwrap();
            let mut model = TypedModel::default();
            let x = model.add_source("x", f32::fact(shape)).unwrap();
            let softmax = Softmax { axes: tvec!(axis), ..Softmax::default() };
            let y = model.wire_node("y", softmax, &[x]).unwrap();
            model.select_output_outlets(&y).unwrap();
            let plan = blame::plan(model).unwrap();
            assert!(plan.model().nodes.iter().any(|node| node.op.name() == "SoftmaxAlong"), "{shape:?}");
            let got = plan.run(tvec!(input.clone().into_tvalue())).unwrap().remove(0).into_tensor();
            let mut last: Vec<usize> = (0..4).filter(|other| *other != axis).collect();
            last.push(axis);
            let turned = input.permute_axes(&last).unwrap();
            let along = Softmax { axes: tvec!(3), ..Softmax::default() };
            let wanted =
                along.eval(&EvalContext::out_of_plan(), tvec!(turned.into_tvalue())).unwrap().remove(0);
            let got = got.permute_axes(&last).unwrap();
            // By the last bits a sum depends on where its row lies in memory.
            got.close_enough(&wanted, true).unwrap();
        }
    }
}
