//! Samples for retraining: which items are kept, and their way to the disk.
//!
//! Nothing is looked at, copied or kept without the device's consent and the release's permission. What is chosen goes
//! to a thread of its own; when that one has too much to do, the least valuable item is dropped and counted, and
//! serving never waits.
//! The samples themselves lie in `store::Samples`; `link` brings them to the server.

mod decide;
mod draft;
mod figures;
mod queue;
mod recent;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use inference::Tensor;
use inference::features::Answer;
use profile::{Observed, Schema};
use protocol::UnixMillis;
use protocol::sample::{MAX_SAMPLE_BYTES, Said, Strategy};

use self::decide::{Draws, Seen};
use self::draft::{Draft, Reason, confidence};
use self::queue::Queue;
use self::recent::{Kept, Recent};
use super::recorder::Request;
use crate::config;
use crate::durable::DurableError;
use crate::slots::Loaded;
use crate::store::{Bounds, Held, Put, Samples};

pub(in crate::monitor) use self::draft::{Origin, label_of, said};
pub use self::figures::{CaptureFigures, Cause};

/// Samples on their way to the disk may take so much memory, or as much as the largest one. Full: the least valuable is
/// dropped and counted.
const QUEUE_BYTES: u64 = 4 * 1024 * 1024;

/// Decides about items and keeps those that are chosen. Share it by `Arc`.
pub struct Capture {
    inner: Arc<Inner>,
    writer: Once,
}

struct Inner {
    samples: Samples,
    queue: Queue,
    state: Mutex<State>,
}

struct State {
    rules: Arc<config::Capture>,
    draws: Draws,
    recent: Recent,
    figures: CaptureFigures,
}

