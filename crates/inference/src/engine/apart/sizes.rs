//! The shapes of all values for few rows and for many, as tract finds them.

use std::collections::HashMap;

use tract_onnx::Onnx;
use tract_onnx::model::ParseResult;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{DimLike, Factoid, ToDim};

use super::super::plan::{Feed, feeds_of, planned_shape};
use super::super::{guarded, shapes};
use crate::error::LoadError;

/// So many rows are few, and so many times as many are many. One row isn't among them: an axis of size 1 may go, or be
/// stretched, which that of a batch never is.
pub(super) const FEW: usize = 2;
const TIMES: usize = 5;

/// How the rows lie in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lies {
    /// It is the same whatever the rows are.
    Nowhere,
    /// Along this axis, one after the other, and so often: what lies before them in memory may be folded into it.
    Along { axis: usize, outer: usize },
    /// In their order behind so many others' places in memory, though along no axis.
    InOrder { before: usize },
    /// Nobody knows.
    Unknown,
}

type Shapes = HashMap<String, Vec<usize>>;

/// The shapes of all values by their names.
pub(super) struct Sizes {
    few: Shapes,
    many: Shapes,
}

/// What came of the search for them.
pub(super) enum Found {
    /// They were found.
    Sizes(Sizes),
    /// The graph takes one row only.
    OneRow,
    /// tract doesn't find them.
    Unknown,
}

impl Sizes {
    /// Those of a graph without weights, of whose inputs `fed` are fed.
    pub(super) fn of(onnx: &Onnx, skeleton: &ModelProto, fed: &[String], feeds: &[Feed]) -> Found {
        let parsed = guarded(|| onnx.parse(skeleton, None));
        let Ok(Ok(parsed)) = parsed else { return Found::Unknown };
        let of_rows = |rows| shapes_of(parsed.clone(), fed, feeds, rows);
        match (of_rows(FEW), of_rows(FEW * TIMES)) {
            (Ok(few), Ok(many)) if fed.iter().all(|name| few.get(name) == many.get(name)) => Found::OneRow,
            (Ok(few), Ok(many)) => Found::Sizes(Self { few, many }),
            // Over a bound of ours.
            (_, Err(LoadError::Malformed { .. })) => Found::Unknown,
            (Err(_), _) | (_, Err(_)) if of_rows(1).is_ok() => Found::OneRow,
            _ => Found::Unknown,
        }
    }

    /// A value's shape for few rows and for many.
    pub(super) fn shapes(&self, name: &str) -> Option<[&[usize]; 2]> {
        Some([self.few.get(name)?, self.many.get(name)?])
    }

    /// How rows lie in a value, by its shapes.
    pub(super) fn lies(&self, name: &str) -> Lies {
        self.shapes(name).map_or(Lies::Unknown, lie_by)
    }
}

/// The axis along which the rows must lie, if they do at all: the only one that grows with them.
pub(super) fn lie_by([few, many]: [&[usize]; 2]) -> Lies {
    if few.len() != many.len() {
        return Lies::Unknown;
    }
    let mut changed = (0..few.len()).filter(|axis| few[*axis] != many[*axis]);
    match (changed.next(), changed.next()) {
        (None, _) => Lies::Nowhere,
        (Some(axis), None) if many[axis] == few[axis] * TIMES => Lies::Along { axis, outer: 1 },
        _ => Lies::Unknown,
    }
}

fn shapes_of(parsed: ParseResult, fed: &[String], feeds: &[Feed], rows: usize) -> Result<Shapes, LoadError> {
    let ParseResult { mut model, outlets_by_name, .. } = parsed;
    let refused = |error: TractError| shapes::refused(&error);
    let names: Vec<&str> = fed.iter().map(String::as_str).collect();
    for (name, feed) in fed.iter().zip(feeds_of(&names, feeds)?) {
        let outlet = outlets_by_name[name];
        let fact = model.outlet_fact(outlet).map_err(refused)?;
        let shape = planned_shape(fact, &feeds[feed], &rows.to_dim())?;
        let datum_type = fact.datum_type.concretize().unwrap_or(DatumType::F32);
        model.set_outlet_fact(outlet, InferenceFact::dt_shape(datum_type, shape)).map_err(refused)?;
    }
    shapes::find(&mut model)?;
    let shape = |(name, outlet): (&String, &OutletId)| {
        let dims = model.outlet_fact(*outlet).ok()?.shape.concretize()?;
        Some((name.clone(), dims.iter().map(|dim| dim.to_usize().ok()).collect::<Option<_>>()?))
    };
    Ok(outlets_by_name.iter().filter_map(shape).collect())
}
