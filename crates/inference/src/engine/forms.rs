//! What attributes may say: of which type each is, and what an operator asks of the shapes that it reads. As much of it as
//! a file says is looked at before tract sees it, the rest where tract comes to know the shape ([`super::ops`]).

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto};

use super::attributes::{attribute_ints, int_or, text};

/// Largest number of a window's attributes. Beyond this nothing can be meant.
const MAX_WINDOW: i64 = 1 << 20;

/// Attributes that have one type wherever they are known.
const TYPES: [(AttributeType, &[&str]); 4] = [
    (
        AttributeType::Int,
        &[
            "axis",
            "batch_dims",
            "blocksize",
            "ceil_mode",
            "channels_last",
            "count_include_pad",
            "group",
            "keepdims",
            "largest",
            "noop_with_empty_axes",
            "num_outputs",
            "select_last_index",
            "sorted",
            "storage_order",
            "to",
            "transA",
            "transB",
        ],
    ),
    (
        AttributeType::Ints,
        &[
            "axes",
            "dilations",
            "kernel_shape",
            "output_padding",
            "output_shape",
            "pads",
            "perm",
            "split",
            "strides",
        ],
    ),
    (AttributeType::Float, &["alpha", "beta", "epsilon"]),
    (
        AttributeType::String,
        &["auto_pad", "coordinate_transformation_mode", "direction", "mode", "nearest_mode"],
    ),
];

/// Operators with a window, and where those that multiply have its weights.
const WINDOWED: [(&str, Option<usize>); 9] = [
    ("AveragePool", None),
    ("Conv", Some(1)),
    ("ConvInteger", Some(1)),
    ("ConvTranspose", Some(1)),
    ("LpPool", None),
    ("MaxPool", None),
    ("NhwcMaxPool", None),
    ("QLinearAveragePool", None),
    ("QLinearConv", Some(3)),
];
/// What `auto_pad` may say.
const PADDINGS: [&str; 5] = ["", "NOTSET", "SAME_LOWER", "SAME_UPPER", "VALID"];

/// What a rule of these says of a node, on its way through tract.
#[derive(Debug, thiserror::Error)]
#[error("({op}) {why}")]
pub(super) struct Refused {
    /// The node's operator.
    pub(super) op: String,
    /// What about it can't be.
    pub(super) why: String,
}

/// A shape as far as it is known.
pub(super) type Sizes = [Option<usize>];

/// Where a convolution has its weights.
pub(super) fn weights_of(op: &str) -> Option<usize> {
    WINDOWED.iter().find(|(name, _)| *name == op).and_then(|(_, weights)| *weights)
}

fn has_window(op: &str) -> bool {
    WINDOWED.iter().any(|(name, _)| *name == op)
}

/// The operators with a window.
pub(super) fn windowed() -> impl Iterator<Item = &'static str> {
    WINDOWED.into_iter().map(|(op, _)| op)
}

/// Checks what a node says by itself; an error says what about it can't be.
pub(super) fn check(node: &NodeProto) -> Result<(), String> {
    node.attribute.iter().try_for_each(of_type)?;
    if !has_window(&node.op_type) {
        return Ok(());
    }
    let kernel = attribute_ints(node, "kernel_shape");
    if kernel.is_empty() && weights_of(&node.op_type).is_none() {
        return Err("has no kernel_shape: a pool says how large its window is".to_owned());
    }
    let lists = [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2), ("output_padding", 1)];
    let said = lists.iter().map(|(name, each)| attribute_ints(node, name).len() / each);
    lengths(node, { said }.find(|axes| *axes > 0))?;
    for (name, least) in [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 0)] {
        // A transposed convolution cuts off by those below zero.
        let least = if name == "pads" && node.op_type == "ConvTranspose" { -MAX_WINDOW } else { least };
        let values = attribute_ints(node, name);
        if !values.iter().all(|value| (least..=MAX_WINDOW).contains(value)) {
            return Err(format!("has the {name} {values:?}; each is {least} to {MAX_WINDOW}"));
        }
    }
    let padding = text(node, "auto_pad");
    if !PADDINGS.contains(&padding) {
        return Err(format!(
            "has the auto_pad {:?}; one of {:?} is known",
            super::shown(padding),
            &PADDINGS[1..]
        ));
    }
    match int_or(node, "group", 1) {
        1..=MAX_WINDOW => Ok(()),
        group => Err(format!("has the group {group}; 1 to {MAX_WINDOW} are known")),
    }
}

