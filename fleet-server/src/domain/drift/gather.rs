//! From the stored panes of two groups to what each counted, in one pass and in little memory, however long the time and
//! however large the fleet: of each device some figures are held, of each group one sum.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use profile::{Counters, Pane, PaneError, Reference, Schema};
use protocol::{DeviceId, ModelName, ProjectId, UnixMillis};
use tracing::warn;

use super::evidence::Group;
use super::panes::{DriftError, reference_of};
use crate::app::AppState;
use crate::store::telemetry::{PaneRow, PanesWanted, panes_of_releases};
use crate::store::{Conn, releases};

/// Rows that are decoded in one go, away from the async threads; so many are in memory at once.
const CHUNK: usize = 128;

/// Hits and tries of a side.
pub(super) type Tries = (u64, u64);

/// What a group counted.
pub(super) struct Seen {
    pub(super) schema: Schema,
    pub(super) reference: Counters,
    pub(super) counters: Counters,
    /// Each device's own figures.
    pub(super) by_device: Vec<Own>,
    pub(super) devices: u32,
}

/// What one device counted, as far as each device is weighed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Own {
    /// Right answers of the labelled ones.
    pub(super) labelled: Tries,
    /// Failed requests of all.
    pub(super) requests: Tries,
    /// Predictions.
    pub(super) predictions: u64,
    /// So many of them are right, by their own probability.
    pub(super) expected: f64,
}

impl Own {
    /// The figures of these counters.
    pub(super) fn of(schema: &Schema, counters: &Counters) -> Self {
        let (answered, failed) = (counters.answered, counters.failed());
        let predictions = counters.classes().map_or(0, |classes| classes.n);
        let share = counters.classes().and_then(profile::ClassCounts::estimated_accuracy).unwrap_or(0.0);
        Self {
            labelled: (counters.labelled.correct(schema.classes()), counters.labelled.n),
            requests: (failed, failed.saturating_add(answered)),
            predictions,
            expected: share.clamp(0.0, 1.0) * predictions as f64,
        }
    }

    fn add(&mut self, other: &Self) {
        let sum = |a: Tries, b: Tries| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        self.labelled = sum(self.labelled, other.labelled);
        self.requests = sum(self.requests, other.requests);
        self.predictions = self.predictions.saturating_add(other.predictions);
        self.expected += other.expected;
    }
}

/// A group while its panes come in, by time and device.
struct Gathering {
    group: Group,
    reference: Reference,
    whole: Option<Pane>,
    by_device: BTreeMap<DeviceId, Own>,
    /// Whose panes of which start are held back: a correction may follow, which replaces one.
    at: Option<(UnixMillis, DeviceId)>,
    /// The newest revision of each run.
    held: BTreeMap<(UnixMillis, u64), Pane>,
    refused: u64,
}

/// What both groups counted; `None` for one of which nothing is known.
///
/// # Errors
/// [`DriftError`] when database, blob store or a reference fail.
pub(super) async fn gather(
    state: &AppState,
    wanted: &PanesWanted,
    groups: (&Group, Option<&Group>),
) -> Result<(Option<Seen>, Option<Seen>), DriftError> {
    let mut conn = state.store.read().await?;
    let of = (&wanted.project, &wanted.model);
    let Some(candidate) = Gathering::of(state, &mut conn, of, groups.0).await? else {
        return Ok((None, None));
    };
    let control = match groups.1 {
        Some(group) => Gathering::of(state, &mut conn, of, group).await?,
        None => None,
    };
    let mut sides: Vec<Gathering> = [Some(candidate), control].into_iter().flatten().collect();
    let mut chunks = panes_of_releases(&mut conn, wanted).try_chunks(CHUNK).boxed();
    while let Some(chunk) = chunks.next().await {
        let rows = chunk.map_err(|e| e.1)?;
        let added = tokio::task::spawn_blocking(move || {
            for side in &mut sides {
                for row in &rows {
                    side.add(row);
                }
            }
            sides
        });
        sides = added.await.map_err(DriftError::Panicked)?;
    }
    let mut sides = sides.into_iter().map(Gathering::end);
    Ok((sides.next().flatten(), sides.next().flatten()))
}

impl Gathering {
    async fn of(
        state: &AppState,
        conn: &mut Conn,
        (project, model): (&ProjectId, &ModelName),
        group: &Group,
    ) -> Result<Option<Self>, DriftError> {
        let Some(release) = releases::by_digest(conn, project, model, &group.digest).await? else {
            return Ok(None);
        };
        Ok(Some(Self::new(group.clone(), reference_of(&state.blobs, &release).await?)))
    }

