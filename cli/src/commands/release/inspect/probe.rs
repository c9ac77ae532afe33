//! Measuring one variant, in a process of its own: its memory is then the variant's alone, and a model that
//! brings the runtime down takes nothing else with it. Called by `inspect` itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use inference::golden::GoldenReport;
use inference::golden::{self, GoldenSet};
use inference::int8::kernel::Level;
use inference::int8::report::{NodeReport, Report, Runs};
use inference::measure::{self, Latency, Steps};
use inference::{Model, features};
use release::BlobRef;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use serde_json::{Value, json};

use super::super::within;
use super::subject::Subject;
use crate::commands::reference::read_labelled;
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
    /// Seconds that loading, measuring and counting what it is made of may take together.
    #[arg(long, default_value_t = within::DEFAULT_S)]
    time_limit: u64,
}

/// Time for measuring latency; at least [`MIN_RUNS`], at most [`MAX_RUNS`].
const MEASURING: Duration = Duration::from_secs(3);
const MIN_RUNS: usize = 30;
/// Addresses that threads and the allocator reserve without memory behind them.
const RESERVED_BYTES: u64 = 512 << 20;
const MAX_RUNS: usize = 1000;

/// Measures and prints one JSON object.
///
/// # Errors
/// When the variant can't be loaded, with the operator's name, or not in time; when a row of the data doesn't fit.
pub(crate) fn run(args: &Args) -> Result<()> {
    end_with_parent()?;
    Memory::bound();
    let subject = Subject::at(&args.release)?;
    let (variant, onnx) = subject.variant(&args.variant)?;
    let (onnx, golden) = (Arc::new(onnx), subject.golden()?);
    let limit = Duration::from_secs(args.time_limit);
    let until = Instant::now() + limit;
    let before = Memory::now()?;
    let (file, spec) = (onnx.clone(), subject.spec.clone());
    let loading = move || {
        let start = Instant::now();
        Model::load(&file, spec).map(|model| (model, start.elapsed()))
    };
    let left = || until.saturating_duration_since(Instant::now());
    let (model, load) = within::limit("loading it", left(), loading)??;
    let set = GoldenSet::parse(&golden).context("the golden samples are not acceptable")?;
    let data = args.data.clone();
    let measuring = move || Measured::of(&model, &set, data.as_deref()).map(|measured| (model, measured));
    let (model, measured) = within::limit("measuring it", left(), measuring)??;
    let Measured { latency, loaded, steps, checked, accuracy } = measured;
    // Not before loading: what counting gives back to the allocator would hold the model without being counted.
    let (file, spec) = (onnx.clone(), subject.spec.clone());
    let makeup = within::limit("counting what it is made of", left(), move || Model::makeup(&file, &spec))??;
    let macs = makeup.macs.or_else(|| u64::try_from(model.report().macs()).ok().filter(|macs| *macs > 0));
    let said = json!({
        "variant": variant.name, "precision": variant.precision, "size_bytes": onnx.len(),
        "measured_on": subject.fingerprint(&onnx, &golden),
        "parameters": makeup.parameters, "macs": macs, "flops": macs.map(|macs| macs.saturating_mul(2)),
        "opset": makeup.opset, "operators": makeup.operators, "runs": runs(model.report(), &steps), "mixes_rows": model.mixes_rows(),
        "steps": steps.0.iter().map(step).collect::<Vec<_>>(), "tract_time_share": steps.tract_share(),
        "load_us": micros(load), "latency_us": {
            "runs": latency.runs, "p50": micros(latency.p50), "p90": micros(latency.p90),
            "p95": micros(latency.p95), "p99": micros(latency.p99),
        },
        "loaded_bytes": loaded.resident.saturating_sub(before.resident),
        "peak_memory_bytes": loaded.peak.saturating_sub(before.resident),
        "golden": { "samples": checked.samples, "passed": checked.passed, "first_failure": checked.first_failure },
        "measured_accuracy": accuracy, "claimed_accuracy": variant.accuracy,
    });
    Format::Json.print(&said, |_| String::new())
}

/// Ends this process with the one that started it, however that ends: nobody reads then what is found.
fn end_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with the caller")
}

/// What running a loaded variant shows.
struct Measured {
    latency: Latency,
    loaded: Memory,
    steps: Steps,
    checked: GoldenReport,
    accuracy: Option<Value>,
}