fn of_type(attribute: &AttributeProto) -> Result<(), String> {
    let of = |(_, names): &&(AttributeType, &[&str])| names.contains(&attribute.name.as_str());
    let Some((wanted, _)) = TYPES.iter().find(of) else { return Ok(()) };
    // The oldest files don't say.
    if [0, *wanted as i32].contains(&attribute.r#type) {
        return Ok(());
    }
    let got = AttributeType::try_from(attribute.r#type).map_or("one that isn't known", named);
    Err(format!("has the attribute {} of type {got}; it is {}", attribute.name, named(*wanted)))
}

fn named(kind: AttributeType) -> &'static str {
    kind.as_str_name()
}

/// As many numbers as the window has axes.
fn lengths(node: &NodeProto, axes: Option<usize>) -> Result<(), String> {
    let lists = [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2), ("output_padding", 1)];
    for (name, each) in lists {
        let values = attribute_ints(node, name);
        let wanted = axes.map_or(values.len().next_multiple_of(each), |axes| axes * each);
        if !values.is_empty() && values.len() != wanted {
            return Err(format!(
                "has the {name} {values:?}; a window of {} axes has {wanted} of them",
                wanted / each
            ));
        }
    }
    Ok(())
}

/// Checks what a node says against the shape of its first input.
pub(super) fn of_shape(node: &NodeProto, shape: &Sizes) -> Result<(), String> {
    let perm = attribute_ints(node, "perm");
    if node.op_type == "Transpose" && !perm.is_empty() && perm.len() != shape.len() {
        return Err(format!("has the perm {perm:?} of {} axes; the tensor has {}", perm.len(), shape.len()));
    }
    blocks(node, shape)?;
    if !has_window(&node.op_type) {
        return Ok(());
    }
    let (Some(axes), pixels) = (shape.len().checked_sub(2).filter(|axes| *axes > 0), pixels(node, shape))
    else {
        return Err(format!("slides a window over a tensor of {} axes; it has 3 at least", shape.len()));
    };
    lengths(node, Some(axes))?;
    let kernel: Vec<usize> =
        { attribute_ints(node, "kernel_shape").iter() }.map(|size| whole(*size)).collect();
    reach(node, pixels, &kernel)
}

/// The axes that a window goes along.
fn pixels<'s>(node: &NodeProto, shape: &'s Sizes) -> &'s Sizes {
    let is_last = node.op_type == "NhwcMaxPool" || int_or(node, "channels_last", 0) != 0;
    let first = if is_last { 1 } else { 2 };
    shape.get(first..shape.len() - usize::from(is_last)).unwrap_or_default()
}

fn blocks(node: &NodeProto, shape: &Sizes) -> Result<(), String> {
    let size = whole(int_or(node, "blocksize", 1)).max(1);
    let (op, each) = match node.op_type.as_str() {
        op @ "DepthToSpace" => (op, size * size),
        op @ "SpaceToDepth" => (op, size),
        _ => return Ok(()),
    };
    if shape.len() != 4 {
        return Err(format!("works on images of 4 axes, not on a tensor of {}", shape.len()));
    }
    let cut = if op == "DepthToSpace" { &shape[1..2] } else { &shape[2..] };
    match cut.iter().flatten().find(|length| !length.is_multiple_of(each)) {
        Some(length) => {
            Err(format!("has the blocksize {size}, but an axis of {length} isn't {each} times a number"))
        }
        None => Ok(()),
    }
}

/// Whether a window fits into what it slides over.
fn reach(node: &NodeProto, pixels: &Sizes, kernel: &[usize]) -> Result<(), String> {
    // A last window that reaches beyond is one, where the operator says so.
    let is_open = int_or(node, "ceil_mode", 0) != 0 || text(node, "auto_pad").starts_with("SAME");
    if is_open || node.op_type == "ConvTranspose" {
        return Ok(());
    }
    let (dilations, pads) = (attribute_ints(node, "dilations"), attribute_ints(node, "pads"));
    let has_pads = text(node, "auto_pad") != "VALID";
    for (axis, (size, kernel)) in pixels.iter().zip(kernel).enumerate() {
        let at =
            |values: &[i64], place: usize, default| values.get(place).map_or(default, |value| whole(*value));
        let around = at(pads, axis, 0) + at(pads, axis + pixels.len(), 0);
        let room = size.map(|size| size + if has_pads { around } else { 0 });
        let reach = kernel.saturating_sub(1) * at(dilations, axis, 1) + 1;
        if let Some(room) = room.filter(|room| *room < reach) {
            return Err(format!(
                "has a window of {reach} (kernel_shape, dilations) over {room} values with their pads"
            ));
        }
    }
    Ok(())
}

