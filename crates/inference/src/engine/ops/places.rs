//! Places that operators take values from, or put values to, as other values say: tract doesn't look whether there are
//! such places. Along an inner axis it takes those of another row, with 64 bits it takes another row still (GatherND has
//! 32), and not all of its operators count negative ones from the end. Constants are looked at while a model is loaded,
//! what a request brings while it runs.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{
    AxisOp, DimLike, EvalContext, EvalOp, Expansion, InferenceResult, InferenceRulesOp, Solver, StaticName,
    TensorProxy, args_1, as_op, check_input_arity, check_output_arity, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_hir::ops::array::GatherNd;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

use super::super::attributes::int_or;
use super::super::shown;
use super::{Built, Wiring, around, inner, original};

/// A place that isn't there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?} takes place {place} of {size}")]
pub(in super::super) struct NoPlace {
    /// The node's name.
    pub(in super::super) node: String,
    /// What it was asked for.
    pub(in super::super) place: i64,
    /// How many there are.
    pub(in super::super) size: i64,
}

/// Operators that have their places in the second input.
pub(super) const WITH_PLACES: [&str; 8] = [
    "ArrayFeatureExtractor",
    "Gather",
    "GatherBlockQuantized",
    "GatherElements",
    "GatherND",
    "Scatter",
    "ScatterElements",
    "ScatterND",
];

pub(super) fn build(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (op, names) = original(context, node)?;
    let along = match node.op_type.as_str() {
        "ArrayFeatureExtractor" => Along::Axis(-1),
        "GatherND" => Along::FirstAxesFrom(usize::try_from(int_or(node, "batch_dims", 0))?),
        "ScatterND" => Along::FirstAxesFrom(0),
        _ => Along::Axis(isize::try_from(int_or(node, "axis", 0))?),
    };
    let inner = match (&along, inner(op.as_ref())) {
        (_, Some(inner)) => inner,
        (Along::FirstAxesFrom(rows), None) => Box::new(GatherFrom(GatherNd::new(*rows))),
        (Along::Axis(_), None) => return Ok((op, names)),
    };
    let inner = if node.op_type == "ArrayFeatureExtractor" { Box::new(Features(inner)) } else { inner };
    Ok((around(inner, Bounded { along }), names))
}

/// Which axes places are counted along.
#[derive(Debug, Clone)]
enum Along {
    /// One, from the end where it is negative.
    Axis(isize),
    /// As many as the last axis of the places is long, from this one on.
    FirstAxesFrom(usize),
}

/// tract's own operator, with a look at the places before.
#[derive(Debug, Clone)]
struct Bounded {
    along: Along,
}

impl Bounded {
    fn sizes(&self, data: &[TDim], places: &[TDim]) -> TractResult<TVec<TDim>> {
        let sizes = match self.along {
            Along::Axis(axis) => {
                let axis =
                    if axis < 0 { data.len().checked_add_signed(axis) } else { usize::try_from(axis).ok() };
                axis.and_then(|axis| data.get(axis)).map(|size| tvec!(size.clone()))
            }
            Along::FirstAxesFrom(first) => {
                let count = places.last().and_then(|last| last.to_usize().ok());
                count.and_then(|count| data.get(first..first.checked_add(count)?)).map(Into::into)
            }
        };
        sizes.ok_or_else(|| TractError::msg(format!("{data:?} doesn't have the axes of {:?}", self.along)))
    }
}

impl Wiring for Bounded {
    fn wire(
        &self,
        inner: &dyn Expansion,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let (data, places) = (model.outlet_fact(inputs[0])?, model.outlet_fact(inputs[1])?);
        let sizes = self.sizes(&data.shape.to_tvec(), &places.shape.to_tvec())?;
        let within = Within { node: prefix.to_owned(), sizes };
        let mut inputs: TVec<OutletId> = inputs.into();
        let known = places.konst.as_ref().and_then(|places| places.cast_to::<i64>().ok());
        let known = known.filter(|_| within.sizes.iter().all(|size| size.to_i64().is_ok()));
        inputs[1] = if let Some(places) = known {
            let counted = within.counted(&places, &SymbolValues::default())?;
            model.add_const(format!("{prefix}.places"), counted.unwrap_or_else(|| places.into_owned()))?
        } else {
            let whole = cast(i64::datum_type());
            let whole = model.wire_node(format!("{prefix}.whole_places"), whole, &inputs[1..2])?;
            model.wire_node(format!("{prefix}.places"), within, &whole)?[0]
        };
        inner.wire(prefix, model, &inputs)
    }
}

