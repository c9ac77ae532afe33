//! Which attributes of which operator are gone by. tract doesn't look at those that it doesn't know, and would answer as
//! if they weren't there: so each that isn't named here is refused, but for what says as much as nothing.

use tract_onnx::pb::{AttributeProto, NodeProto};

use super::shown;
use crate::int8::lower::CONTRIB;

/// Of every operator in the oldest files; it says nothing of what is computed.
const OF_ALL: &str = "consumed_inputs";

/// A window that slides, and the same of what pools or multiplies.
const WINDOW: [&str; 5] = ["auto_pad", "dilations", "kernel_shape", "pads", "strides"];
/// Operators with such a window.
const WINDOWED: [&str; 8] = [
    "AveragePool",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "MaxPool",
    "QLinearConv",
    "com.microsoft.NhwcMaxPool",
    "com.microsoft.QLinearConv",
];

/// Recurrent networks, of which what tract doesn't go by is looked at where they are rewritten.
const RECURRENT: [&str; 9] = [
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "layout",
    "linear_before_reset",
    "output_sequence",
];

/// Attributes by operators, beside those of windows, recurrent networks, trees and reductions. Operators that aren't here
/// have none.
const KNOWN: &[(&[&str], &[&str])] = &[
    // `axis` and `broadcast` are of opset 6 and before.
    (
        &["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"],
        &["axis", "broadcast"],
    ),
    (&["ArgMax", "ArgMin"], &["axis", "keepdims", "select_last_index"]),
    (
        &["Attention"],
        &[
            "is_causal",
            "kv_num_heads",
            "q_num_heads",
            "qk_matmul_output_mode",
            "scale",
            "softcap",
            "softmax_precision",
        ],
    ),
    (&["AveragePool"], &["ceil_mode", "count_include_pad"]),
    (&["BatchNormalization"], &["epsilon", "is_test", "momentum", "spatial"]),
    (&["BitShift"], &["direction"]),
    (&["BlackmanWindow", "HammingWindow", "HannWindow"], &["output_datatype", "periodic"]),
    // The last two are of floats in 8 bits.
    (&["Cast"], &["to", "saturate", "round_mode"]),
    (&["CastLike"], &["saturate", "round_mode"]),
    (&["CategoryMapper"], &["cats_int64s", "cats_strings", "default_int64", "default_string"]),
    (&["Celu", "Elu", "LeakyRelu", "Swish", "ThresholdedRelu"], &["alpha"]),
    (&["Clip"], &["max", "min"]),
    (&["Compress", "Concat", "Flatten", "Gather", "GatherElements", "Hardmax", "LogSoftmax"], &["axis"]),
    (
        &["Constant"],
        &["value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"],
    ),
    (&["ConstantLike"], &["dtype", "shape", "value"]),
    (&["ConstantOfShape"], &["value"]),
    (&["Conv", "ConvInteger", "QLinearConv"], &["group"]),
    (&["ConvTranspose"], &["group", "output_padding", "output_shape"]),
    (&["CumSum"], &["exclusive", "reverse"]),
    (&["DFT"], &["axis", "inverse", "onesided"]),
    (&["DepthToSpace", "SpaceToDepth"], &["blocksize", "mode"]),
    (&["DequantizeLinear"], &["axis", "block_size"]),
    (&["Dropout"], &["is_test", "ratio", "seed"]),
    (&["Einsum"], &["equation"]),
    (&["EyeLike"], &["dtype", "k"]),
    (&["GatherND"], &["batch_dims"]),
    (&["Gelu"], &["approximate"]),
    (&["Gemm"], &["alpha", "beta", "broadcast", "transA", "transB"]),
    (&["GlobalLpPool"], &["p"]),
    (&["GridSample"], &["align_corners", "mode", "padding_mode"]),
    (&["GroupNormalization"], &["epsilon", "num_groups", "stash_type"]),
    (&["HardSigmoid", "ParametricSoftplus", "ScaledTanh"], &["alpha", "beta"]),
    (&["If"], &["else_branch", "then_branch"]),
    (&["InstanceNormalization"], &["epsilon"]),
    (&["IsInf"], &["detect_negative", "detect_positive"]),
    (&["LRN"], &["alpha", "beta", "bias", "size"]),
    (&["LSTM"], &["input_forget"]),
    (
        &["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"],
        &["axis", "epsilon", "stash_type"],
    ),
    (
        &["LinearClassifier"],
        &[
            "classlabels_ints",
            "classlabels_strings",
            "coefficients",
            "intercepts",
            "multi_class",
            "post_transform",
        ],
    ),
    (&["LinearRegressor"], &["coefficients", "intercepts", "post_transform", "targets"]),
    (&["LpNormalization"], &["axis", "p"]),
    (&["MaxPool"], &["ceil_mode", "storage_order"]),
    (&["MeanVarianceNormalization"], &["axes"]),
    (&["MelWeightMatrix"], &["output_datatype"]),
    (&["Mod"], &["fmod"]),
    (&["Multinomial"], &["dtype", "sample_size", "seed"]),
    (&["NonMaxSuppression"], &["center_point_box"]),
    (&["Normalizer"], &["norm"]),
    (&["OneHot", "Scatter", "Softmax"], &["axis"]),
    (&["Pad"], &["mode", "pads", "value"]),
    (&["QuantizeLinear"], &["axis", "block_size", "output_dtype", "saturate"]),
    (&["RandomNormal"], &["dtype", "mean", "scale", "seed", "shape"]),
    (&["RandomNormalLike"], &["dtype", "mean", "scale", "seed"]),
    (&["RandomUniform"], &["dtype", "high", "low", "seed", "shape"]),
    (&["RandomUniformLike"], &["dtype", "high", "low", "seed"]),
    (&["Range"], &["stash_type"]),
    (&["Reshape"], &["allowzero"]),
    (
        &["Resize"],
        &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
    ),
    (&["RotaryEmbedding"], &["interleaved", "num_heads", "rotary_embedding_dim"]),
    (&["STFT"], &["onesided"]),
    (&["Scaler"], &["offset", "scale"]),
    (
        &["Scan"],
        &[
            "body",
            "num_scan_inputs",
            "scan_input_axes",
            "scan_input_directions",
            "scan_output_axes",
            "scan_output_directions",
        ],
    ),
    (&["ScatterElements"], &["axis", "reduction"]),
    (&["ScatterND"], &["reduction"]),
    (&["Selu"], &["alpha", "gamma"]),
    (&["Shape"], &["end", "start"]),
    (&["Shrink"], &["bias", "lambd"]),
    (&["Slice"], &["axes", "ends", "starts"]),
    (&["Split"], &["axis", "num_outputs", "split"]),
    (&["Squeeze", "Unsqueeze"], &["axes"]),
    // Sorted or not, tract's are.
    (&["TopK"], &["axis", "largest", "sorted"]),
    (&["Transpose"], &["perm"]),
    (&["Trilu", "com.microsoft.Trilu"], &["upper"]),
    (&["com.microsoft.DequantizeLinear", "com.microsoft.QuantizeLinear"], &["axis"]),
    (&["com.microsoft.GatherBlockQuantized"], &["bits", "block_size", "gather_axis", "quantize_axis"]),
    // What isn't known of them tract refuses.
    (
        &["com.microsoft.GroupQueryAttention"],
        &[
            "causal",
            "do_rotary",
            "k_quant_type",
            "kv_cache_bit_width",
            "kv_num_heads",
            "local_window_size",
            "num_heads",
            "qk_norm_epsilon",
            "qk_output",
            "rotary_interleaved",
            "scale",
            "sliding_window_cache",
            "smooth_softmax",
            "softcap",
            "v_quant_type",
        ],
    ),
    (&["com.microsoft.MatMulNBits"], &["K", "N", "accuracy_level", "bits", "block_size"]),
    // There is no mask to be filled.
    (&["com.microsoft.MultiHeadAttention"], &["mask_filter_value", "num_heads", "scale"]),
    (&["com.microsoft.NhwcMaxPool"], &["ceil_mode"]),
    (&["com.microsoft.Pad"], &["mode"]),
    (&["com.microsoft.QGemm"], &["alpha", "transA", "transB"]),
    (
        &["com.microsoft.QLinearAveragePool"],
        &["auto_pad", "ceil_mode", "channels_last", "count_include_pad", "kernel_shape", "pads", "strides"],
    ),
    (&["com.microsoft.QLinearConcat"], &["axis"]),
    (&["com.microsoft.QLinearConv"], &["channels_last", "group"]),
    (&["com.microsoft.QLinearGlobalAveragePool"], &["channels_last"]),
    (&["com.microsoft.QLinearLeakyRelu", "com.microsoft.QuickGelu"], &["alpha"]),
    (&["com.microsoft.QLinearSoftmax"], &["axis", "opset"]),
    (
        &["com.microsoft.RotaryEmbedding"],
        &["interleaved", "is_packed_batching", "num_heads", "rotary_embedding_dim", "scale"],
    ),
    (&["com.microsoft.SkipLayerNormalization"], &["epsilon"]),
    (&["com.microsoft.SkipSimplifiedLayerNormalization"], &["epsilon"]),
];

