//! Whether a model that runs in int8 mixes the rows of a batch. Its program is made for one row: what it would do to
//! several shows in the graph's shapes, and where these don't say it, in a program for several.

use tract_onnx::Onnx;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, ModelProto, tensor_proto::DataType};

use super::apart::{Verdict, verdict};
use super::guarded;
use super::plan::{Feed, Plan, feeds_of};
use super::rows::{ROWS, is_dynamic, may_mix, mixes};
use crate::int8::kernel::Level;
use crate::int8::lower::lower;
use crate::int8::program::Program;

/// What becomes of a model's rows.
pub(super) fn rows_of(onnx: &Onnx, proto: &ModelProto, feeds: &[Feed]) -> Verdict {
    if !feeds.iter().any(|feed| feed.is_batched) || !may_mix(proto) {
        return Verdict::InPlace;
    }
    verdict(onnx, proto, feeds)
}

/// Whether the answer to a batch isn't those of its rows put together, or may not be. Where rows lie along another axis
/// at an island's border, or nothing shows that a program for one row does to several what it does to each, rows that
/// stay apart are run one by one.
pub(super) fn settle(rows: Verdict, proto: &ModelProto, feeds: &[Feed], program: &mut Program) -> bool {
    let islands_mix = program.mixes_rows();
    let is_dynamic = proto.graph.as_ref().is_some_and(is_dynamic);
    match rows {
        Verdict::InPlace => false,
        Verdict::Apart => {
            program.is_batched &= !islands_mix;
            false
        }
        Verdict::Mixes => true,
        // A batch as a whole has another range than its rows have.
        _ if is_dynamic => islands_mix,
        Verdict::ApartElsewhere if !islands_mix => false,
        Verdict::ApartElsewhere | Verdict::Unknown => {
            let tried = guarded(|| tried(proto, feeds)).ok().flatten();
            program.is_batched &= !islands_mix && tried.is_some();
            tried.unwrap_or(islands_mix)
        }
    }
}

/// Whether several rows at once, which are one row to the program that they are lowered to, mix. Where it doesn't take
/// them, tract's plan of the whole graph is tried. None where neither can be.
fn tried(proto: &ModelProto, feeds: &[Feed]) -> Option<bool> {
    mixes_lowered(proto, feeds).or_else(|| {
        let plan = Plan::build(proto.clone(), feeds, Some(Verdict::Unknown)).ok()?;
        (plan.mixes() || plan.is_batched()).then(|| plan.mixes())
    })
}

fn mixes_lowered(proto: &ModelProto, feeds: &[Feed]) -> Option<bool> {
    let several = |feed: &Feed| {
        let mut shape = feed.shape.clone();
        if let Some(first) = shape.first_mut().filter(|_| feed.is_batched) {
            *first *= ROWS;
        }
        Feed { name: feed.name.clone(), shape, is_batched: false }
    };
    let several: Vec<Feed> = feeds.iter().map(several).collect();
    let program = lower(proto, &several, Level::detect(), Verdict::InPlace).ok()?;
    let zeros: Vec<_> = several.iter().map(|feed| feed.zeros(1)).collect();
    program.run(&zeros, 1).ok()?;
    let are_whole = proto.graph.as_ref().and_then(|graph| are_whole(graph, feeds))?;
    Some(mixes(feeds, &are_whole, |fed| program.run(fed, 1)))
}

/// For each feed whether it is of whole numbers.
fn are_whole(graph: &GraphProto, feeds: &[Feed]) -> Option<Vec<bool>> {
    let is_constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let fed: Vec<_> = graph.input.iter().filter(|input| !is_constant(&input.name)).collect();
    let names: Vec<&str> = fed.iter().map(|input| input.name.as_str()).collect();
    let mut are_whole = vec![false; feeds.len()];
    for (input, feed) in fed.iter().zip(feeds_of(&names, feeds).ok()?) {
        let Some(Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return None;
        };
        let floats = [DataType::Float, DataType::Double, DataType::Float16];
        are_whole[feed] = !floats.iter().any(|kind| tensor.elem_type == *kind as i32);
    }
    Some(are_whole)
}
