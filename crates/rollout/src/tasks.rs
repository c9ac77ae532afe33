//! The tasks of a rollout with the indexes that keep a step's cost at what changed: counts per stage, a queue per
//! stage in seed order, and deadlines in order of time. Indexes are never stored; they are rebuilt on load.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::CauseKind;
use protocol::{DeviceId, ReleaseRef, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::gate::Metric;
use crate::phase::{Phase, PhaseName};

/// One device's part in the rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Which device.
    pub device: DeviceId,
    /// Its stage; none before the rollout begins, for the control group and for skipped devices.
    pub stage: Option<u16>,
    /// Place in the order of the seed.
    pub rank: u64,
    /// The stage whose list or filter names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u16>,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// When it entered that phase.
    pub since: UnixMillis,
    /// Offers so far.
    pub attempt: u32,
    /// How often a person gave it another chance: the attempt that its Desired names, which makes a device begin anew that
    /// has ended. What passes by itself a device tries again by itself.
    #[serde(default)]
    pub chances: u32,
    /// Offers before its newest chance: each chance brings the plan's retries anew.
    #[serde(default)]
    pub offered_before: u32,
    /// When the engine acts by itself: retry, unreachable, timed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<UnixMillis>,
    /// The release that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReleaseRef>,
    /// Offset of local time from UTC in seconds.
    #[serde(default)]
    pub utc_offset_s: i32,
    /// Why the attempt before failed, while the task waits for its retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<CauseKind>,
    /// Set while the device is being brought back.
    #[serde(default)]
    pub is_restoring: bool,
    /// What it reported after its end, for people; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<PhaseName>,
}

impl Task {
    /// Whether its Desired was ever set by this rollout.
    pub fn was_offered(&self) -> bool {
        self.attempt > 0
    }

    /// Offers since its newest chance: what the plan's retries bound.
    pub fn tries(&self) -> u32 {
        self.attempt.saturating_sub(self.offered_before)
    }

    /// Whether it has failed or is unreachable: what a person may give another chance.
    pub fn is_lost(&self) -> bool {
        self.phase.is_failure() || self.phase == Phase::Unreachable
    }

    /// Whether an attempt has failed and another is to come.
    pub fn waits_for_retry(&self) -> bool {
        self.phase == Phase::Queued && self.was_offered()
    }
}

/// Counts of one stage. The total never shrinks: a device that leaves stays in the denominator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    phases: BTreeMap<PhaseName, u64>,
    failures: BTreeMap<(FailureKind, CauseKind), u64>,
    total: u64,
    active: u64,
    shadow_is_place: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FailureKind {
    RolledBack,
    Other,
}

impl Tally {
    /// Devices in the stage.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Devices in this phase.
    pub fn count(&self, phase: PhaseName) -> u64 {
        self.phases.get(&phase).copied().unwrap_or(0)
    }

    /// Every phase that occurs.
    pub fn counts(&self) -> impl Iterator<Item = (PhaseName, u64)> {
        self.phases.iter().filter(|(_, n)| **n > 0).map(|(phase, n)| (*phase, *n))
    }

    /// Devices that hold the release: committed, or in shadow where that is the plan's mode.
    pub fn in_place(&self) -> u64 {
        self.count(PhaseName::Committed)
            + if self.shadow_is_place { self.count(PhaseName::Shadow) } else { 0 }
    }

    /// Devices that answered with an end. Unreachable and canceled ones are no evidence.
    pub fn concluded(&self) -> u64 {
        self.in_place() + self.all_failures()
    }

    /// Devices of which nothing more is expected.
    pub fn settled(&self) -> u64 {
        let waiting = self.count(PhaseName::Queued) + self.active;
        self.total - waiting + if self.shadow_is_place { self.count(PhaseName::Shadow) } else { 0 }
    }

    /// Devices at work.
    pub fn active(&self) -> u64 {
        self.active - if self.shadow_is_place { self.count(PhaseName::Shadow) } else { 0 }
    }