    fn new(group: Group, reference: Reference) -> Self {
        Self {
            group,
            reference,
            whole: None,
            by_device: BTreeMap::new(),
            at: None,
            held: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Takes in a row, if it is the group's.
    fn add(&mut self, row: &PaneRow) {
        if row.digest != self.group.digest || !self.group.devices.contains(&row.device) {
            return;
        }
        if self.at.as_ref().is_none_or(|(start, device)| (*start, device) != (row.window_start, &row.device))
        {
            self.count();
            self.at = Some((row.window_start, row.device.clone()));
        }
        match Pane::decode(&row.body).and_then(|pane| pane.check(&self.reference).map(|()| pane)) {
            Ok(pane) => self.hold(pane),
            Err(e) => self.refuse(row, &e),
        }
    }

    fn hold(&mut self, pane: Pane) {
        let run = (pane.key.start, pane.key.run);
        if self.held.get(&run).is_none_or(|old| old.key.revision <= pane.key.revision) {
            self.held.insert(run, pane);
        }
    }

    /// One line in the log for all of them: the same panes are looked at again and again.
    fn refuse(&mut self, row: &PaneRow, why: &PaneError) {
        if self.refused == 0 {
            warn!(device = %row.device, stream = %row.stream, seq = row.seq, "a pane is left out of evidence: {why}");
        }
        self.refused += 1;
    }

    /// Adds what is held.
    fn count(&mut self) {
        let Some((_, device)) = self.at.take() else { return };
        for pane in std::mem::take(&mut self.held).into_values() {
            let own = self.by_device.entry(device.clone()).or_default();
            own.add(&Own::of(&self.reference.schema, &pane.counters));
            match &mut self.whole {
                Some(whole) => whole.merge(&pane).expect("both were checked against the same reference"),
                None => self.whole = Some(pane),
            }
        }
    }

    fn end(mut self) -> Option<Seen> {
        self.count();
        if self.refused > 1 {
            warn!(model = %self.group.digest, panes = self.refused, "panes are left out of evidence");
        }
        Some(Seen {
            schema: self.reference.schema,
            reference: self.reference.counters,
            counters: self.whole?.counters,
            devices: u32::try_from(self.by_device.len()).unwrap_or(u32::MAX),
            by_device: self.by_device.into_values().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use profile::features::Extractor;
    use profile::{Observed, PaneKey, ReferenceBuilder};
    use protocol::{Digest, StreamId, Version};

    use super::*;

    fn reference() -> Reference {
        let extractor = Extractor::Columns { input: "x".into(), names: vec!["level".into()] };
        let mut builder = ReferenceBuilder::new(extractor, vec!["a".into(), "b".into()]);
        for i in 0..200u32 {
            builder.add_classified(&[Observed::Number(f64::from(i % 100))], &[0.9, 0.1], Some(0));
        }
        builder.build().unwrap()
    }

    fn device(number: i64) -> DeviceId {
        DeviceId::new(format!("cam-{number}")).unwrap()
    }

    /// A pane of `n` answers.
    fn row(
        reference: &Reference,
        (start, from): (i64, i64),
        (run, revision): (u64, u32),
        n: usize,
    ) -> PaneRow {
        let key = PaneKey {
            model: ModelName::new("digits").unwrap(),
            digest: Digest::from_bytes([7; 32]),
            schema: reference.schema.digest(),
            segment: String::new(),
            start: UnixMillis(start),
            end: UnixMillis(start + 10),
            run,
            revision,
        };
        let mut pane = Pane::new(key.clone(), &reference.schema);
        for _ in 0..n {
            pane.counters.observe_answer(1000.0);
        }
        PaneRow {
            device: device(from),
            stream: StreamId::new("s").unwrap(),
            seq: 1,
            model: key.model,
            version: Version::new("1.0.0").unwrap(),
            digest: key.digest,
            segment: key.segment,
            window_start: key.start,
            window_end: key.end,
            n: n as u64,
            body: pane.encode(),
            received_at: key.end,
        }
    }

    #[test]
    fn panes_are_held_for_one_instant_of_one_device_only() {
        let reference = reference();
        let digest = Digest::from_bytes([7; 32]);
        let group = Group { digest, devices: (0..4).map(device).collect() };
        let mut side = Gathering::new(group, reference.clone());
        for start in 0..50 {
            for from in 0..5 {
                side.add(&row(&reference, (start * 10, from), (1, 0), 2));
                side.add(&row(&reference, (start * 10, from), (2, 0), 3));
                side.add(&row(&reference, (start * 10, from), (1, 1), 1));
                assert!(side.held.len() <= 2, "{}", side.held.len());
            }
        }
        let seen = side.end().unwrap();
        assert_eq!(
            (seen.devices, seen.counters.answered),
            (4, 50 * 4 * 4),
            "the last device is not of the group"
        );
        assert!(seen.by_device.iter().all(|own| own.requests == (0, 200)), "{:?}", seen.by_device);
    }
}
