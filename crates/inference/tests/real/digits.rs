//! The real artifacts of `examples/digits` under the real runtime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{bytes, fp32, held_out, images, model, spec};
use inference::golden::{self, GoldenSet};
use inference::{Data, InferError, LoadError, Model, Tensor, TensorSpec};

const RELEASES: [&str; 3] = ["1.0.0", "1.1.0", "2.0.0"];
const VARIANTS: [&str; 3] = ["int8", "f16", "f32"];

#[test]
fn every_variant_answers_its_golden_samples() {
    for release in RELEASES {
        let set = GoldenSet::parse(&bytes(&format!("{release}/golden.json"))).unwrap();
        for variant in VARIANTS {
            let start = Instant::now();
            let Ok(report) = golden::check(&model(release, variant), &set, &mut || start.elapsed());
            assert!(report.is_passed() && report.samples > 0, "{release} {variant}: {report:?}");
            assert!(report.p50 > Duration::ZERO && report.p50 <= report.p95, "{report:?}");
        }
    }
}

#[test]
fn another_releases_golden_samples_fail_and_say_where() {
    let set = GoldenSet::parse(&bytes("2.0.0/golden.json")).unwrap();
    let Ok(report) = golden::check(&model("1.1.0", "int8"), &set, &mut || Duration::ZERO);
    assert!(!report.is_passed());
    assert!(report.first_failure.unwrap().contains("scores"));
    assert!(report.worst.unwrap().difference > set.tolerance.abs);
}

#[test]
fn held_out_accuracy_is_what_the_card_says() {
    let rows = held_out();
    for release in RELEASES {
        let card = String::from_utf8(bytes(&format!("{release}/card.md"))).unwrap();
        for variant in VARIANTS {
            let model = model(release, variant);
            let right: usize = rows.chunks(100).map(|rows| right_answers(&model, rows)).sum();
            let measured = right as f64 * 100.0 / rows.len() as f64;
            let line = card.lines().find(|line| line.starts_with(&format!("| {variant} |"))).unwrap();
            let said = line.split('|').nth(3).unwrap().trim().trim_end_matches(" %").parse::<f64>().unwrap();
            // The card was measured with ONNX Runtime: int8 rounds otherwise there, which may tip one image of 500.
            let one_image = 100.0 / rows.len() as f64;
            let is_close = (measured - said).abs() <= one_image + 0.05;
            assert!(is_close, "{release} {variant}: measured {measured:.1} %, the card says {line}");
        }
    }
}

fn right_answers(model: &Model, rows: &[(usize, Vec<f32>)]) -> usize {
    let outputs = model.infer(&[images(rows)]).unwrap();
    let best = |row: &[f32]| (0..10).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    fp32(&outputs[0]).chunks(10).zip(rows).filter(|(scores, (label, _))| best(scores) == *label).count()
}

#[test]
fn a_batch_gives_the_same_answers_as_single_rows() {
    let rows = &held_out()[..7];
    for variant in VARIANTS {
        let model = model("1.1.0", variant);
        let together = model.infer(&[images(rows)]).unwrap();
        assert_eq!(together[0].shape(), [7, 10]);
        for (place, row) in rows.iter().enumerate() {
            let alone = model.infer(&[images(std::slice::from_ref(row))]).unwrap();
            for (a, b) in fp32(&alone[0]).iter().zip(&fp32(&together[0])[place * 10..]) {
                assert!((a - b).abs() < 1e-6, "{variant} row {place}: {a} alone, {b} in a batch");
            }
        }
    }
}

#[test]
fn many_threads_share_one_model() {
    let rows = held_out();
    let model = Arc::new(model("1.1.0", "int8"));
    let expected = model.infer(&[images(&rows[..1])]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(model.infer(&[images(&rows[..1])]).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn inputs_that_break_the_signature_say_expected_and_got() {
    let model = model("1.0.0", "int8");
    let error = |inputs: Vec<Tensor>| {
        let error = model.infer(&inputs).unwrap_err();
        assert!(error.is_caller_fault(), "{error}");
        error.to_string()
    };
    let tensor = |name: &str, shape: &[usize]| {
        Tensor::new(name, shape.to_vec(), Data::Fp32(vec![0.0; shape.iter().product()])).unwrap()
    };
    assert!(
        error(vec![tensor("image", &[1, 1, 8, 9])]).contains("[-1, 1, 8, 8] (-1 = batch), got [1, 1, 8, 9]")
    );
    assert!(error(vec![tensor("image", &[64])]).contains("got [64]"));
    assert!(error(vec![tensor("picture", &[1, 1, 8, 8])]).contains("\"image\" is missing"));
    assert!(error(vec![]).contains("\"image\" is missing"));
    let twice = vec![tensor("image", &[1, 1, 8, 8]), tensor("image", &[1, 1, 8, 8])];
    assert!(error(twice).contains("given twice"));
    assert!(error(vec![tensor("image", &[0, 1, 8, 8])]).contains("batch of 0 rows"));
    assert!(error(vec![tensor("image", &[257, 1, 8, 8])]).contains("batch of 257 rows"));
    let integers = Tensor::new("image", vec![1, 1, 8, 8], Data::Uint8(vec![0; 64])).unwrap();
    assert!(error(vec![integers]).contains("must be FP32, got UINT8"));
}

#[test]
fn a_signature_that_the_model_does_not_keep_is_found_at_load() {
    let onnx = bytes("1.0.0/f32.onnx");
    let fails = |change: &dyn Fn(&mut inference::Spec)| {
        let mut spec = spec();
        change(&mut spec);
        Model::load(&onnx, spec).unwrap_err()
    };
    let why = fails(&|spec| spec.inputs[0].shape = vec![-1, 1, 9, 9]);
    assert!(matches!(why, LoadError::Signature { .. }), "{why}");
    let why = fails(&|spec| spec.outputs[0].shape = vec![-1, 11]);
    assert!(matches!(why, LoadError::Signature { .. }), "{why}");
    let why = fails(&|spec| {
        let more = TensorSpec { name: "more".into(), ..spec.inputs[0].clone() };
        spec.inputs.push(more);
    });
    assert!(why.to_string().contains("more"), "{why}");
    let why =
        fails(&|spec| spec.pre.push(release::PreStep::Standardise { mean: vec![0.0; 3], std: vec![1.0; 3] }));
    assert!(matches!(why, LoadError::WarmUp(InferError::Pre { .. })), "{why}");
}
