//! The monitor itself: everything that is counted, behind one handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inference::Tensor;
use inference::features::{self, Answer};
use profile::{Pane, Reference};
use protocol::telemetry::Kind;
use protocol::{Digest, ModelName, UnixMillis};

use super::capture::Capture;
use super::counting::Counting;
use super::labels::{FeedbackError, Label, Recent, Said};
use super::shadow::Shadow;
use super::totals::Totals;
use super::watch::{Vitals, Watch};
use crate::slots::Loaded;

/// Releases that are counted at once; the idle ones beyond it are forgotten.
const MAX_RELEASES: usize = 16;
/// Classes that a refused label is told.
const SHOWN_LABELS: usize = 20;

/// Takes a closed pane's bytes for the spool. Must not wait.
pub type Sink = Box<dyn Fn(Kind, Vec<u8>) + Send + Sync>;

/// One request that the model has seen.
#[derive(Debug)]
pub struct Request<'a> {
    /// The inference's id as the application knows it; empty when nothing was answered.
    pub id: &'a str,
    /// What [`Monitor::remember`] returned.
    pub remembered: Option<u64>,
    /// The release that answered or failed.
    pub loaded: &'a Loaded,
    /// What was asked.
    pub inputs: &'a [Tensor],
    /// The device's clock.
    pub at: UnixMillis,
    /// What took how long.
    pub times: Times,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

impl Request<'_> {
    /// Items of the batch; 1 for a model without batches.
    pub(super) fn rows(&self) -> usize {
        self.loaded.rows(self.inputs)
    }
}

