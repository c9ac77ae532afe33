//! A wish that was taken back: its rollout was aborted, or is paused. What hasn't served yet ends without a word, since
//! nobody asks any more; what has its turn in probation goes on.

use protocol::message::{Cause, CauseKind};
use trust::desired::Mode;

use super::{Action, Phase, Record, Task, failed};

impl Record {
    /// Whether the task under way is a rollout's and may still end without anything having changed. What an operator
    /// imported, and what is fetched again for the release that serves, isn't taken back.
    pub fn may_be_taken_back(&self) -> bool {
        let (Some(task), None) = (self.phase.task(), self.refit) else { return false };
        let is_repair = self.lost.as_ref().is_some_and(|lost| lost.release == task.release);
        let has_not_served = match &self.phase {
            Phase::Failed { cause, .. } => cause.kind.is_retryable(),
            Phase::Fetching { .. }
            | Phase::Verified { .. }
            | Phase::Staged { .. }
            | Phase::SelfTest { .. }
            | Phase::Shadow { .. }
            | Phase::Activating { .. } => true,
            Phase::Idle
            | Phase::Probation { .. }
            | Phase::Committed { .. }
            | Phase::RolledBack { .. }
            | Phase::Rejected { .. } => false,
        };
        task.rollout.is_some() && !is_repair && has_not_served
    }
}

/// No Desired names the model any more: what serves is all there is.
pub(super) fn unwanted(record: Record) -> (Record, Vec<Action>) {
    let Some(task) = record.phase.task().filter(|_| record.may_be_taken_back()).cloned() else {
        return (record, vec![]);
    };
    let cause = Cause { kind: CauseKind::Superseded, detail: "nobody asks for it any more".into() };
    let (mut record, mut actions) = failed(record, cause);
    record.phase = record.active.as_ref().map_or(Phase::Idle, |active| {
        let release = active.release.clone();
        Phase::Committed { task: Task { release, mode: Mode::Replace, rollout: None, ..task } }
    });
    if actions.is_empty() {
        actions.push(Action::Report);
    }
    (record, actions)
}

#[cfg(test)]
mod tests {
    use protocol::RolloutId;
    use protocol::message::TaskPhase;

    use super::super::tests::{after, held, release, task, way};
    use super::super::{Event, Lost, Refit, step};
    use super::*;

    fn asked(mode: Mode) -> Task {
        Task { rollout: RolloutId::new("r").ok(), mode, ..task(2) }
    }

    /// So many steps of the way of release 2, beside release 1 or nothing.
    fn on_the_way(before: bool, task: Task, steps: usize) -> Record {
        let serves = before.then(|| held(1));
        let begun = Record { active: serves, ..Record::default() };
        after(begun, std::iter::once(Event::Wanted(task)).chain(way()).take(steps))
    }

    #[test]
    fn what_has_not_served_ends_and_what_has_goes_on() {
        for before in [true, false] {
            for steps in 1..=7 {
                let under_way = on_the_way(before, asked(Mode::Replace), steps);
                let (ended, actions) = step(under_way.clone(), Event::Unwanted);
                if steps > 5 {
                    assert_eq!((ended, actions), (under_way, vec![]), "step {steps}");
                    continue;
                }
                let word = if before { TaskPhase::Committed } else { TaskPhase::Idle };
                assert_eq!((ended.phase.word(), ended.active.is_some()), (word, before), "step {steps}");
                assert!(actions.contains(&Action::Report), "step {steps}");
                assert_eq!(actions.contains(&Action::SwitchBack), steps == 5, "step {steps}");
                assert!(
                    step(ended.clone(), Event::Activated).0 == ended,
                    "what was overtaken changes nothing"
                );
                // Whoever asks again, for the same rollout too, begins it.
                let again = after(ended, [Event::Wanted(asked(Mode::Replace))]);
                assert_eq!(again.phase, Phase::Fetching { task: asked(Mode::Replace) });
            }
        }
    }

    #[test]
    fn a_shadow_ends_and_what_would_be_tried_again_is_not() {
        let (ended, actions) = step(on_the_way(true, asked(Mode::Shadow), 5), Event::Unwanted);
        assert_eq!((ended.phase.word(), actions.contains(&Action::StopShadow)), (TaskPhase::Committed, true));
        let away = Event::Failed(Cause { kind: CauseKind::Download, detail: "x".into() });
        let ended = after(on_the_way(false, asked(Mode::Replace), 1), [away, Event::Unwanted, Event::Retry]);
        assert_eq!(ended.phase, Phase::Idle);
    }

    #[test]
    fn what_no_rollout_asked_for_is_not_taken_back() {
        let imported = on_the_way(true, task(2), 2);
        assert_eq!(step(imported.clone(), Event::Unwanted).0, imported);
        let fetching = on_the_way(true, asked(Mode::Replace), 1);
        let refit = Record { refit: Some(Refit::Smaller), ..fetching.clone() };
        assert_eq!(step(refit.clone(), Event::Unwanted).0, refit);
        let cause = Cause { kind: CauseKind::Storage, detail: "x".into() };
        let repair = Record { lost: Some(Lost { release: release(2), cause }), ..fetching };
        assert_eq!(step(repair.clone(), Event::Unwanted).0, repair);
    }
}
