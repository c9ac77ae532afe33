//! What resuming does, and the other chance that a person gives those that failed.

use protocol::message::{CauseKind, TaskPhase};
use rollout::{Action, Actor, Event, Phase, Retries, StageState, Status, Verb};

mod support;
use support::{Fleet, device, install_gate, plan};

#[test]
fn resume_judges_again_and_another_chance_is_explicit() {
    let mut fleet = Fleet::new(plan(&["2", "100%"]), 4);
    fleet.tick(1);
    let [bad, good] = fleet.in_phase(Phase::Offered)[..] else { panic!("two offers") };
    fleet.report(bad, TaskPhase::Rejected, Some(CauseKind::Untrusted));
    assert_eq!(fleet.status(), "paused");
    fleet.report(good, TaskPhase::Committed, None);
    fleet.verb(Verb::Resume { retry_failed: false });
    assert_eq!(fleet.status(), "paused", "the failed stage fails again");
    fleet.feed(Actor::Engine, Event::Removed(device(bad)));
    fleet.verb(Verb::Resume { retry_failed: false });
    assert_eq!(fleet.status(), "paused", "deleting the device doesn't help");
    fleet.verb(Verb::Resume { retry_failed: true });
    fleet.tick(1);
    fleet.commit_offered();
    assert_eq!(fleet.rollout.status(), &Status::Running { stage: 1 });
}

#[test]
fn another_chance_is_another_attempt_and_an_earlier_one_does_not_end_it() {
    let mut fleet = Fleet::new(plan(&["1", "100%"]), 3);
    fleet.tick(1);
    let [bad] = fleet.in_phase(Phase::Offered)[..] else { panic!("one offer") };
    let chances = |fleet: &Fleet| {
        let of = |action: &Action| match action {
            Action::Offer { device: to, chances, .. } if *to == device(bad) => Some(*chances),
            _ => None,
        };
        fleet.last.iter().find_map(of)
    };
    for attempt in 0..3 {
        fleet.report_of(bad, attempt, TaskPhase::Accepted, None);
        fleet.report_of(bad, attempt, TaskPhase::RolledBack, Some(CauseKind::ProbationErrors));
        assert_eq!(fleet.status(), "paused");
        fleet.verb(Verb::Resume { retry_failed: true });
        assert_eq!((fleet.phase(bad), chances(&fleet)), (Phase::Offered, Some(attempt + 1)));
        // What was on its way since before.
        for phase in [TaskPhase::Probation, TaskPhase::RolledBack] {
            let cause = (phase == TaskPhase::RolledBack).then_some(CauseKind::ProbationErrors);
            fleet.report_of(bad, attempt, phase, cause);
            assert_eq!(fleet.phase(bad), Phase::Offered, "attempt {attempt}: {phase:?}");
        }
    }
    fleet.verb(Verb::Pause { reason: "look".into() });
    fleet.verb(Verb::Resume { retry_failed: false });
    assert_eq!(chances(&fleet), Some(3), "going on is no other chance");
    // Whoever has it has it, and an agent that says nothing of attempts is heard.
    fleet.report_of(bad, 2, TaskPhase::Committed, None);
    assert_eq!(fleet.phase(bad), Phase::Committed);
    assert_eq!(fleet.rollout.status(), &Status::Running { stage: 1 });
    assert_eq!(fleet.replayed(), fleet.rollout);
}

/// One of three devices failed; the gate lets the stage go on.
fn one_of_three_failed() -> (Fleet, usize) {
    let mut plan = plan(&["3", "100%"]);
    plan.gates = vec![install_gate("50%")];
    plan.stages[0].soak_s = 60;
    let mut fleet = Fleet::new(plan, 4);
    fleet.tick(1);
    let offered = fleet.in_phase(Phase::Offered);
    fleet.report(offered[0], TaskPhase::Rejected, Some(CauseKind::Untrusted));
    (fleet, offered[0])
}

