//! tract's operators, and our own in place of those that answer wrongly:
//! - Cast to INT64 goes through 32 bits there; what doesn't fit came out as the highest or lowest number of 32 bits.
//! - QuantizeLinear wraps around for values beyond 2^31 scales; it must give the highest or lowest.
//! - Squeeze that names no axes drops the batch too where a plan is made for one row.
//! - Mod and Div of what was cast to INT64 ([`division`]).
//! - Gather and its kin, which don't look whether a place is there ([`places`]).
//! - Pad and ConvTranspose that cut off ([`crop`]).
//! - RotaryEmbedding by one position ([`rotary`]).
//! - Slice by steps, and convolutions that are steps and another one ([`steps`]).

mod around;
mod checked;
mod crop;
mod division;
mod places;
mod rotary;
mod steps;

use std::sync::OnceLock;

use tract_onnx::Onnx;
use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::{NodeProto, tensor_proto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{
    DimLike, EvalContext, EvalOp, Expansion, InferenceOp, InferenceResult, Solver, StaticName, TensorProxy,
    args_1, as_op, check_input_arity, check_output_arity, expand, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::ops::array::Squeeze;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::tract_core::ops::math::{max, min};

use super::attributes::{attribute_ints, int_or};
use super::exact;
use super::sizes::is_size;
pub(super) use around::{Wiring, around, inner};
pub(super) use places::NoPlace;

pub(super) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// tract's reader of ONNX with our operators.
pub(super) fn onnx() -> Onnx {
    let mut onnx = replaced();
    checked::register(&mut onnx.op_register);
    onnx
}

/// The same, without a look at shapes.
fn replaced() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    onnx.op_register.insert("Cast", build_cast);
    onnx.op_register.insert("ConvTranspose", crop::build_conv_transpose);
    onnx.op_register.insert("Div", division::build_div);
    onnx.op_register.insert("Mod", division::build_mod);
    onnx.op_register.insert("Pad", crop::build_pad);
    onnx.op_register.insert("QuantizeLinear", build_quantize);
    onnx.op_register.insert("RotaryEmbedding", rotary::build);
    onnx.op_register.insert("Slice", steps::build_slice);
    onnx.op_register.insert("Squeeze", build_squeeze);
    for op in steps::CONVOLUTIONS {
        onnx.op_register.insert(op, steps::build_convolution);
    }
    for op in places::WITH_PLACES {
        onnx.op_register.insert(op, places::build);
    }
    exact::register(&mut onnx.op_register);
    onnx
}

/// An operator as tract has it.
pub(super) fn original(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    static REGISTER: OnceLock<OnnxOpRegister> = OnceLock::new();
    let register = REGISTER.get_or_init(|| tract_onnx::onnx().op_register);
    match register.0.get(&node.op_type) {
        Some(build) => build(context, node),
        None => Err(TractError::msg("tract doesn't have it")),
    }
}

fn build_cast(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    if int_or(node, "to", 0) != i64::from(tensor_proto::DataType::Int64 as i32) {
        return original(context, node);
    }
    let is_size = context.model.graph.as_ref().is_none_or(|graph| is_size(graph, node));
    Ok((expand(CastToInt64 { is_size }), vec![]))
}

fn build_quantize(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    Ok((inner(op.as_ref()).map_or(op, |inner| around(inner, Saturating)), names))
}

fn build_squeeze(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let names_axes =
        node.input.get(1).is_some_and(|name| !name.is_empty()) || !attribute_ints(node, "axes").is_empty();
    if names_axes {
        return original(context, node);
    }
    Ok((expand(SqueezeAll { keeps_rows: keeps_rows(context, node) }), vec![]))
}

/// Whether a node reads something that has a row for each one of a batch whose size the file leaves free.
fn keeps_rows(context: &ParsingContext<'_>, node: &NodeProto) -> bool {
    let Some(graph) = &context.model.graph else { return false };
    let is_constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let has_free_rows = graph.input.iter().filter(|input| !is_constant(&input.name)).any(|input| {
        use tract_onnx::pb::tensor_shape_proto::dimension::Value::DimValue;
        use tract_onnx::pb::type_proto::Value::TensorType;
        let Some(TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
            return false;
        };
        let first = tensor.shape.as_ref().and_then(|shape| shape.dim.first());
        !matches!(first.and_then(|dim| dim.value.as_ref()), Some(DimValue(_)))
    });
    has_free_rows && !node.input.first().is_some_and(|name| is_constant(name))
}

/// Cast to INT64, which tract takes for a number of elements: shapes are made of such casts. What no shape is made of
/// are plain numbers, beside which tract keeps constants whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CastToInt64 {
    is_size: bool,
}

