//! Steps over an axis, as a node that tract takes as it is. tract (0.23.9) moves its own in front of what makes their
//! input wherever an axis comes out of that as one: also before a Softmax along it, which is another answer then, and
//! before a Reshape, at which it fails. Steps that don't begin at the first place it takes into a convolution as if they
//! did. It makes them of a Slice, and of a convolution that sees every second pixel only, as the shortcuts of ResNets do.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, Expansion, InferenceOp, InferenceResult, InferenceRulesOp, Solver, StaticName,
    TensorProxy, as_op, op_as_typed_op, op_out_of_plan, to_typed,
};
use tract_onnx::tract_hir::ops::array::StridedSlice;
use tract_onnx::tract_hir::tract_core::internal::TypedOp;
use tract_onnx::tract_hir::tract_core::ops::cnn::Conv;
use tract_onnx::tract_hir::tract_core::ops::downsample::Downsample;

use super::crop::whole_numbers;
use super::{Built, Wiring, around, inner, original};

/// Convolutions, of which tract takes some apart.
pub(super) const CONVOLUTIONS: [&str; 3] = ["Conv", "ConvInteger", "QLinearConv"];

pub(super) fn build_slice(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    let slice = op.as_op().downcast_ref::<StridedSlice>().filter(|op| op.optional_steps_input.is_some());
    let stepped = slice.map(|slice| Box::new(SliceBySteps(slice.clone())) as Box<dyn InferenceOp>);
    Ok((stepped.unwrap_or(op), names))
}

pub(super) fn build_convolution(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    Ok((inner(op.as_ref()).map_or(op, |inner| around(inner, TakenApart)), names))
}

/// Every so many places of an axis; tract's own, of which it knows nothing but what it makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Steps(Downsample);

impl Op for Steps {
    fn name(&self) -> StaticName {
        "Steps".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Steps {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(context, inputs)
    }
}

impl TypedOp for Steps {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    as_op!();
}

/// A Slice as tract has it, until it takes it apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SliceBySteps(StridedSlice);

impl SliceBySteps {
    /// Whether it is known from where to where it goes. Else tract would leave out what has steps.
    fn has_places(&self, model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
        let steps = self.0.optional_steps_input.map(|slot| whole_numbers(model, node.inputs[slot]));
        let Some(steps) = steps.transpose()?.flatten() else { return Ok(true) };
        let is_known = |slot: usize| model.outlet_fact(node.inputs[slot]).map(|fact| fact.konst.is_some());
        Ok(steps.iter().all(|step| *step == 1) || (is_known(1)? && is_known(2)?))
    }
}

impl Op for SliceBySteps {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    op_as_typed_op!();
}

impl EvalOp for SliceBySteps {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(context, inputs)
    }
}

impl InferenceRulesOp for SliceBySteps {
    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        if let Some(steps) = self.0.optional_steps_input.and_then(|slot| inputs.get(slot)) {
            solver.given(&steps.value, |_, steps| are_known(&steps))?;
        }
        self.0.rules(solver, inputs, outputs)
    }

    to_typed!();
    as_op!();
}

impl TypedOp for SliceBySteps {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    fn declutter(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
        if !self.has_places(model, node)? {
            return Err(TractError::msg("it takes steps from or to a place that is no constant"));
        }
        let mut patch = self.0.declutter(model, node)?;
        for node in patch.iter_mut().flat_map(|patch| &mut patch.model.nodes) {
            if let Some(steps) = node.op_as::<Downsample>().cloned() {
                node.op = Box::new(Steps(steps));
            }
        }
        Ok(patch)
    }

    as_op!();
}

/// tract takes the last 32 bits of steps.
fn are_known(steps: &Tensor) -> TractResult<()> {
    let steps = steps.cast_to::<i64>()?;
    let far = steps.try_as_plain_ram()?.as_slice::<i64>()?.iter().find(|step| i32::try_from(**step).is_err());
    match far {
        Some(step) => Err(TractError::msg(format!("it takes steps of {step}; steps of 32 bits are known"))),
        None => Ok(()),
    }
}

/// A convolution with its steps in front of it where tract would put its own there.
#[derive(Debug, Clone)]
struct TakenApart;

