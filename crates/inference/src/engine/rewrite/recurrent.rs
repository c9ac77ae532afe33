//! LSTM, GRU and RNN: tract runs them forward where they say "reverse", and looks neither at `clip` nor at the functions
//! that they name.

use tract_onnx::pb::NodeProto;

use super::super::attributes::{attribute, int_or, text};
use super::draft::{Draft, without};
use super::graph::Rewritten;

/// Since this version a Slice has steps.
const SLICE_HAS_STEPS: i64 = 10;
/// Before the first element of any sequence, counted from its end.
const BEFORE_ALL: i64 = -(1 << 30);

/// A sequence turned around, the same network forward, its results turned around.
pub(super) fn rewrite(node: &NodeProto, opset: i64) -> Rewritten {
    forms(node)?;
    if text(node, "direction") != "reverse" {
        return Ok(None);
    }
    let Some(sequence) = node.input.first().filter(|_| opset >= SLICE_HAS_STEPS) else {
        return Err(format!("runs in reverse, which is known from opset {SLICE_HAS_STEPS} on"));
    };
    // Of the rows and of the results alike.
    let axis = i64::from(int_or(node, "layout", 0) == 1);
    let mut draft = Draft::of(node);
    let turned = turn(&mut draft, sequence, axis);
    let mut forward = without(node, &["direction"]);
    forward.input[0] = turned;
    let all = node.output.first().filter(|name| !name.is_empty());
    let rows = draft.fresh("rows");
    if all.is_some() {
        forward.output[0].clone_from(&rows);
    }
    draft.add(forward);
    if let Some(all) = all {
        turn(&mut draft, &rows, axis);
        draft.rename_last(all);
    }
    Ok(Some(draft.into_nodes()))
}

fn turn(draft: &mut Draft<'_>, sequence: &str, axis: i64) -> String {
    let [starts, ends, axes, steps] = [-1, BEFORE_ALL, axis, -1].map(|value| draft.ints(&[value]));
    draft.op("Slice", &[sequence, &starts, &ends, &axes, &steps], vec![])
}

/// What tract doesn't look at must say what tract does.
fn forms(node: &NodeProto) -> Result<(), String> {
    if attribute(node, "clip").is_some() {
        return Err("limits its sums (clip), which the runtime doesn't".to_owned());
    }
    if int_or(node, "input_forget", 0) != 0 {
        return Err("couples its gates (input_forget), which the runtime doesn't".to_owned());
    }
    let usual: &[&str] = match node.op_type.as_str() {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    let named = attribute(node, "activations").map_or(&[][..], |attribute| attribute.strings.as_slice());
    let is_usual = |(name, usual): (&Vec<u8>, &&str)| {
        std::str::from_utf8(name).is_ok_and(|name| name.eq_ignore_ascii_case(usual))
    };
    if named.iter().zip(usual.iter().cycle()).all(is_usual) {
        return Ok(());
    }
    let named: Vec<_> = named.iter().map(|name| String::from_utf8_lossy(name)).collect();
    Err(format!("has the activations {named:?}; the runtime has {usual:?} only"))
}
