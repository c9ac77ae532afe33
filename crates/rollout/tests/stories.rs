//! Whole rollouts, as people would tell them.

use protocol::message::{CauseKind, TaskPhase};
use protocol::{RolloutId, UnixMillis};
use rollout::{
    Action, Actor, CancelReason, Event, Facts, Mode, OnFailure, PauseReason, Phase, Retries, RollbackReason,
    Scope, SkipReason, StageState, Status, Verb, WhyCode, dry_run,
};

mod support;
use support::{Fleet, accuracy, accuracy_gate, device, facts, install_gate, plan, release};

fn judged_by_accuracy(stages: &[&str], on_failure: OnFailure) -> rollout::Plan {
    let mut plan = plan(stages);
    for stage in &mut plan.stages {
        stage.soak_s = 30;
    }
    plan.stages[0].gates = Some(vec![install_gate("0%"), accuracy_gate()]);
    plan.on_failure = on_failure;
    plan
}

#[test]
fn one_then_two_then_all() {
    let mut fleet = Fleet::new(plan(&["1", "2", "100%"]), 6);
    fleet.tick(1);
    for expected in [1, 2, 3] {
        assert_eq!(fleet.in_phase(Phase::Offered).len(), expected);
        fleet.commit_offered();
    }
    assert_eq!(fleet.rollout.status(), &Status::Completed);
    assert_eq!(fleet.replayed(), fleet.rollout);
}

#[test]
fn a_worse_model_fails_the_first_gate_and_its_stage_goes_back() {
    let mut fleet = Fleet::new(judged_by_accuracy(&["1", "2", "100%"], OnFailure::RollBackStage), 6);
    fleet.tick(1);
    let first = fleet.in_phase(Phase::Offered)[0];
    fleet.commit_offered();
    fleet.tick(1);
    assert!(fleet.last.iter().any(|a| matches!(a, Action::Measure { stage: 0, .. })));
    fleet.measured(0, accuracy(0.78, 20));
    assert_eq!(fleet.status(), "running", "too small a sample proves nothing");
    fleet.tick(10);
    fleet.measured(0, accuracy(0.78, 200));
    assert_eq!(fleet.status(), "rolling_back");
    let back = Action::Restore { device: device(first), to: Some(release(1)) };
    assert!(fleet.last.contains(&back), "the devices of the stage get the old release");
    assert_eq!(fleet.last.iter().filter(|a| matches!(a, Action::Restore { .. })).count(), 1);
    fleet.report_release(first, release(1), TaskPhase::Fetching, None);
    assert_eq!(fleet.status(), "rolling_back");
    fleet.report_release(first, release(1), TaskPhase::Committed, None);
    assert_eq!(fleet.phase(first), Phase::RolledBack(RollbackReason::Gate));
    assert!(matches!(fleet.rollout.status(), Status::RolledBack { unconfirmed: 0, .. }));
    let stage = &fleet.rollout.core().stages[0];
    assert_eq!((stage.state, stage.evidence.len()), (StageState::GateFailed, 1), "the evidence is kept");
    assert_eq!(fleet.rollout.why(&device(first)).code, WhyCode::BroughtBack);
    assert_eq!(fleet.replayed(), fleet.rollout);
}

#[test]
fn a_good_model_passes_only_on_evidence_from_after_the_soak_time() {
    let mut fleet = Fleet::new(judged_by_accuracy(&["1", "100%"], OnFailure::RollBackStage), 4);
    fleet.tick(1);
    fleet.commit_offered();
    fleet.measured(0, accuracy(0.98, 200));
    fleet.tick(29);
    assert_eq!(fleet.rollout.status(), &Status::Running { stage: 0 });
    fleet.tick(1);
    assert_eq!(
        fleet.rollout.status(),
        &Status::Running { stage: 0 },
        "the numbers are older than the soak time"
    );
    assert!(fleet.last.iter().any(|a| matches!(a, Action::Measure { .. })));
    fleet.measured(0, accuracy(0.98, 300));
    assert_eq!(fleet.rollout.status(), &Status::Running { stage: 1 });
}

