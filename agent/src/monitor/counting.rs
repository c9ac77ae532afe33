//! The open pane of one release.

use std::sync::Arc;
use std::time::Duration;

use inference::features::{self, Answer};
use profile::{Observed, Pane, PaneKey, Reference};
use protocol::{Digest, ModelName, UnixMillis};

/// Longest window that a pane with too few rows may grow to, in windows.
const MAX_CARRIED_WINDOWS: i64 = 12;
/// The same in milliseconds; below what the server accepts, also after the clock has jumped.
const MAX_GROWN_MS: i64 = 7 * 24 * 3600 * 1000;

/// Counts one release; holds its reference, which fixes the edges.
#[derive(Debug)]
pub(super) struct Counting {
    model: ModelName,
    digest: Digest,
    schema_digest: Digest,
    reference: Arc<Reference>,
    min_rows: u64,
    run: u64,
    window_ms: i64,
    pane: Option<Pane>,
}

impl Counting {
    pub(super) fn new(
        model: ModelName,
        digest: Digest,
        reference: Arc<Reference>,
        min_rows: u32,
        run: u64,
        window: Duration,
    ) -> Self {
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX).max(1);
        let schema_digest = reference.schema.digest();
        Self {
            model,
            digest,
            schema_digest,
            reference,
            min_rows: min_rows.into(),
            run,
            window_ms,
            pane: None,
        }
    }

    pub(super) fn reference(&self) -> Arc<Reference> {
        Arc::clone(&self.reference)
    }

    /// Counts one answered request. A pane whose window has passed is returned, closed.
    pub(super) fn answered(
        &mut self,
        at: UnixMillis,
        latency: Duration,
        rows: &[Vec<Observed<'_>>],
        answers: &[Answer],
    ) -> Option<Pane> {
        let closed = self.close_due(at);
        let reference = Arc::clone(&self.reference);
        let counters = &mut self.open(at).counters;
        counters.observe_answer(latency.as_secs_f64() * 1e6);
        features::observe(counters, &reference.schema, rows, answers);
        closed
    }

    /// Counts one failed request. `kind` is a fixed name.
    pub(super) fn failed(&mut self, at: UnixMillis, kind: &'static str) -> Option<Pane> {
        let closed = self.close_due(at);
        self.open(at).counters.observe_error(kind);
        closed
    }

    /// Counts true labels, for the class that was said then, in the window in which they came.
    pub(super) fn labelled(
        &mut self,
        at: UnixMillis,
        pairs: impl Iterator<Item = (usize, Option<usize>)>,
        delay: Duration,
    ) -> Option<Pane> {
        let closed = self.close_due(at);
        let reference = Arc::clone(&self.reference);
        let counters = &mut self.open(at).counters;
        for (predicted, actual) in pairs {
            counters.observe_label(&reference.schema, predicted, actual, delay.as_secs_f64());
        }
        closed
    }

    /// Closes the pane if its window has passed. One with too few rows for the release's privacy policy stays
    /// open and grows by a window. A clock that was ahead and was set back ends the window that it had begun: nobody
    /// could wait until it comes.
    pub(super) fn close_due(&mut self, now: UnixMillis) -> Option<Pane> {
        let pane = self.pane.as_mut()?;
        if now.plus_millis(self.window_ms) < pane.key.start {
            let end = pane.key.end;
            return self.close(end);
        }
        if now < pane.key.end {
            return None;
        }
        let grown = window_end(now, self.window_ms);
        let bound_ms =
            MAX_GROWN_MS.min(self.window_ms.saturating_mul(MAX_CARRIED_WINDOWS)).max(self.window_ms);
        if pane.counters.answered < self.min_rows && grown.millis_since(pane.key.start) <= bound_ms {
            pane.key.end = grown;
            return None;
        }
        self.close(now)
    }

    /// Closes the pane now, before its time. One with too few rows is dropped: it may never leave the device.
    pub(super) fn close(&mut self, now: UnixMillis) -> Option<Pane> {
        let mut pane = self.pane.take()?;
        pane.key.end = pane.key.end.min(now.max(pane.key.start.plus_millis(1)));
        (pane.counters.answered >= self.min_rows || pane.counters.answered == 0).then_some(pane)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pane.is_none()
    }

    fn open(&mut self, at: UnixMillis) -> &mut Pane {
        let Self { model, digest, schema_digest, reference, run, window_ms, pane, .. } = self;
        pane.get_or_insert_with(|| {
            let end = window_end(at, *window_ms);
            let key = PaneKey {
                model: model.clone(),
                digest: *digest,
                schema: *schema_digest,
                segment: String::new(),
                start: end.plus_millis(-*window_ms),
                end,
                run: *run,
                revision: 0,
            };
            Pane::new(key, &reference.schema)
        })
    }
}