    /// Failures of every kind.
    pub fn all_failures(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Failures that a counted metric is about.
    pub fn failures(&self, metric: Metric, kind: Option<CauseKind>) -> u64 {
        let is_meant = |(class, cause): &(FailureKind, CauseKind)| {
            use CauseKind::{GoldenMismatch, Load, Timeout, TooBig, TooSlow};
            let by_metric = match metric {
                Metric::InstallFailures => true,
                Metric::Timeouts => *cause == Timeout,
                Metric::SelfTestFailures => {
                    *class == FailureKind::Other && matches!(cause, GoldenMismatch | Load | TooBig | TooSlow)
                }
                Metric::ProbationFailures => *class == FailureKind::RolledBack,
                Metric::LatencyP95
                | Metric::ErrorRate
                | Metric::PredictionDrift
                | Metric::InputDrift
                | Metric::Accuracy
                | Metric::EstimatedAccuracy => false,
            };
            by_metric && kind.is_none_or(|k| k == *cause)
        };
        self.failures.iter().filter(|(key, _)| is_meant(key)).map(|(_, n)| n).sum()
    }

    fn add(&mut self, phase: Phase) {
        *self.phases.entry(phase.name()).or_default() += 1;
        self.active += u64::from(phase.is_active());
        self.total += 1;
        if let Some(key) = failure_key(phase) {
            *self.failures.entry(key).or_default() += 1;
        }
    }

    fn remove(&mut self, phase: Phase) {
        decrease(&mut self.phases, &phase.name());
        self.active -= u64::from(phase.is_active());
        self.total -= 1;
        if let Some(key) = failure_key(phase) {
            decrease(&mut self.failures, &key);
        }
    }
}

fn failure_key(phase: Phase) -> Option<(FailureKind, CauseKind)> {
    let class =
        if phase.name() == PhaseName::RolledBack { FailureKind::RolledBack } else { FailureKind::Other };
    phase.cause().map(|cause| (class, cause))
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// All tasks of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskTable {
    tasks: Vec<Task>,
    by_device: BTreeMap<DeviceId, usize>,
    tallies: Vec<Tally>,
    ready: Vec<BTreeSet<(u64, usize)>>,
    due: BTreeSet<(UnixMillis, u64, usize)>,
    restoring: usize,
    shadow_is_place: bool,
}

impl TaskTable {
    /// A table from stored tasks; `shadow_is_place` for plans that run in shadow.
    pub fn build(tasks: Vec<Task>, shadow_is_place: bool) -> Self {
        let mut table = Self { shadow_is_place, ..Self::default() };
        for task in tasks {
            table.insert(task);
        }
        table
    }

    /// Adds a task; an older one of the same device is kept and the new one dropped.
    pub fn insert(&mut self, task: Task) {
        if self.by_device.contains_key(&task.device) {
            return;
        }
        let at = self.tasks.len();
        self.by_device.insert(task.device.clone(), at);
        self.tasks.push(task);
        self.index(at);
    }

    /// Where a device's task stands in the table.
    pub fn find(&self, device: &DeviceId) -> Option<usize> {
        self.by_device.get(device).copied()
    }

    /// The task at a place that [`Self::find`] gave.
    pub fn get(&self, at: usize) -> &Task {
        &self.tasks[at]
    }

    /// Every place in the order of the devices' names: the same after loading as before.
    pub fn places(&self) -> Vec<usize> {
        self.by_device.values().copied().collect()
    }

    /// Every task.
    pub fn all(&self) -> &[Task] {
        &self.tasks
    }

    /// Changes one task and every index that it stands in.
    pub fn update(&mut self, at: usize, change: impl FnOnce(&mut Task)) {
        self.unindex(at);
        change(&mut self.tasks[at]);
        self.index(at);
    }

    /// Counts of a stage.
    pub fn tally(&self, stage: u16) -> Tally {
        self.tallies.get(usize::from(stage)).cloned().unwrap_or_default()
    }

    /// Counts of a stage, borrowed; `None` when it has no device.
    pub fn tally_ref(&self, stage: u16) -> Option<&Tally> {
        self.tallies.get(usize::from(stage))
    }

    /// The next device of a stage to be offered the release.
    pub fn first_ready(&self, stage: u16) -> Option<usize> {
        self.ready.get(usize::from(stage))?.first().map(|(_, at)| *at)
    }

    /// The first task whose time has come.
    pub fn first_due(&self, now: UnixMillis) -> Option<usize> {
        self.due.first().filter(|(due, _, _)| *due <= now).map(|(_, _, at)| *at)
    }

    /// When the next deadline is.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.due.first().map(|(due, _, _)| *due)
    }

    /// Devices that are being brought back.
    pub fn restoring(&self) -> usize {
        self.restoring
    }

    fn index(&mut self, at: usize) {
        let task = &self.tasks[at];
        self.restoring += usize::from(task.is_restoring);
        if let Some(due) = task.due {
            self.due.insert((due, task.rank, at));
        }
        let Some(stage) = task.stage.map(usize::from) else { return };
        if self.tallies.len() <= stage {
            let empty = Tally { shadow_is_place: self.shadow_is_place, ..Tally::default() };
            self.tallies.resize(stage + 1, empty);
            self.ready.resize(stage + 1, BTreeSet::new());
        }
        self.tallies[stage].add(task.phase);
        if task.phase == Phase::Queued && task.due.is_none() {
            self.ready[stage].insert((task.rank, at));
        }
    }

    fn unindex(&mut self, at: usize) {
        let task = &self.tasks[at];
        self.restoring -= usize::from(task.is_restoring);
        if let Some(due) = task.due {
            self.due.remove(&(due, task.rank, at));
        }
        let Some(stage) = task.stage.map(usize::from) else { return };
        self.tallies[stage].remove(task.phase);
        self.ready[stage].remove(&(task.rank, at));
    }
}