impl CastToInt64 {
    fn kind(&self, of: DatumType) -> DatumType {
        if self.is_size || of == TDim::datum_type() { TDim::datum_type() } else { DatumType::I64 }
    }
}

impl Expansion for CastToInt64 {
    fn name(&self) -> StaticName {
        "CastToInt64".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.given(&inputs[0].datum_type, |solver, kind| {
            solver.equals(&outputs[0].datum_type, self.kind(kind))
        })?;
        solver.equals(&outputs[0].rank, &inputs[0].rank)?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        use DatumType::{F16, F32, F64, I64, U32, U64};
        let of = model.outlet_fact(inputs[0])?.datum_type;
        match of {
            _ if self.kind(of) == I64 => model.wire_node(prefix, cast(I64), inputs),
            F16 | F32 | F64 | I64 | U32 | U64 => model.wire_node(prefix, Whole, inputs),
            _ => model.wire_node(prefix, cast(TDim::datum_type()), inputs),
        }
    }
}

/// Numbers as 64 bits have them, their fractions cut off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Whole;

impl Op for Whole {
    fn name(&self) -> StaticName {
        "Whole".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Whole {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let numbers = input.cast_to::<i64>()?;
        let dims: Vec<TDim> =
            numbers.try_as_plain_ram()?.as_slice::<i64>()?.iter().map(|number| (*number).into()).collect();
        Ok(tvec!(tensor1(&dims).into_shape(input.shape())?.into_tvalue()))
    }
}

impl TypedOp for Whole {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(TDim::datum_type().fact(inputs[0].shape.clone())))
    }

    as_op!();
}

/// QuantizeLinear of values that are brought into range before.
#[derive(Debug, Clone)]
struct Saturating;

/// Scales that a value may be from zero: far beyond the highest result, and no sum with a zero point overflows.
const FURTHEST: f32 = 16_777_216.0;

impl Wiring for Saturating {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let scale = model.outlet_fact(inputs[1])?.konst.clone();
        // Only with one scale for all tract goes through 32 bits.
        let Some(scale) = scale.filter(|scale| scale.len() == 1) else {
            return inner.wire(prefix, model, inputs);
        };
        let furthest =
            (scale.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?[0] * FURTHEST).min(f32::MAX);
        let rank = model.outlet_fact(inputs[0])?.rank();
        let mut bound = |what: &str, value: f32| {
            model.add_const(format!("{prefix}.{what}"), tensor0(value).broadcast_into_rank(rank)?)
        };
        let (lowest, highest) = (bound("lowest", -furthest)?, bound("highest", furthest)?);
        let float = model.wire_node(format!("{prefix}.float"), cast(f32::datum_type()), &inputs[..1])?[0];
        let above = model.wire_node(format!("{prefix}.above"), max(), &[float, lowest])?[0];
        let within = model.wire_node(format!("{prefix}.within"), min(), &[above, highest])?[0];
        let inputs: TVec<OutletId> = std::iter::once(within).chain(inputs[1..].iter().copied()).collect();
        inner.wire(prefix, model, &inputs)
    }
}

/// Squeeze of all axes of one element, but not of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SqueezeAll {
    keeps_rows: bool,
}

impl SqueezeAll {
    /// In a plan for any number of rows these aren't one; in one for a single row they are the first axis.
    fn op(&self, shape: &[TDim]) -> Squeeze {
        let is_for_one = shape.iter().all(|dim| dim.to_usize().is_ok());
        let kept = usize::from(self.keeps_rows && is_for_one && shape.len() > 1);
        let ones = shape.iter().enumerate().skip(kept).filter(|(_, dim)| dim.is_one());
        Squeeze::new(Some(ones.filter_map(|(place, _)| isize::try_from(place).ok()).collect()))
    }
}

impl Expansion for SqueezeAll {
    fn name(&self) -> StaticName {
        "SqueezeAll".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        solver.given(&inputs[0].shape, move |solver, shape| {
            let squeezed = self.op(&shape).output_shape(&shape)?;
            solver.equals(&outputs[0].shape, squeezed)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let shape: TVec<TDim> = model.outlet_fact(inputs[0])?.shape.iter().cloned().collect();
        self.op(&shape).wire(prefix, model, &inputs[..1])
    }
}