#[test]
fn missing_evidence_pauses_even_where_failure_would_roll_back() {
    let mut fleet = Fleet::new(judged_by_accuracy(&["1", "100%"], OnFailure::RollBackAll), 4);
    fleet.tick(1);
    fleet.commit_offered();
    fleet.tick(30);
    fleet.tick(899);
    assert_eq!(fleet.status(), "running");
    fleet.tick(1);
    assert!(matches!(fleet.rollout.status(), Status::Paused { reason: PauseReason::Gate(_), .. }));
    fleet.verb(Verb::Resume { retry_failed: false });
    fleet.tick(1);
    fleet.measured(0, accuracy(0.97, 100));
    assert_eq!(
        fleet.rollout.status(),
        &Status::Running { stage: 1 },
        "evidence that came late is judged on resume"
    );
}

#[test]
fn a_device_that_begins_anew_in_probation_is_at_work_as_before() {
    let mut fleet = Fleet::new(plan(&["1"]), 1);
    fleet.tick(1);
    for phase in [TaskPhase::Fetching, TaskPhase::Probation, TaskPhase::Fetching] {
        fleet.report(0, phase, None);
    }
    assert_eq!((fleet.phase(0), fleet.status()), (Phase::Downloading, "running"));
    fleet.report(0, TaskPhase::Probation, None);
    fleet.report(0, TaskPhase::Fetching, None);
    // The swap is undone: nothing has to finish any more.
    fleet.verb(Verb::Abort { reason: "wrong model".into() });
    assert_eq!((fleet.phase(0), sent_back(&fleet)), (Phase::Canceled(CancelReason::Aborted), 1));
}

#[test]
fn failures_that_can_pass_are_retried_with_growing_waits() {
    let mut plan = plan(&["1"]);
    plan.retries = Retries { max: 2, backoff_s: 60 };
    let mut fleet = Fleet::new(plan, 1);
    fleet.tick(1);
    for (attempt, wait) in [(1, 60), (2, 120)] {
        fleet.report(0, TaskPhase::Failed, Some(CauseKind::Download));
        assert_eq!(fleet.phase(0), Phase::Queued);
        fleet.tick(wait - 1);
        assert_eq!(fleet.phase(0), Phase::Queued);
        fleet.tick(1);
        let (device, mode) = (device(0), Mode::Replace);
        let next = Action::Offer { device, mode, attempt: attempt + 1, chances: 0 };
        assert!(
            fleet.last.contains(&next),
            "what the device tries by itself is no other attempt of a person"
        );
    }
    fleet.report(0, TaskPhase::Failed, Some(CauseKind::Download));
    assert_eq!(fleet.phase(0), Phase::Failed(CauseKind::Download));
    assert_eq!(fleet.status(), "paused");
}

#[test]
fn a_device_that_tries_again_by_itself_is_followed() {
    let mut plan = plan(&["1"]);
    plan.retries = Retries { max: 2, backoff_s: 60 };
    let mut fleet = Fleet::new(plan, 1);
    fleet.tick(1);
    fleet.report(0, TaskPhase::Failed, Some(CauseKind::DiskFull));
    assert_eq!(fleet.phase(0), Phase::Queued);
    fleet.report(0, TaskPhase::Fetching, None);
    assert_eq!(fleet.phase(0), Phase::Downloading);
    fleet.tick(61);
    assert_eq!(fleet.phase(0), Phase::Downloading, "it is not offered a second time while it works");
    fleet.report(0, TaskPhase::Committed, None);
    assert_eq!(fleet.phase(0), Phase::Committed);
    fleet.tick(1);
    assert_eq!(fleet.status(), "completed");
}

#[test]
fn approval_takes_another_person() {
    let mut plan = plan(&["100%"]);
    plan.needs_approval = true;
    let mut fleet = Fleet::new(plan, 2);
    assert_eq!(fleet.status(), "awaiting_approval");
    fleet.feed(Actor::User("ana".into()), Event::Verb(Verb::Approve));
    assert!(matches!(fleet.last[..], [Action::Refuse { .. }]));
    fleet.tick(60);
    assert_eq!(fleet.status(), "awaiting_approval");
    fleet.verb(Verb::Approve);
    fleet.tick(1);
    assert_eq!(fleet.status(), "running");
}

#[test]
fn it_starts_at_its_time() {
    let mut plan = plan(&["100%"]);
    plan.start_at = Some(UnixMillis(support::T0.0 + 60_000));
    let mut fleet = Fleet::new(plan, 2);
    fleet.tick(59);
    assert_eq!(fleet.status(), "scheduled");
    fleet.tick(1);
    assert_eq!(fleet.status(), "running");
}

