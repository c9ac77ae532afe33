//! Mod and Div of whole numbers where tract takes them for numbers of elements, as it does with all that was cast to
//! INT64. There it divides by the divisor's last 32 bits and knows no negative ones, and its rest of a negative number is
//! ONNX's `fmod`, whatever the node says.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{
    DimLike, EvalContext, EvalOp, Expansion, StaticName, args_2, as_op, op_as_typed_op, op_out_of_plan,
    tract_ndarray,
};
use tract_onnx::tract_hir::ops::binary::wire_rank_broadcast;
use tract_onnx::tract_hir::tract_core::broadcast::multi_broadcast;

use super::super::attributes::int_or;
use super::{Built, Whole, Wiring, around, inner, original};

pub(super) fn build_div(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    build(context, node, Kind::Quotient)
}

pub(super) fn build_mod(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    build(
        context,
        node,
        if int_or(node, "fmod", 0) == 1 { Kind::RestOfDividend } else { Kind::RestOfDivisor },
    )
}

fn build(context: &ParsingContext<'_>, node: &NodeProto, kind: Kind) -> Built {
    let (op, names) = original(context, node)?;
    Ok((inner(op.as_ref()).map_or(op, |inner| around(inner, Division { kind })), names))
}

/// What is left of a division.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Its result without a fraction.
    Quotient,
    /// The rest, of the dividend's sign.
    RestOfDividend,
    /// The rest, of the divisor's sign.
    RestOfDivisor,
}

impl Kind {
    /// The lowest number by -1 wraps around, as elsewhere; none for a division by 0.
    fn of(self, a: i64, b: i64) -> Option<i64> {
        if b == 0 {
            return None;
        }
        let rest = a.wrapping_rem(b);
        let is_other_sign = rest != 0 && (rest < 0) != (b < 0);
        Some(match self {
            Self::Quotient => a.wrapping_div(b),
            Self::RestOfDivisor if is_other_sign => rest + b,
            Self::RestOfDividend | Self::RestOfDivisor => rest,
        })
    }

    /// Of sizes, which may be those of a batch that nobody knows yet. They aren't negative.
    fn of_sizes(self, a: &TDim, b: &TDim) -> TractResult<TDim> {
        if let (Ok(a), Ok(b)) = (a.to_i64(), b.to_i64()) {
            return self.of(a, b).map(Into::into).ok_or_else(|| TractError::msg("it divides by 0"));
        }
        if self == Self::Quotient {
            let (dividend, divisor) = a.maybe_div(b)?;
            return Ok(dividend / divisor);
        }
        match b.to_i64().map(u64::try_from) {
            Ok(Ok(b)) if b > 0 => Ok(a.clone() % b),
            _ => Err(TractError::msg(format!("the rest of {a} by {b} isn't known"))),
        }
    }
}

/// tract's own operator, but for numbers of elements, and for rests of 64 bits: tract adds the divisor to them, which
/// goes beyond their type.
#[derive(Debug, Clone)]
struct Division {
    kind: Kind,
}

impl Wiring for Division {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let kinds = inputs.iter().map(|input| Ok(model.outlet_fact(*input)?.datum_type));
        let kinds = kinds.collect::<TractResult<TVec<DatumType>>>()?;
        let is_of_sizes =
            kinds.iter().all(|kind| *kind == TDim::datum_type() || kind.is_signed() || kind.is_unsigned())
                && kinds.contains(&TDim::datum_type());
        let is_far = self.kind == Kind::RestOfDivisor && kinds.iter().all(|kind| *kind == DatumType::I64);
        if !is_of_sizes && !is_far {
            return inner.wire(prefix, model, inputs);
        }
        let mut inputs = wire_rank_broadcast(prefix, model, inputs)?;
        if is_far {
            return model.wire_node(prefix, DivisionOfNumbers(self.kind), &inputs);
        }
        for (slot, input) in
            inputs.iter_mut().enumerate().filter(|(slot, _)| kinds[*slot] != TDim::datum_type())
        {
            // tract's own cast goes through 32 bits.
            *input = model.wire_node(format!("{prefix}.whole_{slot}"), Whole, &[*input])?[0];
        }
        model.wire_node(prefix, DivisionOfNumbers(self.kind), &inputs)
    }
}

