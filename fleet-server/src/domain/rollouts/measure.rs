//! Evidence for gates: who is compared with whom. The numbers are drift's (`domain::drift::behaviour`).

use std::collections::{BTreeMap, BTreeSet};

use protocol::{DeviceId, Digest, ProjectId, UnixMillis};
use rollout::{Evidence, Rollout};

use super::RolloutError;
use crate::app::AppState;
use crate::domain::drift::{self, Group};

/// Measures every metric that a gate of the stage asks for: the stage's devices on the new release against the
/// devices still on the old one, from the stage's opening until now.
///
/// # Errors
/// [`RolloutError`] when panes or references can't be read.
pub(super) async fn measure(
    state: &AppState,
    project: &ProjectId,
    rollout: &Rollout,
    stage: u16,
    from: UnixMillis,
) -> Result<Vec<Evidence>, RolloutError> {
    let plan = rollout.plan();
    let devices = rollout.candidates(stage).cloned().collect();
    let candidate = Group { digest: plan.release.digest, devices };
    let control = control(rollout);
    let wanted: BTreeSet<_> = rollout
        .gates(stage)
        .into_iter()
        .filter(|gate| !gate.metric.is_counted())
        .map(|gate| (gate.slice, gate.metric))
        .collect();
    let slices: BTreeSet<&Option<String>> = wanted.iter().map(|(slice, _)| slice).collect();
    let (span, mut all) = ((from, state.clock.now()), Vec::new());
    for slice in slices {
        let groups = (&candidate, control.as_ref());
        let found = drift::behaviour(state, project, &plan.model, groups, span, slice.as_deref()).await?;
        all.extend(found.into_iter().filter(|e| wanted.contains(&(e.slice.clone(), e.metric))));
    }
    Ok(all)
}

/// The devices that were not offered the release, on the old release that most of them run.
fn control(rollout: &Rollout) -> Option<Group> {
    let mut by_release: BTreeMap<Digest, BTreeSet<DeviceId>> = BTreeMap::new();
    for device in rollout.controls() {
        let previous = rollout.task(device).and_then(|task| task.previous.as_ref());
        if let Some(previous) = previous {
            by_release.entry(previous.digest).or_default().insert(device.clone());
        }
    }
    let most = by_release.into_iter().max_by_key(|(_, devices)| devices.len());
    most.map(|(digest, devices)| Group { digest, devices })
}