#[test]
fn abort_lets_those_past_the_swap_finish() {
    let mut fleet = Fleet::new(plan(&["100%"]), 3);
    fleet.tick(1);
    fleet.report(0, TaskPhase::Probation, None);
    fleet.report(1, TaskPhase::Fetching, None);
    fleet.verb(Verb::Abort { reason: "wrong model".into() });
    let restores = fleet.last.iter().filter(|a| matches!(a, Action::Restore { .. })).count();
    assert_eq!((fleet.status(), restores), ("aborted", 2));
    assert_eq!(fleet.phase(1), Phase::Canceled(CancelReason::Aborted));
    fleet.report(0, TaskPhase::Committed, None);
    assert_eq!(fleet.phase(0), Phase::Committed);
    fleet.verb(Verb::Resume { retry_failed: false });
    assert!(matches!(fleet.last[..], [Action::Refuse { .. }]));
}

/// Devices whose Desired the last step set back.
fn sent_back(fleet: &Fleet) -> usize {
    fleet.last.iter().filter(|a| matches!(a, Action::Restore { .. })).count()
}

#[test]
fn after_the_end_nobody_takes_the_release_who_was_away_or_failed() {
    let mut plan = plan(&["100%"]);
    plan.gates = vec![install_gate("50%")];
    let mut fleet = Fleet::new(plan, 4);
    fleet.tick(1);
    fleet.report(0, TaskPhase::Committed, None);
    fleet.report(1, TaskPhase::Failed, Some(CauseKind::GoldenMismatch));
    fleet.report(2, TaskPhase::Accepted, None);
    fleet.tick(301);
    assert_eq!(fleet.phase(3), Phase::Unreachable);
    fleet.tick(300);
    assert!(matches!(fleet.phase(2), Phase::TimedOut | Phase::Queued), "{:?}", fleet.phase(2));
    fleet.verb(Verb::Abort { reason: "wrong model".into() });
    assert_eq!((fleet.status(), sent_back(&fleet)), ("aborted", 3), "all but the committed one");
}

#[test]
fn a_device_that_takes_the_release_after_its_task_failed_is_noted_and_counts_for_nothing() {
    let mut plan = plan(&["100%"]);
    plan.gates = vec![install_gate("50%")];
    let mut fleet = Fleet::new(plan, 3);
    fleet.tick(1);
    let failed = Phase::Failed(CauseKind::TooBig);
    fleet.report(0, TaskPhase::Failed, Some(CauseKind::TooBig));
    (1..3).for_each(|i| fleet.report(i, TaskPhase::Committed, None));
    fleet.tick(1);
    let ended = (fleet.status(), fleet.rollout.core().stages.clone());
    assert_eq!(ended.0, "completed");
    for phase in [TaskPhase::Fetching, TaskPhase::SelfTest, TaskPhase::Probation, TaskPhase::Committed] {
        fleet.report(0, phase, None);
        fleet.tick(1);
        assert_eq!(
            (fleet.phase(0), fleet.status(), &fleet.rollout.core().stages),
            (failed, ended.0, &ended.1)
        );
    }
    let is_noted = |entry: &rollout::Entry| matches!(&entry.change, rollout::Change::Late { reported, .. } if *reported == Phase::Committed);
    assert!(fleet.journal.iter().any(is_noted));
    fleet.verb(Verb::RollBack { scope: Scope::All, reason: "it shows its fault late".into() });
    assert_eq!(sent_back(&fleet), 3, "it goes back like the others");
}

#[test]
fn a_pause_takes_back_what_nobody_has_answered() {
    let mut fleet = Fleet::new(plan(&["100%"]), 3);
    fleet.tick(1);
    fleet.report(0, TaskPhase::Accepted, None);
    fleet.verb(Verb::Pause { reason: "look".into() });
    assert_eq!((fleet.phase(0), fleet.phase(1), sent_back(&fleet)), (Phase::Accepted, Phase::Queued, 2));
    fleet.tick(10_000);
    fleet.verb(Verb::Resume { retry_failed: false });
    fleet.tick(1);
    assert_eq!(fleet.in_phase(Phase::Offered), [1, 2]);
    let again = fleet.rollout.task(&device(1)).unwrap();
    assert_eq!(again.attempt, 1, "an offer that was taken back is no attempt");
}

