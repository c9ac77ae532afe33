//! Dry run: which devices, when, and what would block. Runs the engine itself on the plan, so that it can't differ.

use protocol::{DeviceId, RolloutId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::engine::step;
use crate::event::{Actor, Event, Input, Verb};
use crate::facts::Facts;
use crate::phase::{Phase, SkipReason};
use crate::plan::ValidPlan;
use crate::state::{Rollout, Status};

/// What a plan would do to the fleet as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DryRun {
    /// Devices that would get the release.
    pub targets: u64,
    /// Stage by stage; the group held for comparison comes last.
    pub stages: Vec<DryStage>,
    /// Devices of the target that would not get it.
    pub skipped: Vec<(DeviceId, SkipReason)>,
    /// What would block or weaken it.
    pub problems: Vec<Problem>,
}

/// One stage of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryStage {
    /// Its name.
    pub name: String,
    /// Its devices in the order of the seed.
    pub devices: Vec<DeviceId>,
    /// Those of them that are connected now.
    pub online: u64,
    /// Soak times of the stages before it: it can't start earlier after the rollout's start.
    pub not_before_s: u64,
    /// Devices that could serve as the control group at its start.
    pub controls: u64,
}

/// Something to know before the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stage, from 0; none = the whole plan.
    pub stage: Option<u16>,
    /// Whether the rollout would stop because of it.
    pub is_blocking: bool,
    /// One sentence.
    pub why: String,
}

/// Tries a plan on the fleet.
pub fn dry_run(id: RolloutId, plan: &ValidPlan, fleet: &[Facts], now: UnixMillis) -> DryRun {
    let rollout = begun(id, plan, fleet, now);
    let mut problems = Vec::new();
    if let Status::Invalidated { reason } = rollout.status() {
        problems.push(Problem { stage: None, is_blocking: true, why: reason.clone() });
    }
    let stages = stages(&rollout, fleet);
    for (i, stage) in (0_u16..).zip(&stages) {
        stage_problems(&rollout, i, stage, &mut problems);
    }
    let skipped = rollout.tasks().iter().filter_map(|t| match t.phase {
        Phase::Skipped(reason) => Some((t.device.clone(), reason)),
        _ => None,
    });
    DryRun {
        targets: stages.iter().map(|s| count(&s.devices)).sum(),
        skipped: skipped.collect(),
        stages,
        problems,
    }
}

fn begun(id: RolloutId, plan: &ValidPlan, fleet: &[Facts], now: UnixMillis) -> Rollout {
    let plan = plan.clone().ready_to_start();
    let mut rollout = Rollout::new(id, plan, Actor::Engine, now);
    for event in [Event::Devices(fleet.to_vec()), Event::Verb(Verb::Submit), Event::Tick] {
        rollout = step(rollout, Input { actor: Actor::Engine, event }, now).0;
    }
    rollout
}

fn stages(rollout: &Rollout, fleet: &[Facts]) -> Vec<DryStage> {
    let online: std::collections::BTreeSet<&DeviceId> =
        fleet.iter().filter(|f| f.is_online).map(|f| &f.device).collect();
    let mut members: Vec<Vec<(u64, &DeviceId, bool)>> = vec![Vec::new(); rollout.core.stages.len()];
    let mut held = 0_u64;
    for task in rollout.tasks() {
        match task.stage.and_then(|s| members.get_mut(usize::from(s))) {
            Some(stage) => stage.push((task.rank, &task.device, task.previous.is_some())),
            None => held += u64::from(is_held(task.phase) && task.previous.is_some()),
        }
    }
    let with_old = |stage: &Vec<(u64, &DeviceId, bool)>| count_if(stage, |m| m.2);
    let mut controls = held + members.iter().map(with_old).sum::<u64>();
    let mut not_before_s = 0;
    let mut stages = Vec::new();
    for (i, mut stage) in members.into_iter().enumerate() {
        stage.sort_unstable();
        controls -= with_old(&stage);
        let devices: Vec<DeviceId> = stage.iter().map(|m| m.1.clone()).collect();
        stages.push(DryStage {
            name: rollout.core.stages[i].name.clone(),
            online: count_if(&stage, |m| online.contains(m.1)),
            devices,
            not_before_s,
            controls,
        });
        not_before_s += rollout.plan().stages.get(i).map_or(0, |s| s.soak_s);
    }
    stages
}

fn is_held(phase: Phase) -> bool {
    matches!(phase, Phase::Skipped(SkipReason::Control | SkipReason::NotSelected))
}

fn stage_problems(rollout: &Rollout, i: u16, stage: &DryStage, problems: &mut Vec<Problem>) {
    let mut problem = |is_blocking, why: String| problems.push(Problem { stage: Some(i), is_blocking, why });
    if stage.devices.is_empty() {
        return problem(false, format!("{} has no device and is passed over", stage.name));
    }
    if stage.online == 0 {
        problem(false, format!("no device of {} is connected now", stage.name));
    }
    for gate in rollout.gates(i).iter().filter(|g| g.needs_control()) {
        if stage.controls == 0 {
            let why = "compares with a control group, but no device would still run an old release";
            problem(true, format!("{} of {} {why}", gate.label(), stage.name));
        }
    }
    for gate in rollout.plan().not_judged(i).into_iter().filter(|_| stage.controls == 0) {
        let why = "no device would still run an old release to compare with";
        problem(false, format!("{} isn't judged in {}: {why}", gate.label(), stage.name));
    }
    for gate in rollout.gates(i).iter().filter(|g| g.metric.is_counted()) {
        if gate.min_sample > count(&stage.devices) {
            let why = format!("asks for {} devices, the stage has {}", gate.min_sample, stage.devices.len());
            problem(false, format!("{} {why}: all of them count", gate.label()));
        }
    }
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn count_if<T>(items: &[T], is_meant: impl Fn(&T) -> bool) -> u64 {
    u64::try_from(items.iter().filter(|i| is_meant(i)).count()).unwrap_or(u64::MAX)
}
