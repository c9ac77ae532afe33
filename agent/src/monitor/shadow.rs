//! Shadow mode: the candidate gets real inputs beside the active release, within a CPU budget, and never answers.
//! What it would have said is compared with what was said; only the counts of that leave this file, and items that it
//! answered otherwise where they may be captured.
//!
//! One thread of its own runs the candidate, after the real answer has left. It rests so long after each inference that
//! it keeps to its share of one core; what comes meanwhile is skipped and counted. An error of the candidate is a count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inference::Tensor;
use inference::features::{self, Answer};
use protocol::telemetry::DeviceEvent;
use protocol::{Digest, ModelName, UnixMillis};
use release::Manifest;
use serde::{Deserialize, Serialize};

use super::capture::{Capture, Origin, label_of, said};
use super::recorder::Request;
use crate::config;
use crate::slots::{Loaded, Table};

/// Two numbers agree when they differ by no more than this part of the larger one.
const TOLERANCE: f64 = 0.01;
/// Requests that wait for the candidate. When full: skipped and counted.
const QUEUE: usize = 1;

/// What was compared of one candidate since it began to run beside. Counted are items: the rows of a batch, one for a model
/// without batches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShadowTally {
    /// Which model.
    pub model: String,
    /// Version of the candidate.
    pub version: String,
    /// Version of the release that answered.
    pub beside: String,
    /// Items whose two answers were compared.
    pub compared: u64,
    /// Those with the same answer: the same in each of its numbers.
    pub agreed: u64,
    /// Items that the candidate failed.
    pub failed: u64,
    /// Items that it did not get: no CPU was left for it.
    pub skipped: u64,
    /// Time that the active release spent on the compared items, in microseconds.
    pub active_us: u64,
    /// Time that the candidate spent on them, in microseconds.
    pub candidate_us: u64,
}

impl ShadowTally {
    /// As an event of the device's history.
    fn event(&self) -> DeviceEvent {
        let percent = 100.0 * self.agreed as f64 / self.compared.max(1) as f64;
        let detail = format!(
            "{} {} beside {}: {} of {} items agree ({percent:.2} %), {} items failed, {} skipped; the candidate took {} µs \
             where the active release took {} µs",
            self.model,
            self.version,
            self.beside,
            self.agreed,
            self.compared,
            self.failed,
            self.skipped,
            self.candidate_us,
            self.active_us
        );
        DeviceEvent { name: "shadow_agreement".into(), detail }
    }
}

struct Job {
    candidate: Arc<Loaded>,
    inputs: Vec<Tensor>,
    classes: usize,
    /// Rows of the batch.
    items: usize,
    said: Vec<Word>,
    took: Duration,
    capture: Option<Capturing>,
}

/// What is needed to keep items that the candidate answers otherwise; only where that is allowed.
struct Capturing {
    capture: Arc<Capture>,
    rules: Arc<config::Capture>,
    origin: Origin,
    answers: Vec<Answer>,
    manifest: Arc<Manifest>,
}

/// Runs candidates beside what serves.
pub struct Shadow {
    table: Table,
    cpu_percent: u32,
    jobs: Mutex<Option<SyncSender<Job>>>,
    /// Jobs in the queue, so that nothing is copied for one that has no place.
    waiting: Arc<AtomicUsize>,
    tallies: Arc<Mutex<Tallies>>,
}

/// One candidate.
type Key = (ModelName, Digest);

#[derive(Default)]
struct Tallies {
    all: BTreeMap<Key, ShadowTally>,
    told: BTreeMap<Key, (UnixMillis, ShadowTally)>,
}

impl Tallies {
    /// Events that are due. A candidate that doesn't run any more tells its last and is forgotten.
    fn due(&mut self, now: UnixMillis, every: Duration, runs: impl Fn(&Key) -> bool) -> Vec<DeviceEvent> {
        let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        for (key, tally) in &self.all {
            let (at, last) = self.told.entry(key.clone()).or_insert_with(|| (now, ShadowTally::default()));
            // A clock that was set back would keep it silent until the old time comes again.
            *at = (*at).min(now);
            let is_time = now.millis_since(*at) >= every_ms || !runs(key);
            if is_time && (tally.compared, tally.failed) != (last.compared, last.failed) {
                (*at, *last) = (now, tally.clone());
                due.push(tally.event());
            }
        }
        self.all.retain(|key, _| runs(key));
        self.told.retain(|key, _| self.all.contains_key(key));
        due
    }
}

impl Shadow {
    /// Candidates come from `table`; they get `cpu_percent` of one core together.
    pub fn new(table: Table, cpu_percent: u32) -> Self {
        let cpu_percent = cpu_percent.clamp(1, 100);
        Self { table, cpu_percent, jobs: Mutex::new(None), waiting: Arc::default(), tallies: Arc::default() }
    }

