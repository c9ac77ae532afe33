//! The active release in another variant of its own: a smaller one where the budget has no room for the one that is
//! held, the preferred one again once it has.

use serde::{Deserialize, Serialize};
use trust::desired::Mode;

use super::{Action, Held, Phase, Record, Task};

/// In which way the variant is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refit {
    /// There is no room for the one that is held.
    Smaller,
    /// There is room for one that the publisher prefers.
    Preferred,
}

impl Record {
    /// Whether the active release may be brought in another variant now: nothing else is under way, and this wasn't tried
    /// in vain. One that serves is changed for a preferred variant only where it is what was asked for: what stands
    /// after a release that failed stays as it is.
    pub fn may_refit(&self, refit: Refit) -> bool {
        let Some(active) = &self.active else { return false };
        if active.release.counter < self.min_counter() {
            return false;
        }
        match &self.phase {
            Phase::Committed { .. } => true,
            Phase::RolledBack { task, .. } | Phase::Failed { task, .. } | Phase::Rejected { task, .. } => {
                refit == Refit::Smaller && task.release != active.release
            }
            Phase::Idle
            | Phase::Fetching { .. }
            | Phase::Verified { .. }
            | Phase::Staged { .. }
            | Phase::SelfTest { .. }
            | Phase::Shadow { .. }
            | Phase::Activating { .. }
            | Phase::Probation { .. } => false,
        }
    }
}

/// The same release is fetched again, where the variant is chosen.
pub(super) fn begin(mut record: Record, refit: Refit) -> (Record, Vec<Action>) {
    let (true, Some(active), Some(task)) =
        (record.may_refit(refit), record.active.as_ref(), record.phase.task())
    else {
        return (record, vec![]);
    };
    let (release, mode, revision) = (active.release.clone(), Mode::Replace, task.revision);
    let task = if task.release == release {
        Task { mode, ..task.clone() }
    } else {
        // What failed before is another rollout's.
        Task { release, mode, rollout: None, attempt: 0, revision }
    };
    record.phase = Phase::Fetching { task };
    record.refit = Some(refit);
    record.transitions = 0;
    (record, vec![Action::Report])
}

/// Whether the variant that was chosen is the one that is held: it was tested when it came.
pub(super) fn is_over(refit: Option<Refit>, active: Option<&Held>, task: &Task, variant: &str) -> bool {
    let is_held = |held: &Held| held.release == task.release && held.variant == variant;
    refit.is_some() && active.is_some_and(is_held)
}

/// What to go back to, once a candidate has taken the place of `before`.
pub(super) fn fallback(refit: Option<Refit>, before: Option<Held>, fallback: Option<Held>) -> Option<Held> {
    match refit {
        // What finds no room is the last to go back to.
        Some(Refit::Smaller) => fallback.or(before),
        // Without an active release (it could not be loaded) the fallback stays what it is.
        Some(Refit::Preferred) | None => before.or(fallback),
    }
}

#[cfg(test)]
mod tests {
    use protocol::message::{Cause, CauseKind, TaskPhase};
    use protocol::{Counter, RolloutId};

    use super::super::tests::{after, held, mark, release, task, way};
    use super::super::{Event, step};
    use super::*;

    fn as_variant(variant: &str) -> Held {
        Held { release: release(2), variant: variant.into() }
    }

    fn asked() -> Task {
        Task { rollout: RolloutId::new("r").ok(), ..task(2) }
    }

    /// Release 2 is committed as f32, release 1 is its fallback.
    fn committed() -> Record {
        Record {
            phase: Phase::Committed { task: asked() },
            active: Some(as_variant("f32")),
            fallback: Some(held(1)),
            mark: Some(mark(2)),
            ..Record::default()
        }
    }

    fn failed(kind: CauseKind) -> Event {
        Event::Failed(Cause { kind, detail: "x".into() })
    }

    #[test]
    fn the_same_release_goes_the_whole_way_for_who_asked_for_it_over_a_start_in_each_state() {
        for (refit, fallback) in [(Refit::Smaller, held(1)), (Refit::Preferred, as_variant("f32"))] {
            let (begun, actions) = step(committed(), Event::Refit(refit));
            assert_eq!(
                (begun.phase.clone(), actions),
                (Phase::Fetching { task: asked() }, vec![Action::Report])
            );
            assert_eq!((begun.active.clone(), begun.refit), (Some(as_variant("f32")), Some(refit)));
            let stored = serde_json::to_vec(&begun).unwrap();
            assert_eq!(serde_json::from_slice::<Record>(&stored).unwrap(), begun);
            let end = after(begun, way().into_iter().flat_map(|event| [Event::Boot, event]));
            assert_eq!(end.phase, Phase::Committed { task: asked() });
            assert_eq!((end.active, end.fallback), (Some(as_variant("int8")), Some(fallback)), "{refit:?}");
            assert_eq!((end.refit, end.mark), (None, Some(mark(2))));
        }
    }

    #[test]
    fn whatever_fails_on_the_way_what_is_held_stays_and_it_is_not_begun_again_by_itself() {
        for refit in [Refit::Smaller, Refit::Preferred] {
            for steps in 0..5 {
                let begun = after(committed(), [Event::Refit(refit)]);
                let ended = after(begun, way().into_iter().take(steps).chain([failed(CauseKind::Load)]));
                let held = (Some(as_variant("f32")), Some(held(1)));
                assert_eq!((ended.active.clone(), ended.fallback.clone()), held, "{steps}");
                assert_eq!(ended.phase.word(), TaskPhase::Failed);
                assert_eq!(step(ended.clone(), Event::Refit(refit)), (ended.clone(), vec![]), "{steps}");
                // Whoever asks for the release again asks for this, too.
                let again = after(ended, [Event::Wanted(task(2)), Event::Refit(refit)]);
                assert_eq!(again.phase, Phase::Fetching { task: task(2) });
            }
            let later = [Event::Refit(refit), failed(CauseKind::Download), Event::Boot, Event::Retry];
            let later = after(committed(), later);
            assert_eq!((later.phase.word(), later.refit), (TaskPhase::Fetching, Some(refit)));
        }
    }