/// A division of numbers of elements, or of whole numbers of 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DivisionOfNumbers(Kind);

impl Op for DivisionOfNumbers {
    fn name(&self) -> StaticName {
        format!("{:?}OfNumbers", self.0).into()
    }

    op_as_typed_op!();
}

impl EvalOp for DivisionOfNumbers {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (a, b) = args_2!(inputs);
        let shape = multi_broadcast(&[a.shape(), b.shape()])?;
        let result = if a.datum_type() == DatumType::I64 {
            each(&a, &b, &shape, |a, b| self.0.of(*a, *b).ok_or_else(|| TractError::msg("it divides by 0")))
        } else {
            each(&a, &b, &shape, |a, b| self.0.of_sizes(a, b))
        };
        Ok(tvec!(result?.into_tvalue()))
    }
}

/// What each two values make, in the shape that both are stretched to.
fn each<T: Datum>(
    a: &Tensor,
    b: &Tensor,
    shape: &[usize],
    make: impl Fn(&T, &T) -> TractResult<T>,
) -> TractResult<Tensor> {
    let (a, b) = (a.to_plain_array_view::<T>()?, b.to_plain_array_view::<T>()?);
    let (Some(a), Some(b)) = (a.broadcast(shape), b.broadcast(shape)) else {
        return Err(TractError::msg("its operands don't fit each other"));
    };
    let all = a.iter().zip(b.iter()).map(|(a, b)| make(a, b)).collect::<TractResult<Vec<_>>>()?;
    Ok(tract_ndarray::ArrayD::from_shape_vec(shape, all)?.into_tensor())
}

impl TypedOp for DivisionOfNumbers {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = multi_broadcast(&[&inputs[0].shape, &inputs[1].shape])?;
        Ok(tvec!(inputs[0].datum_type.fact(shape)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::Kind;
    use crate::engine::plan::tests::{constant, fed, model, node, plan};
    use crate::tensor::Data;

    #[test]
    fn a_rest_by_the_highest_number_stays_within_its_type() {
        let nodes = vec![
            node("Cast", &["x"], "whole", &[("to", &[7])]),
            node("Mod", &["whole", "divisor"], "y", &[]),
        ];
        let divisor = constant("divisor", 7, &[], i64::MAX.to_le_bytes().to_vec());
        let plan = plan(&model(nodes, vec![divisor]), &[1, 3]).unwrap();
        let (_, data) = plan.run(&fed(&[1, 3], vec![-7.0, 0.0, 7.0]), 1).unwrap().remove(0);
        assert_eq!(data, Data::Int64(vec![i64::MAX - 7, 0, 7]));
    }

    #[test]
    fn a_rest_has_the_sign_that_onnx_gives_it() {
        for (a, b, quotient, of_dividend, of_divisor) in [
            (7, 3, 2, 1, 1),
            (-7, 3, -2, -1, 2),
            (7, -3, -2, 1, -2),
            (-7, -3, 2, -1, -1),
            (-6, 3, -2, 0, 0),
            (i64::MIN, -1, i64::MIN, 0, 0),
            (
                1 << 40,
                (1 << 32) + 3,
                255,
                (1 << 40) - 255 * ((1 << 32) + 3),
                (1 << 40) - 255 * ((1 << 32) + 3),
            ),
        ] {
            assert_eq!(Kind::Quotient.of(a, b), Some(quotient), "{a} / {b}");
            assert_eq!(Kind::RestOfDividend.of(a, b), Some(of_dividend), "{a} / {b}");
            assert_eq!(Kind::RestOfDivisor.of(a, b), Some(of_divisor), "{a} / {b}");
        }
        assert_eq!(Kind::RestOfDivisor.of(7, 0), None);
    }
}