#[test]
fn another_chance_is_given_while_the_rollout_runs() {
    let (mut fleet, bad) = one_of_three_failed();
    fleet.verb(Verb::Resume { retry_failed: true });
    assert_eq!((fleet.status(), fleet.phase(bad)), ("running", Phase::Offered));
    let task = fleet.rollout.task(&device(bad)).unwrap();
    assert_eq!((task.chances, task.tries()), (1, 1));

    // While it soaks: the stage waits for the device, and its verdict with it.
    fleet.report_of(bad, 1, TaskPhase::Rejected, Some(CauseKind::Untrusted));
    fleet.commit_offered();
    assert_eq!(fleet.rollout.core().stages[0].state, StageState::Soaking);
    fleet.verb(Verb::Resume { retry_failed: true });
    fleet.tick(61);
    assert_eq!(fleet.rollout.core().stages[0].state, StageState::Offering);
    fleet.report_of(bad, 2, TaskPhase::Committed, None);
    fleet.tick(60);
    assert_eq!(fleet.rollout.status(), &Status::Running { stage: 1 });
    assert_eq!(fleet.replayed(), fleet.rollout);
}

#[test]
fn a_device_that_never_answered_gets_another_chance_while_the_rollout_runs() {
    let mut fleet = Fleet::new(plan(&["2", "100%"]), 3);
    fleet.tick(1);
    let [here, away] = fleet.in_phase(Phase::Offered)[..] else { panic!("two offers") };
    fleet.report(here, TaskPhase::Fetching, None);
    fleet.tick(300);
    assert_eq!(fleet.phase(away), Phase::Unreachable);
    fleet.verb(Verb::Resume { retry_failed: true });
    assert_eq!((fleet.status(), fleet.phase(away)), ("running", Phase::Offered));
}

#[test]
fn another_chance_for_nobody_is_refused_with_a_reason() {
    let refused = |fleet: &Fleet| match &fleet.last[..] {
        [Action::Refuse { why }] => why.clone(),
        other => panic!("{other:?}"),
    };
    let (mut fleet, bad) = one_of_three_failed();
    fleet.verb(Verb::Resume { retry_failed: true });
    fleet.verb(Verb::Resume { retry_failed: true });
    assert!(refused(&fleet).contains("no device of stage 1 has failed"));
    fleet.verb(Verb::Pause { reason: "look".into() });
    fleet.verb(Verb::Resume { retry_failed: true });
    assert!(refused(&fleet).contains("no device of stage 1") && fleet.status() == "paused");
    fleet.verb(Verb::Resume { retry_failed: false });
    fleet.report_of(bad, 1, TaskPhase::Rejected, Some(CauseKind::Untrusted));
    fleet.commit_offered();
    fleet.tick(61);
    assert_eq!(fleet.rollout.status(), &Status::Running { stage: 1 });
    fleet.verb(Verb::Resume { retry_failed: true });
    assert!(refused(&fleet).contains("no device of stage 2"), "the stage before has been judged");
    fleet.commit_offered();
    fleet.tick(1);
    assert_eq!(fleet.status(), "completed");
    fleet.verb(Verb::Resume { retry_failed: true });
    assert!(refused(&fleet).contains("create another rollout"));
}

#[test]
fn another_chance_brings_as_many_retries_as_the_first() {
    let mut plan = plan(&["1"]);
    plan.retries = Retries { max: 2, backoff_s: 60 };
    let mut fleet = Fleet::new(plan, 1);
    fleet.tick(1);
    for chance in 0..3 {
        for wait in [60, 120] {
            fleet.report_of(0, chance, TaskPhase::Failed, Some(CauseKind::Download));
            assert_eq!(fleet.phase(0), Phase::Queued, "chance {chance}");
            fleet.tick(wait - 1);
            assert_eq!(fleet.phase(0), Phase::Queued, "chance {chance}: the waits begin small again");
            fleet.tick(1);
            assert_eq!(fleet.phase(0), Phase::Offered);
        }
        fleet.report_of(0, chance, TaskPhase::Failed, Some(CauseKind::Download));
        assert_eq!(fleet.phase(0), Phase::Failed(CauseKind::Download), "and are bounded as at first");
        fleet.verb(Verb::Resume { retry_failed: true });
    }
}