/// End of the window that holds `at`; windows of all devices begin at multiples of their length.
fn window_end(at: UnixMillis, window_ms: i64) -> UnixMillis {
    UnixMillis(at.0.div_euclid(window_ms).saturating_add(1).saturating_mul(window_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use profile::ReferenceBuilder;
    use profile::features::Extractor;

    fn counting(min_rows: u32) -> Counting {
        let mut builder = ReferenceBuilder::new(Extractor::Nothing, vec!["a".into(), "b".into()]);
        for _ in 0..20 {
            builder.add_classified(&[], &[0.8, 0.2], Some(0));
        }
        let reference = Arc::new(builder.build().unwrap());
        let model = ModelName::new("m").unwrap();
        Counting::new(model, Digest::from_bytes([1; 32]), reference, min_rows, 7, Duration::from_secs(10))
    }

    fn answer(counting: &mut Counting, at: i64) -> Option<Pane> {
        let answer = [Answer::Probabilities(vec![0.9, 0.1])];
        counting.answered(UnixMillis(at), Duration::from_millis(1), &[], &answer)
    }

    #[test]
    fn a_window_closes_with_the_first_event_after_it() {
        let mut counting = counting(1);
        assert!(answer(&mut counting, 12_000).is_none() && answer(&mut counting, 19_999).is_none());
        let closed = answer(&mut counting, 20_000).unwrap();
        assert_eq!((closed.key.start, closed.key.end), (UnixMillis(10_000), UnixMillis(20_000)));
        assert_eq!(closed.counters.answered, 2);
        assert!(Pane::decode(&closed.encode()).is_ok(), "the server accepts it");
    }

    #[test]
    fn a_pane_with_too_few_rows_waits_for_more() {
        let mut counting = counting(3);
        answer(&mut counting, 12_000);
        assert!(answer(&mut counting, 25_000).is_none());
        answer(&mut counting, 26_000);
        let closed = answer(&mut counting, 31_000).unwrap();
        assert_eq!((closed.key.start, closed.counters.answered), (UnixMillis(10_000), 3));
        assert!(counting.close(UnixMillis(32_000)).is_none(), "one row may not leave the device");
    }

    #[test]
    fn a_clock_that_jumps_ahead_ends_a_pane_with_too_few_rows() {
        let mut counting = counting(3);
        answer(&mut counting, 12_000);
        assert!(answer(&mut counting, 400 * 24 * 3_600_000).is_none());
        assert!(
            counting.pane.as_ref().is_some_and(|pane| pane.counters.answered == 1),
            "a new pane was opened"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_by_days_ends_the_window_that_it_had_begun() {
        let (mut counting, day) = (counting(1), 24 * 3_600_000);
        answer(&mut counting, day + 12_000);
        let closed = answer(&mut counting, 12_000).unwrap();
        assert_eq!((closed.key.start.0, closed.counters.answered), (day + 10_000, 1));
        assert_eq!(answer(&mut counting, 20_000).unwrap().key.start, UnixMillis(10_000), "time goes on");
    }

    #[test]
    fn a_clock_that_steps_back_counts_in_the_open_pane() {
        let mut counting = counting(1);
        answer(&mut counting, 12_000);
        assert!(answer(&mut counting, 3_000).is_none());
        let closed = counting.close(UnixMillis(4_000)).unwrap();
        assert_eq!(closed.counters.answered, 2);
        assert!(closed.key.end > closed.key.start);
    }
}
