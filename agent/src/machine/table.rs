//! The table: every state x every fault -> where the task ends, who serves, and how it goes on when the cause is gone.
//!
//! A fault is what the machine sees of it: an error or a hang fails the step, a power cut is a start, a crash loop is
//! starts without end. Out of memory in the new model is both: the budget refuses it, or the kernel ends the agent.
//! `update::faults` plays what can be brought about with the real driver.

use protocol::{Revision, RolloutId};

use super::tests::{after as play, held, mark};
use super::*;
use Fault::{
    BadClock, CorruptBlob, CrashLoop, DiskFull, Error, Hang, OutOfMemoryKilled, OutOfMemoryRefused, PowerCut,
    ReadOnlyDisk,
};
use TaskPhase as P;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Error,
    Hang,
    PowerCut,
    DiskFull,
    ReadOnlyDisk,
    BadClock,
    CorruptBlob,
    CrashLoop,
    OutOfMemoryRefused,
    OutOfMemoryKilled,
}

const FAULTS: [Fault; 10] = [
    Error,
    Hang,
    PowerCut,
    DiskFull,
    ReadOnlyDisk,
    BadClock,
    CorruptBlob,
    CrashLoop,
    OutOfMemoryRefused,
    OutOfMemoryKilled,
];

const STATES: [TaskPhase; 12] = [
    P::Idle,
    P::Fetching,
    P::Verified,
    P::Staged,
    P::SelfTest,
    P::Shadow,
    P::Activating,
    P::Probation,
    P::Committed,
    P::RolledBack,
    P::Failed,
    P::Rejected,
];

/// Whose release answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    Nobody,
    Old,
    New,
}

impl Fault {
    fn events(self) -> Vec<Event> {
        let failed = |kind| vec![Event::Failed(why(kind))];
        match self {
            Error => failed(CauseKind::Load),
            Hang => failed(CauseKind::Timeout),
            PowerCut => vec![Event::Boot],
            DiskFull => failed(CauseKind::DiskFull),
            ReadOnlyDisk => failed(CauseKind::Storage),
            BadClock => failed(CauseKind::MetadataExpired),
            CorruptBlob => failed(CauseKind::Integrity),
            CrashLoop | OutOfMemoryKilled => vec![Event::Boot; 10],
            OutOfMemoryRefused => failed(CauseKind::TooBig),
        }
    }

    /// Whether it goes away without another release.
    fn passes(self) -> bool {
        matches!(self, Hang | DiskFull | ReadOnlyDisk | BadClock | CorruptBlob)
    }

    fn only_ends_the_process(self) -> bool {
        matches!(self, PowerCut | CrashLoop | OutOfMemoryKilled)
    }
}

/// One row and column of the table: the end, who serves, and the end after the cause is gone.
fn expected(state: TaskPhase, fault: Fault) -> (TaskPhase, Serves, TaskPhase) {
    let runs_the_new_model = matches!(state, P::SelfTest | P::Shadow | P::Activating | P::Probation);
    let is_looping = matches!(fault, CrashLoop | OutOfMemoryKilled) && runs_the_new_model;
    let is_hurt = is_looping || !fault.only_ends_the_process();
    let end = match state {
        P::Idle | P::Accepted | P::Committed | P::RolledBack | P::Failed | P::Rejected => state,
        _ if !is_hurt => state,
        P::Probation => P::RolledBack,
        P::Fetching | P::Verified | P::Staged | P::SelfTest | P::Shadow | P::Activating => P::Failed,
    };
    let serves = match (state, end) {
        (P::Idle, _) => Serves::Nobody,
        (P::Committed, _) | (_, P::Probation) => Serves::New,
        _ => Serves::Old,
    };
    // What was rolled back is never tried again by itself; what only the surroundings refused is.
    let later = match end {
        P::Failed if state != P::Failed && fault.passes() => P::Fetching,
        _ => end,
    };
    (end, serves, later)
}

fn why(kind: CauseKind) -> Cause {
    Cause { kind, detail: format!("{kind:?}") }
}

fn task(n: u8, mode: Mode) -> Task {
    Task { release: held(n).release, mode, rollout: None, attempt: 0, revision: Revision(n.into()) }
}

fn tested() -> Event {
    Event::Tested(SelfTestResult { samples: 1, passed: 1, p50_us: 1, p95_us: 1, memory_bytes: 1 })
}

