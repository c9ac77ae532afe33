//! What a device doesn't go back to. The emergency fence: a release below it may serve on, but is never activated again,
//! nor gone back to. And what the fleet went back from.

use protocol::Counter;
use protocol::message::{Cause, CauseKind};

use super::{Action, Held, Phase, Record, failed};

impl Record {
    /// What no release may stand below that is to be activated: the fence of the metadata that was accepted last, and
    /// that of what was committed, which holds for ever.
    pub fn min_counter(&self) -> Counter {
        self.mark.as_ref().map_or(self.fence, |mark| mark.min_counter.max(self.fence))
    }

    /// The release that serves although it is fenced off.
    pub fn fenced_active(&self) -> Option<&Held> {
        self.active.as_ref().filter(|held| held.release.counter < self.min_counter())
    }

    /// A fallback below the fence is none, nor is one above what is committed: the fleet went back from that one, and
    /// it is in no signed list of what this release may give way to.
    pub(super) fn without_barred_fallback(mut self) -> (Self, Vec<Action>) {
        let min_counter = self.min_counter();
        let committed = matches!(self.phase, Phase::Committed { .. });
        let highest = self.active.as_ref().filter(|_| committed).map(|held| held.release.counter);
        let is_barred = |held: &mut Held| {
            held.release.counter < min_counter
                || highest.is_some_and(|highest| held.release.counter > highest)
        };
        match self.fallback.take_if(is_barred) {
            Some(_) => (self, vec![Action::Collect]),
            None => (self, vec![]),
        }
    }
}

/// Metadata states this fence. What has not served yet and stands below it ends; what serves is only taken away for
/// something that may serve: in probation, with a fallback that stands above the fence.
pub(super) fn fenced(mut record: Record, fence: Counter) -> (Record, Vec<Action>) {
    record.fence = fence;
    let (record, freed) = record.without_barred_fallback();
    let min_counter = record.min_counter();
    let got = record.phase.task().map(|task| task.release.counter).filter(|got| *got < min_counter);
    let has_no_other = matches!(record.phase, Phase::Probation { .. }) && record.fallback.is_none();
    let (Some(got), false) = (got, has_no_other || record.phase.word().is_terminal()) else {
        return (record, freed);
    };
    let detail = format!("release counter {got} is fenced off: at least {min_counter} is needed");
    let (record, mut actions) = failed(record, Cause { kind: CauseKind::Downgrade, detail });
    actions.extend(freed);
    (record, actions)
}

#[cfg(test)]
mod tests {
    use protocol::Digest;
    use protocol::message::{SelfTestResult, TaskPhase};
    use release::HighWater;

    use super::super::tests::{after, held, task, way};
    use super::super::{Event, step};
    use super::*;

    fn mark(n: u8, min_counter: u64) -> HighWater {
        let (digest, counter) = (Digest::from_bytes([n; 32]), Counter(n.into()));
        HighWater { digest, counter, fallback: vec![], min_counter: Counter(min_counter) }
    }