/// Trees, of which tract reads no numbers in 64 bits; how often a branch was taken says nothing.
const OF_TREES: [&str; 18] = [
    "base_values",
    "class_ids",
    "class_nodeids",
    "class_treeids",
    "class_weights",
    "classlabels_int64s",
    "classlabels_strings",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_treeids",
    "nodes_truenodeids",
    "nodes_values",
    "post_transform",
];

/// What all operators have that reduce axes.
const OF_REDUCTIONS: [&str; 3] = ["axes", "keepdims", "noop_with_empty_axes"];

/// What may be said, where only that means what is computed: by operator, attribute and values.
const ONLY: [(&str, &str, &[i64]); 8] = [
    ("Attention", "left_window_size", &[-1]),
    ("Attention", "right_window_size", &[-1]),
    ("BatchNormalization", "training_mode", &[0]),
    // Half precision is calculated in f32.
    ("DequantizeLinear", "output_dtype", &[0, 1, 10]),
    ("QuantizeLinear", "precision", &[0, 1]),
    ("Scan", "directions", &[0]),
    ("com.microsoft.MatMulNBits", "weight_prepacked", &[0]),
    ("com.microsoft.MultiHeadAttention", "unidirectional", &[0]),
];

/// The same of texts.
const ONLY_WORDS: [(&str, &str, &[&str]); 2] =
    [("DepthToSpace", "mode", &["DCR", "CRD"]), ("SpaceToDepth", "mode", &["DCR", "CRD"])];