/// Release 1 is committed, release 2 is on its way.
fn record_in(state: TaskPhase) -> Record {
    let mode = if state == P::Shadow { Mode::Shadow } else { Mode::Replace };
    let committed = Record {
        phase: Phase::Committed { task: task(1, Mode::Replace) },
        active: Some(held(1)),
        mark: Some(mark(1)),
        ..Record::default()
    };
    let way = [
        Event::Wanted(task(2, mode)),
        Event::Fetched { variant: "int8".into() },
        Event::Staged,
        Event::TestBegins,
        tested(),
        Event::Activated,
        Event::Healthy(mark(2)),
    ];
    let ended = |steps: usize, kind| {
        let events = way.iter().take(steps).cloned().chain([Event::Failed(why(kind))]);
        play(committed.clone(), events)
    };
    let steps = match state {
        // The machine has no state of the second word.
        P::Idle | P::Accepted => return Record::default(),
        P::RolledBack => return ended(6, CauseKind::ProbationErrors),
        P::Failed => return ended(4, CauseKind::GoldenMismatch),
        P::Rejected => return ended(1, CauseKind::Untrusted),
        P::Fetching => 1,
        P::Verified => 2,
        P::Staged => 3,
        P::SelfTest => 4,
        P::Shadow | P::Activating => 5,
        P::Probation => 6,
        P::Committed => 7,
    };
    play(committed, way.into_iter().take(steps))
}

fn serves(record: &Record) -> Serves {
    match &record.active {
        None => Serves::Nobody,
        Some(active) if *active == held(1) => Serves::Old,
        Some(_) => Serves::New,
    }
}

#[test]
fn every_state_with_every_fault_ends_as_the_table_says() {
    for state in STATES {
        for fault in FAULTS {
            let before = record_in(state);
            assert_eq!(before.phase.word(), state, "the way to {state:?}");
            let after = play(before.clone(), fault.events());
            let later = play(after.clone(), [Event::Retry]);
            let seen = (after.phase.word(), serves(&after), later.phase.word());
            assert_eq!(seen, expected(state, fault), "{state:?} with {fault:?}");
            // No fault makes a release the highest committed one, and none lowers it.
            assert_eq!(after.mark, before.mark, "{state:?} with {fault:?}");
            if after.phase.word() != before.phase.word() {
                assert!(after.phase.cause().is_some(), "{state:?} with {fault:?} has no cause");
            }
        }
    }
}

#[test]
fn what_has_ended_is_told_and_what_answered_is_put_back() {
    for state in STATES {
        for fault in FAULTS.into_iter().filter(|fault| !fault.only_ends_the_process()) {
            let before = record_in(state);
            let (after, actions) =
                fault.events().into_iter().fold((before.clone(), vec![]), |(record, mut all), event| {
                    let (record, actions) = step(record, event);
                    all.extend(actions);
                    (record, all)
                });
            let has_ended = after.phase.word() != before.phase.word();
            assert_eq!(actions.contains(&Action::Report), has_ended, "{state:?} with {fault:?}");
            let was_in_place = matches!(state, P::Activating | P::Probation);
            assert_eq!(actions.contains(&Action::SwitchBack), was_in_place, "{state:?} with {fault:?}");
            assert_eq!(actions.contains(&Action::StopShadow), state == P::Shadow, "{state:?} with {fault:?}");
        }
    }
}

/// The row of the active release's own blob: lost, then whatever may befall the repair, with a start after each.
#[test]
fn a_lost_active_release_leaves_the_fallback_serving_over_every_start() {
    let lost = || Event::Unloadable(why(CauseKind::Storage));
    for state in STATES.into_iter().filter(|state| *state != P::Idle) {
        let mut before = record_in(state);
        before.fallback.get_or_insert(held(9));
        let fallback = before.fallback.clone();
        let booted = play(before, [lost(), Event::Boot]);
        assert_eq!(booted.active, fallback, "{state:?}");
        assert!(booted.lost.is_some(), "{state:?}: it is told");
        let is_repaired =
            matches!(state, P::Probation | P::Committed | P::RolledBack | P::Failed | P::Rejected);
        assert!(!is_repaired || booted.phase.word() == P::Fetching, "{state:?}: it is fetched again");
        for kind in [CauseKind::Untrusted, CauseKind::Download, CauseKind::DiskFull, CauseKind::Integrity] {
            let later =
                play(booted.clone(), [Event::Failed(why(kind)), Event::Boot, Event::Retry, Event::Boot]);
            assert_eq!(later.active, fallback, "{state:?} with {kind:?}");
        }
    }
}