/// What took how long in one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Waiting for its turn.
    pub queue: Duration,
    /// Reading the inputs.
    pub input: Duration,
    /// The inference, with the release's own steps before and after the model.
    pub infer: Duration,
    /// Writing the answer.
    pub output: Duration,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// With an answer.
    Answered(&'a [Tensor]),
    /// By the model's or the runtime's fault; a fixed name of the kind.
    Failed(&'static str),
    /// By the caller's fault.
    Refused,
}

/// Counts everything about serving. Share it by `Arc`.
pub struct Monitor {
    begun: Instant,
    sink: Sink,
    window: Duration,
    run: u64,
    shadow: Shadow,
    capture: Arc<Capture>,
    state: Mutex<State>,
}

struct State {
    counting: BTreeMap<(ModelName, Digest), Counting>,
    watches: BTreeMap<ModelName, (Digest, Watch)>,
    totals: BTreeMap<ModelName, Totals>,
    recent: Recent,
    late_labels: u64,
    panes: u64,
}

impl State {
    /// Whether all that answered under this name gives no classes.
    fn has_no_classes(&self, model: &ModelName) -> bool {
        let releases = self.counting.iter().filter(|((name, _), _)| name == model);
        let mut classes = releases.map(|(_, counting)| counting.reference().schema.classes()).peekable();
        classes.peek().is_some() && classes.all(|classes| classes == 0)
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Monitor {
    /// `run` is a random number of this run of the agent; it goes into every pane's key.
    pub fn new(
        config: &crate::config::Monitor,
        run: u64,
        shadow: Shadow,
        capture: Arc<Capture>,
        sink: Sink,
    ) -> Self {
        let state = State {
            counting: BTreeMap::new(),
            watches: BTreeMap::new(),
            totals: BTreeMap::new(),
            recent: Recent::new(config.label_ttl, config.labels_remembered),
            late_labels: 0,
            panes: 0,
        };
        Self {
            begun: Instant::now(),
            sink,
            window: config.pane_window,
            run,
            shadow,
            capture,
            state: Mutex::new(state),
        }
    }

    /// Remembers what an inference said, so that a label finds it. Called before the answer leaves, because an
    /// application may send the label at once. Returns a number for [`Request::remembered`].
    pub fn remember(&self, loaded: &Loaded, id: &str, outputs: &[Tensor], at: UnixMillis) -> Option<u64> {
        let reference = self.reference(loaded)?;
        let answers = features::answers(outputs, reference.schema.classes());
        let classes: Vec<usize> = answers.iter().filter_map(Answer::class).collect();
        if classes.is_empty() {
            return None;
        }
        let said = Said { model: loaded.model.clone(), digest: loaded.release.digest, at, classes };
        self.lock().recent.remember(id.to_owned(), said, self.begun.elapsed())
    }

    /// Counts one request. Called after the answer has left.
    pub fn record(&self, request: &Request<'_>) {
        let key = (request.loaded.model.clone(), request.loaded.release.digest);
        let Some(reference) = self.reference(request.loaded) else {
            return self.record_totals(request, &key);
        };
        match request.outcome {
            Outcome::Answered(outputs) => {
                let answers = features::answers(outputs, reference.schema.classes());
                let rows = features::rows(&reference.extractor, request.inputs).unwrap_or_default();
                self.count(&key, |counting| {
                    counting.answered(request.at, request.times.infer, &rows, &answers)
                });
                self.record_totals(request, &key);
                self.capture.answered(request, &reference.schema, &rows, &answers);
                self.shadow.answered(request, outputs, reference.schema.classes(), &self.capture);
            }
            Outcome::Failed(kind) => {
                self.count(&key, |counting| counting.failed(request.at, kind));
                self.record_totals(request, &key);
            }
            Outcome::Refused => self.record_totals(request, &key),
        }
    }

    /// Matches labels that come late with what was said, and counts them for the release that said it.
    /// Returns how many were right.
    ///
    /// # Errors
    /// [`FeedbackError`]; nothing is counted then.
    pub fn feedback(
        &self,
        model: &ModelName,
        id: &str,
        labels: &[Label],
        now: UnixMillis,
    ) -> Result<usize, FeedbackError> {
        let mut state = self.lock();
        let (number, said) = match state.recent.take(model, id, labels.len(), self.begun.elapsed()) {
            Ok(said) => said,
            Err(error) => {
                if !matches!(error, FeedbackError::UnknownId { .. }) {
                    return Err(error);
                }
                // Of a model without classes no answer is remembered.
                if state.has_no_classes(model) {
                    return Err(FeedbackError::NoClasses { model: model.clone() });
                }
                state.late_labels += labels.len() as u64;
                return Err(error);
            }
        };
        let key = (said.model.clone(), said.digest);
        let no_classes = || FeedbackError::NoClasses { model: model.clone() };
        let counting = state.counting.get_mut(&key).ok_or_else(no_classes)?;
        let reference = counting.reference();
        let profile::OutputSpec::Classes { labels: names } = &reference.schema.output else {
            return Err(no_classes());
        };
        if let Some(label) = labels.iter().find(|label| label.class(names).is_none()) {
            let known = names.iter().take(SHOWN_LABELS).cloned().collect::<Vec<_>>().join(", ");
            let unknown = FeedbackError::UnknownLabel { label: label.shown(), model: model.clone(), known };
            state.recent.give_back(id);
            return Err(unknown);
        }
        let pairs: Vec<_> =
            said.classes.iter().zip(labels).map(|(p, label)| (*p, label.class(names))).collect();
        let right = pairs.iter().filter(|(predicted, actual)| Some(*predicted) == *actual).count();
        let truth = |(predicted, actual): &(usize, Option<usize>)| {
            actual.filter(|actual| actual != predicted).and_then(|actual| names.get(actual).cloned())
        };
        let truths = pairs.iter().map(truth).collect();
        let delay = u64::try_from(now.millis_since(said.at)).unwrap_or(0);
        let closed = counting.labelled(now, pairs.into_iter(), Duration::from_millis(delay));
        let totals = state.totals.entry(model.clone()).or_default();
        totals.labels += labels.len() as u64;
        totals.right += right as u64;
        drop(state);
        self.hand_over(closed);
        self.capture.labelled(number, truths);
        Ok(right)
    }

    /// Begins the watch over a release that was just activated.
    pub fn activated(&self, model: &ModelName, digest: Digest) {
        self.lock().watches.insert(model.clone(), (digest, Watch::default()));
    }

    /// What happened to a release since [`Monitor::activated`]; nothing if another one was activated since.
    pub fn probation(&self, model: &ModelName, digest: Digest) -> Vitals {
        let state = self.lock();
        let watched = state.watches.get(model).filter(|(watched, _)| *watched == digest);
        watched.map(|(_, watch)| watch.read()).unwrap_or_default()
    }

    /// Closes panes whose window has passed and forgets releases that nobody asks any more. Call it about once a
    /// second, so that panes leave without traffic too.
    pub fn tick(&self, now: UnixMillis) {
        let mut state = self.lock();
        let closed: Vec<Pane> =
            state.counting.values_mut().filter_map(|counting| counting.close_due(now)).collect();
        if state.counting.len() > MAX_RELEASES {
            state.counting.retain(|_, counting| !counting.is_idle());
        }
        drop(state);
        for pane in closed {
            self.hand_over(Some(pane));
        }
        self.tell_agreement(now, self.window);
    }

    fn tell_agreement(&self, now: UnixMillis, every: Duration) {
        for event in self.shadow.due(now, every) {
            let mut body = Vec::new();
            if ciborium::into_writer(&event, &mut body).is_ok() {
                (self.sink)(Kind::Event, body);
            }
        }
    }

    /// What candidates that run beside have said so far.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Samples for retraining.
    pub fn capture(&self) -> &Arc<Capture> {
        &self.capture
    }

    /// Closes the open panes now: on request for one model, or of all at shutdown.
    pub fn flush(&self, model: Option<&ModelName>, now: UnixMillis) {
        let mut state = self.lock();
        let wanted =
            state.counting.iter_mut().filter(|((name, _), _)| model.is_none_or(|model| model == name));
        let closed: Vec<Pane> = wanted.filter_map(|(_, counting)| counting.close(now)).collect();
        drop(state);
        for pane in closed {
            self.hand_over(Some(pane));
        }
        self.tell_agreement(now, Duration::ZERO);
    }

    /// Totals per model since the agent started.
    pub fn totals(&self) -> BTreeMap<ModelName, Totals> {
        self.lock().totals.clone()
    }

    /// Labels since the agent started whose inference was not remembered, or not any more.
    pub fn late_labels(&self) -> u64 {
        self.lock().late_labels
    }

    /// Panes handed to the spool since the agent started.
    pub fn panes(&self) -> u64 {
        self.lock().panes
    }

    fn record_totals(&self, request: &Request<'_>, key: &(ModelName, Digest)) {
        let mut state = self.lock();
        state.totals.entry(key.0.clone()).or_default().count(request);
        if let Some((_, watch)) = state.watches.get_mut(&key.0).filter(|(digest, _)| *digest == key.1) {
            match request.outcome {
                Outcome::Answered(_) => watch.answered(request.times.infer),
                Outcome::Failed(_) => watch.failed(),
                Outcome::Refused => {}
            }
        }
    }

    /// The release's reference, parsed once. None, said once in the log, when it can't be read.
    fn reference(&self, loaded: &Loaded) -> Option<Arc<Reference>> {
        let key = (loaded.model.clone(), loaded.release.digest);
        if let Some(counting) = self.lock().counting.get(&key) {
            return Some(counting.reference());
        }
        let reference = match Reference::parse(&loaded.reference) {
            Ok(reference) => Arc::new(reference),
            Err(error) => {
                tracing::error!(model = %loaded.model, version = %loaded.release.version, error = %error, "the release's reference can't be read; nothing is profiled");
                return None;
            }
        };
        let min_rows = loaded.manifest.privacy.min_pane_rows;
        let counting =
            Counting::new(key.0.clone(), key.1, Arc::clone(&reference), min_rows, self.run, self.window);
        self.lock().counting.entry(key).or_insert(counting);
        Some(reference)
    }

    fn count(&self, key: &(ModelName, Digest), count: impl FnOnce(&mut Counting) -> Option<Pane>) {
        let closed = self.lock().counting.get_mut(key).and_then(count);
        self.hand_over(closed);
    }

    fn hand_over(&self, closed: Option<Pane>) {
        let Some(pane) = closed else { return };
        self.lock().panes += 1;
        (self.sink)(Kind::Pane, pane.encode());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
