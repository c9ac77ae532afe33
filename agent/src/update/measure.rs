//! Measuring a release beside what serves: in a thread of its own with the least priority, on CPU time, bounded in
//! time. What is loaded here is dropped here; nothing of it ever answers. It ends when told to, at the latest after the
//! request that it is at; loading is one such piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inference::golden::{self, GoldenSet};
use inference::int8::kernel::Level;
use inference::int8::report::{NodeReport, Report, Runs};
use inference::measure::{Steps, latency};
use inference::{Clock, Model, Spec};
use protocol::measurement::{Fallback, Figures, MAX_FALLBACKS};
use protocol::message::{Cause, CauseKind};
use tokio::sync::oneshot;

use super::account::Reserved;
use super::selftest::{cause, shelf_cause};
use crate::health::{forget_peak, peak_bytes, resident_bytes};
use crate::machine::Held;
use crate::slots::{self, Shelf};

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

/// A measurement under way; told to end when dropped.
pub(super) struct Running {
    done: oneshot::Receiver<Result<Figures, Cause>>,
    stop: Arc<AtomicBool>,
}

impl Running {
    /// Measures what lies on the shelf, in the memory that was reserved for it.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(shelf: Shelf, held: Held, memory: Reserved) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, done) = oneshot::channel();
        let is_stopped = stop.clone();
        let work = move || {
            be_last();
            let measured = measure(&shelf, &held, &mut UntilTold(&is_stopped));
            inference::trim_heap();
            drop(memory);
            // Nobody listens any more where the time was up.
            let _ = tell.send(measured);
        };
        thread::Builder::new().name("measure".into()).stack_size(STACK_BYTES).spawn(work)?;
        Ok(Self { done, stop })
    }

    /// Waits for its result. Its thread holds no memory any more then. May be dropped and called again until then.
    pub(super) async fn over(&mut self) -> Result<Figures, Cause> {
        let ended = (&mut self.done).await;
        let silent = || cause(CauseKind::Internal, "the measurement ended without a word".into());
        ended.unwrap_or_else(|_| Err(silent()))
    }

    /// Whether its thread has ended; drop it then.
    pub(super) fn is_over(&mut self) -> bool {
        !matches!(self.done.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    /// Tells it to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Priorities are a thread's own on Linux.
fn be_last() {
    if let Err(error) = rustix::process::setpriority_process(None, LAST) {
        tracing::warn!(error = %error, "a measurement runs with the priority of what serves");
    }
}

/// CPU time of this thread, until told to end.
struct UntilTold<'a>(&'a AtomicBool);

impl Clock for UntilTold<'_> {
    type Stop = Cause;

    fn now(&mut self) -> Result<Duration, Cause> {
        if self.0.load(Ordering::Relaxed) {
            return Err(cause(CauseKind::Timeout, "the measurement was stopped".into()));
        }
        Ok(slots::cpu_time())
    }
}

fn measure(shelf: &Shelf, held: &Held, clock: &mut impl Clock<Stop = Cause>) -> Result<Figures, Cause> {
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
    // What the heap holds without use would take the model in without being counted.
    inference::trim_heap();
    let is_peak_known = forget_peak();
    let before = resident_bytes().unwrap_or(0);
    let began = clock.now()?;
    let model = Model::load(&onnx, spec).map_err(refused)?;
    let load = clock.now()?.saturating_sub(began);
    let loaded = resident_bytes().unwrap_or(0).saturating_sub(before);
    drop(onnx);
    let figures = try_out(&model, &set, clock)?;
    let peak = peak_bytes().filter(|_| is_peak_known).or_else(resident_bytes).unwrap_or(0);
    let peak = peak.saturating_sub(before).max(loaded);
    Ok(Figures { load_us: micros(load), loaded_bytes: loaded, peak_bytes: peak, ..figures })
}

