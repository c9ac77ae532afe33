//! Whether a model that runs in int8 mixes the rows of a batch. Its program is made for one row: what it would do to
//! several shows in the graph's shapes, and where these don't say it, in a program for several.

use tract_onnx::Onnx;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, ModelProto, tensor_proto::DataType};

use super::apart::{Verdict, verdict};
use super::guarded;
use super::plan::{Feed, feeds_of};
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
/// at an island's border, a program whose rows stay apart is to run them one by one.
pub(super) fn settle(rows: Verdict, proto: &ModelProto, feeds: &[Feed], program: &mut Program) -> bool {
    let islands_mix = program.mixes_rows();
    match rows {
        Verdict::InPlace => false,
        Verdict::Apart => {
            program.is_batched &= !islands_mix;
            false
        }
        Verdict::Mixes => true,
        Verdict::ApartElsewhere => islands_mix,
        // A batch as a whole has another range than its rows have.
        Verdict::Unknown if proto.graph.as_ref().is_some_and(is_dynamic) => islands_mix,
        Verdict::Unknown => islands_mix || guarded(|| mixes_or_fails(proto, feeds)).unwrap_or(true),
    }
}

/// The model lowered for several rows at once, which are one row to it.
fn mixes_or_fails(proto: &ModelProto, feeds: &[Feed]) -> bool {
    let several = |feed: &Feed| {
        let mut shape = feed.shape.clone();
        if let Some(first) = shape.first_mut().filter(|_| feed.is_batched) {
            *first *= ROWS;
        }
        Feed { name: feed.name.clone(), shape, is_batched: false }
    };
    let several: Vec<Feed> = feeds.iter().map(several).collect();
    let Ok(program) = lower(proto, &several, Level::detect(), Verdict::InPlace) else { return true };
    let zeros: Vec<_> = several.iter().map(|feed| feed.zeros(1)).collect();
    let are_whole = proto.graph.as_ref().and_then(|graph| are_whole(graph, feeds));
    let (true, Some(are_whole)) = (program.run(&zeros, 1).is_ok(), are_whole) else { return true };
    mixes(feeds, &are_whole, |fed| program.run(fed, 1))
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
