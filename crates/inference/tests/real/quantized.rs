//! The small models of `tests/models`: every format and operator that the lowering knows, against the answers of
//! ONNX Runtime, and what it must leave alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use inference::int8::Int8;
use inference::int8::report::Runs;
use inference::{Data, Datatype, InferError, LoadError, Model, Spec, Tensor, TensorSpec};
use serde::Deserialize;

use crate::support::fp32;

/// A line of `models.json`.
#[derive(Deserialize)]
struct Case {
    input: Vec<usize>,
    output: Vec<usize>,
    /// Of an input without rows beside the first.
    #[serde(default)]
    more: Vec<usize>,
    /// The rows are INT64, each so much more than is written.
    #[serde(default)]
    whole_from: Option<i64>,
    /// How far an answer may be from ONNX Runtime's.
    step: f32,
    /// Operators that tract runs.
    tract: Left,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Left {
    Nodes(Vec<String>),
    /// The whole model.
    Whole(#[expect(dead_code, reason = "its presence says it")] String),
}

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/made"));
    std::fs::read(folder.join(name)).unwrap()
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_slice(&file("models.json")).unwrap()
}

impl Case {
    fn spec(&self) -> Spec {
        let of = |name: &str, first: i64, shape: &[usize]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: [first]
                .into_iter()
                .chain(shape[1..].iter().map(|size| i64::try_from(*size).unwrap()))
                .collect(),
        };
        let mut inputs = vec![of("input", -1, &self.input)];
        inputs[0].datatype = if self.whole_from.is_some() { Datatype::Int64 } else { Datatype::Fp32 };
        if !self.more.is_empty() {
            inputs.push(of("more", 1, &self.more));
        }
        let outputs = vec![of("output", -1, &self.output)];
        Spec { inputs, outputs, pre: vec![], post: vec![], labels: vec![] }
    }

    fn load(&self, name: &str, int8: Int8) -> Result<Model, LoadError> {
        Model::load_with(&file(&format!("{name}.onnx")), self.spec(), int8)
    }

    /// The rows that are fed, the second input, and the answers.
    fn values(&self, name: &str) -> [Vec<f32>; 3] {
        let raw = file(&format!("{name}.f32"));
        let mut rows: Vec<f32> = raw.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let mut more = rows.split_off(self.input.iter().product());
        let size = if self.more.is_empty() { 0 } else { self.more.iter().product() };
        let answers = more.split_off(size);
        assert_eq!(answers.len(), self.output.iter().product::<usize>(), "{name}");
        [rows, more, answers]
    }

    fn ask(&self, model: &Model, rows: &[f32], more: &[f32]) -> Vec<f32> {
        let mut shape = self.input.clone();
        shape[0] = rows.len() / shape[1..].iter().product::<usize>();
        #[expect(clippy::cast_possible_truncation, reason = "they are small whole numbers")]
        let rows = match self.whole_from {
            Some(first) => Data::Int64(rows.iter().map(|value| first + *value as i64).collect()),
            None => Data::Fp32(rows.to_vec()),
        };
        let mut inputs = vec![Tensor::new("input", shape, rows).unwrap()];
        if !more.is_empty() {
            inputs.push(Tensor::new("more", self.more.clone(), Data::Fp32(more.to_vec())).unwrap());
        }
        fp32(&model.infer(inputs).unwrap()[0]).to_vec()
    }
}

/// How many of a model's steps are such, by what they are called for people.
fn steps_called(name: &str, what: &str) -> usize {
    let case = &cases()[name];
    let [mut row, _, _] = case.values(name);
    row.truncate(case.input[1..].iter().product());
    let shape = [&[1], &case.input[1..]].concat();
    let input = Tensor::new("input", shape, Data::Fp32(row)).unwrap();
    let model = case.load(name, Int8::On).unwrap();
    let Ok(steps) = model.profile(&[input], 1, &mut || std::time::Duration::ZERO);
    steps.unwrap().iter().filter(|step| step.what.starts_with(what)).count()
}

fn furthest(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
}