#[test]
fn what_has_ended_can_still_go_back() {
    let mut fleet = Fleet::new(plan(&["1", "100%"]), 3);
    for _ in 0..4 {
        fleet.tick(1);
        fleet.commit_offered();
    }
    fleet.tick(1);
    assert_eq!(fleet.status(), "completed");
    fleet.verb(Verb::RollBack { scope: Scope::Stage, reason: "it shows its fault late".into() });
    assert_eq!(
        (fleet.status(), sent_back(&fleet)),
        ("rolling_back", 3),
        "no stage is the current one any more"
    );
    (0..3).for_each(|i| fleet.report_release(i, release(1), TaskPhase::Committed, None));
    assert_eq!(fleet.status(), "rolled_back");
}

#[test]
fn what_never_began_has_nothing_to_go_back_from() {
    let mut fleet = Fleet::new(plan(&["100%"]), 3);
    fleet.verb(Verb::Abort { reason: "too early".into() });
    fleet.verb(Verb::RollBack { scope: Scope::All, reason: "why not".into() });
    assert!(matches!(fleet.last[..], [Action::Refuse { .. }]), "{:?}", fleet.last);
}

#[test]
fn waiting_for_those_that_go_back_is_told_and_can_be_ended() {
    let mut fleet = Fleet::new(plan(&["100%"]), 2);
    fleet.tick(1);
    fleet.commit_offered();
    fleet.verb(Verb::RollBack { scope: Scope::All, reason: "worse".into() });
    fleet.report_release(0, release(1), TaskPhase::Committed, None);
    let waits = fleet.rollout.waits_for(fleet.now, |_| false).unwrap();
    assert_eq!(waits, "cam-01 is not connected");
    fleet.verb(Verb::Abort { reason: "it is in a drawer".into() });
    assert!(matches!(fleet.rollout.status(), Status::RolledBack { unconfirmed: 1, .. }));
    assert_eq!(sent_back(&fleet), 0, "its Desired names the earlier release already");
}

#[test]
fn the_reserve_is_compared_with_and_released_last() {
    let mut plan = plan(&["50%", "100%"]);
    plan.control_reserve = "1".parse().unwrap();
    let mut fleet = Fleet::new(plan, 5);
    fleet.tick(1);
    fleet.commit_offered();
    assert_eq!(fleet.rollout.controls().count(), 1, "the second stage has the reserve to compare with");
    fleet.commit_offered();
    assert_eq!(fleet.rollout.core().stages.len(), 3);
    assert_eq!(fleet.in_phase(Phase::Committed).len(), 4);
    fleet.commit_offered();
    assert_eq!((fleet.status(), fleet.in_phase(Phase::Committed).len()), ("completed", 5));
}

#[test]
fn an_ab_share_leaves_the_others_alone() {
    let mut plan = plan(&["100%"]);
    plan.mode = Mode::Ab("50%".parse().unwrap());
    let mut fleet = Fleet::new(plan, 4);
    fleet.tick(1);
    fleet.commit_offered();
    assert_eq!(fleet.status(), "completed");
    assert_eq!(fleet.in_phase(Phase::Skipped(SkipReason::Control)).len(), 2);
}

#[test]
fn v2_a_stage_waits_for_committed_and_takes_no_earlier_phase_for_it() {
    use TaskPhase::{Activating, Committed, Fetching, Probation, SelfTest, Staged, Verified};
    let mut fleet = Fleet::new(plan(&["1", "100%"]), 2);
    fleet.tick(1);
    let first = fleet.in_phase(Phase::Offered)[0];
    for early in [Fetching, Verified, Staged, SelfTest, Activating, Probation] {
        fleet.report(first, early, None);
        fleet.tick(1);
        let others = (fleet.in_phase(Phase::Committed).len(), fleet.in_phase(Phase::Offered).len());
        assert_eq!((fleet.status(), others), ("running", (0, 0)), "{early:?}");
    }
    fleet.report(first, Committed, None);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 1, "the next stage begins");
}

#[test]
fn v2_shadow_counts_as_in_place_but_not_as_committed() {
    let mut plan = plan(&["100%"]);
    plan.mode = Mode::Shadow;
    let mut fleet = Fleet::new(plan, 2);
    fleet.tick(1);
    for i in 0..2 {
        fleet.report(i, TaskPhase::Shadow, None);
    }
    assert_eq!(fleet.status(), "completed");
    assert_eq!(fleet.in_phase(Phase::Committed).len(), 0);
}

#[test]
fn rate_and_in_flight_bounds_hold() {
    let mut plan = plan(&["100%"]);
    plan.rate = Some(rollout::Rate { per_minute: 3, growth: None, max_in_flight: Some(2) });
    let mut fleet = Fleet::new(plan, 10);
    fleet.tick(1);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 2, "two at once");
    fleet.commit_offered();
    fleet.tick(1);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 1, "three in a minute");
    fleet.tick(60);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 2);
}

