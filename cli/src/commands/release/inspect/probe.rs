//! Measuring one variant, in a process of its own: its memory is then the variant's alone, and a model that
//! brings the runtime down takes nothing else with it. Called by `inspect` itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use inference::golden::{self, GoldenSet};
use inference::int8::StepTime;
use inference::int8::kernel::Level;
use inference::int8::report::{NodeReport, Report, Runs};
use inference::{Model, features};
use serde_json::{Value, json};

use super::subject::Subject;
use crate::commands::reference::read_rows;
use crate::output::Format;

/// Which variant of what.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The spec or the release folder.
    release: PathBuf,
    /// The variant.
    #[arg(long)]
    variant: String,
    /// Evaluation data as CSV.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Time for measuring latency; at least [`MIN_RUNS`], at most [`MAX_RUNS`].
const MEASURING: Duration = Duration::from_secs(3);
const MIN_RUNS: usize = 30;
const MAX_RUNS: usize = 1000;

/// Measures and prints one JSON object.
///
/// # Errors
/// When the variant can't be loaded, with the operator's name; when a row of the data doesn't fit.
pub(crate) fn run(args: &Args) -> Result<()> {
    let subject = Subject::at(&args.release)?;
    let (variant, onnx) = subject.variant(&args.variant)?;
    let makeup = Model::makeup(&onnx, &subject.spec)?;
    let before = Memory::now()?;
    let start = Instant::now();
    let model = Model::load(&onnx, subject.spec.clone())?;
    let load = start.elapsed();
    let set = GoldenSet::parse(&subject.golden()?).context("the golden samples are not acceptable")?;
    let latency = latency(&model, &set)?;
    let loaded = Memory::now()?;
    let steps = steps(&model, &set);
    let golden = golden::check(&model, &set, &mut || Duration::ZERO);
    let accuracy = args.data.as_ref().map(|data| accuracy(&model, data)).transpose()?;
    let macs = makeup.macs.or_else(|| u64::try_from(model.report().macs()).ok().filter(|macs| *macs > 0));
    let said = json!({
        "variant": variant.name, "precision": variant.precision, "size_bytes": onnx.len(),
        "parameters": makeup.parameters, "macs": macs, "flops": macs.map(|macs| macs.saturating_mul(2)),
        "opset": makeup.opset, "operators": makeup.operators, "runs": runs(model.report()),
        "steps": steps, "tract_time_share": tract_share(&steps),
        "load_us": micros(load), "latency_us": latency,
        "loaded_bytes": loaded.resident.saturating_sub(before.resident),
        "peak_memory_bytes": loaded.peak.saturating_sub(before.resident),
        "golden": { "samples": golden.samples, "passed": golden.passed, "first_failure": golden.first_failure },
        "measured_accuracy": accuracy, "claimed_accuracy": variant.accuracy,
    });
    Format::Json.print(&said, |_| String::new())
}

/// Which nodes run in int8, and which don't and why.
fn runs(report: &Report) -> Value {
    let count = |runs: &Runs| report.nodes.iter().filter(|node| node.runs == *runs).count();
    let level = report.nodes.iter().find_map(|node| node.level);
    json!({
        "int8_nodes": count(&Runs::Int8), "f32_nodes": count(&Runs::Float),
        "tract_nodes": report.fallbacks().count(), "why_all_tract": report.why_not,
        "int8_macs": report.macs(), "kernels": level.map(Level::name),
        "weight_bytes": report.weight_bytes, "activation_bytes": report.activation_bytes,
        "nodes": report.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

fn node(node: &NodeReport) -> Value {
    let (runs, why) = match &node.runs {
        Runs::Int8 => ("int8", None),
        Runs::Float => ("f32", None),
        Runs::Tract { why } => ("tract", Some(why)),
    };
    json!({ "name": node.name, "op": node.op, "runs": runs, "why": why, "macs": node.macs })
}

/// What each step costs, in nanoseconds; nothing where tract runs the whole model or takes several rows only.
fn steps(model: &Model, set: &GoldenSet) -> Vec<Value> {
    let start = Instant::now();
    let sample = set.samples.first().map_or(&[][..], |sample| sample.inputs.as_slice());
    let steps = model.profile(sample, MIN_RUNS, &mut || start.elapsed()).unwrap_or_default();
    let one = |mut step: StepTime| {
        step.times.sort_unstable();
        let median = step.times.get(step.times.len() / 2).map(Duration::as_nanos);
        let time_ns = median.and_then(|time| u64::try_from(time).ok());
        json!({ "what": step.what, "is_tract": step.is_tract, "macs": step.macs, "time_ns": time_ns })
    };
    steps.into_iter().map(one).collect()
}

/// The share of the time that goes into steps of tract's.
fn tract_share(steps: &[Value]) -> Option<f64> {
    let time = |step: &Value| step["time_ns"].as_u64().unwrap_or_default();
    let all: u64 = steps.iter().map(time).sum();
    let of_tract: u64 = steps.iter().filter(|step| step["is_tract"] == true).map(time).sum();
    (all > 0).then(|| of_tract as f64 / all as f64)
}

/// Percentiles of one request, pre- and post-processing included.
fn latency(model: &Model, set: &GoldenSet) -> Result<Value> {
    let mut times = Vec::new();
    let start = Instant::now();
    for sample in set.samples.iter().cycle() {
        let inputs = sample.inputs.clone();
        let begin = Instant::now();
        model.infer(inputs).context("the model fails on a golden sample")?;
        times.push(micros(begin.elapsed()));
        let is_enough = times.len() >= MIN_RUNS && start.elapsed() >= MEASURING;
        if is_enough || times.len() >= MAX_RUNS {
            break;
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
    Ok(json!({ "runs": times.len(), "p50": at(50), "p90": at(90), "p95": at(95), "p99": at(99) }))
}

/// The share of labelled rows that the model gets right.
fn accuracy(model: &Model, data: &std::path::Path) -> Result<Value> {
    let labels = &model.spec().labels;
    let (mut right, mut all) = (0_u32, 0_u32);
    for (place, row) in read_rows(data, model.spec())?.into_iter().enumerate() {
        let Some(label) = row.label else { continue };
        let outputs = model.infer(row.inputs).with_context(|| format!("row {} fails", place + 1))?;
        let class = features::answers(&outputs, labels.len()).first().and_then(features::Answer::class);
        all += 1;
        right += u32::from(class.and_then(|class| labels.get(class)) == Some(&label));
    }
    anyhow::ensure!(all > 0, "{} has no labelled row", data.display());
    Ok(json!({ "rows": all, "right": right, "share": f64::from(right) / f64::from(all) }))
}

/// This process's memory.
struct Memory {
    resident: u64,
    peak: u64,
}

impl Memory {
    fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        let bytes = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("/proc/self/status has no {key}"))
        };
        Ok(Self { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
