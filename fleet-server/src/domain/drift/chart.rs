//! Windows for a chart: at most so many, however long the time. Where there are more, neighbours of one release are added
//! together as old windows are merged, so that the chart is coarser and nothing is missing from it.

use std::collections::{BTreeMap, BTreeSet};

use profile::drift::DriftReport;
use profile::{Pane, Reference};
use protocol::{Digest, ModelName, ProjectId, UnixMillis};
use tokio::sync::mpsc;
use tracing::warn;

use super::WindowRules;
use super::panes::DriftError;
use super::reports::{compared, references_of, sound_pane, with_reports};
use crate::app::AppState;
use crate::store::drift::{self, DriftWindow, Findings, WindowFilter};

/// Chunks of windows that may wait to be added: reading waits for it.
const CHUNKS: usize = 4;
const HOUR_MS: i64 = 3_600_000;
/// What a chart's windows are added to until they are few enough.
const LENGTHS_MS: [i64; 8] =
    [60_000, 600_000, HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS, 30 * 24 * HOUR_MS, i64::MAX / 4];

/// Windows with their reports, oldest first. The filter's limit holds for what comes out.
///
/// # Errors
/// [`DriftError`] when database or blob store fail, or a release's reference is gone.
pub async fn chart(
    state: &AppState,
    project: &ProjectId,
    model: &ModelName,
    filter: &WindowFilter<'_>,
    rules: WindowRules,
) -> Result<Vec<(DriftWindow, DriftReport)>, DriftError> {
    // No connection is held while another one is waited for.
    let starts = drift::starts(&mut *state.store.read().await?, project, model, filter).await?;
    let most = usize::try_from(filter.limit).unwrap_or_default();
    if starts.len() <= most {
        let found = drift::list(&mut *state.store.read().await?, project, model, filter).await?;
        return with_reports(state, project, model, found).await;
    }
    let digests: BTreeSet<Digest> = starts.iter().map(|(_, digest)| *digest).collect();
    let references = references_of(state, project, model, digests).await?;
    let rules = coarse_enough(rules, &starts, most);
    let (send, receive) = mpsc::channel(CHUNKS);
    let added = tokio::task::spawn_blocking(move || add_up(receive, &references, rules));
    drift::send(&mut *state.store.read().await?, project, model, filter, send).await?;
    added.await.map_err(DriftError::Panicked)
}

/// The shortest windows that are at most `most`.
fn coarse_enough(rules: WindowRules, starts: &[(UnixMillis, Digest)], most: usize) -> WindowRules {
    let all = LENGTHS_MS.into_iter().map(|length_ms| rules.at_least(length_ms));
    let count = |rules: &WindowRules| {
        starts.iter().map(|(start, digest)| (rules.slot(*start), digest)).collect::<BTreeSet<_>>().len()
    };
    all.into_iter().find(|rules| count(rules) <= most).unwrap_or(rules)
}

/// Windows that become one.
struct Sum {
    first: DriftWindow,
    pane: Pane,
    end: UnixMillis,
}

fn add_up(
    mut windows: mpsc::Receiver<Vec<DriftWindow>>,
    references: &BTreeMap<Digest, Reference>,
    rules: WindowRules,
) -> Vec<(DriftWindow, DriftReport)> {
    let mut sums: BTreeMap<(UnixMillis, Digest), Sum> = BTreeMap::new();
    while let Some(chunk) = windows.blocking_recv() {
        for window in chunk {
            // A release that came between counting and reading is in the next answer.
            let Some(reference) = references.get(&window.digest) else { continue };
            let Some(pane) = sound_pane(&window, reference) else { continue };
            let place = (rules.slot(window.window_start), window.digest);
            if let Some(sum) = sums.get_mut(&place) {
                sum.add(&window, &pane);
            } else {
                let end = window.window_end;
                sums.insert(place, Sum { first: window, pane, end });
            }
        }
    }
    sums.into_values().filter_map(|sum| Some(sum.finished(references.get(&sum.first.digest)?))).collect()
}

impl Sum {
    fn add(&mut self, window: &DriftWindow, pane: &Pane) {
        match self.pane.merge(pane) {
            Ok(()) => self.end = self.end.max(window.window_end),
            Err(e) => warn!(start = window.window_start.0, "a drift window is left out of a chart: {e}"),
        }
    }

    fn finished(&self, reference: &Reference) -> (DriftWindow, DriftReport) {
        let report = compared(reference, &self.pane);
        let window = DriftWindow {
            window_end: self.end,
            n: self.pane.counters.answered,
            is_drifting: report.verdict.drifted > 0,
            findings: Findings::from(&report),
            ..self.first.clone()
        };
        (window, report)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_chart_is_as_fine_as_it_can_be() {
        let rules = WindowRules::new(Duration::from_mins(5), Duration::ZERO);
        let starts = |count: i64| {
            let digest = Digest::from_bytes([1; 32]);
            (0..count).map(|number| (UnixMillis(number * 300_000), digest)).collect::<Vec<_>>()
        };
        let minutes = |count| coarse_enough(rules, &starts(count), 500).length_ms / 60_000;
        assert_eq!([500, 501, 1000, 1001, 6000, 6001].map(minutes), [5, 10, 10, 60, 60, 360]);
    }
}
