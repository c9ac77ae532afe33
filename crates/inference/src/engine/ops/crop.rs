//! Pad and ConvTranspose that cut off: tract takes a negative number of elements for a huge one. What is cut off is cut
//! off by a slice, before a Pad and behind a ConvTranspose.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Expansion, ToDim};
use tract_onnx::tract_hir::tract_core::ops::array::Slice;

use super::super::attributes::{attribute_ints, text};
use super::super::rewrite::without;
use super::{Built, Wiring, around, inner, original};

fn expansion(built: Built) -> TractResult<Box<dyn Expansion>> {
    inner(built?.0.as_ref()).ok_or_else(|| TractError::msg("tract has it in another form"))
}

/// Cuts an axis; the outlet as it is where all of it stays.
fn cut(
    model: &mut TypedModel,
    name: String,
    outlet: OutletId,
    axis: usize,
    from: TDim,
    to: TDim,
) -> TractResult<OutletId> {
    if from.to_i64().is_ok_and(|from| from == 0) && to == model.outlet_fact(outlet)?.shape[axis] {
        return Ok(outlet);
    }
    Ok(model.wire_node(name, Slice { axis, start: from, end: to }, &[outlet])?[0])
}

pub(super) fn build_pad(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    // Before version 11 pads are an attribute, and negative ones are refused before.
    if context.onnx_operator_set_version < 11 {
        return original(context, node);
    }
    let has = |slot: usize| node.input.get(slot).is_some_and(|name| !name.is_empty());
    let axes = has(3).then(|| 2 + usize::from(has(2)));
    Ok((around(expansion(original(context, node))?, CroppingPad { axes }), vec![]))
}

#[derive(Debug, Clone)]
struct CroppingPad {
    /// Which input names axes.
    axes: Option<usize>,
}

impl CroppingPad {
    fn axes(&self, model: &TypedModel, inputs: &[OutletId]) -> TractResult<Option<Vec<i64>>> {
        self.axes.map_or(Ok(None), |slot| whole_numbers(model, inputs[slot]))
    }
}

/// Whole numbers, if they are known.
pub(super) fn whole_numbers(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Vec<i64>>> {
    let Some(values) = &model.outlet_fact(outlet)?.konst else { return Ok(None) };
    let values = values.cast_to::<i64>()?;
    Ok(Some(values.try_as_plain_ram()?.as_slice::<i64>()?.to_vec()))
}

impl Wiring for CroppingPad {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let pads = whole_numbers(model, inputs[1])?.filter(|pads| pads.iter().any(|pad| *pad < 0));
        let Some(pads) = pads else { return inner.wire(prefix, model, inputs) };
        let rank = model.outlet_fact(inputs[0])?.rank();
        let axes = self.axes(model, inputs)?;
        let axes = axes.unwrap_or_else(|| (0..).take(rank).collect());
        let (before, after) = pads.split_at(pads.len() / 2);
        let mut inputs: TVec<OutletId> = inputs.into();
        for ((before, after), axis) in before.iter().zip(after).zip(axes) {
            let axis =
                usize::try_from(axis).ok().or_else(|| rank.checked_add_signed(isize::try_from(axis).ok()?));
            let size = axis
                .and_then(|axis| Some((axis, model.outlet_fact(inputs[0]).ok()?.shape.get(axis)?.clone())));
            let Some((axis, size)) = size else {
                return Err(TractError::msg("it pads an axis that isn't there"));
            };
            let (from, to) = (before.saturating_neg().max(0), size + (*after).min(0));
            if to.to_i64().is_ok_and(|to| to < from) {
                return Err(TractError::msg(format!("its pads {pads:?} cut off more than there is")));
            }
            inputs[0] = cut(model, format!("{prefix}.cut_{axis}"), inputs[0], axis, from.to_dim(), to)?;
        }
        let pads: Vec<i64> = pads.iter().map(|pad| (*pad).max(0)).collect();
        inputs[1] = model.add_const(format!("{prefix}.pads"), tensor1(&pads))?;
        inner.wire(prefix, model, &inputs)
    }
}

pub(super) fn build_conv_transpose(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let size = |value: &i64| usize::try_from(*value).map_err(TractError::from);
    let sizes = |name: &str| attribute_ints(node, name).iter().map(size).collect::<TractResult<Vec<_>>>();
    let shape = sizes("output_shape")?;
    if shape.is_empty() {
        return original(context, node);
    }
    // With an `output_shape` pads are what it leaves; `auto_pad` says on which side there is one more.
    let whole = without(node, &["output_shape", "pads", "auto_pad"]);
    let larger = without(node, &["output_padding", "pads", "auto_pad"]);
    let sized = SizedConvTranspose {
        whole: expansion(original(context, &whole))?,
        shape,
        is_upper: text(node, "auto_pad") == "SAME_UPPER",
    };
    Ok((around(expansion(original(context, &larger))?, sized), vec![]))
}

/// Around one of a given size, which is at least what its windows make.
#[derive(Debug, Clone)]
struct SizedConvTranspose {
    /// Of all that its windows make.
    whole: Box<dyn Expansion>,
    shape: Vec<usize>,
    is_upper: bool,
}

impl Wiring for SizedConvTranspose {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let whole = self.whole.wire(&format!("{prefix}.whole"), model, inputs)?[0];
        let made = model.outlet_fact(whole)?.shape.to_tvec();
        let more = made
            .iter()
            .skip(2)
            .zip(&self.shape)
            .map(|(made, kept)| Ok(made.to_i64()? - i64::try_from(*kept)?));
        let more = more.collect::<TractResult<Vec<i64>>>()?;
        if more.iter().all(|more| *more <= 0) {
            return inner.wire(prefix, model, inputs);
        }
        if more.iter().any(|more| *more < 0) {
            let why = format!(
                "its output_shape {:?} is smaller and larger than {made:?}, what its windows make",
                self.shape
            );
            return Err(TractError::msg(why));
        }
        let mut kept = whole;
        for (axis, (more, size)) in more.iter().zip(&self.shape).enumerate() {
            let from = if self.is_upper { more / 2 } else { more - more / 2 };
            let to = from + i64::try_from(*size)?;
            kept = cut(model, format!("{prefix}.cut_{axis}"), kept, axis + 2, from.to_dim(), to.to_dim())?;
        }
        Ok(tvec!(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::tests::{ints, model, node, plan};

    #[test]
    fn a_pad_that_cuts_off_more_than_there_is_is_named() {
        let of = |pads: &[i64]| {
            plan(&model(vec![node("Pad", &["x", "pads"], "y", &[])], vec![ints("pads", pads)]), &[1, 4])
        };
        assert!(of(&[0, -2, 0, -1]).is_ok());
        for pads in [[0, -3, 0, -2], [0, -5, 0, 9], [0, i64::MIN, 0, 0]] {
            let why = of(&pads).err().unwrap().to_string();
            assert!(why.contains("of_y"), "{why}");
        }
    }
}
