//! Operators that tract has, but not for all numbers of their type: numbers of INT64 in 32 bits, places of OneHot that
//! aren't there. tract wires them, and what is wrong is replaced by our own.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::InferenceFact;
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, Expansion, Factoid, StaticName, args_1, as_op, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::tract_core::internal::TypedOp;
use tract_onnx::tract_hir::tract_core::ops::array::OneHot;
use tract_onnx::tract_hir::tract_core::ops::cast::Cast;
use tract_onnx::tract_hir::tract_core::ops::nn::{Reduce, Reducer};

use super::attributes::text;
use super::ops::{Built, Whole, Wiring, around, inner, original};
use super::reduced::{How, Reduced};

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("OneHot", build_mended);
    operators.insert("Resize", build_resize);
    super::reduced::register(operators);
    super::spread::register(operators);
}

fn build_mended(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    Ok((inner(op.as_ref()).map_or(op, |inner| around(inner, Mended)), names))
}

fn build_resize(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    if text(node, "coordinate_transformation_mode") != "align_corners" {
        return Ok((op, names));
    }
    let slot = node.input.get(2).filter(|name| !name.is_empty()).map(|_| {
        // tract leaves out the inputs that a node leaves out.
        node.input.iter().take(2).filter(|name| !name.is_empty()).count()
    });
    Ok(match (inner(op.as_ref()), slot) {
        (Some(inner), Some(slot)) => (around(inner, Aligned { slot }), names),
        _ => (op, names),
    })
}

/// An operator as tract wires it, with our own in place of what is wrong in it.
#[derive(Debug, Clone)]
struct Mended;

impl Wiring for Mended {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        redrafted(inner, prefix, model, inputs, exact)
    }
}

/// Wires an operator, with what `replace` gives in place of what it is wired to.
pub(super) fn redrafted(
    inner: &dyn Expansion,
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
    replace: impl Fn(&dyn TypedOp, &[DatumType]) -> Option<Box<dyn TypedOp>>,
) -> TractResult<TVec<OutletId>> {
    let mut draft = TypedModel { symbols: model.symbols.clone(), ..TypedModel::default() };
    let mut wired = std::collections::HashMap::new();
    let mut sources: TVec<OutletId> = TVec::new();
    for (slot, input) in inputs.iter().enumerate() {
        let fact = model.outlet_fact(*input)?.clone();
        let name = format!("{prefix}.input_{slot}");
        // The first one's value stays out: of constants tract would work out results before it is replaced.
        let source = match fact.konst.clone().filter(|_| slot > 0) {
            Some(value) => draft.add_const(name, value)?,
            None => draft.add_source(name, fact.without_value())?,
        };
        wired.insert(source, *input);
        sources.push(source);
    }
    let made = inner.wire(prefix, &mut draft, &sources)?;
    for node in &draft.nodes {
        if wired.contains_key(&OutletId::new(node.id, 0)) {
            continue;
        }
        let kinds = node.inputs.iter().map(|input| Ok(draft.outlet_fact(*input)?.datum_type));
        let op = replace(node.op.as_ref(), &kinds.collect::<TractResult<Vec<_>>>()?);
        let inputs: TVec<OutletId> = node.inputs.iter().map(|input| wired[input]).collect();
        let outlets = model.wire_node(&node.name, op.unwrap_or_else(|| node.op.clone()), &inputs)?;
        wired.extend(outlets.into_iter().enumerate().map(|(slot, to)| (OutletId::new(node.id, slot), to)));
    }
    Ok(made.iter().map(|outlet| wired[outlet]).collect())
}

/// What stands for one of tract's operators, if it is wrong for these types.
pub(super) fn exact(op: &dyn TypedOp, kinds: &[DatumType]) -> Option<Box<dyn TypedOp>> {
    use DatumType::{I64, U32, U64};
    if let Some(cast) = op.downcast_ref::<Cast>() {
        let is_cut = cast.to == TDim::datum_type() && matches!(kinds, [I64 | U64 | U32]);
        return is_cut.then(|| Box::new(Whole) as Box<dyn TypedOp>);
    }
    if let Some(reduce) = op.downcast_ref::<Reduce>() {
        let is_cut = reduce.reducer == Reducer::Sum && matches!(kinds, [I64 | U64 | U32]);
        return is_cut
            .then(|| Box::new(Reduced { axes: reduce.axes.clone(), how: How::Sum }) as Box<dyn TypedOp>);
    }
    let one_hot = op.downcast_ref::<OneHot>()?;
    // A place more takes what has none.
    let inner = OneHot { dim: one_hot.dim.checked_add(1)?, ..one_hot.clone() };
    Some(Box::new(OneOrNoneHot { inner, dim: one_hot.dim }))
}

/// OneHot where a place that isn't there is off everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OneOrNoneHot {
    /// Of one place more.
    inner: OneHot,
    dim: usize,
}