impl Wiring for TakenApart {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let wired = inner.wire(prefix, model, inputs)?;
        let id = wired[0].node;
        while let Some((steps, conv)) = taken_apart(model, model.node(id))? {
            let name = format!("{prefix}.steps_{}", steps.0.axis);
            let stepped = model.wire_node(name, steps, &[model.node(id).inputs[0]])?;
            model.add_edge(stepped[0], InletId::new(id, 0))?;
            model.node_mut(id).op = Box::new(conv);
        }
        Ok(wired)
    }
}

/// The steps along one axis and the rest of a convolution, if tract would take it apart.
fn taken_apart(model: &TypedModel, node: &TypedNode) -> TractResult<Option<(Steps, Conv)>> {
    if !node.op_is::<Conv>() {
        return Ok(None);
    }
    let Some(patch) = node.op.declutter(model, node)? else { return Ok(None) };
    let steps = patch.model.nodes.iter().find_map(|node| node.op_as::<Downsample>());
    let rest = patch.model.nodes.iter().find_map(|node| node.op_as::<Conv>());
    Ok(steps.zip(rest).map(|(steps, rest)| (Steps(steps.clone()), rest.clone())))
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{NodeProto, TensorProto};

    use super::super::super::plan::tests::{constant, fed, ints, model, node, plan};
    use crate::tensor::Data;

    /// Where a slice begins, and its step.
    const SLICES: [(i64, i64); 5] = [(0, 2), (1, 2), (1, 3), (-1, -1), (-1, -2)];

    fn slice(from: &str, axis: i64, (start, step): (i64, i64)) -> (NodeProto, [TensorProto; 4]) {
        let end = if step > 0 { i64::MAX } else { i64::MIN };
        let named = [("starts", start), ("ends", end), ("axes", axis), ("steps", step)];
        let inputs = [from, "starts", "ends", "axes", "steps"];
        (node("Slice", &inputs, "y", &[]), named.map(|(name, value)| ints(name, &[value])))
    }

    /// The places that a slice takes of so many.
    fn places(size: usize, (start, step): (i64, i64)) -> Vec<usize> {
        let size = i64::try_from(size).unwrap();
        let first = if start < 0 { start + size } else { start };
        let all = std::iter::successors(Some(first), |place| Some(place + step));
        all.take_while(|place| (0..size).contains(place))
            .map(|place| usize::try_from(place).unwrap())
            .collect()
    }

    /// A tensor of three axes, sliced along one.
    fn sliced(values: &[f32], shape: [usize; 3], axis: usize, by: (i64, i64)) -> Vec<f32> {
        let mut of = shape.map(|size| (0..size).collect::<Vec<_>>());
        of[axis] = places(shape[axis], by);
        let [outer, middle, inner] = &of;
        let rows = outer.iter().flat_map(|i| middle.iter().map(move |j| (i * shape[1] + j) * shape[2]));
        rows.flat_map(|row| inner.iter().map(move |k| values[row + k])).collect()
    }

    fn some(count: u16) -> Vec<f32> {
        (0..count).map(|place| f32::from(place * 37 % 64) / 16.0 - 2.0).collect()
    }

    fn floats(name: &str, dims: &[i64]) -> (TensorProto, Vec<f32>) {
        let count = dims.iter().product::<i64>();
        let values = some(u16::try_from(count).unwrap());
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (constant(name, 1, dims, raw), values)
    }

    /// What a model makes of a row must be this.
    fn makes(nodes: &[NodeProto], constants: &[TensorProto], shape: &[usize], want: &[f32], what: &str) {
        let count = u16::try_from(shape.iter().product::<usize>()).unwrap();
        let plan = plan(&model(nodes.to_vec(), constants.to_vec()), shape);
        let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (_, Data::Fp32(got)) = plan.run(&fed(shape, some(count)), 1).unwrap().remove(0) else {
            panic!("{what}: no f32")
        };
        let is_near = got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(is_near, "{what}: {got:?}, not {want:?}");
    }

    /// Softmax along an axis of a tensor of three.
    fn softmax(values: &[f32], shape: [usize; 3], axis: usize) -> Vec<f32> {
        let inner: usize = shape[axis + 1..].iter().product();
        let along = |at: usize| at / (inner * shape[axis]) * (inner * shape[axis]) + at % inner;
        let sum = |at: usize| (0..shape[axis]).map(|k| values[along(at) + k * inner].exp()).sum::<f32>();
        (0..values.len()).map(|at| values[at].exp() / sum(at)).collect()
    }

    #[test]
    fn steps_stay_behind_a_softmax() {
        let shape = [1, 4, 6];
        for (axis, by) in [1, 2].into_iter().flat_map(|axis| SLICES.map(|by| (axis, by))) {
            let axes = [("axis", &[i64::try_from(axis).unwrap()][..])];
            let (last, constants) = slice("s", axes[0].1[0], by);
            let want = sliced(&softmax(&some(24), shape, axis), shape, axis, by);
            let nodes = [node("Softmax", &["x"], "s", &axes), last.clone()];
            makes(&nodes, &constants, &shape, &want, &format!("Softmax, axis {axis}, {by:?}"));
            let want: Vec<f32> = want.iter().map(|value| value.ln()).collect();
            let nodes = [node("LogSoftmax", &["x"], "s", &axes), last];
            makes(&nodes, &constants, &shape, &want, &format!("LogSoftmax, axis {axis}, {by:?}"));
        }
    }

    #[test]
    fn steps_behind_a_convolution_begin_where_they_say() {
        let (weights, w) = floats("w", &[1, 1, 3]);
        let x = some(20);
        let of = |stride: usize| -> Vec<f32> {
            (0..18).step_by(stride).map(|at| (0..3).map(|k| x[at + k] * w[k]).sum()).collect()
        };
        for (stride, by) in [1, 2].into_iter().flat_map(|stride| SLICES.map(|by| (stride, by))) {
            let (last, constants) = slice("c", 2, by);
            let strides = [("kernel_shape", &[3][..]), ("strides", &[i64::try_from(stride).unwrap()][..])];
            let mut conv = node("Conv", &["x", "w"], "c", &strides);
            conv.attribute.iter_mut().for_each(|attribute| attribute.r#type = 7);
            let made = of(stride);
            let want = sliced(&made, [1, 1, made.len()], 2, by);
            let constants = [&constants[..], std::slice::from_ref(&weights)].concat();
            makes(&[conv, last], &constants, &[1, 1, 20], &want, &format!("stride {stride}, {by:?}"));
        }
    }

    #[test]
    fn every_second_pixel_is_taken_behind_what_is_before() {
        let (weights, w) = floats("w", &[1, 2, 1, 1]);
        let conv = node("Conv", &["s", "w"], "y", &[("kernel_shape", &[1, 1]), ("strides", &[2, 3])]);
        let pixels = |made: &[f32]| -> Vec<f32> {
            let all = [0, 2].into_iter().flat_map(|row| [0, 3].map(|column| row * 6 + column));
            all.map(|at| made[at] * w[0] + made[24 + at] * w[1]).collect()
        };
        let along = node("Softmax", &["x"], "s", &[("axis", &[2])]);
        let want = pixels(&softmax(&some(48), [2, 4, 6], 1));
        makes(&[along, conv.clone()], std::slice::from_ref(&weights), &[1, 2, 4, 6], &want, "Softmax");
        let image = node("Reshape", &["x", "image"], "s", &[]);
        let constants = [weights, ints("image", &[-1, 2, 4, 6])];
        makes(&[image, conv], &constants, &[1, 48], &pixels(&some(48)), "Reshape");
    }

    #[test]
    fn steps_are_taken_of_what_has_another_shape() {
        for by in SLICES {
            let (last, constants) = slice("f", 1, by);
            let constants = [&constants[..], &[ints("to", &[-1, 4, 3, 2])]].concat();
            let what = |op: &str| format!("{op}, {by:?}");
            let want = sliced(&some(24), [1, 24, 1], 1, by);
            makes(
                &[node("Flatten", &["x"], "f", &[]), last.clone()],
                &constants,
                &[1, 4, 6],
                &want,
                &what("Flatten"),
            );
            let want = sliced(&some(24), [1, 4, 6], 1, by);
            makes(
                &[node("Reshape", &["x", "to"], "f", &[]), last],
                &constants,
                &[1, 4, 6],
                &want,
                &what("Reshape"),
            );
            let (last, constants) = slice("f", 2, by);
            let blocks = node("DepthToSpace", &["x"], "f", &[("blocksize", &[2])]);
            let x = some(24);
            let place =
                |row: usize, column: usize| x[(row % 2 * 2 + column % 2) * 6 + row / 2 * 3 + column / 2];
            let image: Vec<f32> = (0..24).map(|at| place(at / 6, at % 6)).collect();
            let want = sliced(&image, [1, 4, 6], 1, by);
            makes(&[blocks, last], &constants, &[1, 4, 2, 3], &want, &what("DepthToSpace"));
        }
    }

    #[test]
    fn steps_are_taken_of_what_a_recurrence_makes() {
        let ((wi, w), (wr, r)) = (floats("w", &[1, 2, 2]), floats("r", &[1, 2, 2]));
        let (mut last, mut made) = ([0.0_f32; 2], Vec::new());
        for x in some(14).as_chunks::<2>().0 {
            let unit = |row: usize| -> f32 {
                (0..2).map(|k| x[k] * w[row * 2 + k] + last[k] * r[row * 2 + k]).sum::<f32>().tanh()
            };
            last = [unit(0), unit(1)];
            made.extend(last);
        }
        for by in SLICES {
            let (slice, constants) = slice("h", 0, by);
            let nodes = [
                node("Transpose", &["x"], "t", &[("perm", &[1, 0, 2])]),
                node("RNN", &["t", "w", "r"], "h", &[("hidden_size", &[2])]),
                slice,
            ];
            let constants = [&constants[..], &[wi.clone(), wr.clone()]].concat();
            let want = sliced(&made, [7, 1, 2], 0, by);
            makes(&nodes, &constants, &[1, 7, 2], &want, &format!("RNN, {by:?}"));
        }
    }

    #[test]
    fn steps_over_rows_mix_them_and_steps_within_a_row_do_not() {
        for (by, axis) in SLICES.into_iter().flat_map(|by| [(by, 0), (by, 1), (by, 2)]) {
            let (last, constants) = slice("s", axis, by);
            let nodes = [node("Softmax", &["x"], "s", &[("axis", &[-1])]), last];
            let plan = plan(&model(nodes.to_vec(), constants.to_vec()), &[1, 4, 6]);
            let Ok(plan) = plan else {
                assert!(axis == 0 && by.0 > 0, "{by:?}, axis {axis}");
                continue;
            };
            assert_eq!(plan.mixes(), axis == 0, "{by:?}, axis {axis}");
            if axis > 0 {
                let whole = plan.run(&fed(&[3, 4, 6], some(72)), 3).unwrap().remove(0).1;
                let alone = some(72);
                let alone = alone.chunks(24).map(|row| plan.run(&fed(&[1, 4, 6], row.to_vec()), 1).unwrap());
                let alone: Vec<Data> = alone.map(|mut row| row.remove(0).1).collect();
                let Data::Fp32(whole) = whole else { panic!("no f32") };
                let parts = whole.chunks(whole.len() / 3).map(|row| Data::Fp32(row.to_vec()));
                assert_eq!(parts.collect::<Vec<_>>(), alone, "{by:?}, axis {axis}");
            }
        }
    }

    #[test]
    fn steps_from_a_place_that_a_request_brings_are_refused_by_the_nodes_name() {
        let (mut last, constants) = slice("x", 1, (0, 2));
        last.input[1] = "whole".to_owned();
        let nodes = vec![
            node("Cast", &["x"], "wholes", &[("to", &[7])]),
            node("Slice", &["wholes", "axes", "steps", "axes"], "one", &[]),
            node("Squeeze", &["one", "zero"], "whole", &[]),
            last,
        ];
        let constants = [&constants[..], &[ints("zero", &[0])]].concat();
        let why = plan(&model(nodes, constants), &[1, 6]).err().unwrap().to_string();
        assert!(why.contains("of_y"), "{why}");
    }

    #[test]
    fn steps_of_more_than_32_bits_are_refused_by_the_nodes_name() {
        for (step, is_fine) in
            [(2, true), (-3, true), (1 << 32, false), ((1 << 32) + 1, false), (i64::MIN, false)]
        {
            let (last, constants) = slice("x", 1, (0, step));
            let why =
                plan(&model(vec![last], constants.to_vec()), &[1, 6]).err().map(|error| error.to_string());
            let is_named = why.as_ref().is_some_and(|why| why.contains("of_y") && why.contains("32 bits"));
            assert_eq!((why.is_none(), is_named), (is_fine, !is_fine), "{step}: {why:?}");
        }
    }
}
