//! MobileNet v2 in int8 as a release: the model that `cargo xtask bench int8` measures, its own inputs as golden
//! samples, a reference built by the product, 1000 class names.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testkit::rig::Fleet;

use crate::bench::int8::models::{self, Models};

/// Name of model and net.
pub(super) const MODEL: &str = "mobilenet_v2";
/// Its version.
pub(super) const VERSION: &str = "1.0.0";
const SIDE: usize = 224;
const PIXELS: usize = 3 * SIDE * SIDE;
const CLASSES: usize = 1000;
/// Rows of the reference: enough for bins, few enough to be counted in seconds.
const ROWS: usize = 16;
/// Requests to the served model: a camera that looks four times a second.
const PAUSE: Duration = Duration::from_millis(250);

/// Publishes the release; `folder` takes what it is built from.
///
/// # Errors
/// When the model can't be made, or a step of publishing is refused.
pub(super) fn publish(fleet: &Fleet, folder: &Path) -> Result<Vec<f32>> {
    let models = Models::ensure(&models::python()?)?;
    let file = |name: &str| models.folder.join(format!("{MODEL}.{name}"));
    let inputs = floats(&file("input.f32"))?;
    let scores = floats(&file("int8.f32"))?;
    ensure!(inputs.len() >= PIXELS && scores.len() >= CLASSES, "the files of {MODEL} are too short");
    let (image, scores) = (&inputs[..PIXELS], softmax(&scores[..CLASSES]));
    // The rig names a release's folder by its version.
    let folder = folder.join(MODEL).join(VERSION);
    fs::create_dir_all(&folder)?;
    fs::copy(file("int8.onnx"), folder.join("int8.onnx")).context("cannot copy the model")?;
    fs::write(folder.join("card.md"), "MobileNet v2 with random weights, quantized: for measuring only.\n")?;
    let golden = json!({ "tolerance": { "abs": 0.05 }, "samples": [{
        "inputs": [{ "name": "input", "datatype": "FP32", "shape": [1, 3, SIDE, SIDE], "data": image }],
        "outputs": [{ "name": "output", "datatype": "FP32", "shape": [1, CLASSES], "data": scores }],
    }]});
    fs::write(folder.join("golden.json"), golden.to_string())?;
    let spec = folder.join("release.toml");
    fs::write(&spec, spec_text())?;
    let data = folder.join("data.csv");
    fs::write(&data, rows(&inputs))?;
    let (spec_name, data) = (spec.display().to_string(), data.display().to_string());
    fleet.cli.run(&["reference", "build", &spec_name, "--data", &data])?;
    fleet.publish(&spec)?;
    Ok(image.to_vec())
}

fn spec_text() -> String {
    let labels: Vec<String> = (0..CLASSES).map(|class| format!("\"class {class}\"")).collect();
    format!(
        r#"model = "{MODEL}"
version = "{VERSION}"
counter = 1
min_agent_version = "0.1.0"
labels = [{labels}]
reference = "reference.json"
golden = "golden.json"
card = "card.md"

[runtime]
tract = "0.23"
opset = 17

[[inputs]]
name = "input"
datatype = "FP32"
shape = [-1, 3, {SIDE}, {SIDE}]

[[outputs]]
name = "output"
datatype = "FP32"
shape = [-1, {CLASSES}]

[[post]]
kind = "softmax"

[[variants]]
name = "int8"
precision = "int8"
file = "int8.onnx"
peak_memory_bytes = 33_554_432

[monitor]
type = "image"
input = "input"
height = {SIDE}
width = {SIDE}
channels = 3
range = [-3.0, 3.0]
layout = "nchw"

[budgets]
latency_p95_us = 1_000_000
memory_bytes = 67_108_864

[probation]
duration_s = 3
max_error_percent = 5.0
max_p95_us = 1_000_000
min_requests = 0
"#,
        labels = labels.join(", ")
    )
}

/// The recorded inputs in turn, each time a little brighter.
fn rows(inputs: &[f32]) -> String {
    let recorded = inputs.chunks_exact(PIXELS);
    let mut text = (0..PIXELS).map(|column| format!("p{column}")).collect::<Vec<_>>().join(",");
    for (row, image) in recorded.cycle().take(ROWS).enumerate() {
        let brighter = 0.02 * row as f32;
        text.push('\n');
        for (column, value) in image.iter().enumerate() {
            let comma = if column == 0 { "" } else { "," };
            // Writing to a string can't fail.
            let _ = write!(text, "{comma}{:.3}", value + brighter);
        }
    }
    text
}

fn floats(file: &PathBuf) -> Result<Vec<f32>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let powers: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// An application that asks for one image again and again, as binary tensors, until it is dropped.
pub(super) struct Asking {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Asking {
    pub(super) fn start(base_url: &str, image: &[f32]) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let url = format!("{base_url}/v2/models/{MODEL}/infer");
        let (header_length, body) = request(image);
        let (is_over, count) = (stop.clone(), answered.clone());
        let thread = std::thread::spawn(move || {
            let client: ureq::Agent =
                ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
            let mut next = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                let request = client.post(&url).header("Inference-Header-Content-Length", &header_length);
                if request.send(&body[..]).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                next += PAUSE;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// Requests that were answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Length of the JSON part, and the whole body.
fn request(image: &[f32]) -> (String, Vec<u8>) {
    let behind: Vec<u8> = image.iter().flat_map(|value| value.to_le_bytes()).collect();
    let json = json!({
        "inputs": [{
            "name": "input", "datatype": "FP32", "shape": [1, 3, SIDE, SIDE],
            "parameters": { "binary_data_size": behind.len() },
        }],
        "outputs": [{ "name": "output", "parameters": { "binary_data": true } }],
    });
    let json = json.to_string();
    (json.len().to_string(), [json.as_bytes(), &behind].concat())
}
