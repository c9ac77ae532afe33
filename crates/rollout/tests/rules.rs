//! The ten rules of the design as properties of any sequence of events. `support::check_step` holds 1, 2, 4, 8 and 9
//! after every single step of every test.

use proptest::prelude::*;
use protocol::message::{CauseKind, TaskPhase};
use rollout::{
    Actor, Amount, Change, Event, OnFailure, Percent, Phase, Plan, Retries, Scope, StageState, Status, Verb,
};

mod support;
use support::{Fleet, accuracy, accuracy_gate, device, facts, install_gate, plan};

#[derive(Debug, Clone)]
enum Op {
    Tick(u16),
    Report(usize, TaskPhase, Option<CauseKind>),
    Measured(u16, u8, u64),
    Pause,
    Resume(bool),
    Abort,
    RollBack(bool),
    Remove(usize),
    Join(usize),
}

fn any_phase() -> impl Strategy<Value = TaskPhase> {
    use TaskPhase::*;
    prop::sample::select(vec![
        Idle, Accepted, Fetching, Verified, Staged, SelfTest, Activating, Probation, Committed, Committed,
        Committed, RolledBack, Failed, Rejected,
    ])
}

fn any_cause() -> impl Strategy<Value = Option<CauseKind>> {
    use CauseKind::*;
    prop::option::of(prop::sample::select(vec![
        Download,
        GoldenMismatch,
        ProbationErrors,
        Timeout,
        Untrusted,
    ]))
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..400_u16).prop_map(Op::Tick),
        12 => (0..20_usize, any_phase(), any_cause()).prop_map(|(i, p, c)| Op::Report(i, p, c)),
        4 => (0..3_u16, 0..100_u8, 0..200_u64).prop_map(|(s, v, n)| Op::Measured(s, v, n)),
        1 => Just(Op::Pause),
        2 => any::<bool>().prop_map(Op::Resume),
        1 => Just(Op::RollBack(true)),
        1 => Just(Op::Abort),
        1 => (0..20_usize).prop_map(Op::Remove),
        1 => (0..25_usize).prop_map(Op::Join),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let stages = prop::sample::select(vec![
        vec!["1", "2", "100%"],
        vec!["10%", "50%", "100%"],
        vec!["100%"],
        vec!["3", "50%"],
        vec!["1%", "2%", "3%"],
    ]);
    let then = prop::sample::select(vec![
        OnFailure::Pause,
        OnFailure::Abort,
        OnFailure::RollBackStage,
        OnFailure::RollBackAll,
    ]);
    let numbers = (0..=100_u8, 0..3_u32, 0..120_u64, 0..4_u64);
    (stages, then, numbers, any::<[bool; 3]>()).prop_map(
        |(stages, then, (percent, retries, soak_s, held), flags)| {
            let mut plan = plan(&stages);
            plan.on_failure = then;
            plan.gates = vec![install_gate(&format!("{percent}%"))];
            if flags[0] {
                plan.gates.push(accuracy_gate());
            }
            plan.is_dynamic = flags[1];
            plan.retries = Retries { max: retries, backoff_s: 30 };
            plan.control_reserve = Amount::Count(held);
            plan.failure_budget = flags[2].then_some(Amount::Percent(Percent::whole(40)));
            plan.stages.iter_mut().for_each(|s| s.soak_s = soak_s);
            plan
        },
    )
}

fn perform(fleet: &mut Fleet, op: &Op) {
    match *op {
        Op::Tick(seconds) => fleet.tick(i64::from(seconds)),
        Op::Report(i, phase, cause) => fleet.report(i, phase, cause),
        Op::Measured(stage, percent, n) => fleet.measured(stage, accuracy(f64::from(percent) / 100.0, n)),
        Op::Pause => fleet.verb(Verb::Pause { reason: "wait".into() }),
        Op::Resume(retry_failed) => fleet.verb(Verb::Resume { retry_failed }),
        Op::Abort => fleet.verb(Verb::Abort { reason: "no".into() }),
        Op::RollBack(is_all) => {
            let scope = if is_all { Scope::All } else { Scope::Stage };
            fleet.verb(Verb::RollBack { scope, reason: "no".into() });
        }
        Op::Remove(i) => fleet.feed(Actor::Engine, Event::Removed(device(i))),
        Op::Join(i) => fleet.feed(Actor::Engine, Event::Devices(vec![facts(i)])),
    }
}