impl Op for OneOrNoneHot {
    fn name(&self) -> StaticName {
        "OneHot".into()
    }

    op_as_typed_op!();
}

impl EvalOp for OneOrNoneHot {
    op_out_of_plan!();

    fn eval(&self, ctx: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let dim = i64::try_from(self.dim)?;
        let place = |place: i64| match place {
            0.. if place < dim => place,
            ..0 if place >= -dim => place + dim,
            _ => dim,
        };
        let places = input.cast_to::<i64>()?.to_plain_array_view::<i64>()?.mapv(place);
        let more = args_1!(self.inner.eval(ctx, tvec!(places.into_tvalue()))?);
        Ok(tvec!(more.slice(self.inner.axis, 0, self.dim)?.into_tvalue()))
    }
}

impl TypedOp for OneOrNoneHot {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        shape.insert(self.inner.axis, self.dim.into());
        Ok(tvec!(self.inner.off.datum_type().fact(shape)))
    }

    as_op!();
}

/// Resize that keeps corners where they are: where scales give no whole size, runtimes differ in what a corner is.
#[derive(Debug, Clone)]
struct Aligned {
    /// Which input holds the scales.
    slot: usize,
}

impl Wiring for Aligned {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let scales = inputs.get(self.slot).map(|scales| model.outlet_fact(*scales)).transpose()?;
        if let Some(scales) = scales.and_then(|fact| fact.konst.clone()) {
            let scales = scales.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            let shape = &model.outlet_fact(inputs[0])?.shape;
            let is_part = |(dim, scale): (&TDim, &f32)| {
                let size = dim.as_i64().and_then(|size| u16::try_from(size).ok());
                scale.fract() != 0.0 && size.is_none_or(|size| (f32::from(size) * scale).fract() != 0.0)
            };
            // The scales of some axes only stand at other places; then none may be a part.
            let is_of_all = scales.len() == shape.len();
            let is_unclear = if is_of_all {
                shape.iter().zip(&scales).any(is_part)
            } else {
                scales.iter().any(|scale| scale.fract() != 0.0)
            };
            if is_unclear {
                let why = format!(
                    "it aligns corners at the scales {scales:?}, which give no whole size: runtimes differ there, \
                     so give it sizes"
                );
                return Err(TractError::msg(why));
            }
        }
        inner.wire(prefix, model, inputs)
    }
}

/// Why a node's inputs can't meet: beside sizes tract takes the last 32 bits of a constant.
pub(super) fn cut_constant(op: &str, inputs: &[InferenceFact]) -> Option<String> {
    // What a Slice takes for its end is looked at apart.
    let has_sizes = || inputs.iter().any(|fact| fact.datum_type.concretize() == Some(TDim::datum_type()));
    if op.contains("Slice") || !has_sizes() {
        return None;
    }
    let constants = inputs.iter().filter_map(|fact| fact.value.concretize());
    let far = constants.filter(|value| value.datum_type() == DatumType::I64).find_map(|value| {
        let values = value.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.to_vec();
        values.into_iter().find(|value| i32::try_from(*value).is_err())
    })?;
    Some(format!("meets a size of a tensor with {far}; beside sizes 32 bits are known"))
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{constant, ints, model, node, plan};

    #[test]
    fn corners_are_aligned_where_sizes_are_whole() {
        let of = |scale: f32, mode: &str| {
            let scales: Vec<u8> = [1.0, 1.0, 1.0, scale].iter().flat_map(|one| one.to_le_bytes()).collect();
            let mut resize = node("Resize", &["x", "", "scales"], "y", &[("mode", &[0])]);
            resize.attribute[0].r#type = 3;
            resize.attribute[0].s = b"linear".to_vec();
            let mut corners = resize.attribute[0].clone();
            corners.name = "coordinate_transformation_mode".to_owned();
            corners.s = mode.into();
            resize.attribute.push(corners);
            plan(&model(vec![resize], vec![constant("scales", 1, &[4], scales)]), &[1, 1, 1, 6])
        };
        assert!(of(1.5, "align_corners").is_ok() && of(1.7, "half_pixel").is_ok());
        let why = of(1.7, "align_corners").err().unwrap().to_string();
        assert!(why.contains("of_y") && why.contains("aligns corners"), "{why}");
    }

    #[test]
    fn a_size_beside_a_far_constant_is_refused_with_the_nodes_name() {
        let of = |most: i64| {
            let nodes = vec![
                node("Shape", &["x"], "s", &[]),
                node("Min", &["s", "most"], "m", &[]),
                node("Reshape", &["x", "m"], "y", &[]),
            ];
            plan(&model(nodes, vec![ints("most", &[most])]), &[1, 4])
        };
        assert!(of(100).is_ok());
        let why = of(i64::MAX).err().unwrap().to_string();
        assert!(why.contains("of_m") && why.contains("32 bits"), "{why}");
    }
}