    /// One request was answered: the candidate gets it too, if there is one and it has CPU left. Copies the inputs only
    /// then.
    pub(super) fn answered(
        &self,
        request: &Request<'_>,
        outputs: &[Tensor],
        classes: usize,
        capture: &Arc<Capture>,
    ) {
        let Some(candidate) = self.table.shadow(&request.loaded.model) else { return };
        let key = (candidate.model.clone(), candidate.release.digest);
        let items = request.rows();
        {
            let mut tallies = lock(&self.tallies);
            let tally = tallies.all.entry(key.clone()).or_default();
            tally.model = candidate.model.to_string();
            tally.version = candidate.release.version.to_string();
            tally.beside = request.loaded.release.version.to_string();
            if self.waiting.load(Ordering::Relaxed) >= QUEUE {
                tally.skipped += items as u64;
                return;
            }
        }
        let answers = features::answers(outputs, classes);
        let job = Job {
            items,
            said: words(&request.loaded.manifest, &answers),
            inputs: request.inputs.to_vec(),
            classes,
            took: request.times.infer,
            capture: capture.rules_for(request.loaded).map(|rules| Capturing {
                capture: capture.clone(),
                rules,
                origin: Origin::new(request.loaded, request.id, request.at, request.rows()),
                answers,
                manifest: request.loaded.manifest.clone(),
            }),
            candidate,
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender().try_send(job).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if let Some(tally) = lock(&self.tallies).all.get_mut(&key) {
                tally.skipped += items as u64;
            }
        }
    }

    fn sender(&self) -> SyncSender<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get_or_insert_with(|| {
            let (sender, receiver) = sync_channel(QUEUE);
            let (waiting, tallies, percent) = (self.waiting.clone(), self.tallies.clone(), self.cpu_percent);
            let thread = std::thread::Builder::new().name("shadow".into());
            if let Err(error) = thread.spawn(move || work(&receiver, &waiting, &tallies, percent)) {
                // The receiver is gone: everything is skipped, and counted as that.
                tracing::error!(error = %error, "no thread for candidates beside");
            }
            sender
        })
        .clone()
    }

    /// What has been compared so far, of every candidate that still runs beside.
    pub fn tallies(&self) -> Vec<ShadowTally> {
        let tallies = lock(&self.tallies);
        tallies.all.iter().filter(|(key, _)| self.runs(key)).map(|(_, tally)| tally.clone()).collect()
    }

    /// Events that are due: one per candidate and `every`, if anything was compared since the last one.
    pub(super) fn due(&self, now: UnixMillis, every: Duration) -> Vec<DeviceEvent> {
        lock(&self.tallies).due(now, every, |key| self.runs(key))
    }

    fn runs(&self, (model, digest): &Key) -> bool {
        self.table.shadow(model).is_some_and(|candidate| candidate.release.digest == *digest)
    }
}

fn work(jobs: &Receiver<Job>, waiting: &AtomicUsize, tallies: &Mutex<Tallies>, cpu_percent: u32) {
    while let Ok(job) = jobs.recv() {
        waiting.fetch_sub(1, Ordering::Relaxed);
        let begun = Instant::now();
        let outputs = job.candidate.runtime.infer(&job.inputs);
        let took = begun.elapsed();
        let key = (job.candidate.model.clone(), job.candidate.release.digest);
        let mut others = Vec::new();
        if let Some(tally) = lock(tallies).all.get_mut(&key) {
            match outputs {
                Ok(outputs) => {
                    let answers = features::answers(&outputs, job.classes);
                    count(tally, &job, &answers, took);
                    others = answers;
                }
                Err(_) => tally.failed += job.items as u64,
            }
        }
        if let Some(capturing) = &job.capture {
            capturing.keep(&job, &others);
        }
        std::thread::sleep(rest_after(took, cpu_percent));
    }
}

impl Capturing {
    /// Hands over items that the candidate answered otherwise. What it failed to answer tells nothing of the items.
    fn keep(&self, job: &Job, others: &[Answer]) {
        if others.len() != self.answers.len() || others.len() != self.origin.rows() {
            return;
        }
        for (row, (answer, other)) in self.answers.iter().zip(others).enumerate() {
            let (answer, other) = (said(&self.manifest, answer), said(&job.candidate.manifest, other));
            let differs = match (answer.value, other.value) {
                (Some(a), Some(b)) => !is_close(a, b),
                _ => answer.label != other.label,
            };
            if differs {
                self.capture.disagreed(&self.rules, &self.origin, &job.inputs, row, (answer, other));
            }
        }
    }
}

fn count(tally: &mut ShadowTally, job: &Job, answers: &[Answer], took: Duration) {
    let (compared, agreed) = compare(&job.said, &words(&job.candidate.manifest, answers), job.items);
    tally.compared += compared;
    tally.agreed += agreed;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    tally.active_us = tally.active_us.saturating_add(micros(job.took));
    tally.candidate_us = tally.candidate_us.saturating_add(micros(took));
}