/// Lets time pass with silent devices until nothing moves.
fn wait_it_out(fleet: &mut Fleet) {
    for _ in 0..60 {
        fleet.tick(700);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_rules_and_can_be_replayed(
        plan in any_plan(), n in 0..20_usize, ops in prop::collection::vec(any_op(), 0..80)
    ) {
        let mut fleet = Fleet::new(plan, n);
        for op in ops {
            perform(&mut fleet, &op);
        }
        prop_assert_eq!(fleet.replayed(), fleet.rollout);
    }

    #[test]
    fn rule_3_a_failed_stage_is_left_only_by_passing(
        plan in any_plan(), n in 1..20_usize, ops in prop::collection::vec(any_op(), 0..80)
    ) {
        let mut fleet = Fleet::new(plan, n);
        for op in ops {
            perform(&mut fleet, &op);
        }
        let mut passed = std::collections::BTreeSet::new();
        for entry in &fleet.journal {
            match &entry.change {
                Change::Stage { stage, to: StageState::GatePassed, .. } => { passed.insert(*stage); }
                Change::Status { to: Status::Running { stage }, .. } => {
                    let before = 0..*stage;
                    let skipped = before.into_iter().find(|s| !passed.contains(s) && fleet.rollout.tally(*s).total() > 0);
                    prop_assert_eq!(skipped, None, "stage {} began before an earlier one passed", stage);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn rule_4_deleting_devices_never_makes_a_failed_gate_pass(
        n in 1..20_usize, bad in 1..20_usize, percent in 0..100_u8, gone in prop::collection::vec(0..20_usize, 0..20)
    ) {
        let bad = bad.min(n);
        let mut plan = plan(&["100%"]);
        plan.gates = vec![install_gate(&format!("{percent}%"))];
        let mut fleet = Fleet::new(plan, n);
        fleet.tick(1);
        for i in 0..n {
            let is_bad = i < bad;
            let phase = if is_bad { TaskPhase::Rejected } else { TaskPhase::Committed };
            fleet.report(i, phase, is_bad.then_some(CauseKind::Untrusted));
        }
        let failed = fleet.status() == "paused";
        prop_assert_eq!(failed, bad * 100 > usize::from(percent) * n || bad == n, "rule 7: the limit is exact");
        if failed {
            for i in gone {
                fleet.feed(Actor::Engine, Event::Removed(device(i)));
            }
            fleet.verb(Verb::Resume { retry_failed: false });
            fleet.tick(10);
            prop_assert_eq!(fleet.status(), "paused");
        }
    }

    #[test]
    fn rule_5_silent_devices_neither_block_nor_count(
        plan in any_plan(), n in 1..20_usize, awake in prop::collection::vec(any::<bool>(), 20)
    ) {
        let mut fleet = Fleet::new(plan, n);
        for _ in 0..40 {
            fleet.tick(1);
            for i in fleet.in_phase(Phase::Offered).into_iter().filter(|i| awake[*i]) {
                fleet.report(i, TaskPhase::Committed, None);
            }
        }
        wait_it_out(&mut fleet);
        let is_moving = matches!(fleet.rollout.status(), Status::Running { .. } | Status::RollingBack { .. });
        prop_assert!(!is_moving, "still {:?}", fleet.rollout.status());
        prop_assert!(fleet.in_phase(Phase::Committed).iter().all(|i| awake[*i]));
        prop_assert!(fleet.in_phase(Phase::Offered).is_empty());
    }

    #[test]
    fn rule_6_late_reports_change_nothing(
        plan in any_plan(), n in 1..20_usize, ops in prop::collection::vec(any_op(), 0..60),
        late in prop::collection::vec((0..20_usize, any_phase(), any_cause()), 1..20)
    ) {
        let mut fleet = Fleet::new(plan, n);
        for op in ops {
            perform(&mut fleet, &op);
        }
        for (i, phase, cause) in late {
            let Some(task) = fleet.rollout.task(&device(i)).cloned() else { continue };
            if !task.phase.is_terminal() || task.is_restoring {
                continue;
            }
            // What is due already would also happen without the report.
            fleet.tick(0);
            let status = fleet.rollout.status().clone();
            fleet.report(i, phase, cause);
            let after = fleet.rollout.task(&device(i)).unwrap();
            prop_assert_eq!((after.phase, after.since, after.attempt), (task.phase, task.since, task.attempt));
            prop_assert_eq!(fleet.rollout.status(), &status);
        }
    }

    #[test]
    fn rule_2_pausing_stops_offers_and_the_work_under_way_goes_on(n in 2..20_usize, done in 1..20_usize) {
        let mut plan = plan(&["1", "100%"]);
        plan.rate = Some(rollout::Rate { per_minute: 1, growth: None, max_in_flight: None });
        let mut fleet = Fleet::new(plan, n);
        fleet.tick(1);
        let at_work = fleet.in_phase(Phase::Offered);
        prop_assert!(!at_work.is_empty());
        for i in &at_work {
            fleet.report(*i, TaskPhase::Accepted, None);
        }
        fleet.verb(Verb::Pause { reason: "look".into() });
        for _ in 0..done {
            fleet.tick(120);
            let offers = fleet.last.iter().any(|a| matches!(a, rollout::Action::Offer { .. }));
            prop_assert!(!offers);
        }
        for i in &at_work {
            fleet.report(*i, TaskPhase::Committed, None);
        }
        prop_assert!(at_work.iter().all(|i| fleet.phase(*i) == Phase::Committed));
        prop_assert_eq!(fleet.status(), "paused");
    }

    #[test]
    fn the_same_device_lands_in_the_same_stage(n in 1..60_usize) {
        let stages = |fleet: &Fleet| fleet.rollout.tasks().iter().map(|t| (t.device.clone(), t.stage)).collect::<Vec<_>>();
        let mut first = Fleet::new(plan(&["10%", "50%", "100%"]), n);
        first.tick(1);
        let mut second = Fleet::new(plan(&["10%", "50%", "100%"]), n);
        second.tick(500);
        prop_assert_eq!(stages(&first), stages(&second));
        prop_assert_eq!(first.rollout.tally(0).total(), (n as u64).div_ceil(10));
    }
}

/// Rule 10, as a ratio within one run: an idle tick over 100 times the devices must not take 100 times as long.
#[test]
fn rule_10_an_idle_tick_does_not_grow_with_the_fleet() {
    let idle_tick = |n: usize| {
        let plan = plan(&["1%", "100%"]).check().unwrap();
        let id = protocol::RolloutId::new("r1").unwrap();
        let mut rollout = rollout::Rollout::new(id, plan, Actor::Engine, support::T0);
        let fleet = (0..n).map(facts).collect();
        for event in [Event::Devices(fleet), Event::Verb(Verb::Submit), Event::Tick] {
            rollout = rollout::step(rollout, rollout::Input { actor: Actor::Engine, event }, support::T0).0;
        }
        let mut best = std::time::Duration::MAX;
        for _ in 0..50 {
            let begun = std::time::Instant::now();
            for _ in 0..100 {
                let input = rollout::Input { actor: Actor::Engine, event: Event::Tick };
                rollout = rollout::step(rollout, input, support::T0).0;
            }
            best = best.min(begun.elapsed());
        }
        best.as_nanos()
    };
    let (small, large) = (idle_tick(300), idle_tick(30_000));
    assert!(large < small * 20, "{large} ns against {small} ns for a hundredth of the devices");
}