    /// Release 1 is the fallback, 2 is committed; this many steps of the way to `next` have happened.
    fn on_the_way(next: u8, steps: usize) -> Record {
        let committed = Record {
            phase: Phase::Committed { task: task(2) },
            active: Some(held(2)),
            fallback: Some(held(1)),
            mark: Some(mark(2, 0)),
            ..Record::default()
        };
        let result = SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 };
        let way = [
            Event::Wanted(task(next)),
            Event::Fetched { variant: "int8".into() },
            Event::Staged,
            Event::TestBegins,
            Event::Tested(result),
            Event::Activated,
            Event::Healthy(mark(next, next.into())),
        ];
        after(committed, way.into_iter().take(steps))
    }

    fn lost(kind: CauseKind) -> Event {
        Event::Unloadable(Cause { kind, detail: "x".into() })
    }

    #[test]
    fn r6_a_fenced_fallback_is_never_gone_back_to_and_what_serves_serves_on() {
        let (fenced, actions) = step(on_the_way(3, 0), Event::Fenced(Counter(3)));
        assert_eq!((fenced.active.clone(), fenced.fallback.clone()), (Some(held(2)), None));
        assert_eq!((fenced.fenced_active(), &actions[..]), (Some(&held(2)), &[Action::Collect][..]));
        assert_eq!(fenced.phase.word(), TaskPhase::Committed);
        for kind in [CauseKind::Storage, CauseKind::Load] {
            let end = after(fenced.clone(), [lost(kind)]);
            assert_ne!(end.active, Some(held(1)), "{kind:?}");
        }
        // The release that brings the fence takes over; the one below it is no way back.
        let probation = after(on_the_way(3, 2), [Event::Fenced(Counter(3))]);
        let probation = after(probation, on_the_way_events());
        assert_eq!((probation.active.clone(), probation.fallback.clone()), (Some(held(3)), None));
        let failed = Event::Failed(Cause { kind: CauseKind::ProbationErrors, detail: "x".into() });
        assert_eq!(after(probation, [failed]).active, None);
    }

    fn on_the_way_events() -> Vec<Event> {
        let result = SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 };
        vec![Event::Staged, Event::TestBegins, Event::Tested(result), Event::Activated]
    }

    #[test]
    fn what_the_fleet_went_back_from_may_serve_until_what_it_went_back_to_is_committed_and_never_again() {
        let bad =
            Record { phase: Phase::Committed { task: task(2) }, active: Some(held(2)), ..Record::default() };
        let bad = Record { fallback: Some(held(1)), mark: Some(mark(2, 0)), ..bad };
        let to_probation = std::iter::once(Event::Wanted(task(1))).chain(way().into_iter().take(5));
        let probation = after(bad, to_probation);
        assert_eq!((probation.active.clone(), probation.fallback.clone()), (Some(held(1)), Some(held(2))));
        let (committed, actions) = step(probation, Event::Healthy(mark(2, 0)));
        assert_eq!((committed.active.clone(), committed.fallback.clone()), (Some(held(1)), None));
        assert_eq!(actions, vec![Action::Report, Action::Collect]);
        let lost = Cause { kind: CauseKind::Storage, detail: "x".into() };
        let lost = after(committed, [Event::Unloadable(lost)]);
        assert_eq!((lost.phase, lost.active), (Phase::Fetching { task: task(1) }, None));
    }

    #[test]
    fn r6_a_fence_that_is_committed_takes_the_fallback_away_for_ever() {
        let committed = on_the_way(3, 7);
        assert_eq!((committed.active.clone(), committed.fallback.clone()), (Some(held(3)), None));
        // Metadata that states it no longer changes nothing about that.
        let later = after(committed, [Event::Fenced(Counter(0))]);
        assert_eq!(later.min_counter(), Counter(3));
        assert_eq!(after(later, [lost(CauseKind::Storage)]).active, None);
    }

    #[test]
    fn r6_what_has_not_served_yet_and_is_fenced_off_ends() {
        for steps in 1..=5 {
            let (end, actions) = step(on_the_way(3, steps), Event::Fenced(Counter(4)));
            let expected = if steps == 1 { TaskPhase::Rejected } else { TaskPhase::Failed };
            assert_eq!((end.phase.word(), end.active), (expected, Some(held(2))), "after {steps} steps");
            assert!(actions.contains(&Action::Report), "after {steps} steps");
        }
        // In probation over something that is fenced off, too, there is nothing better; over something good there is.
        let stays = after(on_the_way(3, 6), [Event::Fenced(Counter(4))]);
        assert_eq!((stays.phase.word(), stays.active), (TaskPhase::Probation, Some(held(3))));
        let mut good = on_the_way(3, 6);
        good.fallback = Some(held(9));
        let back = after(good, [Event::Fenced(Counter(4))]);
        assert_eq!((back.phase.word(), back.active), (TaskPhase::RolledBack, Some(held(9))));
    }

    #[test]
    fn r6_what_finds_no_room_in_probation_does_not_go_back_below_the_fence() {
        let probation = after(on_the_way(3, 6), [Event::Fenced(Counter(3)), Event::OutOfRoom]);
        assert_eq!((probation.phase.word(), probation.active), (TaskPhase::Fetching, None));
    }

    #[test]
    fn r6_a_fence_that_is_withdrawn_falls_and_old_records_have_none() {
        let fenced = after(on_the_way(3, 0), [Event::Fenced(Counter(3)), Event::Fenced(Counter(0))]);
        assert_eq!((fenced.min_counter(), fenced.fenced_active()), (Counter(0), None));
        let mut old = serde_json::to_value(on_the_way(3, 0)).unwrap();
        old.as_object_mut().unwrap().remove("fence").unwrap();
        let old: Record = serde_json::from_value(old).unwrap();
        assert_eq!((old.fence, old.fallback), (Counter(0), Some(held(1))));
        // One that an earlier version kept below its own fence goes with the next step.
        let kept = Record { mark: Some(mark(2, 2)), ..on_the_way(3, 0) };
        assert_eq!(after(kept, [Event::Boot]).fallback, None);
    }
}