#[test]
fn answers_are_within_one_step_of_onnx_runtimes() {
    let mut wrong = Vec::new();
    for (name, case) in cases() {
        let [rows, more, want] = case.values(&name);
        match case.load(&name, Int8::On) {
            Ok(model) => {
                let off = furthest(&case.ask(&model, &rows, &more), &want);
                if off > case.step * 1.001 {
                    wrong.push(format!("{name}: {off} off, {} allowed\n{}", case.step, model.report()));
                }
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_what_is_not_understood_is_left_to_tract() {
    let mut wrong = Vec::new();
    for (name, case) in cases() {
        let model = case.load(&name, Int8::On).unwrap();
        let report = model.report();
        let is_right = match &case.tract {
            Left::Whole(_) => report.why_not.is_some() && !report.is_int8(),
            Left::Nodes(nodes) => {
                let left: Vec<&str> = report.fallbacks().map(|node| node.op.as_str()).collect();
                report.is_int8() && left == *nodes
            }
        };
        if !is_right {
            wrong.push(format!("{name}: {report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_row_gets_the_same_answer_alone_and_in_a_batch() {
    for (name, case) in cases() {
        let [rows, more, _] = case.values(&name);
        let model = case.load(&name, Int8::On).unwrap();
        let together = case.ask(&model, &rows, &more);
        let alone: Vec<f32> =
            rows.chunks(rows.len() / case.input[0]).flat_map(|row| case.ask(&model, row, &more)).collect();
        // What tract runs in f32 adds in another order for a batch.
        let most =
            if matches!(case.tract, Left::Nodes(ref nodes) if nodes.is_empty()) { 0.0 } else { case.step };
        assert!(furthest(&together, &alone) <= most, "{name}");
    }
}

#[test]
fn a_pad_is_copied_only_where_no_window_reaches_over_it() {
    for (name, copies) in [
        ("qdq_pad_qdq", 0),
        ("qdq_pad_s8", 0),
        ("qdq_pad_depthwise", 0),
        ("qdq_pad_padded_too", 0),
        ("qlinear_pad_u8", 0),
        ("qdq_pad_pointwise", 1),
        ("qdq_pad_read_twice", 1),
    ] {
        assert_eq!(steps_called(name, "copy a region"), copies, "{name}");
    }
}

#[test]
fn a_function_is_calculated_where_its_result_is_quantized() {
    for name in ["scales_of_channels_silu", "scales_of_channels_hard_swish", "scales_of_channels_hard_gate"] {
        let counts = ["linear and f32 function", "f32 function and quantize", "f32 function"];
        assert_eq!(counts.map(|what| steps_called(name, what)), [1, 0, 0], "{name}");
        // What is fused away has no place: in f32 it would take as much again.
        let model = cases()[name].load(name, Int8::On).unwrap();
        assert!(model.report().activation_bytes < 6_000, "{name}: {}", model.report().activation_bytes);
    }
}

#[test]
fn an_id_beyond_the_table_is_the_callers_fault_and_names_the_node() {
    let model = cases()["ids_near"].load("ids_near", Int8::On).unwrap();
    let ids = |one: i64| Tensor::new("input", vec![1, 5], Data::Int64(vec![0, 1, one, 3, 4])).unwrap();
    assert!(model.infer(vec![ids(19)]).is_ok());
    for place in [20, 1 << 32] {
        let error = model.infer(vec![ids(place)]).unwrap_err();
        let is_named = matches!(&error, InferError::NoPlace { node, place: got, size: 20 } if node.starts_with("node_") && *got == place);
        assert!(is_named && error.is_caller_fault(), "{error}");
    }
}

#[test]
fn the_switch_leaves_everything_to_tract() {
    let case = &cases()["qdq_conv_u8s8_channel"];
    let model = case.load("qdq_conv_u8s8_channel", Int8::Off).unwrap();
    assert!(model.report().why_not.as_deref().unwrap().contains("switch"));
    assert!(!model.report().is_int8());
}

#[test]
fn what_tract_quantizes_saturates() {
    for name in ["quantized_far_u8", "quantized_far_s8"] {
        let case = &cases()[name];
        let [rows, more, want] = case.values(name);
        let model = case.load(name, Int8::Off).unwrap();
        assert!(furthest(&case.ask(&model, &rows, &more), &want) <= case.step, "{name}");
    }
}

#[test]
fn an_island_stands_in_the_report_with_its_reason() {
    let case = &cases()["island"];
    let model = case.load("island", Int8::On).unwrap();
    let report = model.report();
    assert!(report.macs() > 0 && report.weight_bytes > 0 && report.activation_bytes > 0, "{report}");
    for node in report.fallbacks() {
        let Runs::Tract { why } = &node.runs else { panic!("{node:?}") };
        assert!(!why.is_empty() && report.to_string().contains(&node.name), "{report}");
    }
}

#[test]
fn nodes_of_one_name_are_left_to_tract_like_others() {
    // ONNX asks for no names of their own; tract's debug builds do.
    let case = &cases()["island"];
    let mut twins = file("island.onnx");
    let place = twins.windows(7).position(|name| name == b"node_25").unwrap();
    twins[place..place + 7].copy_from_slice(b"node_23");
    let model = Model::load_with(&twins, case.spec(), Int8::On).unwrap();
    assert_eq!(model.report().fallbacks().count(), 2, "{}", model.report());
    assert!(model.report().is_int8());
}

#[test]
fn a_quantized_model_of_which_nothing_is_lowered_says_so_for_each_node() {
    let case = &cases()["none_lowered"];
    let model = case.load("none_lowered", Int8::On).unwrap();
    let report = model.report();
    assert!(report.to_string().contains("none of its nodes could be lowered"), "{report}");
    let left: Vec<&str> = report.fallbacks().map(|node| node.op.as_str()).collect();
    assert_eq!(left, ["MatMul", "Identity"]);
    assert!(report.to_string().contains("\"input\" isn't quantized"), "{report}");
}

#[test]
fn an_operator_that_only_int8_has_is_refused_with_what_keeps_it_from_int8() {
    let name = "qlinear_pool_beyond";
    let error = cases()[name].load(name, Int8::Off).unwrap_err();
    assert!(matches!(&error, LoadError::OnlyInt8 { op, .. } if op == "QLinearAveragePool"), "{error}");
    assert!(error.to_string().contains("the switch is off"), "{error}");
}

#[test]
fn what_onnx_has_words_for_runs_without_int8() {
    let cases = cases();
    let has_words = |name: &&String| {
        let begins = ["qgemm", "qlinear_concat", "qlinear_pair", "qlinear_softmax", "qlinear_unary"];
        let of_images_and_rows = ["channels_last", "dynamic_other", "dynamic_quantize", "dynamic_to_float"];
        begins.iter().chain(&of_images_and_rows).any(|begin| name.starts_with(begin))
            || name.starts_with("qlinear_pool") && !name.ends_with("beyond")
    };
    let mut tried = 0;
    for name in cases.keys().filter(has_words) {
        let case = &cases[name];
        let [rows, more, want] = case.values(name);
        let model = case.load(name, Int8::Off).unwrap();
        let off = furthest(&case.ask(&model, &rows, &more), &want);
        assert!(off <= case.step * 1.001, "{name}: {off} off, {} allowed", case.step);
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn an_axis_that_is_counted_from_both_ends_is_not_sliced_twice() {
    let name = "qdq_move_slice";
    let case = &cases()[name];
    let mut twice = file(&format!("{name}.onnx"));
    let axes = [1_i64, 3].map(i64::to_le_bytes).concat();
    let place = twice.windows(axes.len()).position(|bytes| bytes == axes).unwrap();
    twice[place + 8..][..8].copy_from_slice(&(-3_i64).to_le_bytes());
    if let Ok(model) = Model::load_with(&twice, case.spec(), Int8::On) {
        assert!(model.report().to_string().contains("names an axis twice"), "{}", model.report());
    }
}

#[test]
fn changed_bytes_never_crash_the_lowering() {
    let mut state = 11_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for (name, case) in cases() {
        let whole = file(&format!("{name}.onnx"));
        for _ in 0..12 {
            let mut changed = whole.clone();
            for _ in 0..2 {
                let place = random(changed.len());
                changed[place] = random(256).to_le_bytes()[0];
            }
            if let Ok(model) = Model::load_with(&changed, case.spec(), Int8::On) {
                let why = model.report().why_not.clone().unwrap_or_default();
                assert!(!why.contains("panicked"), "{name}: {why}");
            }
        }
    }
}
