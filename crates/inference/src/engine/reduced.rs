//! Reductions of whole numbers: ReduceSum and its kin. tract adds them in 32 bits, has no roots and logarithms of them,
//! and nothing for unsigned ones of 32 bits and more. Here they have their own type and wrap around at its end, as ONNX
//! Runtime's do. tract wires the axes.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, Expansion, StaticName, args_1, as_op, op_as_typed_op, op_out_of_plan, tract_ndarray,
};
use tract_onnx::tract_hir::tract_core::internal::TypedOp;
use tract_onnx::tract_hir::tract_core::ops::nn::Reduce;

use super::exact::{exact, redrafted};
use super::ops::{Built, Wiring, around, inner, original};

/// Operators that reduce.
const REDUCING: [(&str, Option<How>); 10] = [
    ("ReduceL1", Some(How::Sizes)),
    ("ReduceL2", Some(How::Root)),
    ("ReduceLogSum", Some(How::Log)),
    // Runtimes round at different places.
    ("ReduceLogSumExp", None),
    ("ReduceMax", Some(How::Most)),
    ("ReduceMean", Some(How::Mean)),
    ("ReduceMin", Some(How::Least)),
    ("ReduceProd", Some(How::Product)),
    ("ReduceSum", Some(How::Sum)),
    ("ReduceSumSquare", Some(How::Squares)),
];
/// Versions since which the axes are an input: of ReduceSum, of the others.
const SUM_HAS_INPUT: i64 = 13;
const ALL_HAVE_INPUT: i64 = 18;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    for (op, _) in REDUCING {
        operators.insert(op, build);
    }
}

fn build(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    let how = REDUCING.iter().find(|(name, _)| *name == node.op_type).and_then(|(_, how)| *how);
    // A sum over the same axes: wherever this operator takes them from.
    let mut as_sum = context.clone();
    if node.op_type != "ReduceSum" && context.onnx_operator_set_version < ALL_HAVE_INPUT {
        as_sum.onnx_operator_set_version = context.onnx_operator_set_version.min(SUM_HAS_INPUT - 1);
    }
    let (sum, _) = original(&as_sum, &NodeProto { op_type: "ReduceSum".to_owned(), ..node.clone() })?;
    Ok(match (inner(op.as_ref()), inner(sum.as_ref())) {
        (Some(inner), Some(sum)) => (around(inner, Reduction { sum, how }), names),
        _ => (op, names),
    })
}

/// A reducing operator as tract wires it for floats, and as its sum with another meaning for whole numbers.
#[derive(Debug, Clone)]
struct Reduction {
    sum: Box<dyn Expansion>,
    /// What it makes of whole numbers, if runtimes agree on that.
    how: Option<How>,
}

impl Wiring for Reduction {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let kind = model.outlet_fact(inputs[0])?.datum_type;
        if !kind.is_integer() && kind != TDim::datum_type() {
            return inner.wire(prefix, model, inputs);
        }
        let Some(how) = self.how else {
            let why = "it takes the logarithm of exponentials of whole numbers, which runtimes round differently: \
                       put a Cast to FLOAT before it";
            return Err(TractError::msg(why));
        };
        redrafted(self.sum.as_ref(), prefix, model, inputs, |op, kinds| match op.downcast_ref::<Reduce>() {
            Some(reduce) => Some(Box::new(Reduced { axes: reduce.axes.clone(), how })),
            None => exact(op, kinds),
        })
    }
}

/// What becomes of the numbers along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum How {
    /// Their sum.
    Sum,
    /// The sum of their absolute values.
    Sizes,
    /// The sum of their squares.
    Squares,
    /// The root of the sum of their squares, without its fraction.
    Root,
    /// The logarithm of their sum, without its fraction.
    Log,
    /// Their sum divided by their number, without its fraction.
    Mean,
    /// Their product.
    Product,
    /// The largest.
    Most,
    /// The smallest.
    Least,
}

impl How {
    fn start(self) -> i128 {
        match self {
            Self::Product => 1,
            Self::Most => i128::MIN,
            Self::Least => i128::MAX,
            _ => 0,
        }
    }

    fn one(self, value: i128) -> i128 {
        match self {
            Self::Sizes => value.abs(),
            Self::Squares => value.wrapping_mul(value),
            Self::Root => value.saturating_mul(value),
            _ => value,
        }
    }

    fn both(self, all: i128, more: i128) -> i128 {
        match self {
            Self::Product => all.wrapping_mul(more),
            Self::Most => all.max(more),
            Self::Least => all.min(more),
            Self::Root => all.saturating_add(more),
            _ => all.wrapping_add(more),
        }
    }

    /// What 128 bits mean in a type of its numbers. Its own sums wrap around first.
    fn end(self, all: i128, count: i128, kind: &Range) -> i128 {
        let within = all.wrapping_sub(kind.low).rem_euclid(kind.high - kind.low + 1) + kind.low;
        match self {
            Self::Most | Self::Least => all.clamp(kind.low, kind.high),
            Self::Root => all.isqrt().min(kind.high),
            Self::Mean => within.checked_div(count).unwrap_or(0),
            #[expect(clippy::cast_possible_truncation, reason = "its fraction is what is cut off")]
            Self::Log => ((within as f64).ln() as i128).clamp(kind.low, kind.high),
            _ => within,
        }
    }
}

/// The numbers of a type.
struct Range {
    low: i128,
    high: i128,
}

impl Range {
    fn of(kind: DatumType) -> Self {
        let values = 1_i128 << (8 * kind.size_of());
        let low = if kind.is_signed() { -values / 2 } else { 0 };
        Self { low, high: low + values - 1 }
    }
}

