//! What failed and may still be brought in: after a while, or once there is room in memory.

use protocol::message::Cause;

use super::{Action, Lacked, Phase, Record, Task, failed};

impl Record {
    /// What the wanted release lacked, if it failed for want of memory and for nothing else.
    pub fn lacks(&self, wanted: &Task) -> Option<&Lacked> {
        let is_wanted = self.phase.task().is_some_and(|task| task.answers(wanted));
        self.lacked.as_ref().filter(|_| is_wanted && matches!(self.phase, Phase::Failed { .. }))
    }
}

/// What only the surroundings refused is fetched anew.
pub(super) fn retry(mut record: Record) -> (Record, Vec<Action>) {
    match record.phase {
        Phase::Failed { task, cause } if cause.kind.is_retryable() => {
            record.phase = Phase::Fetching { task };
            record.transitions = 0;
            (record, vec![Action::Report])
        }
        same => {
            record.phase = same;
            (record, vec![])
        }
    }
}

/// The release is as good as before: it is tried again once there is room.
pub(super) fn too_big(record: Record, cause: Cause, lacked: Lacked) -> (Record, Vec<Action>) {
    let was_on_its_way =
        matches!(record.phase, Phase::Fetching { .. } | Phase::SelfTest { .. } | Phase::Activating { .. });
    let (mut record, actions) = failed(record, cause);
    if was_on_its_way {
        record.lacked = Some(lacked);
    }
    (record, actions)
}

/// What finds no room in probation is as good as before, and a smaller variant of it may find some: it begins anew, and
/// what served before serves meanwhile. The transitions go on.
pub(super) fn out_of_room(mut record: Record) -> (Record, Vec<Action>) {
    match record.phase {
        Phase::Probation { task, .. } => {
            record.phase = Phase::Fetching { task };
            record.active = record.fallback.take();
            (record, vec![Action::SwitchBack, Action::Report])
        }
        same => {
            record.phase = same;
            (record, vec![])
        }
    }
}

/// What was lacking is there.
pub(super) fn room_grew(mut record: Record) -> (Record, Vec<Action>) {
    match (record.phase, record.lacked) {
        (Phase::Failed { task, .. }, Some(_)) => {
            record.phase = Phase::Fetching { task };
            record.transitions = 0;
            (record, vec![Action::Report])
        }
        (same, _) => {
            record.phase = same;
            (record, vec![])
        }
    }
}