#[test]
fn a_clock_that_was_ahead_holds_back_no_offers() {
    let mut plan = plan(&["100%"]);
    plan.rate = Some(rollout::Rate { per_minute: 1, growth: None, max_in_flight: None });
    let mut fleet = Fleet::new(plan, 4);
    fleet.tick(86_400);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 1);
    fleet.tick(-86_400);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 2, "the minute of tomorrow is not waited for");
    fleet.tick(-5);
    assert_eq!(fleet.in_phase(Phase::Offered).len(), 2, "a small step back begins no new minute");
}

#[test]
fn a_clock_that_was_ahead_holds_back_no_measurement() {
    let mut fleet = Fleet::new(judged_by_accuracy(&["1", "100%"], OnFailure::RollBackStage), 4);
    fleet.tick(86_400);
    fleet.commit_offered();
    fleet.measured(0, accuracy(0.98, 20));
    fleet.tick(-86_400);
    assert!(fleet.last.iter().any(|a| matches!(a, Action::Measure { .. })), "tomorrow's numbers are none");
}

#[test]
fn a_budget_overrun_pauses_and_resuming_accepts_it() {
    let mut plan = plan(&["100%"]);
    plan.gates.clear();
    plan.failure_budget = Some("1".parse().unwrap());
    let mut fleet = Fleet::new(plan, 5);
    fleet.tick(1);
    fleet.report(0, TaskPhase::Failed, Some(CauseKind::Load));
    assert_eq!(fleet.status(), "running");
    fleet.report(1, TaskPhase::Failed, Some(CauseKind::Load));
    assert!(matches!(fleet.rollout.status(), Status::Paused { reason: PauseReason::ErrorBudget(_), .. }));
    fleet.verb(Verb::Resume { retry_failed: false });
    assert_eq!(fleet.status(), "running");
    fleet.report(2, TaskPhase::Failed, Some(CauseKind::Load));
    assert_eq!(fleet.status(), "paused", "one more is one too many again");
}

#[test]
fn a_committed_device_without_a_permitted_way_back_keeps_the_release() {
    let mut plan = plan(&["100%"]);
    plan.fallbacks.clear();
    plan.stages[0].soak_s = 60;
    let mut fleet = Fleet::new(plan, 2);
    fleet.tick(1);
    fleet.report(0, TaskPhase::Committed, None);
    fleet.report(1, TaskPhase::Probation, None);
    fleet.verb(Verb::RollBack { scope: Scope::All, reason: "no".into() });
    assert_eq!(fleet.phase(0), Phase::Committed);
    fleet.report(1, TaskPhase::RolledBack, Some(CauseKind::Superseded));
    assert!(matches!(fleet.rollout.status(), Status::RolledBack { unconfirmed: 1, .. }));
}

#[test]
fn a_device_that_had_nothing_has_nothing_to_go_back_to() {
    let mut fleet = Fleet::new(plan(&["100%"]), 4);
    let new = |i| Facts { current: None, ..facts(i) };
    fleet.feed(Actor::Engine, Event::Devices((0..3).map(new).collect()));
    fleet.tick(1);
    for (i, phase) in [(1, TaskPhase::Fetching), (2, TaskPhase::Probation), (3, TaskPhase::Fetching)] {
        fleet.report(i, phase, None);
    }
    fleet.verb(Verb::RollBack { scope: Scope::All, reason: "worse".into() });
    for i in [0, 1] {
        assert_eq!(fleet.phase(i), Phase::Canceled(CancelReason::RolledBack), "it says nothing more");
    }
    assert_eq!((sent_back(&fleet), fleet.status()), (4, "rolling_back"));
    fleet.report(2, TaskPhase::Committed, None);
    assert_eq!(fleet.phase(2), Phase::Committed, "it keeps what is all that it has");
    fleet.report_release(3, release(1), TaskPhase::Committed, None);
    assert!(matches!(fleet.rollout.status(), Status::RolledBack { unconfirmed: 1, .. }));
    assert_eq!(fleet.replayed(), fleet.rollout);
}

