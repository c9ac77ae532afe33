//! Evidence for gates: who is compared with whom. The numbers are drift's (`domain::drift::behaviour`).

use std::collections::{BTreeMap, BTreeSet};

use protocol::{DeviceId, Digest, ProjectId, UnixMillis};
use rollout::{Evidence, Rollout};

use super::RolloutError;
use crate::app::AppState;
use crate::domain::drift::{self, Group};
use crate::store::alerts;

/// Measures every metric that a gate of the stage asks for: the stage's devices on the new release against the
/// devices still on the old one, from the stage's opening until now. Devices whose inputs alone drift are left out.
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
    let span = (from, state.clock.now());
    let alone = alerts::drifting_alone(&mut *state.store.read().await?, project, &plan.model, span).await?;
    // What drifts since the release came may be its fault: only what drifted before is left out there.
    let (candidate, mut left_out) =
        without(candidate, |device| alone.get(device).is_some_and(|since| *since < from));
    let control = control(rollout).map(|group| {
        let (group, out) = without(group, |device| alone.contains_key(device));
        left_out.extend(out);
        group
    });
    let wanted: BTreeSet<_> = rollout
        .gates(stage)
        .into_iter()
        .filter(|gate| !gate.metric.is_counted())
        .map(|gate| (gate.slice, gate.metric))
        .collect();
    let slices: BTreeSet<&Option<String>> = wanted.iter().map(|(slice, _)| slice).collect();
    let mut all = Vec::new();
    for slice in slices {
        let groups = (&candidate, control.as_ref());
        let found = drift::behaviour(state, project, &plan.model, groups, span, slice.as_deref()).await?;
        all.extend(found.into_iter().filter(|e| wanted.contains(&(e.slice.clone(), e.metric))));
    }
    for evidence in &mut all {
        evidence.left_out.clone_from(&left_out);
    }
    Ok(all)
}

/// The group without the devices that are known to be off; as it was if none would be left.
fn without(group: Group, is_off: impl Fn(&DeviceId) -> bool) -> (Group, Vec<DeviceId>) {
    let (off, rest): (BTreeSet<_>, BTreeSet<_>) = group.devices.iter().cloned().partition(|d| is_off(d));
    if rest.is_empty() {
        return (group, Vec::new());
    }
    (Group { devices: rest, ..group }, off.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn group(devices: &[&str]) -> Group {
        let devices = devices.iter().map(|d| DeviceId::new(*d).unwrap()).collect();
        Group { digest: Digest::from_bytes([7; 32]), devices }
    }

    #[test]
    fn a_device_that_is_off_is_left_out_unless_nobody_is_left() {
        let is_off = |device: &DeviceId| device.as_str() == "cam-4";
        let (rest, out) = without(group(&["cam-1", "cam-4"]), is_off);
        assert_eq!((rest, out.len()), (group(&["cam-1"]), 1));
        assert_eq!(without(group(&["cam-4"]), is_off), (group(&["cam-4"]), vec![]));
    }
}
