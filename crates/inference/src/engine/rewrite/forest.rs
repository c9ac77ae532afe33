//! TreeEnsembleClassifier of two classes with weights for one: tract takes that one for the winner wherever its sum is
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

/// Trees with weights for one of two classes; all others are tract's.
pub(super) fn rewrite(node: &NodeProto) -> Rewritten {
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
