//! Measuring a release beside what serves: in a thread of its own with the least priority, on CPU time, bounded in
//! time. What is loaded here is dropped here; nothing of it ever answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use inference::golden::{self, GoldenSet};
use inference::int8::kernel::Level;
use inference::int8::report::{NodeReport, Report, Runs};
use inference::measure::{Steps, latency};
use inference::{Model, Spec};
use protocol::measurement::{Fallback, Figures, MAX_FALLBACKS};
use protocol::message::{Cause, CauseKind};
use tokio::sync::oneshot;

use super::machine::Held;
use super::selftest::{cause, cpu_time, shelf_cause};
use crate::health::{forget_peak, peak_bytes, resident_bytes};
use crate::slots::Shelf;

/// Requests that are timed: at least, and at most.
const RUNS: [usize; 2] = [30, 1000];
/// Time after which no further request begins, once there are enough.
const TIMING: Duration = Duration::from_secs(5);
/// Times that each step is run to find its share.
const STEP_RUNS: usize = 10;
/// Golden samples that are tried.
const MAX_SAMPLES: usize = 100;
/// The kernel's lowest priority.
const LAST: i32 = 19;
/// As much as the threads have that load what serves.
const STACK_BYTES: usize = 1024 * 1024;

/// A measurement under way.
pub(super) struct Running {
    /// Its result.
    pub(super) done: oneshot::Receiver<Result<Figures, Cause>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Measures what lies on the shelf.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(shelf: Shelf, held: Held) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, done) = oneshot::channel();
        let is_stopped = stop.clone();
        let work = move || {
            be_last();
            // Nobody listens any more where the time was up.
            let _ = tell.send(measure(&shelf, &held, &is_stopped));
        };
        let thread = thread::Builder::new().name("measure".into()).stack_size(STACK_BYTES).spawn(work)?;
        Ok(Self { done, stop, thread })
    }

    /// Tells it to end; it does after the request that it is at.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
    }
}

/// Priorities are a thread's own on Linux.
fn be_last() {
    if let Err(error) = rustix::process::setpriority_process(None, LAST) {
        tracing::warn!(error = %error, "a measurement runs with the priority of what serves");
    }
}

fn measure(shelf: &Shelf, held: &Held, is_stopped: &AtomicBool) -> Result<Figures, Cause> {
    let manifest = shelf.manifest(held.release.digest).map_err(|error| shelf_cause(&error))?;
    let no_variant = || cause(CauseKind::Storage, format!("the manifest has no variant {}", held.variant));
    let variant = manifest.variant(&held.variant).ok_or_else(no_variant)?;
    let read = |blob| shelf.read_blob(blob).map_err(|error| shelf_cause(&error));
    let mut set = GoldenSet::parse(&read(&manifest.golden)?)
        .map_err(|error| cause(CauseKind::GoldenMismatch, crate::chain(&error)))?;
    set.samples.truncate(MAX_SAMPLES);
    let onnx = read(&variant.model)?;
    let refused = |error: inference::LoadError| cause(CauseKind::Load, crate::chain(&error));
    let spec = Spec::of(&manifest).map_err(refused)?;
    let is_peak_known = forget_peak();
    let before = resident_bytes().unwrap_or(0);
    let began = cpu_time();
    let model = Model::load(&onnx, spec).map_err(refused)?;
    let load = cpu_time().saturating_sub(began);
    drop(onnx);
    let loaded = resident_bytes().unwrap_or(0).saturating_sub(before);
    let figures = try_out(&model, &set, is_stopped)?;
    let peak = peak_bytes().filter(|_| is_peak_known).or_else(resident_bytes).unwrap_or(0);
    let peak = peak.saturating_sub(before).max(loaded);
    Ok(Figures { load_us: micros(load), loaded_bytes: loaded, peak_bytes: peak, ..figures })
}

/// All but loading and memory.
fn try_out(model: &Model, set: &GoldenSet, is_stopped: &AtomicBool) -> Result<Figures, Cause> {
    let goes_on = || !is_stopped.load(Ordering::Relaxed);
    let stopped = || cause(CauseKind::Timeout, "the measurement was stopped".into());
    let start = Instant::now();
    let mut go_on = |runs| goes_on() && runs < RUNS[1] && (runs < RUNS[0] || start.elapsed() < TIMING);
    let times = latency(model, set, &mut cpu_time, &mut go_on)
        .map_err(|error| cause(CauseKind::Load, crate::chain(&error)))?;
    if !goes_on() {
        return Err(stopped());
    }
    let steps = Steps::of(model, set, STEP_RUNS, &mut cpu_time);
    if !goes_on() {
        return Err(stopped());
    }
    let checked = golden::check(model, set, &mut cpu_time);
    Ok(Figures {
        runs: count(times.runs),
        p50_us: micros(times.p50),
        p90_us: micros(times.p90),
        p95_us: micros(times.p95),
        p99_us: micros(times.p99),
        samples: checked.samples,
        passed: checked.passed,
        ..of_report(model.report(), &steps)
    })
}

