//! A small fleet to run the engine on, and the checks that hold after every step.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test support; each test file uses its part of it"
)]

use std::collections::BTreeSet;

use protocol::message::{CauseKind, TaskPhase};
use protocol::{Counter, DeviceId, Digest, ModelName, ReleaseRef, RolloutId, UnixMillis, Version};
use rollout::{
    Action, Actor, Amount, Change, Entry, Event, Evidence, Facts, Gate, Input, Interval, JudgedBy, Limit,
    Metric, Phase, Plan, Rollout, Sample, StagePlan, StageState, Status, ValidPlan, Verb, step,
};

pub(crate) const T0: UnixMillis = UnixMillis(1_794_787_200_000);

pub(crate) fn release(n: u8) -> ReleaseRef {
    ReleaseRef {
        version: Version::new(format!("{n}.0.0")).unwrap(),
        digest: Digest::from_bytes([n; 32]),
        counter: Counter(u64::from(n)),
    }
}

pub(crate) fn device(i: usize) -> DeviceId {
    DeviceId::new(format!("cam-{i:02}")).unwrap()
}

pub(crate) fn facts(i: usize) -> Facts {
    Facts { is_online: true, current: Some(release(1)), ..Facts::named(device(i)) }
}

pub(crate) fn plan(stages: &[&str]) -> Plan {
    let stages = stages.iter().map(|s| StagePlan::of(s.parse().unwrap())).collect();
    let mut plan = Plan::new(ModelName::new("digits").unwrap(), release(2), stages);
    plan.fallbacks = vec![release(1)];
    plan.gates = vec![install_gate("0%")];
    plan.task_timeout_s = 600;
    plan.unreachable_after_s = 300;
    plan.evidence_timeout_s = 900;
    plan.measure_every_s = 10;
    plan
}

pub(crate) fn install_gate(at_most: &str) -> Gate {
    Gate {
        metric: Metric::InstallFailures,
        kind: None,
        slice: None,
        limit: Limit::Tasks { at_most: at_most.parse::<Amount>().unwrap() },
        min_sample: 1,
        min_control_sample: 0,
    }
}

pub(crate) fn accuracy_gate() -> Gate {
    let limit = Limit::WorseThanControl { by_at_most: 0.03, judged_by: JudgedBy::ShownWorse };
    Gate { metric: Metric::Accuracy, kind: None, slice: None, limit, min_sample: 50, min_control_sample: 50 }
}

pub(crate) fn accuracy(value: f64, n: u64) -> Vec<Evidence> {
    let sample = |value| Sample { value, n, devices: 1 };
    vec![Evidence {
        metric: Metric::Accuracy,
        slice: None,
        from: T0,
        to: T0,
        candidate: sample(value),
        control: Some(sample(0.97)),
        worse: Some(Interval { low: 0.97 - value - 0.02, high: 0.97 - value + 0.02, confidence: 0.95 }),
        arithmetic: "two proportions".into(),
        left_out: vec![],
    }]
}

pub(crate) struct Fleet {
    pub(crate) rollout: Rollout,
    pub(crate) now: UnixMillis,
    pub(crate) journal: Vec<Entry>,
    pub(crate) last: Vec<Action>,
    plan: ValidPlan,
    /// Devices whose Desired names the release.
    asked: BTreeSet<DeviceId>,
}

impl Fleet {
    /// A submitted rollout over `n` devices; not ticked yet.
    pub(crate) fn new(plan: Plan, n: usize) -> Self {
        let plan = plan.check().unwrap();
        let id = RolloutId::new("r1").unwrap();
        let rollout = Rollout::new(id, plan.clone(), Actor::User("ana".into()), T0);
        let asked = BTreeSet::new();
        let mut fleet = Self { rollout, now: T0, journal: Vec::new(), last: Vec::new(), plan, asked };
        fleet.feed(Actor::Engine, Event::Devices((0..n).map(facts).collect()));
        fleet.verb(Verb::Submit);
        fleet
    }

    pub(crate) fn feed(&mut self, actor: Actor, event: Event) {
        let before = self.rollout.clone();
        let input = Input { actor, event };
        let (after, actions) = step(before.clone(), input.clone(), self.now);
        assert_eq!(
            (&after, &actions),
            (&step(before.clone(), input.clone(), self.now).0, &actions),
            "rule 8"
        );
        let entries: Vec<Entry> = actions
            .iter()
            .filter_map(|a| if let Action::Record(e) = a { Some((**e).clone()) } else { None })
            .collect();
        check_step(&before, &after, &input, &entries, &actions);
        self.journal.extend(entries);
        self.rollout = after;
        self.last = actions;
        self.check_desired();
    }