/// All but loading and memory.
fn try_out(model: &Model, set: &GoldenSet, clock: &mut impl Clock<Stop = Cause>) -> Result<Figures, Cause> {
    let start = Instant::now();
    let mut go_on = |runs| runs < RUNS[1] && (runs < RUNS[0] || start.elapsed() < TIMING);
    let times = latency(model, set, clock, &mut go_on)?
        .map_err(|error| cause(CauseKind::Load, crate::chain(&error)))?;
    let steps = Steps::of(model, set, STEP_RUNS, clock)?;
    let checked = golden::check(model, set, clock)?;
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

/// For tests: the thread of a measurement that ends when this is dropped.
#[cfg(test)]
pub(super) struct Hanging {
    _memory: Reserved,
    _tell: oneshot::Sender<Result<Figures, Cause>>,
}

#[cfg(test)]
impl Hanging {
    pub(super) fn begin(memory: Reserved) -> (Self, Running) {
        let (tell, done) = oneshot::channel();
        (Self { _memory: memory, _tell: tell }, Running { done, stop: Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Passing;
    use super::super::rig::shelf;
    use super::*;

    fn measured(shelf: &Shelf, held: &Held) -> Result<Figures, Cause> {
        measure(shelf, held, &mut UntilTold(&AtomicBool::new(false)))
    }

    #[tokio::test]
    async fn a_release_on_the_shelf_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, held) = shelf(folder.path());
        let passing = Passing::default();
        let mut running = Running::start(shelf.clone(), held.clone(), passing.reserve(7)).unwrap();
        let figures = running.over().await.unwrap();
        assert_eq!(passing.bytes(), 0, "it holds no memory once it has told");
        assert!((figures.samples, figures.passed) == (16, 16) && figures.runs >= 30, "{figures:?}");
        assert!(figures.p50_us <= figures.p90_us && figures.p95_us <= figures.p99_us, "{figures:?}");
        assert!(figures.int8_nodes > 0 && figures.kernels.is_some(), "{figures:?}");
        assert!(figures.peak_bytes >= figures.loaded_bytes && figures.tract_permille < 1000, "{figures:?}");
        let f32 = Held { variant: "f32".into(), ..held };
        let figures = measured(&shelf, &f32).unwrap();
        assert!(figures.tract_permille == 1000 && figures.why_all_tract.is_some(), "{figures:?}");
    }

    #[test]
    fn what_is_stopped_or_damaged_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, held) = shelf(folder.path());
        let stopped = measure(&shelf, &held, &mut UntilTold(&AtomicBool::new(true)));
        assert_eq!(stopped.unwrap_err().kind, CauseKind::Timeout);
        let manifest = shelf.manifest(held.release.digest).unwrap();
        let blob = &manifest.variant("int8").unwrap().model;
        std::fs::write(folder.path().join("blobs").join(blob.digest.to_hex()), b"changed").unwrap();
        assert_eq!(measured(&shelf, &held).unwrap_err().kind, CauseKind::Storage);
        let unknown = Held { variant: "int4".into(), ..held };
        assert!(measured(&shelf, &unknown).unwrap_err().detail.contains("int4"));
    }

    /// A clock that tells to end at a certain question, and counts them.
    struct Counted {
        asked: usize,
        stop_at: usize,
    }

    impl Clock for Counted {
        type Stop = Cause;

        fn now(&mut self) -> Result<Duration, Cause> {
            self.asked += 1;
            UntilTold(&AtomicBool::new(self.asked == self.stop_at)).now()
        }
    }

    #[test]
    fn it_ends_at_whichever_request_it_is_told_to_the_golden_check_included() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, held) = shelf(folder.path());
        let asked_until = |stop_at: usize| {
            let mut clock = Counted { asked: 0, stop_at };
            let outcome = measure(&shelf, &held, &mut clock);
            (clock.asked, outcome.map_err(|why| why.kind))
        };
        let (all, measured) = asked_until(usize::MAX);
        // Sixteen samples and more, with the time asked before and after each.
        let in_the_check = all - 40;
        assert_eq!(measured.map(|figures| figures.passed), Ok(16));
        // Fifty runs at least in the check; before it the steps are timed.
        let in_the_steps = all - 2 * 50 - 5;
        for stop_at in [1, 2, 3, 40, in_the_steps, in_the_check] {
            assert_eq!(asked_until(stop_at), (stop_at, Err(CauseKind::Timeout)));
        }
    }
}