    #[test]
    fn a_variant_that_is_unhealthy_gives_way_to_what_can_serve() {
        for (refit, serves) in [(Refit::Smaller, held(1)), (Refit::Preferred, as_variant("f32"))] {
            let serving =
                after(committed(), std::iter::once(Event::Refit(refit)).chain(way().into_iter().take(5)));
            let back = after(serving, [failed(CauseKind::ProbationErrors)]);
            assert_eq!((back.phase.word(), back.active), (TaskPhase::RolledBack, Some(serves)), "{refit:?}");
        }
    }

    #[test]
    fn a_smaller_variant_that_is_unhealthy_does_not_give_way_to_a_release_that_was_brought_back() {
        // An operator brought release 3 back; a record of before such a one was given up still has it as fallback.
        let begun = Record { fallback: Some(held(3)), ..committed() };
        for kind in [CauseKind::ProbationErrors, CauseKind::CrashLoop] {
            let serving = std::iter::once(Event::Refit(Refit::Smaller))
                .chain(way().into_iter().take(5))
                .collect::<Vec<_>>();
            let back = after(begun.clone(), serving.into_iter().chain([failed(kind)]));
            assert_eq!((back.phase.word(), back.active), (TaskPhase::RolledBack, Some(as_variant("f32"))));
            assert_eq!(back.fallback, None);
        }
    }

    #[test]
    fn a_variant_that_finds_no_room_in_probation_gives_way_to_what_was_proven() {
        for (refit, serves) in [(Refit::Smaller, held(1)), (Refit::Preferred, as_variant("f32"))] {
            let serving =
                after(committed(), std::iter::once(Event::Refit(refit)).chain(way().into_iter().take(5)));
            let anew = after(serving, [Event::OutOfRoom]);
            assert_eq!(anew.phase, Phase::Fetching { task: asked() }, "{refit:?}");
            assert_eq!((anew.active.as_ref(), anew.refit), (Some(&serves), Some(refit)));
            let again = after(anew.clone(), way().into_iter().take(1));
            // Of another release it is another variant, whatever its name.
            assert_eq!(again.phase.word(), TaskPhase::Verified, "{refit:?}");
            let ended = after(anew, [failed(CauseKind::Load)]);
            assert_eq!((ended.phase.word(), ended.active), (TaskPhase::Failed, Some(serves)));
        }
    }

    #[test]
    fn what_is_chosen_again_is_not_tested_again() {
        let begun = after(committed(), [Event::Refit(Refit::Preferred)]);
        let (end, actions) = step(begun, Event::Fetched { variant: "f32".into() });
        assert_eq!(Record { transitions: 0, ..end }, committed());
        assert_eq!(actions, [Action::SwitchBack, Action::Report]);
    }

    /// Each state x which variant -> whether it is begun.
    #[test]
    fn the_table() {
        let (of_this, of_another) = (asked(), Task { release: release(3), ..asked() });
        let cause = || Cause { kind: CauseKind::Load, detail: "x".into() };
        let variant = || "int8".to_owned();
        for (phase, smaller, preferred) in [
            (Phase::Idle, false, false),
            (Phase::Fetching { task: of_another.clone() }, false, false),
            (Phase::Verified { task: of_another.clone(), variant: variant() }, false, false),
            (Phase::Staged { task: of_another.clone(), variant: variant() }, false, false),
            (Phase::SelfTest { task: of_another.clone(), variant: variant(), tries_left: 1 }, false, false),
            (Phase::Shadow { task: of_another.clone(), variant: variant(), boots_left: 1 }, false, false),
            (Phase::Activating { task: of_another.clone(), variant: variant(), tries_left: 1 }, false, false),
            (Phase::Probation { task: of_this.clone(), boots_left: 1 }, false, false),
            (Phase::Committed { task: of_this.clone() }, true, true),
            (Phase::RolledBack { task: of_another.clone(), cause: cause() }, true, false),
            (Phase::Failed { task: of_another.clone(), cause: cause() }, true, false),
            (Phase::Rejected { task: of_another, cause: cause() }, true, false),
            (Phase::RolledBack { task: of_this.clone(), cause: cause() }, false, false),
            (Phase::Failed { task: of_this.clone(), cause: cause() }, false, false),
            (Phase::Rejected { task: of_this, cause: cause() }, false, false),
        ] {
            for (refit, is_begun) in [(Refit::Smaller, smaller), (Refit::Preferred, preferred)] {
                let before = Record { phase: phase.clone(), ..committed() };
                let (after, _) = step(before.clone(), Event::Refit(refit));
                assert_eq!(after != before, is_begun, "{refit:?} in {phase:?}");
                assert!(
                    !is_begun
                        || matches!(&after.phase, Phase::Fetching { task } if task.release == release(2))
                );
                let fenced = Record { fence: Counter(3), ..before };
                assert!(!fenced.may_refit(refit), "what is fenced off is not fetched");
                let absent = Record { active: None, phase: phase.clone(), ..Record::default() };
                assert!(!absent.may_refit(refit));
            }
        }
    }
}
