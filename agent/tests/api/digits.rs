//! The digits example as a release in memory.

use std::path::PathBuf;
use std::sync::Arc;

use flotilla_agent::slots::{Loaded, Pace};
use inference::{Model, Spec};
use profile::ReferenceBuilder;
use profile::features::Extractor;
use protocol::ReleaseRef;
use release::{BlobRef, DraftManifest};
use serde_json::{Value, json};

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits"));
    std::fs::read(folder.join(name)).unwrap()
}

/// True label and pixels of some images.
pub(crate) fn images(part: &str) -> Vec<(String, Vec<f32>)> {
    let text = String::from_utf8(file(&format!("data/{part}.csv"))).unwrap();
    let row = |line: &str| {
        let (label, pixels) = line.split_once(',').unwrap();
        (label.to_owned(), pixels.split(',').map(|pixel| pixel.parse().unwrap()).collect())
    };
    text.lines().skip(1).map(row).collect()
}

/// A version of digits, ready to answer, with its own reference profile.
pub(crate) fn loaded(version: &str) -> Arc<Loaded> {
    loaded_with(version, &json!({}))
}

/// The same with a reference that knows no classes.
pub(crate) fn loaded_without_classes(version: &str) -> Arc<Loaded> {
    let mut builder = ReferenceBuilder::new(Extractor::Nothing, Vec::new());
    (0..20).for_each(|value| builder.add_valued(&[], f64::from(value)));
    let mut loaded = Arc::into_inner(loaded(version)).unwrap();
    loaded.reference = Arc::new(builder.build().unwrap().to_json());
    Arc::new(loaded)
}

/// The same with a privacy policy.
pub(crate) fn loaded_with(version: &str, privacy: &Value) -> Arc<Loaded> {
    let onnx = file(&format!("{version}/int8.onnx"));
    let draft = draft(version, &onnx, privacy);
    let runtime = Model::load(&onnx, Spec::of(&draft).unwrap()).unwrap();
    Arc::new(Loaded {
        model: draft.model.clone(),
        release: ReleaseRef {
            version: draft.version.clone(),
            digest: draft.digest(),
            counter: draft.counter,
        },
        variant: "int8".into(),
        manifest: Arc::new((*draft).clone()),
        runtime,
        reference: Arc::new(file(&format!("{version}/reference.json"))),
        pace: Pace::default(),
    })
}

fn draft(version: &str, onnx: &[u8], privacy: &Value) -> DraftManifest {
    let blob = |bytes: &[u8]| serde_json::to_value(BlobRef::of(bytes, "application/octet-stream")).unwrap();
    let manifest = json!({
        "format": 1, "model": "digits", "version": version, "counter": 1, "created": "2026-11-21T00:00:00Z",
        "min_agent_version": "0.1.0", "runtime": {"tract": "0.23", "opset": 17},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        "pre": [{"kind": "scale", "factor": 0.0625}], "post": [{"kind": "softmax"}],
        "variants": [{"name": "int8", "precision": "int8", "model": blob(onnx), "peak_memory_bytes": 1_000_000}],
        "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "reference": blob(b"reference"), "golden": blob(b"golden"), "card": blob(b"card"),
        "monitor": {"type": "image", "input": "image", "height": 8, "width": 8, "channels": 1, "range": [0, 16],
                    "layout": "nchw"},
        "budgets": {"latency_p95_us": 50_000, "memory_bytes": 1_000_000},
        "probation": {"duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000},
        "privacy": privacy,
    });
    DraftManifest::parse_unsigned(&serde_json::to_vec(&manifest).unwrap()).unwrap()
}