/// Attributes that an operator has before some version only: an input says it from then on, and where that is left out
/// tract goes by neither.
const BEFORE: [(&str, &str, i64); 5] = [
    ("Clip", "max", 11),
    ("Clip", "min", 11),
    ("ReduceSum", "axes", 13),
    ("Squeeze", "axes", 13),
    ("Unsqueeze", "axes", 13),
];
/// The same of all other reductions.
const REDUCTIONS_NAME_AXES_BEFORE: i64 = 18;

/// Checks that a node's attributes are gone by, in a graph of that version; an error says which one isn't.
pub(super) fn check(node: &NodeProto, opset: i64) -> Result<(), String> {
    let own = format!("{CONTRIB}.{}", node.op_type);
    let op = if node.domain == CONTRIB { &own } else { &node.op_type };
    node.attribute.iter().try_for_each(|one| of(op, one, opset))
}

fn of(op: &str, one: &AttributeProto, opset: i64) -> Result<(), String> {
    let name = one.name.as_str();
    if let Some((_, _, values)) = ONLY.iter().find(|(of, only, _)| *of == op && *only == name) {
        let said = if one.ints.is_empty() { std::slice::from_ref(&one.i) } else { &one.ints };
        return match said.iter().find(|said| !values.contains(said)) {
            Some(said) => Err(format!("has the {name} {said}; {values:?} are known")),
            None => Ok(()),
        };
    }
    let only = ONLY_WORDS.iter().find(|(of, only, _)| *of == op && *only == name);
    if let Some((_, _, values)) =
        only.filter(|(_, _, values)| !values.iter().any(|one_of| one_of.as_bytes() == one.s))
    {
        return Err(format!(
            "has the {name} {:?}; {values:?} are known",
            shown(&String::from_utf8_lossy(&one.s))
        ));
    }
    if name != OF_ALL && !is_known(op, name) {
        let name = shown(name);
        return Err(format!(
            "has the attribute {name:?}, which isn't known here; without it the answer may be another"
        ));
    }
    let before = BEFORE.iter().find(|(of, until, _)| *of == op && *until == name).map(|(_, _, since)| *since);
    let reduces = (op.starts_with("Reduce") && name == "axes").then_some(REDUCTIONS_NAME_AXES_BEFORE);
    match before.or(reduces).filter(|since| opset >= *since) {
        Some(since) => Err(format!("has the attribute {name}, which is an input from opset {since} on")),
        None => Ok(()),
    }
}