/// Which nodes run how.
fn of_report(report: &Report, steps: &Steps) -> Figures {
    let nodes = |runs: &Runs| count(report.nodes.iter().filter(|node| node.runs == *runs).count());
    let fallback = |node: &NodeReport| match &node.runs {
        Runs::Tract { why } => {
            Some(Fallback { node: node.name.clone(), op: node.op.clone(), why: why.clone() })
        }
        Runs::Int8 | Runs::Float => None,
    };
    let is_whole = report.why_not.is_some();
    Figures {
        int8_nodes: nodes(&Runs::Int8),
        f32_nodes: nodes(&Runs::Float),
        tract_nodes: if is_whole { 0 } else { count(report.fallbacks().count()) },
        tract_permille: if is_whole { 1000 } else { permille(steps.tract_share().unwrap_or(0.0)) },
        kernels: report.nodes.iter().find_map(|node| node.level).map(|level: Level| level.name().to_owned()),
        why_all_tract: report.why_not.clone(),
        fallbacks: report.nodes.iter().filter_map(fallback).take(MAX_FALLBACKS).collect(),
        ..Figures::default()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share lies between 0 and 1")]
fn permille(share: f64) -> u16 {
    (share.clamp(0.0, 1.0) * 1000.0).round() as u16
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use protocol::ReleaseRef;
    use release::{BlobRef, DraftManifest};
    use serde_json::{Value, json};

    use super::*;

    fn example(name: &str) -> Vec<u8> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/1.0.0"));
        std::fs::read(folder.join(name)).unwrap()
    }

    /// The digits example on a shelf, as a fetch leaves it.
    fn shelf(folder: &std::path::Path) -> (Shelf, Held) {
        let shelf = Shelf::open(folder).unwrap();
        let keep = |name: &str| -> Value {
            let bytes = example(name);
            let blob = BlobRef::of(&bytes, "application/octet-stream");
            std::fs::write(shelf.part(&blob), &bytes).unwrap();
            shelf.keep_blob(&blob).unwrap();
            serde_json::to_value(blob).unwrap()
        };
        let manifest = json!({
            "format": 1, "model": "digits", "version": "1.0.0", "counter": 1, "created": "2026-11-21T00:00:00Z",
            "min_agent_version": "0.1.0", "runtime": { "tract": "0.23", "opset": 17 },
            "inputs": [{ "name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8] }],
            "outputs": [{ "name": "scores", "datatype": "FP32", "shape": [-1, 10] }],
            "pre": [{ "kind": "scale", "factor": 0.0625 }], "post": [{ "kind": "softmax" }],
            "variants": [
                { "name": "int8", "precision": "int8", "model": keep("int8.onnx"), "peak_memory_bytes": 4_000_000 },
                { "name": "f32", "precision": "f32", "model": keep("f32.onnx"), "peak_memory_bytes": 4_000_000 },
            ],
            "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            "reference": keep("release.toml"), "golden": keep("golden.json"), "card": keep("card.md"),
            "budgets": { "latency_p95_us": 50_000, "memory_bytes": 4_000_000 },
            "probation": { "duration_s": 8, "max_error_percent": 5.0, "max_p95_us": 100_000 },
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let draft = DraftManifest::parse_unsigned(&bytes).unwrap();
        shelf.keep_manifest(draft.digest(), &bytes).unwrap();
        let release =
            ReleaseRef { version: draft.version.clone(), digest: draft.digest(), counter: draft.counter };
        (shelf, Held { release, variant: "int8".into() })
    }

    #[test]
    fn a_release_on_the_shelf_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, held) = shelf(folder.path());
        let running = Running::start(shelf.clone(), held.clone()).unwrap();
        let figures = running.done.blocking_recv().unwrap().unwrap();
        assert!((figures.samples, figures.passed) == (16, 16) && figures.runs >= 30, "{figures:?}");
        assert!(figures.p50_us <= figures.p90_us && figures.p95_us <= figures.p99_us, "{figures:?}");
        assert!(figures.int8_nodes > 0 && figures.kernels.is_some(), "{figures:?}");
        assert!(figures.peak_bytes >= figures.loaded_bytes && figures.tract_permille < 1000, "{figures:?}");
        let f32 = Held { variant: "f32".into(), ..held };
        let figures = measure(&shelf, &f32, &AtomicBool::new(false)).unwrap();
        assert!(figures.tract_permille == 1000 && figures.why_all_tract.is_some(), "{figures:?}");
    }

    #[test]
    fn what_is_stopped_or_damaged_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, held) = shelf(folder.path());
        let stopped = measure(&shelf, &held, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(stopped.kind, CauseKind::Timeout);
        let manifest = shelf.manifest(held.release.digest).unwrap();
        let blob = &manifest.variant("int8").unwrap().model;
        std::fs::write(folder.path().join("blobs").join(blob.digest.to_hex()), b"changed").unwrap();
        assert_eq!(measure(&shelf, &held, &AtomicBool::new(false)).unwrap_err().kind, CauseKind::Storage);
        let unknown = Held { variant: "int4".into(), ..held };
        assert!(measure(&shelf, &unknown, &AtomicBool::new(false)).unwrap_err().detail.contains("int4"));
    }
}