/// Checks a convolution against its input and its weights.
pub(super) fn of_weights(node: &NodeProto, shape: &Sizes, weights: &Sizes) -> Result<(), String> {
    let [first, second, window @ ..] = weights else {
        return Err(format!("has weights of {} axes; its input has {}", weights.len(), shape.len()));
    };
    if weights.len() != shape.len() {
        return Err(format!("has weights of {} axes; its input has {}", weights.len(), shape.len()));
    }
    let group = whole(int_or(node, "group", 1)).max(1);
    if let Some(count) = first.filter(|count| !count.is_multiple_of(group)) {
        return Err(format!(
            "has the group {group}, which doesn't divide the {count} channels of its weights"
        ));
    }
    let is_last = int_or(node, "channels_last", 0) != 0;
    let channels = if is_last { shape.last().copied() } else { shape.get(1).copied() }.flatten();
    let wanted =
        if node.op_type == "ConvTranspose" { *first } else { second.map(|each| each.saturating_mul(group)) };
    if let (Some(channels), Some(wanted)) = (channels, wanted)
        && channels != wanted
    {
        return Err(format!("has weights for {wanted} channels in {group} groups; its input has {channels}"));
    }
    let window: Option<Vec<usize>> = window.iter().copied().collect();
    window.map_or(Ok(()), |window| reach(node, pixels(node, shape), &window))
}