/// Items compared, and those that agree in all that was said of them. What is missing disagrees. Answers that don't go by
/// items are compared together.
fn compare(said: &[Word], says: &[Word], items: usize) -> (u64, u64) {
    let agree = |said: &[Word], says: Option<&[Word]>| {
        says.is_some_and(|says| said.iter().zip(says).all(|(said, says)| said.agrees(says)))
    };
    if said.is_empty() || items == 0 {
        return (0, 0);
    }
    if !said.len().is_multiple_of(items) {
        let is_same = said.len() == says.len() && agree(said, Some(says));
        return (items as u64, if is_same { items as u64 } else { 0 });
    }
    let each = said.len() / items;
    let agreed =
        said.chunks(each).enumerate().filter(|(at, said)| agree(said, says.get(at * each..(at + 1) * each)));
    (items as u64, agreed.count() as u64)
}

/// One answer as it is compared.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// The label; classes without labels go by their number.
    Label(String),
    Number(f64),
}

impl Word {
    /// By the label's name, else by number.
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Label(a), Self::Label(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => is_close(*a, *b),
            (Self::Label(_), Self::Number(_)) | (Self::Number(_), Self::Label(_)) => false,
        }
    }
}

fn words(manifest: &Manifest, answers: &[Answer]) -> Vec<Word> {
    let word = |answer: &Answer| match answer {
        Answer::Value(value) => Word::Number(*value),
        Answer::Probabilities(_) => {
            Word::Label(answer.class().map(|class| label_of(manifest, class)).unwrap_or_default())
        }
    };
    answers.iter().map(word).collect()
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// After so much work, so long a rest keeps to the share of one core.
fn rest_after(took: Duration, cpu_percent: u32) -> Duration {
    took * (100 - cpu_percent.min(100)) / cpu_percent.max(1)
}

fn lock(tallies: &Mutex<Tallies>) -> MutexGuard<'_, Tallies> {
    tallies.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_by_name_and_numbers_within_a_tolerance() {
        let labels =
            |labels: &[&str]| labels.iter().map(|label| Word::Label((*label).to_owned())).collect::<Vec<_>>();
        assert_eq!(compare(&labels(&["a", "b", "c"]), &labels(&["a", "x"]), 3), (3, 1));
        assert_eq!(compare(&numbers(&[100.0, 0.0, 5.0]), &numbers(&[100.9, 0.0, 6.0]), 3), (3, 2));
        assert_eq!(compare(&numbers(&[1.0]), &labels(&["1"]), 1), (1, 0));
        assert!(!is_close(f64::NAN, f64::NAN));
    }

    #[test]
    fn an_item_of_several_numbers_counts_once_and_agrees_in_all_of_them() {
        let said = numbers(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let says = numbers(&[1.0, 2.0, 3.0, 4.0, 5.0, 7.0]);
        assert_eq!(
            (compare(&said, &said, 3), compare(&said, &says, 3), compare(&said, &says, 1)),
            ((3, 3), (3, 2), (1, 0))
        );
        assert_eq!(compare(&said, &says[..4], 3), (3, 2), "what is missing disagrees");
        assert_eq!(
            (compare(&said, &says, 4), compare(&said, &said, 4)),
            ((4, 0), (4, 4)),
            "they don't go by items"
        );
        assert_eq!((compare(&[], &said, 3), compare(&said, &[], 2)), ((0, 0), (2, 0)));
    }

    fn numbers(numbers: &[f64]) -> Vec<Word> {
        numbers.iter().copied().map(Word::Number).collect()
    }

    #[test]
    fn the_rest_keeps_the_candidate_to_its_share_of_a_core() {
        let took = Duration::from_millis(10);
        assert_eq!(rest_after(took, 10), Duration::from_millis(90));
        assert_eq!(rest_after(took, 100), Duration::ZERO);
    }

    #[test]
    fn an_event_is_due_once_per_window_and_only_when_something_was_compared() {
        let mut tallies = Tallies::default();
        let key = (ModelName::new("m").unwrap(), Digest::from_bytes([1; 32]));
        let tally = ShadowTally { compared: 8, agreed: 6, ..ShadowTally::default() };
        tallies.all.insert(key.clone(), tally);
        let mut due = |at: i64| tallies.due(UnixMillis(at), Duration::from_secs(1), |_| true);
        assert!(due(0).is_empty(), "the window begins");
        let events = due(1000);
        assert!(events.len() == 1 && events[0].detail.contains("6 of 8 items agree (75.00 %)"), "{events:?}");
        assert!(due(5000).is_empty(), "nothing new");
        tallies.all.get_mut(&key).unwrap().compared = 9;
        let last = tallies.due(UnixMillis(5001), Duration::from_hours(1), |_| false);
        assert!(
            last.len() == 1 && last[0].detail.contains("6 of 9"),
            "who is stopped tells its last: {last:?}"
        );
        assert!(tallies.all.is_empty() && tallies.told.is_empty());
    }

    #[test]
    fn what_runs_beside_no_more_is_not_told_as_running() {
        let shadow = Shadow::new(Table::default(), 10);
        let key = (ModelName::new("m").unwrap(), Digest::from_bytes([1; 32]));
        lock(&shadow.tallies).all.insert(key, ShadowTally { compared: 8, ..ShadowTally::default() });
        assert!(shadow.tallies().is_empty());
        assert_eq!(shadow.due(UnixMillis(0), Duration::from_hours(1)).len(), 1);
        assert!(lock(&shadow.tallies).all.is_empty());
    }
}
