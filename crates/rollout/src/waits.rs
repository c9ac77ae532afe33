//! The one answer to "what is this rollout waiting for?".

use protocol::{DeviceId, UnixMillis};

use crate::engine::millis;
use crate::gate::Verdict;
use crate::phase::Phase;
use crate::state::{Rollout, StageState, Status};
use crate::tasks::Task;

/// Devices named in the answer; the rest is counted.
const NAMED: usize = 3;

impl Rollout {
    /// Up to `most` devices of which an end is still expected: of the current stage, or of those that go back.
    pub fn unsettled(&self, most: usize) -> impl Iterator<Item = &DeviceId> {
        self.waiting_tasks().map(|task| &task.device).take(most)
    }

    /// What keeps a running rollout in its stage, or one that goes back from its end, in one sentence; `None` when it
    /// does neither or goes on by itself with the next tick. `is_online` is asked about the devices that are named.
    pub fn waits_for(&self, now: UnixMillis, is_online: impl Fn(&DeviceId) -> bool) -> Option<String> {
        let stage = match self.core.status {
            Status::Running { stage } => stage,
            Status::RollingBack { .. } => return self.waits_for_devices(is_online),
            _ => return None,
        };
        let state = self.core.stages.get(usize::from(stage))?;
        match state.state {
            StageState::Offering => self.waits_for_devices(is_online),
            StageState::Soaking => {
                let soak_s = self.stage_plan(stage).map_or(0, |planned| planned.soak_s);
                let left_ms =
                    state.soaking_since.map(|since| since.plus_millis(millis(soak_s)).millis_since(now));
                let soaks =
                    left_ms.filter(|left| *left > 0).map(|left| format!("soaks {} s more", left / 1000 + 1));
                let open = state.gates.iter().filter_map(|judged| match &judged.verdict {
                    Verdict::Open(why) => Some(format!("{}: {why}", judged.gate)),
                    Verdict::Passed(_) | Verdict::Failed(_) => None,
                });
                let all: Vec<String> = soaks.into_iter().chain(open).collect();
                (!all.is_empty()).then(|| all.join("; "))
            }
            StageState::Pending | StageState::GatePassed | StageState::GateFailed => None,
        }
    }

    fn waits_for_devices(&self, is_online: impl Fn(&DeviceId) -> bool) -> Option<String> {
        let count = self.waiting_tasks().count();
        let named: Vec<String> = self
            .waiting_tasks()
            .take(NAMED)
            .map(|task| {
                let is_gone = !is_online(&task.device);
                let standing = if is_gone { "is not connected".to_owned() } else { standing(task) };
                format!("{} {standing}", task.device)
            })
            .collect();
        let more = count - named.len();
        let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
        (count > 0).then(|| format!("{}{rest}", named.join(", ")))
    }

    fn waiting_tasks(&self) -> impl Iterator<Item = &Task> {
        let (is_rolling_back, stage) =
            (matches!(self.core.status, Status::RollingBack { .. }), self.core.status.stage());
        let is_open = |task: &Task| task.phase == Phase::Queued || task.phase.is_active();
        let is_in_stage = move |task: &Task| stage.is_some() && task.stage == stage;
        self.tasks.all().iter().filter(move |task| {
            if is_rolling_back { task.is_restoring } else { is_in_stage(task) && is_open(task) }
        })
    }
}

fn standing(task: &Task) -> String {
    match (task.phase, task.last_failure) {
        _ if task.is_restoring => "hasn't confirmed its earlier release yet".into(),
        (Phase::Queued, Some(cause)) => format!("waits for its retry after {cause}"),
        (Phase::Queued, None) => "waits for its turn".into(),
        (Phase::Offered, _) => "hasn't answered the offer yet".into(),
        (Phase::Probation, _) => "is in probation".into(),
        _ => "is at work".into(),
    }
}