fn is_known(op: &str, name: &str) -> bool {
    let is_windows = WINDOWED.contains(&op) && WINDOW.contains(&name);
    let is_recurrent = matches!(op, "GRU" | "LSTM" | "RNN") && RECURRENT.contains(&name);
    let is_of_trees = op.starts_with("TreeEnsemble") && OF_TREES.contains(&name);
    let is_reduced = op.starts_with("Reduce") && OF_REDUCTIONS.contains(&name);
    let is_listed = || KNOWN.iter().any(|(ops, names)| ops.contains(&op) && names.contains(&name));
    is_windows || is_recurrent || is_of_trees || is_reduced || is_listed()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;
    use tract_onnx::pb::attribute_proto::AttributeType;

    use super::super::load::Engine;
    use super::super::plan::Feed;
    use super::super::plan::tests::{model, node};
    use super::super::{check::has, onnx};
    use super::*;
    use crate::error::chain;
    use crate::int8::Int8;
    use crate::int8::lower::is_only_int8;

    /// What ONNX's operators have, and ONNX Runtime's own.
    const SCHEMAS: &str = include_str!("../../tests/models/attributes.json");
    /// What no answer goes by here, whatever it says.
    const REFUSED: [&str; 7] = [
        "Constant.sparse_value",
        "Pad.paddings",
        "Reshape.shape",
        "TopK.k",
        "TreeEnsembleClassifier.base_values_as_tensor",
        "TreeEnsembleClassifier.class_weights_as_tensor",
        "TreeEnsembleClassifier.nodes_values_as_tensor",
    ];

    fn of_operator(full: &str) -> NodeProto {
        let (domain, op) = full.strip_prefix("com.microsoft.").map_or(("", full), |op| (CONTRIB, op));
        let domain = if ["Scaler", "TreeEnsembleClassifier"].contains(&op) { "ai.onnx.ml" } else { domain };
        NodeProto { domain: domain.to_owned(), ..node(op, &["x"], "y", &[]) }
    }

    fn said(name: &str, kind: &str, value: &Value) -> AttributeProto {
        let whole = |value: &Value| value.as_i64().unwrap_or_default();
        let listed = || value.as_array().map_or(&[][..], Vec::as_slice).iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().into();
        AttributeProto {
            name: name.to_owned(),
            r#type: (0..20)
                .find(|one| AttributeType::try_from(*one).is_ok_and(|of| of.as_str_name() == kind))
                .unwrap(),
            i: whole(value),
            s: text(value),
            ints: listed().map(whole).collect(),
            strings: listed().map(text).collect(),
            ..AttributeProto::default()
        }
    }

    #[test]
    fn each_attribute_is_gone_by_or_refused_by_name() {
        let schemas: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(SCHEMAS).unwrap();
        let onnx = onnx();
        let runs = |node: &NodeProto| has(&onnx, node, 17) || is_only_int8(node);
        let ours = onnx.op_register.0.keys().cloned();
        let all: BTreeSet<String> = schemas.keys().cloned().chain(ours).collect();
        let mut wrong = Vec::new();
        for full in all.iter().filter(|full| runs(&of_operator(full))) {
            let with = |attribute: AttributeProto, opset: i64| {
                check(&NodeProto { attribute: vec![attribute], ..of_operator(full) }, opset)
            };
            let why = with(said("surprise", "INT", &Value::Null), 17).unwrap_err();
            assert!(why.contains("\"surprise\""), "{full}: {why}");
            for (name, schema) in schemas.get(full).into_iter().flatten() {
                // As it would be left out, in the last version that has it.
                let value = said(
                    name,
                    schema["type"].as_str().unwrap(),
                    schema.get("default").unwrap_or(&Value::Null),
                );
                let is_taken = with(value, schema["until"].as_i64().unwrap()).is_ok();
                let is_meant = !REFUSED.contains(&format!("{full}.{name}").as_str());
                if is_taken != is_meant {
                    wrong.push(format!("{full}.{name}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn what_is_known_is_an_operators() {
        let schemas: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(SCHEMAS).unwrap();
        // Of operators that ONNX Runtime alone has, under no domain of its own.
        let of_nobody = ["ConstantLike", "ParametricSoftplus", "ScaledTanh", "SimplifiedLayerNormalization"];
        let known = KNOWN
            .iter()
            .flat_map(|(ops, names)| ops.iter().flat_map(|op| names.iter().map(move |name| (*op, *name))));
        let only = ONLY.iter().map(|(op, name, _)| (*op, *name));
        for (op, name) in known.chain(only).filter(|(op, _)| !of_nobody.contains(op)) {
            let is_one = schemas.get(op).is_some_and(|names| names.contains_key(name));
            assert!(is_one, "{op}.{name}");
        }
    }

    #[test]
    fn what_the_runtime_would_leave_out_is_refused_by_the_nodes_name() {
        let int =
            |name: &str, i: i64| AttributeProto { name: name.to_owned(), r#type: 2, i, ..<_>::default() };
        let words = |name: &str, s: &str| AttributeProto { s: s.into(), r#type: 3, ..int(name, 0) };
        let lists =
            |name: &str, ints: &[i64]| AttributeProto { ints: ints.to_vec(), r#type: 7, ..int(name, 0) };
        let zero = AttributeProto { r#type: 1, ..int("max", 0) };
        for (op, attribute) in [
            ("BatchNormalization", int("training_mode", 1)),
            ("Relu", int("alpha", 1)),
            ("SpaceToDepth", words("mode", "OTHER")),
            ("Clip", zero),
            ("Squeeze", lists("axes", &[1])),
            ("ReduceSum", lists("axes", &[1])),
            ("Add", int("axis", 0)),
        ] {
            let name = attribute.name.clone();
            let inputs = if op == "Add" { &["x", "x"][..] } else { &["x"] };
            let one = NodeProto { attribute: vec![attribute], ..node(op, inputs, "y", &[]) };
            let feed = Feed { name: "x".to_owned(), shape: vec![1, 4, 6, 6], is_batched: true };
            let loaded = Engine::of_proto(&onnx(), model(vec![one], vec![]), &[feed], Int8::On);
            let why = loaded.map_or_else(|error| chain(&error), |_| String::new());
            assert!(why.contains("\"of_y\"") && why.contains(op) && why.contains(&name), "{op}: {why}");
        }
    }
}