/// Features by a list of places: one place, or a table of some, is such a list. tract gives an axis to each of a table's
/// and none to one place. Of a single row it stays tract's: classifiers take labels so, one for each row.
#[derive(Debug, Clone)]
struct Features(Box<dyn Expansion>);

impl Expansion for Features {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[1].datum_type, i64::datum_type())?;
        solver.given_2(&inputs[0].shape, &inputs[1].shape, move |solver, rows, places| {
            let made: TVec<TDim> = match &rows[..] {
                [] | [_] => places,
                [rows @ .., _] => rows.iter().cloned().chain([count(&places)]).collect(),
            };
            solver.equals(&outputs[0].shape, made)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let rank = model.outlet_fact(inputs[0])?.rank();
        let places = model.outlet_fact(inputs[1])?;
        let (shape, known) = (places.shape.to_tvec(), places.konst.clone());
        let mut inputs: TVec<OutletId> = inputs.into();
        if rank > 1 && shape.len() != 1 {
            let list = format!("{prefix}.list");
            inputs[1] = if let Some(known) = known {
                model.add_const(list, known.as_ref().clone().into_shape(&[known.len()])?)?
            } else if shape.is_empty() {
                model.wire_node(list, AxisOp::Add(0), &inputs[1..2])?[0]
            } else {
                let all = tvec!(count(&shape));
                model.wire_node(list, AxisOp::Reshape(0, shape, all), &inputs[1..2])?[0]
            };
        }
        self.0.wire(prefix, model, &inputs)
    }
}

fn count(shape: &[TDim]) -> TDim {
    shape.iter().fold(1.into(), |all: TDim, size| all * size)
}

/// tract's GatherND as others are.
#[derive(Debug, Clone)]
struct GatherFrom(GatherNd);

impl Expansion for GatherFrom {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.0.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.0.clone(), inputs)
    }
}

/// Places in 64 bits, counted from the start; one that isn't there is an error.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Within {
    /// Of which node, for the error.
    node: String,
    /// How many places there are; where these are several, places come in groups of as many.
    sizes: TVec<TDim>,
}

impl Within {
    /// The same places, none of them negative; nothing where none was.
    fn counted(&self, places: &Tensor, symbols: &SymbolValues) -> TractResult<Option<Tensor>> {
        let sizes = self.sizes.iter().map(|size| Ok(size.eval(symbols).to_i64()?));
        let sizes = sizes.collect::<TractResult<TVec<i64>>>()?;
        let plain = places.try_as_plain_ram()?;
        let all = plain.as_slice::<i64>()?;
        let mut is_counted = true;
        for (place, size) in all.iter().zip(sizes.iter().cycle()) {
            if !(-size..*size).contains(place) {
                let (node, place, size) = (shown(&self.node), *place, *size);
                return Err(NoPlace { node, place, size }.into());
            }
            is_counted &= *place >= 0;
        }
        if is_counted {
            return Ok(None);
        }
        let from_start = |(place, size): (&i64, &i64)| if *place < 0 { place + size } else { *place };
        let all: Vec<i64> = all.iter().zip(sizes.iter().cycle()).map(from_start).collect();
        Ok(Some(Tensor::from_shape(places.shape(), &all)?))
    }
}

impl Op for Within {
    fn name(&self) -> StaticName {
        "Within".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Within {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let places = args_1!(inputs);
        let counted = self.counted(&places, context.symbols)?;
        Ok(tvec!(counted.map_or(places, IntoTValue::into_tvalue)))
    }
}

impl TypedOp for Within {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::TensorProto;