    /// Nobody takes a release whose rollout was given up, and nobody who is away takes one whose rollout is paused.
    fn check_desired(&mut self) {
        for action in &self.last {
            match action {
                Action::Offer { device, .. } => _ = self.asked.insert(device.clone()),
                Action::Restore { device, .. } => _ = self.asked.remove(device),
                _ => {}
            }
        }
        let status = self.rollout.status();
        for task in self.asked.iter().filter_map(|device| self.rollout.task(device)) {
            match status {
                Status::Aborted { .. } | Status::Superseded { .. } | Status::Invalidated { .. } => {
                    let keeps = task.phase == Phase::Committed || task.phase.is_past_return();
                    let has_left = matches!(task.phase, Phase::Canceled(_));
                    assert!(
                        keeps || has_left,
                        "{} may take the release after {status:?}: {task:?}",
                        task.device
                    );
                }
                Status::Paused { .. } => {
                    let is_away = matches!(task.phase, Phase::Offered | Phase::Unreachable);
                    assert!(!is_away, "{} is away and may take the release: {task:?}", task.device);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn verb(&mut self, verb: Verb) {
        self.feed(Actor::User("bea".into()), Event::Verb(verb));
    }

    pub(crate) fn tick(&mut self, seconds: i64) {
        self.now = self.now.plus_millis(seconds * 1000);
        self.feed(Actor::Engine, Event::Tick);
    }

    pub(crate) fn report(&mut self, i: usize, phase: TaskPhase, cause: Option<CauseKind>) {
        self.report_release(i, release(2), phase, cause);
    }

    pub(crate) fn report_release(
        &mut self,
        i: usize,
        of: ReleaseRef,
        phase: TaskPhase,
        cause: Option<CauseKind>,
    ) {
        let event = Event::Report { device: device(i), release: of, phase, cause, attempt: None };
        self.feed(Actor::Device(device(i)), event);
    }

    /// As an agent says it that knows of attempts.
    pub(crate) fn report_of(&mut self, i: usize, attempt: u32, phase: TaskPhase, cause: Option<CauseKind>) {
        let (device, attempt) = (device(i), Some(attempt));
        let event = Event::Report { device: device.clone(), release: release(2), phase, cause, attempt };
        self.feed(Actor::Device(device), event);
    }

    pub(crate) fn measured(&mut self, stage: u16, evidence: Vec<Evidence>) {
        self.feed(Actor::Engine, Event::Measured { stage, evidence });
    }

    pub(crate) fn phase(&self, i: usize) -> Phase {
        self.rollout.task(&device(i)).unwrap().phase
    }

    /// Devices in this phase, by number.
    pub(crate) fn in_phase(&self, phase: Phase) -> Vec<usize> {
        (0..self.rollout.tasks().len()).filter(|i| self.phase(*i) == phase).collect()
    }

    /// Every offered device commits.
    pub(crate) fn commit_offered(&mut self) {
        for i in self.in_phase(Phase::Offered) {
            self.report(i, TaskPhase::Accepted, None);
            self.report(i, TaskPhase::Committed, None);
        }
    }

    pub(crate) fn status(&self) -> &'static str {
        self.rollout.status().name()
    }

    pub(crate) fn replayed(&self) -> Rollout {
        let id = RolloutId::new("r1").unwrap();
        let author = Actor::User("ana".into());
        rollout::replay(id, self.plan.clone(), &author, T0, &self.journal).unwrap()
    }
}

fn check_step(before: &Rollout, after: &Rollout, input: &Input, entries: &[Entry], actions: &[Action]) {
    let first = before.core().seq + 1;
    for (entry, seq) in entries.iter().zip(first..) {
        assert_eq!(entry.seq, seq, "rule 9: numbers rise by one");
        assert_eq!(entry.actor, input.actor, "rule 9: who");
        assert!(!entry.cause.is_empty(), "rule 9: why");
        check_change(after, entry);
    }
    if entries.is_empty() {
        assert_eq!(before, after, "what isn't in the journal didn't happen");
    } else {
        assert_eq!(entries[0].event.as_ref(), Some(&input.event));
    }
    let offers = actions.iter().any(|a| matches!(a, Action::Offer { .. }));
    if !matches!(after.status(), Status::Running { .. } | Status::Paused { .. }) || is_held(before, after) {
        assert!(!offers, "rule 2: no offers while {:?}", after.status());
    }
    check_storage(after);
}

/// Paused before and after: nothing may be offered in between.
fn is_held(before: &Rollout, after: &Rollout) -> bool {
    matches!((before.status(), after.status()), (Status::Paused { .. }, Status::Paused { .. }))
        && before.core().seq == after.core().seq
}

fn check_change(after: &Rollout, entry: &Entry) {
    match &entry.change {
        Change::Task { from, to: Phase::Offered, .. } => {
            assert_eq!(*from, Phase::Queued, "rule 1: one active task per device");
        }
        Change::Stage { stage, to: StageState::GatePassed, gates, .. } => {
            assert!(after.tally(*stage).in_place() > 0, "rule 4: a stage without evidence passed");
            assert_eq!(gates.len(), after.gates(*stage).len());
            assert!(gates.iter().all(|g| g.verdict.is_passed()), "rule 4: a gate didn't pass");
        }
        _ => {}
    }
}

/// As a restarted server has it: tasks come back in the order of their names.
fn reloaded(rollout: &Rollout) -> Rollout {
    let mut tasks = rollout.tasks().to_vec();
    tasks.sort_by(|a, b| a.device.cmp(&b.device));
    Rollout::assemble(rollout.core().clone(), tasks)
}

/// What is stored is enough: row and tasks bring the same rollout back.
fn check_storage(rollout: &Rollout) {
    let core = serde_json::from_str(&serde_json::to_string(rollout.core()).unwrap()).unwrap();
    let tasks =
        rollout.tasks().iter().map(|t| serde_json::from_str(&serde_json::to_string(t).unwrap()).unwrap());
    assert_eq!(&Rollout::assemble(core, tasks.collect()), rollout, "storage");
}