impl Measured {
    fn of(model: &Model, set: &GoldenSet, data: Option<&Path>) -> Result<Self> {
        let start = Instant::now();
        let mut go_on = |runs| runs < MAX_RUNS && (runs < MIN_RUNS || start.elapsed() < MEASURING);
        let Ok(latency) = measure::latency(model, set, &mut || start.elapsed(), &mut go_on);
        let latency = latency.context("the model fails on a golden sample")?;
        let loaded = Memory::now()?;
        let Ok(steps) = Steps::of(model, set, MIN_RUNS, &mut || start.elapsed());
        let Ok(checked) = golden::check(model, set, &mut || Duration::ZERO);
        let accuracy = data.map(|data| accuracy(model, data)).transpose()?;
        Ok(Self { latency, loaded, steps, checked, accuracy })
    }
}

/// Which nodes run in int8, and which don't and why.
fn runs(report: &Report, steps: &Steps) -> Value {
    let count = |runs: &Runs| report.nodes.iter().filter(|node| node.runs == *runs).count();
    let level = report.nodes.iter().find_map(|node| node.level);
    json!({
        "int8_nodes": count(&Runs::Int8), "f32_nodes": count(&Runs::Float),
        "tract_nodes": report.fallbacks().count(), "why_all_tract": report.why_not,
        "int8_macs": report.macs(), "kernels": level.map(Level::name),
        "weight_bytes": report.weight_bytes, "activation_bytes": report.activation_bytes,
        "nodes": report.nodes.iter().map(|one| node(one, steps)).collect::<Vec<_>>(),
    })
}

fn node(node: &NodeReport, steps: &Steps) -> Value {
    let (runs, why) = match &node.runs {
        Runs::Int8 => ("int8", None),
        Runs::Float => ("f32", None),
        Runs::Tract { why } => ("tract", Some(why)),
    };
    let share = why.and_then(|_| steps.share_of(&node.name));
    json!({
        "name": node.name, "op": node.op, "runs": runs, "why": why, "macs": node.macs,
        "time_share": share.map(|(share, _)| share), "nodes_in_that_time": share.map(|(_, nodes)| nodes),
    })
}

/// What a step costs.
fn step(step: &measure::StepMedian) -> Value {
    let time_ns = u64::try_from(step.time.as_nanos()).unwrap_or(u64::MAX);
    json!({ "what": step.what, "tract_nodes": step.tract_nodes, "macs": step.macs, "time_ns": time_ns })
}

/// The share of labelled rows that the model gets right.
fn accuracy(model: &Model, data: &Path) -> Result<Value> {
    let labels = &model.spec().labels;
    let (mut right, mut all) = (0_u32, 0_u32);
    for (place, row) in read_labelled(data, model.spec())?.into_iter().enumerate() {
        let Some(label) = row.label else { continue };
        let outputs = model.infer(row.inputs).with_context(|| format!("row {} fails", place + 1))?;
        let class = features::answers(&outputs, labels.len()).first().and_then(features::Answer::class);
        all += 1;
        right += u32::from(class.and_then(|class| labels.get(class)) == Some(&label));
    }
    anyhow::ensure!(all > 0, "{} has no labelled row", data.display());
    let file = std::fs::read(data).with_context(|| format!("cannot read {}", data.display()))?;
    let sha256 = BlobRef::of(&file, "text/csv").digest;
    let share = f64::from(right) / f64::from(all);
    Ok(json!({ "rows": all, "right": right, "share": share, "data_sha256": sha256 }))
}

/// This process's memory.
struct Memory {
    resident: u64,
    peak: u64,
}

impl Memory {
    fn now() -> Result<Self> {
        let of_itself = Path::new("/proc/self/status");
        Ok(Self { resident: kernel_bytes(of_itself, "VmRSS:")?, peak: kernel_bytes(of_itself, "VmHWM:")? })
    }

    /// Lets this process have what the machine has free and no more. A model that asks for more ends it with a message,
    /// and the kernel needn't look for something else to kill. Where no bound can be set there is none.
    fn bound() {
        let Ok(free) = kernel_bytes(Path::new("/proc/meminfo"), "MemAvailable:") else { return };
        let bytes = free.saturating_add(RESERVED_BYTES);
        let Rlimit { current, maximum } = getrlimit(Resource::As);
        let current = current.map_or(bytes, |current| current.min(bytes));
        let _unbounded = setrlimit(Resource::As, Rlimit { current: Some(current), maximum });
    }
}

/// A line of what the kernel tells of memory.
fn kernel_bytes(file: &Path, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).with_context(|| format!("{} has no {key}", file.display()))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