/// A reduction of whole numbers that keeps the axes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reduced {
    /// Along which it goes.
    pub(super) axes: TVec<usize>,
    /// What it makes of them.
    pub(super) how: How,
}

impl Reduced {
    fn of<T: Datum + Copy + Into<i128>>(&self, input: &Tensor) -> TractResult<tract_ndarray::ArrayD<i128>> {
        let (how, view) = (self.how, input.to_plain_array_view::<T>()?);
        let mut axes = self.axes.iter().map(|axis| tract_ndarray::Axis(*axis));
        let mut all = match axes.next() {
            Some(axis) => view
                .fold_axis(axis, how.start(), |all, value| how.both(*all, how.one((*value).into())))
                .insert_axis(axis),
            None => view.mapv(|value| how.one(value.into())),
        };
        for axis in axes {
            all = all.fold_axis(axis, how.start(), |all, more| how.both(*all, *more)).insert_axis(axis);
        }
        let (range, count) = (Range::of(input.datum_type()), input.len() / all.len().max(1));
        let count = i128::try_from(count)?;
        Ok(all.mapv(|all| how.end(all, count, &range)))
    }
}

impl Op for Reduced {
    fn name(&self) -> StaticName {
        "Reduced".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Reduced {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let kind = input.datum_type();
        let numbers = match kind {
            DatumType::I8 => self.of::<i8>(&input),
            DatumType::I16 => self.of::<i16>(&input),
            DatumType::I32 => self.of::<i32>(&input),
            DatumType::I64 => self.of::<i64>(&input),
            DatumType::U8 => self.of::<u8>(&input),
            DatumType::U16 => self.of::<u16>(&input),
            DatumType::U32 => self.of::<u32>(&input),
            DatumType::U64 => self.of::<u64>(&input),
            other => Err(TractError::msg(format!("{other:?} isn't a type of whole numbers"))),
        }?;
        // Each is a number of its type.
        if kind == DatumType::U64 {
            return Ok(tvec!(numbers.mapv(|one| u64::try_from(one).unwrap_or(u64::MAX)).into_tvalue()));
        }
        let numbers = numbers.mapv(|one| i64::try_from(one).unwrap_or(i64::MAX)).into_tensor();
        Ok(tvec!(numbers.cast_to_dt(kind)?.into_owned().into_tvalue()))
    }
}

impl TypedOp for Reduced {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        for axis in &self.axes {
            shape[*axis] = TDim::Val(1);
        }
        Ok(tvec!(inputs[0].datum_type.fact(shape)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{fed, ints, model, node, plan};
    use crate::tensor::Data;

    /// What an operator makes of whole numbers, cast to and from their type.
    fn reduced(op: &str, kind: i64, version: i64, values: &[f32]) -> Result<Data, String> {
        let cast = node("Cast", &["x"], "whole", &[("to", &[kind])]);
        let has_input = version >= 18 || op == "ReduceSum" && version >= 13;
        let last = if has_input {
            node(op, &["whole", "last"], "y", &[("keepdims", &[0])])
        } else {
            node(op, &["whole"], "y", &[("axes", &[1]), ("keepdims", &[0])])
        };
        let mut file = model(vec![cast, last], vec![ints("last", &[-1])]);
        file.opset_import[0].version = version;
        let plan = plan(&file, &[1, values.len()]).map_err(|error| crate::error::chain(&error))?;
        let made =
            plan.run(&fed(&[1, values.len()], values.to_vec()), 1).map_err(|error| error.to_string())?;
        Ok(made[0].1.clone())
    }

    #[test]
    fn whole_numbers_are_reduced_in_their_own_type() {
        let values = [3.0, -4.0, 12.0];
        for (op, want) in [
            ("ReduceL1", 19_i64),
            ("ReduceL2", 13),
            ("ReduceLogSum", 2),
            ("ReduceMax", 12),
            ("ReduceMean", 3),
            ("ReduceMin", -4),
            ("ReduceProd", -144),
            ("ReduceSum", 11),
            ("ReduceSumSquare", 169),
        ] {
            for version in [11, 13, 18] {
                let whole = reduced(op, 7, version, &values);
                assert_eq!(whole, Ok(Data::Int64(vec![want])), "{op} {version}");
                let whole = reduced(op, 6, version, &values);
                assert_eq!(whole, Ok(Data::Int32(vec![i32::try_from(want).unwrap()])), "{op} {version}");
            }
            let small: Vec<f32> = values.iter().map(|value| value.abs()).collect();
            assert!(matches!(reduced(op, 12, 18, &small), Ok(Data::Uint32(_))), "{op}");
            assert!(matches!(reduced(op, 13, 18, &small), Ok(Data::Uint64(_))), "{op}");
        }
    }

    #[test]
    fn sums_wrap_around_and_roots_do_not() {
        let far = [65_536.0, 65_536.0, 65_536.0, -65_536.0];
        assert_eq!(reduced("ReduceSumSquare", 6, 18, &far), Ok(Data::Int32(vec![0])));
        assert_eq!(reduced("ReduceL2", 6, 18, &far), Ok(Data::Int32(vec![131_072])));
        assert_eq!(reduced("ReduceSumSquare", 7, 18, &far), Ok(Data::Int64(vec![17_179_869_184])));
        assert_eq!(reduced("ReduceProd", 6, 18, &far), Ok(Data::Int32(vec![0])));
    }

    #[test]
    fn what_runtimes_round_differently_is_refused_by_its_name() {
        let why = reduced("ReduceLogSumExp", 6, 18, &[1.0, 2.0]).unwrap_err();
        assert!(why.contains("of_y") && why.contains("Cast to FLOAT"), "{why}");
    }
}