    use super::super::super::plan::tests::{constant, fed, ints, model, node, plan};
    use crate::error::InferError;
    use crate::tensor::Data;

    fn table() -> TensorProto {
        let values = [10_f32, 11.0, 12.0, 20.0, 21.0, 22.0];
        constant("t", 1, &[2, 3], values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    #[test]
    fn a_place_that_is_not_there_is_the_callers_fault_and_names_the_node() {
        let whole = || node("Cast", &["x"], "ids", &[("to", &[7])]);
        let far = 4_294_967_296.0;
        for (op, input, attributes, sizes) in [
            ("Gather", vec!["t", "ids"], vec![("axis", &[1_i64][..])], vec![3]),
            ("Gather", vec!["t", "ids"], vec![], vec![2]),
            ("GatherElements", vec!["t", "ids"], vec![("axis", &[1])], vec![3, 3]),
            ("GatherElements", vec!["t", "ids"], vec![], vec![2, 2]),
            ("GatherND", vec!["t", "ids"], vec![], vec![2, 3]),
            ("ScatterElements", vec!["t", "ids", "x"], vec![("axis", &[1])], vec![3, 3]),
        ] {
            let nodes = vec![whole(), node(op, &input, "y", &attributes)];
            let shape = [1, sizes.len()];
            let plan = plan(&model(nodes, vec![table()]), &shape).unwrap();
            for place in [sizes[0], -sizes[0] - 1] {
                for value in [f32::from(i16::try_from(place).unwrap()), far] {
                    let mut values = vec![0.0; sizes.len()];
                    values[0] = value;
                    let error = plan.run(&fed(&shape, values), 1).unwrap_err();
                    let is_named = matches!(&error, InferError::NoPlace { node, size, .. } if node == "of_y" && *size == sizes[0]);
                    assert!(is_named && error.is_caller_fault(), "{op}: {error}");
                }
            }
        }
    }

    #[test]
    fn places_are_counted_from_the_end() {
        let nodes =
            vec![node("Cast", &["x"], "ids", &[("to", &[7])]), node("GatherND", &["t", "ids"], "y", &[])];
        let plan = plan(&model(nodes, vec![table()]), &[1, 2]).unwrap();
        let (_, data) = plan.run(&fed(&[2, 2], vec![-1.0, -3.0, 0.0, -1.0]), 2).unwrap().remove(0);
        assert_eq!(data, Data::Fp32(vec![20.0, 12.0]));
    }

    #[test]
    fn features_are_taken_by_a_list_whatever_its_shape() {
        for (dims, places, wanted) in [
            (vec![], vec![1], (vec![2, 1], vec![2.0, 5.0])),
            (vec![2], vec![2, 0], (vec![2, 2], vec![3.0, 1.0, 6.0, 4.0])),
            (vec![1, 2], vec![2, 0], (vec![2, 2], vec![3.0, 1.0, 6.0, 4.0])),
        ] {
            let places = TensorProto { dims, ..ints("places", &places) };
            let nodes = vec![node("ArrayFeatureExtractor", &["x", "places"], "y", &[])];
            let plan = plan(&model(nodes, vec![places]), &[1, 3]).unwrap();
            let rows = fed(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            assert_eq!(plan.run(&rows, 2).unwrap().remove(0), (wanted.0, Data::Fp32(wanted.1)));
        }
    }

    #[test]
    fn a_constant_place_that_is_not_there_is_refused_at_load() {
        for (place, is_fine) in [(2, true), (-3, true), (3, false), (-4, false), (1 << 32, false)] {
            let nodes = vec![node("Gather", &["x", "ids"], "y", &[("axis", &[1])])];
            let planned = plan(&model(nodes, vec![ints("ids", &[place, 0])]), &[1, 3]);
            let why = planned.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(why.is_empty(), is_fine, "{place}: {why}");
            assert!(is_fine || why.contains(&format!("node \"of_y\" takes place {place} of 3")), "{why}");
        }
    }
}
