//! RotaryEmbedding of com.microsoft by one position: it is that of a row's first place, and each place behind it is one
//! further. tract takes it for that of all places, or for one of each head.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{AxisOp, Expansion};
use tract_onnx::tract_hir::tract_core::ops::math::add;

use super::{Built, Wiring, around, inner, original};
use crate::int8::lower::CONTRIB;

/// Where that operator has its positions.
const POSITIONS: usize = 1;

pub(super) fn build(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    if node.domain != CONTRIB {
        return Ok((op, names));
    }
    Ok((inner(op.as_ref()).map_or(op, |inner| around(inner, FromFirst)), names))
}

/// tract's own operator, with a position for each place.
#[derive(Debug, Clone)]
struct FromFirst;

impl Wiring for FromFirst {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let position = model.outlet_fact(inputs[POSITIONS])?;
        let (rank, kind) = (position.rank(), position.datum_type);
        if rank == 2 {
            return inner.wire(prefix, model, inputs);
        }
        if rank != 1 || position.shape[0] != 1.into() {
            let shape = &position.shape;
            return Err(TractError::msg(format!(
                "position_ids of shape {shape:?}: they are one position, or one of each place of each row"
            )));
        }
        // [rows, places, values], or heads before the places.
        let shape = &model.outlet_fact(inputs[0])?.shape;
        let places = shape.len().checked_sub(2).map(|axis| shape[axis].to_i64()).transpose()?;
        let further: Vec<i64> = (0..places.unwrap_or(0)).collect();
        let further = tensor1(&further).into_shape(&[1, further.len()])?.cast_to_dt(kind)?.into_owned();
        let further = model.add_const(format!("{prefix}.further"), further)?;
        let first =
            model.wire_node(format!("{prefix}.first"), AxisOp::Add(0), &inputs[POSITIONS..=POSITIONS])?;
        let mut inputs: TVec<OutletId> = inputs.into();
        inputs[POSITIONS] = model.wire_node(format!("{prefix}.positions"), add(), &[first[0], further])?[0];
        inner.wire(prefix, model, &inputs)
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::TensorProto;

    use super::super::super::plan::tests::{constant, fed, ints, model, node, plan};
    use super::*;
    use crate::error::chain;
    use crate::tensor::Data;

    const PLACES: usize = 3;

    /// Rows of 3 places with so many heads of 4 values, turned by tables of 6 positions.
    fn turned(positions: TensorProto, heads: i64) -> Result<Vec<f32>, String> {
        let table = |name: &str, start: f32| {
            let values = (0..12_u8).map(|place| start + f32::from(place) / 16.0);
            constant(name, 1, &[6, 2], values.flat_map(f32::to_le_bytes).collect())
        };
        let names = ["x", "positions", "cos", "sin"];
        let turn = NodeProto {
            domain: CONTRIB.to_owned(),
            ..node("RotaryEmbedding", &names, "y", &[("num_heads", &[heads])])
        };
        let file = model(vec![turn], vec![positions, table("cos", 0.0), table("sin", 0.5)]);
        let shape = [1, PLACES, 4 * usize::try_from(heads).unwrap()];
        let values = (0..12 * u16::try_from(heads).unwrap()).map(f32::from).collect();
        let plan = plan(&file, &shape).map_err(|error| chain(&error))?;
        match plan.run(&fed(&shape, values), 1).map_err(|error| chain(&error))?.remove(0).1 {
            Data::Fp32(values) => Ok(values),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn one_position_is_that_of_the_first_place() {
        let each = || TensorProto { dims: vec![1, 3], ..ints("positions", &[2, 3, 4]) };
        for heads in [1, 2, 3] {
            let turned_by_one = turned(ints("positions", &[2]), heads).unwrap();
            assert_eq!(turned_by_one, turned(each(), heads).unwrap(), "{heads} heads");
            // The first place has the tables' third line: (0 * 4 - 2 * 12) / 16 for x of 0 and 2.
            assert_eq!(turned_by_one[0].to_bits(), (-1.5_f32).to_bits(), "{heads} heads");
        }
    }

    #[test]
    fn positions_of_another_shape_are_refused() {
        let why = turned(ints("positions", &[2, 3]), 2).unwrap_err();
        assert!(why.contains("of_y") && why.contains("position_ids of shape"), "{why}");
    }
}