#[test]
fn joiners_of_a_dynamic_rollout_enter_its_last_stage() {
    let mut plan = plan(&["1", "100%"]);
    plan.is_dynamic = true;
    plan.stages[1].soak_s = 60;
    let mut fleet = Fleet::new(plan, 2);
    fleet.tick(1);
    fleet.commit_offered();
    fleet.commit_offered();
    assert_eq!(fleet.rollout.core().stages[1].state, StageState::Soaking);
    fleet.feed(Actor::Engine, Event::Devices(vec![facts(2)]));
    assert_eq!(fleet.rollout.core().stages[1].state, StageState::Offering);
    fleet.commit_offered();
    fleet.tick(60);
    assert_eq!((fleet.status(), fleet.in_phase(Phase::Committed).len()), ("completed", 3));
}

#[test]
fn joiners_never_enter_a_stage_that_was_passed_over() {
    let mut plan = plan(&["3", "50%"]);
    plan.is_dynamic = true;
    plan.control_reserve = "1".parse().unwrap();
    let mut fleet = Fleet::new(plan, 2);
    fleet.tick(1);
    fleet.commit_offered();
    assert_eq!(
        fleet.rollout.status().stage(),
        Some(2),
        "the second stage is empty: the control group is next"
    );
    fleet.feed(Actor::Engine, Event::Devices(vec![facts(2)]));
    fleet.commit_offered();
    assert_eq!((fleet.status(), fleet.in_phase(Phase::Committed).len()), ("completed", 3));
}

#[test]
fn devices_that_have_it_or_cannot_take_it_are_in_no_stage() {
    let plan = plan(&["1", "100%"]).check().unwrap();
    let mut fleet: Vec<Facts> = (0..4).map(facts).collect();
    fleet[0].current = Some(release(2));
    fleet[1].current = Some(release(3));
    fleet[2].skip = Some(SkipReason::Incompatible);
    let run = dry_run(RolloutId::new("r1").unwrap(), &plan, &fleet, support::T0);
    assert_eq!((run.targets, run.skipped.len()), (1, 3));
    assert_eq!(run.stages[0].devices, [device(3)]);
    assert!(run.problems.iter().any(|p| p.stage == Some(1) && p.why.contains("passed over")));
}

#[test]
fn a_dry_run_names_a_gate_that_nothing_can_be_compared_with() {
    let mut plan = plan(&["1", "100%"]);
    plan.gates.push(accuracy_gate());
    let fleet: Vec<Facts> = (0..4).map(facts).collect();
    let run = dry_run(RolloutId::new("r1").unwrap(), &plan.clone().check().unwrap(), &fleet, support::T0);
    let blocking: Vec<_> = run.problems.iter().filter(|p| p.is_blocking).map(|p| p.stage).collect();
    assert_eq!(blocking, [Some(1)], "the last stage has nobody left on the old release");
    plan.control_reserve = "25%".parse().unwrap();
    let run = dry_run(RolloutId::new("r1").unwrap(), &plan.check().unwrap(), &fleet, support::T0);
    assert!(run.problems.iter().all(|p| !p.is_blocking));
}

#[test]
fn nothing_to_do_is_said_and_not_called_complete() {
    let mut fleet = Fleet::new(plan(&["100%"]), 0);
    fleet.tick(1);
    assert!(matches!(fleet.rollout.status(), Status::Invalidated { .. }));
}

#[test]
fn every_fault_of_a_plan_is_reported_at_once() {
    let mut bad = plan(&["0", "100%"]);
    bad.task_timeout_s = 0;
    bad.stages[1].min_devices = 0;
    bad.gates[0].metric = rollout::Metric::Accuracy;
    let errors = bad.check().unwrap_err();
    let fields: Vec<_> = errors.0.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["task_timeout_s", "gates[0].limit", "stages[0].fill", "stages[1].min_devices"]);
}

#[test]
fn a_plan_reads_as_people_write_it() {
    let text = r#"{"model":"digits","release":{"version":"2.0.0","digest":"0202020202020202020202020202020202020202020202020202020202020202","counter":2},
        "target":"class = rpi4","stages":[{"fill":{"amount":1},"soak_s":60},{"fill":{"amount":"100%"}}],
        "gates":[{"metric":"accuracy","limit":{"worse_than_control":{"by_at_most":0.03}},"min_sample":50}],"on_failure":"roll_back_stage"}"#;
    let plan: rollout::ValidPlan = serde_json::from_str(text).unwrap();
    assert_eq!(plan.stages.len(), 2);
    assert!(
        serde_json::from_str::<rollout::ValidPlan>(&text.replace("soak_s", "soak")).is_err(),
        "unknown keys"
    );
}