/// What waits is still written; then the thread ends.
impl Drop for Capture {
    fn drop(&mut self) {
        self.inner.queue.close();
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

impl Capture {
    /// `seed` is a random number of this run. Without consent, what an earlier run has kept is removed.
    pub fn new(rules: config::Capture, samples: Samples, seed: u64) -> Self {
        let state = State {
            rules: Arc::new(rules.clone()),
            draws: Draws::seeded(seed),
            recent: Recent::default(),
            figures: CaptureFigures::default(),
        };
        let inner = Inner { samples, queue: Queue::default(), state: Mutex::new(state) };
        match inner.follow(rules) {
            Some(gone) => inner.remove_all(gone),
            None => inner.trim(),
        }
        Self { inner: Arc::new(inner), writer: Once::new() }
    }

    /// Other rules from the next item on. A consent that is withdrawn takes all samples with it that are still here: none
    /// of them is sent any more, and a thread removes them, since who asks has signals to hear and may not wait for a disk.
    /// So go those that a lower quota has no room for.
    pub fn reconfigure(&self, rules: config::Capture) {
        let quota_bytes = rules.quota_bytes;
        match self.inner.follow(rules) {
            Some(gone) if gone.is_empty() => {}
            Some(gone) => self.aside(move |inner| inner.remove_all(gone)),
            None if self.inner.samples.depth().1 > quota_bytes => self.aside(Inner::trim),
            None => {}
        }
    }

    fn aside(&self, remove: impl FnOnce(&Inner) + Send + 'static) {
        let inner = self.inner.clone();
        let thread = std::thread::Builder::new().name("withdrawal".into());
        if let Err(error) = thread.spawn(move || remove(&inner)) {
            tracing::error!(error = %error, "no thread removes samples that have to go; the next start does");
        }
    }

    /// Whether there is consent now.
    pub fn is_on(&self) -> bool {
        self.inner.lock().rules.consent
    }

    /// The samples that wait for the server.
    pub fn samples(&self) -> &Samples {
        &self.inner.samples
    }

    /// Removes a sample that the server has stored, or that is given up for a cause, and counts it as that; one that had to
    /// go meanwhile is counted already. Blocks on the disk.
    ///
    /// # Errors
    /// [`DurableError`]; it is still here then, and not counted.
    pub fn end(&self, held: &Held, given_up: Option<Cause>) -> Result<(), DurableError> {
        if !self.inner.samples.remove(held)? {
            return Ok(());
        }
        let figures = &mut self.inner.lock().figures;
        match given_up {
            None => figures.uploaded += 1,
            Some(cause) => figures.drop(cause, 1),
        }
        Ok(())
    }

    /// Counts an item that is not kept.
    fn count_dropped(&self, cause: Cause) {
        self.inner.lock().figures.drop(cause, 1);
    }

    /// What was counted so far.
    pub fn figures(&self) -> CaptureFigures {
        let (waiting, waiting_bytes) = self.inner.samples.depth();
        let state = self.inner.lock();
        CaptureFigures {
            is_on: state.rules.consent,
            waiting,
            waiting_bytes,
            quota_bytes: state.rules.quota_bytes,
            ..state.figures.clone()
        }
    }

    /// The rules, if items of this release may be kept at all.
    pub(super) fn rules_for(&self, loaded: &Loaded) -> Option<Arc<config::Capture>> {
        let is_allowed = loaded.manifest.privacy.may_send_samples;
        Some(self.inner.lock().rules.clone()).filter(|rules| rules.consent && is_allowed)
    }

    /// An answer has left: decides about each of its items.
    pub(super) fn answered(
        &self,
        request: &Request<'_>,
        schema: &Schema,
        features: &[Vec<Observed<'_>>],
        answers: &[Answer],
    ) {
        let Some(rules) = self.rules_for(request.loaded) else { return };
        let (manifest, rows) = (&request.loaded.manifest, request.rows());
        // Where there are not as many answers as items, nobody can say which is whose.
        let answer = |row: usize| answers.get(row).filter(|_| answers.len() == rows);
        let said = |row: usize| answer(row).map(|answer| said(manifest, answer)).unwrap_or_default();
        let origin = Origin::new(request.loaded, request.id, request.at, rows);
        for row in self.inner.order(rows) {
            let outside = features.get(row).and_then(|features| schema.outside(features));
            let confidence = answer(row).and_then(confidence);
            let seen = Seen { confidence, is_outside: outside.is_some() };
            let Some(strategy) = self.inner.decide(&rules, seen, origin.at) else { continue };
            let mut reason = Reason::new(strategy, decide::rate(&rules, strategy).fraction());
            if strategy == Strategy::OutOfReference {
                reason.feature = outside.map(protocol::sample::fitting);
            }
            self.keep(&rules, &origin, request.inputs, row, said(row), reason);
        }
        if let Some(number) = request.remembered.filter(|_| rules.contradiction_rate.is_ever()) {
            let kept = Kept { origin, inputs: request.inputs.to_vec(), said: (0..rows).map(said).collect() };
            let labelled = self.inner.lock().recent.remember(number, kept, rules.recent_bytes);
            if let Some((kept, truths)) = labelled {
                self.contradicted(&rules, &kept, &truths);
            }
        }
    }

    /// True labels have come for the inference that is remembered under this number; `truths` has one where it is not
    /// what was said.
    pub(super) fn labelled(&self, number: u64, truths: Vec<Option<String>>) {
        let mut state = self.inner.lock();
        let rules = state.rules.clone();
        if !rules.consent || truths.iter().all(Option::is_none) {
            return;
        }
        let labelled = state.recent.labelled(number, truths);
        drop(state);
        if let Some((kept, truths)) = labelled {
            self.contradicted(&rules, &kept, &truths);
        }
    }

    fn contradicted(&self, rules: &config::Capture, kept: &Kept, truths: &[Option<String>]) {
        for row in self.inner.order(truths.len()) {
            let Some(label) = truths.get(row).and_then(Option::as_deref) else { continue };
            let Some(mut reason) = self.later(rules, Strategy::Contradiction) else { continue };
            reason.label = Some(protocol::sample::fitting(label));
            let said = kept.said.get(row).cloned().unwrap_or_default();
            self.keep(rules, &kept.origin, &kept.inputs, row, said, reason);
        }
    }

    /// A candidate beside has said something else about item `row`.
    pub(super) fn disagreed(
        &self,
        rules: &config::Capture,
        origin: &Origin,
        inputs: &[Tensor],
        row: usize,
        (said, beside): (Said, Said),
    ) {
        let Some(mut reason) = self.later(rules, Strategy::Disagreement) else { return };
        reason.beside = Some(beside);
        self.keep(rules, origin, inputs, row, said, reason);
    }

    fn later(&self, rules: &config::Capture, strategy: Strategy) -> Option<Reason> {
        let rate = decide::rate(rules, strategy);
        rate.wins(self.inner.lock().draws.next()).then(|| Reason::new(strategy, rate.fraction()))
    }

    fn keep(
        &self,
        rules: &config::Capture,
        origin: &Origin,
        inputs: &[Tensor],
        row: usize,
        said: Said,
        reason: Reason,
    ) {
        if self.inner.samples.is_locked() {
            return self.count_dropped(Cause::Disk);
        }
        if !self.inner.samples.has_share(reason.strategy, bounds(rules), origin.at) {
            return self.count_dropped(Cause::Day);
        }
        let length: usize = inputs.iter().map(Tensor::binary_len).sum();
        // Before any copy is made. Of a batch each item has its part.
        let least = length / origin.rows().max(1);
        if u64::try_from(least).unwrap_or(u64::MAX) > rules.max_bytes {
            return self.count_dropped(Cause::TooLarge);
        }
        let Some(draft) = Draft::new(origin, inputs, row, said, reason) else { return };
        self.writer.call_once(|| self.start_writer());
        let max_bytes = usize::try_from(rules.max_bytes.max(QUEUE_BYTES)).unwrap_or(usize::MAX);
        let dropped = self.inner.queue.push(draft, max_bytes);
        if dropped > 0 {
            self.inner.lock().figures.drop(Cause::Busy, dropped);
        }
    }

    fn start_writer(&self) {
        let inner = self.inner.clone();
        let thread = std::thread::Builder::new().name("samples".into());
        if let Err(error) = thread.spawn(move || inner.write_all()) {
            // Everything is dropped, and counted as that.
            self.inner.queue.close();
            tracing::error!(error = %error, "no thread for samples");
        }
    }
}

impl Inner {
    /// Takes the rules over; gives what has to go by them.
    fn follow(&self, rules: config::Capture) -> Option<BTreeSet<Held>> {
        let mut state = self.lock();
        let is_on = rules.consent;
        state.rules = Arc::new(rules);
        if is_on {
            return None;
        }
        state.recent.clear();
        state.figures.drop(Cause::Withdrawn, self.queue.clear());
        Some(self.samples.let_go())
    }

    /// Blocks on the disk, and holds nothing meanwhile that who serves needs.
    fn remove_all(&self, gone: BTreeSet<Held>) {
        let (count, removed) = self.samples.remove_all(gone);
        self.lock().figures.drop(Cause::Withdrawn, count);
        if let Err(error) = removed {
            tracing::error!(
                error = crate::chain(&error),
                "samples without consent could not be removed; they are not sent"
            );
        }
    }

    /// The same for what the quota has no room for any more.
    fn trim(&self) {
        let quota_bytes = self.lock().rules.quota_bytes;
        let count = self.samples.trim(quota_bytes);
        self.lock().figures.drop(Cause::Displaced, count);
    }

    /// The first strategy that wants the item and still has a share of the day; else the first that wants it.
    fn decide(&self, rules: &config::Capture, seen: Seen, at: UnixMillis) -> Option<Strategy> {
        let mut state = self.lock();
        let mut first = None;
        for strategy in decide::at_answer(rules, seen, || state.draws.next()) {
            if self.samples.has_share(strategy, bounds(rules), at) {
                return Some(strategy);
            }
            first = first.or(Some(strategy));
        }
        first
    }

    /// The rows of a batch from a random one on: where not all can be kept, none is kept for standing at the head.
    fn order(&self, rows: usize) -> impl Iterator<Item = usize> + use<> {
        let draw = if rows > 1 { self.lock().draws.next() } else { 0 };
        let first = usize::try_from(draw).unwrap_or(0).checked_rem(rows).unwrap_or(0);
        (first..rows).chain(0..first)
    }

    fn write_all(&self) {
        while let Some(draft) = self.queue.take() {
            let (head, bytes) = (&draft.head, draft.join());
            let rules = self.lock().rules.clone();
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if size > rules.max_bytes.min(MAX_SAMPLE_BYTES) {
                self.lock().figures.drop(Cause::TooLarge, 1);
                continue;
            }
            if !rules.consent {
                self.lock().figures.drop(Cause::Withdrawn, 1);
                continue;
            }
            let put = self.samples.put(head.strategy, head.at, &bytes, bounds(&rules));
            let mut state = self.lock();
            // Withdrawn while it was being written: it goes with the others.
            let is_withdrawn = !state.rules.consent;
            let is_lower = state.rules.quota_bytes < rules.quota_bytes;
            let figures = &mut state.figures;
            match put {
                Ok(Put::Kept { displaced }) => {
                    *figures.taken.entry(head.strategy).or_default() += 1;
                    figures.drop(Cause::Displaced, displaced);
                }
                Ok(Put::DayIsFull) => figures.drop(Cause::Day, 1),
                Ok(Put::NoRoom) => figures.drop(Cause::NoRoom, 1),
                Err(error) => {
                    figures.drop(Cause::Disk, 1);
                    tracing::warn!(error = crate::chain(&error), "a sample could not be kept");
                }
            }
            drop(state);
            if is_withdrawn {
                self.remove_all(self.samples.let_go());
            } else if is_lower {
                self.trim();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounds(rules: &config::Capture) -> Bounds {
    Bounds { quota_bytes: rules.quota_bytes, max_per_day: rules.max_per_day }
}

#[cfg(test)]
mod tests;
