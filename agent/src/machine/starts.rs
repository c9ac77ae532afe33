//! A release that ends the agent again and again is given up: starts that fall into its steps are counted.

use protocol::message::{Cause, CauseKind};

use super::{Action, BOOTS, Phase, Record, TRIES, failed};

/// The agent has started: one try less for what may have ended it before.
pub(super) fn boot(mut record: Record) -> (Record, Vec<Action>) {
    let crashed = |what: &str| Cause {
        kind: CauseKind::CrashLoop,
        detail: format!("the agent ended again and again in {what}"),
    };
    match &mut record.phase {
        Phase::SelfTest { tries_left: 0, .. } => failed(record, crashed("the self-test")),
        Phase::Activating { tries_left: 0, .. } => failed(record, crashed("activation")),
        Phase::Probation { boots_left: 0, .. } => failed(record, crashed("probation")),
        Phase::Shadow { boots_left: 0, .. } => failed(record, crashed("the shadow")),
        Phase::SelfTest { tries_left, .. } | Phase::Activating { tries_left, .. } => {
            *tries_left -= 1;
            (record, vec![])
        }
        Phase::Probation { boots_left, .. } | Phase::Shadow { boots_left, .. } => {
            *boots_left -= 1;
            (record, vec![])
        }
        _ => (record, vec![]),
    }
}

/// A shadow may last for weeks: only starts that ended early speak against it.
pub(super) fn settled(mut record: Record) -> (Record, Vec<Action>) {
    if let Phase::Shadow { boots_left, .. } = &mut record.phase {
        *boots_left = BOOTS;
    }
    (record, vec![])
}

/// Whoever switches a device off doesn't speak against the release: this start wasn't one that ended in it.
pub(super) fn ends_in_order(mut record: Record) -> (Record, Vec<Action>) {
    match &mut record.phase {
        Phase::SelfTest { tries_left, .. } | Phase::Activating { tries_left, .. } => {
            *tries_left = TRIES.min(tries_left.saturating_add(1));
        }
        Phase::Probation { boots_left, .. } | Phase::Shadow { boots_left, .. } => {
            *boots_left = BOOTS.min(boots_left.saturating_add(1));
        }
        _ => {}
    }
    (record, vec![])
}
