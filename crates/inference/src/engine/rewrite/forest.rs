//! TreeEnsembleClassifier: a branch that asks whether a value is at least some number counts as a leaf in tract. It asks
//! whether the value is greater than the next lower number instead.
//!
//! And of two classes with weights for one: tract takes that one for the winner wherever its sum is
//! positive. tract sums, the rest is written in ONNX's words as ONNX Runtime decides: the second class wins by more than
//! a half where all weights are positive, else by more than zero.

use tract_onnx::pb::NodeProto;

use super::super::attributes::{attribute, attribute_floats, attribute_ints, text};
use super::draft::{Draft, int, ints, without};
use super::graph::Rewritten;

/// Two classes with weights for the first one only.
struct Binary<'n> {
    labels: &'n [i64],
    base: &'n [f32],
    is_positive: bool,
    is_logistic: bool,
}

/// Trees with weights for one of two classes, or with branches that tract doesn't know; all others are tract's.
pub(super) fn rewrite(node: &NodeProto) -> Rewritten {
    match without_at_least(node)? {
        Some(node) => Ok(Some(of_one_class(&node)?.unwrap_or_else(|| vec![node]))),
        None => of_one_class(node),
    }
}

/// The same trees with other words for "at least", if they say that.
fn without_at_least(node: &NodeProto) -> Result<Option<NodeProto>, String> {
    let modes = attribute(node, "nodes_modes").map_or(&[][..], |modes| modes.strings.as_slice());
    if !modes.iter().any(|mode| mode == b"BRANCH_GTE") {
        return Ok(None);
    }
    let values = attribute_floats(node, "nodes_values");
    if modes.len() != values.len() {
        return Err("asks for values of at least a number that isn't in nodes_values as f32".to_owned());
    }
    let (mut modes, mut values) = (modes.to_vec(), values.to_vec());
    for (mode, value) in modes.iter_mut().zip(&mut values).filter(|(mode, _)| *mode == b"BRANCH_GTE") {
        let (other, bound) = at_least(*value);
        (*mode, *value) = (other.into(), bound);
    }
    let mut node = node.clone();
    for one in &mut node.attribute {
        match one.name.as_str() {
            "nodes_modes" => one.strings = std::mem::take(&mut modes),
            "nodes_values" => one.floats = std::mem::take(&mut values),
            _ => {}
        }
    }
    Ok(Some(node))
}

/// Another branch that asks the same as "at least". There is nothing below the lowest number to be greater than; what is
/// at least that is at most the highest one. Neither is what is no number.
fn at_least(value: f32) -> (&'static str, f32) {
    if value == f32::NEG_INFINITY {
        return ("BRANCH_LEQ", f32::INFINITY);
    }
    ("BRANCH_GT", value.next_down())
}

fn of_one_class(node: &NodeProto) -> Rewritten {
    let Some(binary) = binary(node)? else { return Ok(None) };
    let mut draft = Draft::of(node);
    let sum = sums(&mut draft, node, binary.base);
    if let Some(name) = output(node, 0) {
        label(&mut draft, &binary, &sum);
        draft.rename_last(name);
    }
    if let Some(name) = output(node, 1) {
        scores(&mut draft, &binary, &sum);
        draft.rename_last(name);
    }
    Ok(Some(draft.into_nodes()))
}

fn output(node: &NodeProto, slot: usize) -> Option<&String> {
    node.output.get(slot).filter(|name| !name.is_empty())
}

fn binary(node: &NodeProto) -> Result<Option<Binary<'_>>, String> {
    let texts = attribute(node, "classlabels_strings").map_or(0, |one| one.strings.len());
    let (labels, ids) = (attribute_ints(node, "classlabels_int64s"), attribute_ints(node, "class_ids"));
    if labels.len() + texts != 2 || ids.iter().any(|id| Some(id) != ids.first()) {
        return Ok(None);
    }
    let refused =
        |what: &str| Err(format!("has weights for one of two classes and {what}, which isn't known"));
    if texts > 0 {
        return refused("texts as labels");
    }
    if ids.first().is_some_and(|id| *id != 0) {
        return refused("it is the second one");
    }
    let base = attribute_floats(node, "base_values");
    if base.len() > 1 {
        return refused("base values for both");
    }
    let is_logistic = match text(node, "post_transform") {
        "" | "NONE" => false,
        "LOGISTIC" => true,
        other => return refused(&format!("the transform {other}")),
    };
    let is_positive = attribute_floats(node, "class_weights").iter().all(|weight| *weight >= 0.0);
    Ok(Some(Binary { labels, base, is_positive, is_logistic }))
}

/// The trees' sum for each row, `[rows, 1]`. A third class keeps tract from knowing better.
fn sums(draft: &mut Draft<'_>, node: &NodeProto, base: &[f32]) -> String {
    let mut trees = without(node, &["classlabels_int64s", "base_values", "post_transform"]);
    trees.attribute.push(ints("classlabels_int64s", &[0, 1, 2]));
    let all = draft.fresh("sums");
    trees.output = vec![draft.fresh("unused"), all.clone()];
    draft.add(trees);
    let first = draft.ints(&[0]);
    let sum = gather(draft, &all, &first);
    let Some(base) = base.first() else { return sum };
    let base = draft.float(*base);
    draft.op("Add", &[&sum, &base], vec![])
}

fn gather(draft: &mut Draft<'_>, from: &str, places: &str) -> String {
    draft.op("Gather", &[from, places], vec![int("axis", 1)])
}

fn label(draft: &mut Draft<'_>, binary: &Binary<'_>, sum: &str) {
    let place = draft.int(0);
    let sum = gather(draft, sum, &place);
    let threshold = draft.float(if binary.is_positive { 0.5 } else { 0.0 });
    let is_second = draft.op("Greater", &[&sum, &threshold], vec![]);
    let [first, second] = [0, 1].map(|place| draft.int(binary.labels[place]));
    draft.op("Where", &[&is_second, &second, &first], vec![]);
}

fn scores(draft: &mut Draft<'_>, binary: &Binary<'_>, sum: &str) {
    let other = if binary.is_positive && !binary.is_logistic {
        let one = draft.float(1.0);
        draft.op("Sub", &[&one, sum], vec![])
    } else {
        draft.op("Neg", &[sum], vec![])
    };
    let mut both = [other, sum.to_owned()];
    if binary.is_logistic {
        both = both.map(|score| draft.op("Sigmoid", &[&score], vec![]));
    }
    draft.op("Concat", &[&both[0], &both[1]], vec![int("axis", 1)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_is_said_without_saying_it() {
        let values = [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, -0.0, 0.0, 1e-45, 0.3, 1.0, f32::MAX];
        let all = || values.iter().copied().chain([f32::INFINITY, f32::NAN]);
        for bound in all() {
            let (mode, other) = at_least(bound);
            for value in all() {
                let is = if mode == "BRANCH_GT" { value > other } else { value <= other };
                assert_eq!(is, value >= bound, "{value} at least {bound}");
            }
        }
    }
}