/// A number that was bounded; what is left out of it was refused before.
fn whole(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

/// Attributes as they stand, without what is large: what [`of_shape`] and its kin look at.
pub(super) fn forms(node: &NodeProto) -> NodeProto {
    let is_form = |one: &&AttributeProto| TYPES.iter().any(|(_, names)| names.contains(&one.name.as_str()));
    NodeProto {
        op_type: node.op_type.clone(),
        attribute: node.attribute.iter().filter(is_form).cloned().collect(),
        ..NodeProto::default()
    }
}

/// The axis that a node names and how many elements it may take along it: TopK.
pub(super) fn of_count(node: &NodeProto, shape: &Sizes, count: i64) -> Result<(), String> {
    let axis = int_or(node, "axis", -1);
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let place = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok();
    let length = place.and_then(|place| shape.get(place)).copied().flatten();
    let most = length.and_then(|length| i64::try_from(length).ok()).unwrap_or(MAX_COUNT);
    if (0..=most).contains(&count) {
        return Ok(());
    }
    Err(format!("takes the first {count} (k) along axis {axis}; 0 to {most} are there"))
}

/// Most that can be taken of an axis.
const MAX_COUNT: i64 = 1 << 28;

#[cfg(test)]
mod tests {
    use tract_onnx::pb::TensorProto;

    use super::super::load::Engine;
    use super::super::plan::Feed;
    use super::super::plan::tests::{constant, ints, model, node};
    use super::*;
    use crate::error::chain;
    use crate::int8::Int8;

    fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { name: name.to_owned(), r#type: 2, i, ..AttributeProto::default() }
    }

    fn list(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto { r#type: 7, ints: ints.to_vec(), ..int(name, 0) }
    }

    fn words(name: &str, words: &str) -> AttributeProto {
        AttributeProto { r#type: 3, s: words.into(), ..int(name, 0) }
    }

    fn floats(name: &str, dims: &[i64]) -> TensorProto {
        let count = usize::try_from(dims.iter().product::<i64>()).unwrap();
        constant(name, 1, dims, 0.5_f32.to_le_bytes().repeat(count))
    }

    /// Why a node over `x` of 1x4x6x6, of which the file says nothing, isn't loaded; nothing if it is.
    fn why(op: &str, input: &[&str], attribute: Vec<AttributeProto>, constants: &[TensorProto]) -> String {
        let mut one = NodeProto { attribute, ..node(op, input, "y", &[]) };
        if op == "TopK" {
            one.output.push("places".to_owned());
        }
        let mut of_weights = node("ReduceMean", &["x"], "mean", &[("axes", &[0]), ("keepdims", &[1])]);
        of_weights.name = "of_mean".to_owned();
        let nodes = if input.contains(&"mean") { vec![of_weights, one] } else { vec![one] };
        let feed = Feed { name: "x".to_owned(), shape: vec![1, 4, 6, 6], is_batched: true };
        let used = constants.iter().filter(|constant| input.contains(&constant.name.as_str())).cloned();
        let file = model(nodes, used.collect());
        let loaded = Engine::of_proto(&super::super::onnx(), file, &[feed], Int8::On);
        loaded.map_or_else(|error| chain(&error), |_| String::new())
    }

    /// That it is refused by node and operator, with a word of the reason, by a rule and not by a fall.
    fn is_refused(why: &str, op: &str, word: &str) -> bool {
        let is_ours =
            ["panicked", "anslating", "Applying rule", "Illegal"].iter().all(|text| !why.contains(text));
        is_ours && why.contains("\"of_y\"") && why.contains(op) && why.contains(word)
    }

    fn sweep(op: &str, input: &[&str], usual: &[AttributeProto], bad: Vec<AttributeProto>) -> Vec<String> {
        let constants = [
            floats("w", &[4, 4, 3, 3]),
            floats("large", &[4, 4, 9, 9]),
            floats("scale", &[6]),
            ints("zero", &[0]),
            ints("places", &[0, 1]),
            ints("k", &[2]),
        ];
        let mut wrong = Vec::new();
        let with = |one: Option<&AttributeProto>| {
            let kept = usual.iter().filter(|usual| one.is_none_or(|one| one.name != usual.name)).cloned();
            why(op, input, kept.chain(one.cloned()).collect(), &constants)
        };
        let as_usual = with(None);
        if !as_usual.is_empty() {
            wrong.push(format!("{op} as usual: {as_usual}"));
        }
        for one in bad {
            let why = with(Some(&one));
            let word = if one.name == "axes" { "ax" } else { &one.name };
            if !is_refused(&why, op, word) {
                let AttributeProto { name, i, ints, s, r#type, .. } = one;
                wrong.push(format!("{op} {name} {type} {i} {ints:?} {s:?}: {why}"));
            }
        }
        wrong
    }

    fn bad_windows() -> Vec<AttributeProto> {
        let each =
            |name: &str, lists: &[&[i64]]| lists.iter().map(|ints| list(name, ints)).collect::<Vec<_>>();
        let far = 1 << 40;
        [
            each("pads", &[&[1], &[1; 3], &[1; 6], &[i64::MIN, 0, 0, 0], &[far, 0, 0, 0]]),
            each("strides", &[&[0, 0], &[-1, 1], &[1], &[1; 3], &[far, 1]]),
            each("dilations", &[&[0, 0], &[1, -1], &[1], &[1; 3], &[i64::MIN, 1]]),
            each("kernel_shape", &[&[3], &[0, 3], &[3, -3], &[3; 3], &[far, far]]),
            vec![int("pads", 1), int("strides", 1), int("kernel_shape", 3), int("dilations", 1)],
            vec![words("pads", "1"), words("strides", "x"), words("kernel_shape", ""), int("auto_pad", 1)],
            vec![words("auto_pad", "NEVER")],
        ]
        .concat()
    }

    #[test]
    fn attributes_of_windows_are_refused_by_a_rule() {
        let kernel = [list("kernel_shape", &[3, 3])];
        let groups = [0, -1, 3, 8, 1 << 40, i64::MIN].map(|group| int("group", group));
        let of_group = groups.into_iter().chain([words("group", "1"), list("group", &[1])]);
        let mut wrong = Vec::new();
        for op in ["MaxPool", "AveragePool"] {
            // Larger than what it slides over.
            let larger = [list("kernel_shape", &[9, 9]), list("kernel_shape", &[3, 7])];
            wrong.extend(sweep(op, &["x"], &kernel, [bad_windows(), larger.to_vec()].concat()));
            assert!(is_refused(&why(op, &["x"], vec![], &[]), op, "kernel_shape"));
        }
        for op in ["Conv", "ConvTranspose"] {
            let bad: Vec<AttributeProto> = bad_windows().into_iter().chain(of_group.clone()).collect();
            wrong.extend(sweep(op, &["x", "w"], &kernel, bad.clone()));
            wrong.extend(sweep(op, &["x", "w"], &[], bad));
        }
        let large = why("Conv", &["x", "large"], vec![], &[floats("large", &[4, 4, 9, 9])]);
        assert!(is_refused(&large, "Conv", "window of 9"), "{large}");
        let wide = why("Conv", &["x", "w"], vec![list("dilations", &[1, 3])], &[floats("w", &[4, 4, 3, 3])]);
        assert!(is_refused(&wide, "Conv", "window of 7"), "{wide}");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn weights_that_are_worked_out_say_their_window() {
        assert_eq!(why("Conv", &["x", "mean"], vec![], &[]), "");
        assert_eq!(why("Conv", &["x", "mean"], vec![list("kernel_shape", &[6, 6])], &[]), "");
    }

    #[test]
    fn axes_are_refused_by_a_rule() {
        let mut wrong = Vec::new();
        let far = [1 << 40, i64::MIN, i64::MAX];
        for (op, input) in [
            ("ArgMax", &["x"][..]),
            ("ArgMin", &["x"]),
            ("Concat", &["x", "x"]),
            ("Flatten", &["x"]),
            ("Gather", &["x", "places"]),
            ("Hardmax", &["x"]),
            ("LayerNormalization", &["x", "scale"]),
            ("LogSoftmax", &["x"]),
            ("LpNormalization", &["x"]),
            ("Softmax", &["x"]),
            ("Split", &["x"]),
            ("TopK", &["x", "k"]),
        ] {
            let usual = [int("axis", if op == "Flatten" { 1 } else { 3 })];
            let axes = [5, -5].into_iter().chain(far).chain((op != "Flatten").then_some(4));
            let bad = axes.map(|axis| int("axis", axis)).chain([list("axis", &[1]), words("axis", "1")]);
            wrong.extend(sweep(op, input, &usual, bad.collect()));
        }
        for op in ["ReduceMax", "ReduceMean", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ReduceLogSumExp"]
        {
            let axes = [4, -5].into_iter().chain(far).map(|axis| list("axes", &[0, axis]));
            let bad = axes.chain([int("axes", 1), words("axes", "1")]).collect();
            wrong.extend(sweep(op, &["x"], &[list("axes", &[1])], bad));
        }
        let perms: [&[i64]; 4] = [&[0, 1, 2], &[0, 1, 2, 2], &[0, 1, 2, 4], &[0, 1, 2, 3, 4]];
        let perms = perms.map(|perm| list("perm", perm)).to_vec();
        wrong.extend(sweep("Transpose", &["x"], &[list("perm", &[0, 2, 3, 1])], perms));
        let blocks = [0, -1, 3, 1 << 40].map(|size| int("blocksize", size)).to_vec();
        wrong.extend(sweep("DepthToSpace", &["x"], &[int("blocksize", 2)], blocks));
        let blocks = [0, -1, 4, 1 << 40].map(|size| int("blocksize", size)).to_vec();
        wrong.extend(sweep("SpaceToDepth", &["x"], &[int("blocksize", 2)], blocks));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn steps_and_counts_that_nothing_has_are_refused_by_a_rule() {
        let slice = |step: i64| {
            let (from, to) = if step < 0 { (4, 0) } else { (0, 4) };
            let constants = [ints("a", &[from]), ints("e", &[to]), ints("axes", &[3]), ints("step", &[step])];
            why("Slice", &["x", "a", "e", "axes", "step"], vec![], &constants)
        };
        assert_eq!((slice(2), slice(-1)), (String::new(), String::new()));
        for step in [i64::MIN, i64::MAX, 0] {
            assert!(is_refused(&slice(step), "Slice", "steps of"), "{step}: {}", slice(step));
        }
        let top = |k: i64| why("TopK", &["x", "k"], vec![], &[ints("k", &[k])]);
        assert_eq!(top(6), "");
        for k in [7, -1, 1 << 62, i64::MIN] {
            assert!(is_refused(&top(k), "TopK", "(k)"), "{k}: {}", top(k));
        }
    }
}
