//! Whole rollouts on a real server and database: the engine's decisions reach Desired, reports reach the engine,
//! evidence comes from stored panes, and a restart in the middle changes nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use flotilla_server::domain::rollouts::{self, RolloutError};
use protocol::message::{CauseKind, TaskPhase};
use rollout::{Phase, RollbackReason, Scope, Status, Verb};
use serde_json::json;

mod sql;
mod support;
use support::{Fleet, stages};

#[tokio::test(flavor = "multi_thread")]
async fn one_then_two_then_all() {
    let mut fleet = Fleet::start(6).await;
    let id = fleet.create("1.0.0", stages(&["1", "2", "100%"])).await;
    for expected in [1, 2, 3] {
        fleet.tick(1).await;
        let offered = fleet.offered(&id).await;
        assert_eq!(offered.len(), expected);
        for device in &offered {
            assert_eq!(fleet.desired(device).await.as_deref(), Some("1.0.0"), "Desired is signed and stored");
        }
        fleet.commit(&id, &offered).await;
    }
    fleet.tick(1).await;
    assert_eq!(fleet.status(&id).await, Status::Completed);
    fleet.replay(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ff2_a_device_without_revisions_does_not_hold_up_the_others() {
    let mut fleet = Fleet::start(3).await;
    let spent = fleet.devices()[0].clone();
    fleet.spend_revisions(&spent).await;
    fleet.create("1.0.0", stages(&["100%"])).await;
    fleet.tick(1).await;
    for device in fleet.devices() {
        let expected = (device != spent).then_some("1.0.0");
        assert_eq!(fleet.desired(&device).await.as_deref(), expected, "{device}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worse_model_fails_against_its_control_group_and_its_stage_goes_back() {
    let mut fleet = Fleet::start(6).await;
    fleet.all_serve("1.0.0").await;
    let id = fleet.create("2.0.0", judged_by_accuracy()).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    fleet.commit(&id, &offered).await;
    fleet.tick(1).await;
    assert!(matches!(fleet.status(&id).await, Status::Running { stage: 0 }), "nothing was measured yet");

    fleet.pass(60);
    for device in fleet.devices() {
        let (version, right) = if offered.contains(&device) { ("2.0.0", 78) } else { ("1.0.0", 95) };
        fleet.pane(&device, version, right).await;
    }
    fleet.tick(1).await;
    let status = fleet.status(&id).await;
    assert!(matches!(&status, Status::RollingBack { stage: 0, scope: Scope::Stage, .. }), "{status:?}");
    assert_eq!(fleet.desired(&offered[0]).await.as_deref(), Some("1.0.0"), "the permitted fallback");
    assert_eq!(fleet.open_alerts().await, ["rollout_rolled_back"]);

    fleet.report(&id, &offered[0], "1.0.0", TaskPhase::Committed, None).await;
    let status = fleet.status(&id).await;
    assert!(
        matches!(&status, Status::RolledBack { unconfirmed: 0, reason } if reason.starts_with("accuracy")),
        "{status:?}"
    );
    assert_eq!(fleet.phase(&id, &offered[0]).await, Phase::RolledBack(RollbackReason::Gate));
    fleet.replay(&id).await;
    fleet.acknowledge().await;
    assert!(fleet.open_alerts().await.is_empty(), "it is over, and somebody has seen it");

    let file = rollouts::evidence_file(&fleet.state, &fleet.project, &id).await.unwrap();
    let payload: serde_json::Value = serde_json::from_str(file["payload"].as_str().unwrap()).unwrap();
    let verdicts = payload["verdicts"].as_array().unwrap();
    let accuracy = verdicts.iter().find(|v| v["gate"] == "accuracy").unwrap();
    assert_eq!(accuracy["is_passed"], false);
    assert_eq!(accuracy["body"]["evidence"]["control"]["devices"], 5);
    assert!(fleet.is_signed_by_the_director(&file).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_model_passes_the_same_gate() {
    let mut fleet = Fleet::start(4).await;
    fleet.all_serve("1.0.0").await;
    let id = fleet.create("2.0.0", judged_by_accuracy()).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    fleet.commit(&id, &offered).await;
    fleet.pass(60);
    for device in fleet.devices() {
        let version = if offered.contains(&device) { "2.0.0" } else { "1.0.0" };
        fleet.pane(&device, version, 96).await;
    }
    fleet.tick(1).await;
    assert_eq!(fleet.status(&id).await, Status::Running { stage: 1 });
    let rollout = fleet.load(&id).await;
    let gates: Vec<String> = rollout.gates(1).iter().map(rollout::Gate::label).collect();
    assert_eq!(
        gates,
        ["install_failures"],
        "the last stage has nothing to compare with and says so in its plan"
    );
    let offered = fleet.offered(&id).await;
    fleet.commit(&id, &offered).await;
    fleet.tick(6).await;
    assert_eq!(fleet.status(&id).await, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_withdrawn_is_offered_to_nobody_any_more() {
    let mut fleet = Fleet::start(3).await;
    fleet.all_serve("1.0.0").await;
    let id = fleet.create("2.0.0", stages(&["1", "100%"])).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    assert_eq!(fleet.desired(&offered[0]).await.as_deref(), Some("2.0.0"));
    fleet.withdraw("2.0.0").await;
    fleet.tick(1).await;
    let status = fleet.status(&id).await;
    assert!(
        matches!(&status, Status::Invalidated { reason } if reason.contains("names it no longer")),
        "{status:?}"
    );
    assert_eq!(fleet.desired(&offered[0]).await.as_deref(), Some("1.0.0"));
    assert!(fleet.offered(&id).await.is_empty());
    fleet.replay(&id).await;
    let refused = fleet.try_create("2.0.0", stages(&["100%"])).await;
    assert!(matches!(refused, Err(RolloutError::Release { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_away_does_not_take_what_a_gate_has_ended() {
    let mut fleet = Fleet::start(3).await;
    fleet.all_serve("1.0.0").await;
    let mut plan = stages(&["100%"]);
    plan["on_failure"] = "abort".into();
    plan["unreachable_after_s"] = 60.into();
    let id = fleet.create("2.0.0", plan).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    fleet.report(&id, &offered[0], "2.0.0", TaskPhase::Accepted, None).await;
    fleet.tick(61).await;
    assert_eq!(fleet.phase(&id, &offered[1]).await, Phase::Unreachable);
    fleet.report(&id, &offered[0], "2.0.0", TaskPhase::Failed, Some(CauseKind::GoldenMismatch)).await;
    assert!(matches!(fleet.status(&id).await, Status::Aborted { .. }), "{:?}", fleet.status(&id).await);
    for device in &offered {
        assert_eq!(fleet.desired(device).await.as_deref(), Some("1.0.0"), "{device}");
    }
    assert_eq!(fleet.open_alerts().await, ["rollout_aborted"]);
    fleet.acknowledge().await;
    assert!(fleet.open_alerts().await.is_empty(), "it is over, and somebody has seen it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_rollout_goes_back_unless_another_came_later() {
    let mut fleet = Fleet::start(2).await;
    fleet.all_serve("1.0.0").await;
    let id = fleet.create("2.0.0", stages(&["100%"])).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    fleet.commit(&id, &offered).await;
    fleet.tick(1).await;
    assert_eq!(fleet.status(&id).await, Status::Completed);
    let back = Verb::RollBack { scope: Scope::All, reason: "it shows its fault late".into() };
    fleet.order(&id, &back).await.unwrap();
    for device in &offered {
        assert_eq!(fleet.desired(device).await.as_deref(), Some("1.0.0"), "{device}");
        fleet.report(&id, device, "1.0.0", TaskPhase::Committed, None).await;
    }
    assert!(matches!(fleet.status(&id).await, Status::RolledBack { unconfirmed: 0, .. }));

    let first = fleet.create("2.0.0", stages(&["1", "100%"])).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&first).await;
    fleet.commit(&first, &offered).await;
    fleet.order(&first, &Verb::Abort { reason: "one is enough".into() }).await.unwrap();
    let second = fleet.create("2.0.0", stages(&["100%"])).await;
    fleet.tick(1).await;
    assert!(matches!(fleet.order(&first, &back).await, Err(RolloutError::Open { .. })));
    let offered = fleet.offered(&second).await;
    fleet.commit(&second, &offered).await;
    fleet.tick(1).await;
    let refused = fleet.order(&first, &back).await;
    assert!(matches!(&refused, Err(RolloutError::Refused(why)) if why.contains("came later")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_nobody_can_take_is_refused_with_the_reasons() {
    let fleet = Fleet::start(3).await;
    fleet.all_serve("2.0.0").await;
    let refused = fleet.try_create("1.0.0", stages(&["100%"])).await;
    let Err(RolloutError::NoTarget { why, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(why, "3 of 3: it runs a newer release");
    let nobody = json!({ "target": "device = elsewhere", "stages": ["100%"] });
    let refused = fleet.try_create("2.0.0", nobody).await;
    let Err(RolloutError::NoTarget { why, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(why, "the target filter selects none of 3 devices");
    assert!(fleet.load_all().await.is_empty(), "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_rollout_says_what_it_waits_for() {
    let mut fleet = Fleet::start(4).await;
    fleet.all_serve("1.0.0").await;
    let id = fleet.create("2.0.0", judged_by_accuracy()).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    let (device, now) = (&offered[0], fleet.state.clock.now());
    let waits = fleet.load(&id).await.waits_for(now, |_| true);
    assert_eq!(waits, Some(format!("{device} hasn't answered the offer yet")));
    let waits = fleet.load(&id).await.waits_for(now, |_| false);
    assert_eq!(waits, Some(format!("{device} is not connected")));
    let later = fleet.devices().into_iter().find(|device| !offered.contains(device)).unwrap();
    let why = fleet.why(&later).await;
    assert_eq!((why.answer, why.rollout), ("later_stage", Some(id.clone())), "{}", why.message);
    assert_eq!(fleet.why(device).await.answer, "offline", "it was asked, so the device is the reason");
    fleet.commit(&id, &offered).await;
    fleet.tick(1).await;
    let waits = fleet.load(&id).await.waits_for(fleet.state.clock.now(), |_| true).unwrap();
    assert!(waits.starts_with("soaks ") && waits.contains("accuracy: "), "{waits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_changes_nothing() {
    let mut fleet = Fleet::start(5).await;
    let id = fleet.create("1.0.0", stages(&["2", "100%"])).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    fleet.report(&id, &offered[0], "1.0.0", TaskPhase::Probation, None).await;
    let before = fleet.load(&id).await;

    // The server stores a report and dies before the rollout hears of it.
    fleet.store_report(&id, &offered[1], "1.0.0", TaskPhase::Committed, None).await;
    let mut fleet = fleet.restart().await;
    assert_eq!(fleet.load(&id).await, before);
    fleet.tick(1).await;
    assert_eq!(fleet.phase(&id, &offered[1]).await, Phase::Committed, "the tick makes up for the lost call");
    fleet.report(&id, &offered[0], "1.0.0", TaskPhase::Committed, None).await;
    assert_eq!(fleet.offered(&id).await.len(), 3);
    fleet.replay(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_stops_offers_and_late_reports_change_nothing() {
    let mut fleet = Fleet::start(4).await;
    let id = fleet.create("1.0.0", stages(&["1", "100%"])).await;
    fleet.tick(1).await;
    let first = fleet.offered(&id).await;
    fleet.report(&id, &first[0], "1.0.0", TaskPhase::Accepted, None).await;
    fleet.order(&id, &Verb::Pause { reason: "look".into() }).await.unwrap();
    fleet.commit(&id, &first).await;
    fleet.tick(60).await;
    assert!(fleet.offered(&id).await.is_empty());
    assert_eq!(fleet.phase(&id, &first[0]).await, Phase::Committed, "what was under way finished");
    fleet.order(&id, &Verb::Resume { retry_failed: false }).await.unwrap();
    assert_eq!(fleet.offered(&id).await.len(), 3);

    fleet.report(&id, &first[0], "1.0.0", TaskPhase::Failed, Some(CauseKind::Load)).await;
    assert_eq!(fleet.phase(&id, &first[0]).await, Phase::Committed);
    let why = fleet.load(&id).await.why(&first[0]);
    assert!(why.text.contains("failed"), "{}", why.text);
    fleet.order(&id, &Verb::Abort { reason: "enough".into() }).await.unwrap();
    let refused = fleet.order(&id, &Verb::Resume { retry_failed: false }).await;
    assert!(matches!(refused, Err(RolloutError::Refused(_))));
    let orders = ["rollout.create", "rollout.order", "rollout.order", "rollout.order"];
    assert_eq!(fleet.audited(&id).await, orders, "a refused order has changed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_asks_with_a_new_revision() {
    let mut fleet = Fleet::start(1).await;
    let id = fleet.create("1.0.0", stages(&["100%"])).await;
    fleet.tick(1).await;
    let device = fleet.offered(&id).await.remove(0);
    let first = fleet.revision(&device).await;
    fleet.report(&id, &device, "1.0.0", TaskPhase::Failed, Some(CauseKind::Download)).await;
    fleet.tick(61).await;
    assert_eq!(fleet.offered(&id).await, std::slice::from_ref(&device));
    assert!(fleet.revision(&device).await > first);
    assert_eq!(fleet.desired(&device).await.as_deref(), Some("1.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chance_reaches_desired_as_another_attempt_over_a_restart() {
    let mut fleet = Fleet::start(2).await;
    let id = fleet.create("1.0.0", stages(&["1", "100%"])).await;
    fleet.tick(1).await;
    let device = fleet.offered(&id).await.remove(0);
    for attempt in 1..=2 {
        fleet.report(&id, &device, "1.0.0", TaskPhase::RolledBack, Some(CauseKind::ProbationErrors)).await;
        let asked = fleet.revision(&device).await;
        let restarted = fleet.restart().await;
        restarted.order(&id, &Verb::Resume { retry_failed: true }).await.unwrap();
        assert_eq!(restarted.attempt(&device).await, Some(attempt));
        assert!(restarted.revision(&device).await > asked);
        restarted.replay(&id).await;
        fleet = restarted;
    }
    assert_eq!(fleet.desired(&device).await.as_deref(), Some("1.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chance_is_given_while_the_rollout_runs_and_refused_where_nobody_failed() {
    let mut fleet = Fleet::start(2).await;
    let install =
        json!({ "metric": "install_failures", "limit": {"tasks": {"at_most": "50%"}}, "min_sample": 1 });
    let id = fleet.create("1.0.0", json!({ "stages": ["100%"], "gates": [install] })).await;
    fleet.tick(1).await;
    let device = fleet.offered(&id).await.remove(0);
    fleet.report(&id, &device, "1.0.0", TaskPhase::Rejected, Some(CauseKind::TooBig)).await;
    let again = Verb::Resume { retry_failed: true };
    fleet.order(&id, &again).await.unwrap();
    assert_eq!((fleet.attempt(&device).await, fleet.offered(&id).await.len()), (Some(1), 2));
    let refused = fleet.order(&id, &again).await;
    assert!(matches!(&refused, Err(RolloutError::Refused(why)) if why.contains("no device")), "{refused:?}");
    let offered = fleet.offered(&id).await;
    fleet.commit(&id, &offered).await;
    assert_eq!(fleet.status(&id).await, Status::Completed);
    let refused = fleet.order(&id, &again).await;
    assert!(
        matches!(&refused, Err(RolloutError::Refused(why)) if why.contains("another rollout")),
        "{refused:?}"
    );
    fleet.replay(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_leaves_is_taken_out() {
    let mut fleet = Fleet::start(3).await;
    let id = fleet.create("1.0.0", stages(&["100%"])).await;
    fleet.tick(1).await;
    let offered = fleet.offered(&id).await;
    fleet.decommission(&offered[0]).await;
    fleet.tick(1).await;
    assert!(matches!(fleet.phase(&id, &offered[0]).await, Phase::Canceled(_)));
    fleet.commit(&id, &offered[1..]).await;
    assert_eq!(fleet.status(&id).await, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_plan_is_refused_with_every_fault() {
    let fleet = Fleet::start(2).await;
    let wrong = fleet.try_create("1.0.0", json!({ "stages": ["0", "100%"], "task_timeout_s": 0 })).await;
    let Err(RolloutError::Plan(faults)) = wrong else { panic!("{wrong:?}") };
    assert_eq!(faults.0.len(), 2);
    assert!(matches!(fleet.try_create("1.0.0", json!({ "stage": 1 })).await, Err(RolloutError::Shape(_))));
    assert!(matches!(fleet.try_create("9.9.9", json!({})).await, Err(RolloutError::Release { .. })));
    fleet.try_create("1.0.0", json!({})).await.unwrap();
    assert!(matches!(fleet.try_create("2.0.0", json!({})).await, Err(RolloutError::Open { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_who_and_what_would_block() {
    let fleet = Fleet::start(4).await;
    fleet.all_serve("1.0.0").await;
    let body = json!({
        "model": "digits", "version": "2.0.0",
        "stages": [{"fill": {"amount": "100%"}, "gates": [{"metric": "accuracy",
            "limit": {"worse_than_control": {"by_at_most": 0.03}}, "min_sample": 10}]}],
    });
    let run =
        rollouts::dry_run(&fleet.state, &fleet.project, serde_json::from_value(body).unwrap()).await.unwrap();
    assert_eq!(run.stages[0].devices.len(), 4);
    assert!(run.problems.iter().any(|p| p.is_blocking && p.why.contains("control group")));
    let events = fleet.load_all().await;
    assert!(events.is_empty(), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_in_the_page_on_rollouts_is_one() {
    let fleet = Fleet::start(4).await;
    fleet.all_serve("1.0.0").await;
    let page = include_str!("../../../docs/ROLLOUTS.md");
    let plan = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut body: serde_json::Value = serde_json::from_str(plan).unwrap();
    (body["model"], body["version"]) = (json!("digits"), json!("2.0.0"));
    let run =
        rollouts::dry_run(&fleet.state, &fleet.project, serde_json::from_value(body).unwrap()).await.unwrap();
    assert_eq!(run.stages.len(), 3, "without a target the control group isn't a stage: {run:?}");
    for filter in
        page.split("```text").nth(1).and_then(|rest| rest.split("```").next()).unwrap().trim().lines()
    {
        assert!(filter.parse::<rollout::Filter>().is_ok(), "{filter}");
    }
}

fn judged_by_accuracy() -> serde_json::Value {
    json!({
        "stages": ["1", "100%"],
        "soak_s": 5,
        "measure_every_s": 1,
        "on_failure": "roll_back_stage",
        "gates": [
            {"metric": "install_failures", "limit": {"tasks": {"at_most": "0%"}}, "min_sample": 1},
            {"metric": "accuracy", "limit": {"worse_than_control": {"by_at_most": 0.05}}, "min_sample": 50,
             "min_control_sample": 50},
        ],
    })
}