#[test]
fn a_lost_release_without_a_fallback_is_fetched_again_and_nobody_else_answers() {
    let lost = Event::Unloadable(why(CauseKind::Storage));
    let first = play(record_in(P::Fetching), [Event::Failed(why(CauseKind::Untrusted))]);
    let after = play(first, [lost, Event::Boot]);
    assert_eq!((after.phase.word(), serves(&after)), (P::Fetching, Serves::Nobody));
}

#[test]
fn after_a_power_cut_at_any_step_the_task_still_commits() {
    let rest = [
        Event::Fetched { variant: "int8".into() },
        Event::Staged,
        Event::TestBegins,
        tested(),
        Event::Activated,
        Event::Healthy(mark(2)),
    ];
    for (done, state) in [P::Fetching, P::Verified, P::Staged, P::SelfTest, P::Activating, P::Probation]
        .into_iter()
        .enumerate()
    {
        let booted = play(record_in(state), [Event::Boot]);
        let end = play(booted, rest.iter().skip(done).cloned());
        assert_eq!((end.phase.word(), serves(&end)), (P::Committed, Serves::New), "cut in {state:?}");
        assert_eq!((end.fallback, end.mark), (Some(held(1)), Some(mark(2))));
    }
}

#[test]
fn a_cut_before_each_step_in_turn_still_commits() {
    // Each step is met by one power cut, so no counter of starts runs out.
    let rest = [
        Event::Wanted(task(2, Mode::Replace)),
        Event::Fetched { variant: "int8".into() },
        Event::Staged,
        Event::TestBegins,
        tested(),
        Event::Activated,
        Event::Healthy(mark(2)),
    ];
    let begin = play(record_in(P::Fetching), [Event::Failed(why(CauseKind::Load))]);
    let with_cuts = rest.into_iter().flat_map(|event| [Event::Boot, event, Event::Boot]);
    let anew = Task { rollout: RolloutId::new("r2").ok(), ..task(2, Mode::Replace) };
    let end = play(begin, std::iter::once(Event::Wanted(anew)).chain(with_cuts.skip(3)));
    assert_eq!((end.phase.word(), serves(&end)), (P::Committed, Serves::New));
}

#[test]
fn a_shadow_outlives_any_number_of_starts_that_did_not_end_early() {
    let mut record = record_in(P::Shadow);
    for _ in 0..100 {
        record = play(record, [Event::Boot, Event::Boot, Event::Settled]);
        assert_eq!((record.phase.word(), serves(&record)), (P::Shadow, Serves::Old));
    }
}

#[test]
fn a_device_that_is_switched_off_again_and_again_blames_no_release() {
    for state in [P::SelfTest, P::Shadow, P::Activating, P::Probation] {
        let before = record_in(state);
        let mut record = before.clone();
        for _ in 0..100 {
            record = play(record, [Event::Boot, Event::EndsInOrder]);
            assert_eq!(record, before);
        }
        // Never more than there were.
        assert_eq!(play(record.clone(), [Event::EndsInOrder]), before);
        let crashes = [Event::Boot, Event::Boot, Event::EndsInOrder, Event::Boot, Event::Boot, Event::Boot];
        let crashed = play(record, crashes);
        assert_eq!(serves(&crashed), Serves::Old, "crashes between count all the same, in {state:?}");
        assert_ne!(crashed.phase.word(), state);
    }
}

#[test]
fn a_shadow_that_an_older_agent_wrote_down_has_all_its_starts() {
    let mut text = serde_json::to_value(record_in(P::Shadow)).unwrap();
    text["phase"].as_object_mut().unwrap().remove("boots_left").unwrap();
    assert_eq!(serde_json::from_value::<Record>(text).unwrap(), record_in(P::Shadow));
}

#[test]
fn a_release_that_was_fetched_in_vain_again_and_again_is_given_up_only_by_a_person() {
    // Failing to fetch is the surroundings' fault however often it happens: it never becomes a crash loop.
    let mut record = record_in(P::Fetching);
    for _ in 0..100 {
        record = play(record, [Event::Failed(why(CauseKind::Download)), Event::Boot, Event::Retry]);
        assert_eq!((record.phase.word(), serves(&record)), (P::Fetching, Serves::Old));
    }
}
