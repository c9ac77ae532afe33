//! SIGKILL after every write of an update, one process for each: the real driver brings in a release from a server on
//! a socket, or another variant of the one that serves, in a child that kills itself at the chosen write. Whatever the disk
//! holds then, the next start serves a release that was tested here, and the update ends as it would have. The same after
//! every write of an import, which brings a release without a server.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use protocol::Revision;
use serde_json::{Value, json};
use trust::desired::Mode;

use super::Reported;
use super::rig::{INT8_BYTES, Made, Rig, drive, mark, name, write_record};
use crate::durable::cut;
use crate::health::ProblemKind;
use crate::link::http::origin::Origin;
use crate::machine::{Event, Held, Phase, Record, Task};
use crate::monitor::Vitals;
use crate::slots::{BootStore, Shelf};

mod archive;

/// What is brought in, and how it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Good,
    OtherAnswers,
    Unhealthy,
    /// The budget is lowered: a smaller variant of what serves.
    Smaller,
    /// The budget is raised: the preferred variant of what serves.
    Preferred,
    /// An archive, imported while no agent runs.
    Import,
    /// The same, and whoever sees the import end imports again before any start.
    ImportAgain,
}

const STORIES: [Story; 7] = [
    Story::Good,
    Story::OtherAnswers,
    Story::Unhealthy,
    Story::Smaller,
    Story::Preferred,
    Story::Import,
    Story::ImportAgain,
];

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The agent before anything has happened.
    Start,
    /// The agent after a kill.
    Restart,
    /// An import; then it ends.
    Import,
}
/// No write is this one.
const NEVER: usize = usize::MAX;
/// Children at a time: each waits a second for its probation.
const AT_ONCE: usize = 6;

impl Story {
    fn named(word: &str) -> Self {
        STORIES.into_iter().find(|story| format!("{story:?}") == word).unwrap()
    }

    /// Phase, active version, its variant and cause at the end.
    fn end(self) -> Value {
        match self {
            Self::Good | Self::Import | Self::ImportAgain => json!(["committed", "1.1.0", "int8", null]),
            Self::OtherAnswers => json!(["failed", "1.0.0", "int8", "golden_mismatch"]),
            Self::Unhealthy => json!(["rolled_back", "1.0.0", "int8", "probation_errors"]),
            Self::Smaller => json!(["committed", "1.0.0", "int8", null]),
            Self::Preferred => json!(["committed", "1.0.0", "f32", null]),
        }
    }

    fn is_refit(self) -> bool {
        matches!(self, Self::Smaller | Self::Preferred)
    }

    fn is_import(self) -> bool {
        matches!(self, Self::Import | Self::ImportAgain)
    }

    /// What was committed before.
    fn old_release(self) -> Made {
        let made = Made::example("1.0.0", 1);
        match self {
            Self::Smaller => made.with_f32_first(),
            Self::Preferred => {
                let mut made = made.with_f32_first();
                made.held.variant = "int8".into();
                made
            }
            Self::Good | Self::OtherAnswers | Self::Unhealthy | Self::Import | Self::ImportAgain => made,
        }
    }

    fn new_release(self) -> Made {
        let made = Made::example("1.1.0", 2);
        match self {
            Self::OtherAnswers => made.with_other_answers(),
            Self::Smaller | Self::Preferred => self.old_release(),
            Self::Good | Self::Unhealthy | Self::Import | Self::ImportAgain => made,
        }
    }

    /// Memory for all models before the change, and after it.
    fn budgets(self) -> (u64, u64) {
        match self {
            Self::Smaller => (0, INT8_BYTES),
            Self::Preferred => (INT8_BYTES, 0),
            Self::Good | Self::OtherAnswers | Self::Unhealthy | Self::Import | Self::ImportAgain => (0, 0),
        }
    }

    /// Whether it can answer after a start with the budget as it is then.
    fn finds_room(self, held: &Held) -> bool {
        self != Self::Smaller || held.variant == "int8"
    }

    fn is_over(self, reported: &Reported) -> bool {
        let is_smaller = reported.problems.iter().any(|problem| problem.kind == ProblemKind::SmallerVariant);
        let rests = reported.models.iter().all(|model| model.phase.is_terminal());
        rests && (!self.is_refit() || is_smaller == (self == Self::Smaller))
    }

    fn vitals(self) -> Vitals {
        let errors = if self == Self::Unhealthy { 100 } else { 0 };
        Vitals { requests: 100, errors, p95_us: 1 }
    }
}

/// Release 1 is committed and lies on the shelf, but for the variant that is to come.
fn prepare(dir: &Path, story: Story) {
    let (old, new) = (story.old_release(), story.new_release());
    let shelf = Shelf::open(dir).unwrap();
    old.keep(&shelf);
    if story.is_refit() {
        let lacking = &old.blobs[usize::from(old.held.variant == "int8")].0;
        std::fs::remove_file(dir.join("blobs").join(lacking.digest.to_hex())).unwrap();
    }
    let mark = Some(mark(&old, &new));
    let phase = Phase::Committed { task: task(&old.held, 1) };
    write_record(dir, Record { phase, active: Some(old.held), mark, ..Record::default() });
    if story.is_import() {
        archive::prepare(dir, &new);
    }
}

fn task(held: &Held, revision: u64) -> Task {
    Task {
        release: held.release.clone(),
        mode: Mode::Replace,
        rollout: None,
        attempt: 0,
        revision: Revision(revision),
    }
}

/// Not a test by itself: the process that the next test kills. Prints what serves after the start, and how the update
/// ends, with the writes that it took.
#[test]
fn child_that_updates_until_it_is_killed() {
    let Some(dir) = std::env::var_os("KILLS_DIR") else { return };
    let story = Story::named(&std::env::var("KILLS_STORY").unwrap());
    let kill_at = std::env::var("KILLS_AT").unwrap().parse().unwrap();
    let act = std::env::var("KILLS_ACT").unwrap();
    let act = [Act::Start, Act::Restart, Act::Import].into_iter().find(|a| format!("{a:?}") == act).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        if act == Act::Import {
            import(Path::new(&dir), kill_at).await;
        } else {
            Box::pin(update(Path::new(&dir), story, act, kill_at)).await;
        }
    });
    // Threads of the server are still there.
    std::process::exit(0);
}

async fn import(dir: &Path, kill_at: usize) {
    cut::kill_at(kill_at);
    let taken = archive::import(dir).await;
    println!("\nends {}", json!(taken.map_err(|error| crate::chain(&error)).err()));
    println!("\nwrites {}", cut::writes());
}

async fn update(dir: &Path, story: Story, act: Act, kill_at: usize) {
    let (new, origin) = (story.new_release(), Origin::begin());
    // What an archive brings comes from nowhere else.
    for (blob, bytes) in new.blobs.iter().filter(|_| !story.is_import()) {
        origin.put(format!("/blobs/v1/sha256/{}", blob.digest), bytes.clone());
    }
    cut::kill_at(kill_at);
    let mut core = Rig::core(dir, Some(origin.client()), story.vitals());
    core.config.start_jitter = std::time::Duration::ZERO;
    core.config.probation = Some(std::time::Duration::ZERO);
    let (before, now) = story.budgets();
    core.config.memory_budget_bytes = if act == Act::Start { before } else { now };
    core.start().await;
    core.config.memory_budget_bytes = now;
    let model = name("digits");
    let answers = core.table.active(&model).map(|loaded| loaded.release.version.to_string());
    println!("\nserves {}", json!(answers));
    let is_asked = core.model(&model).phase.task().is_some_and(|task| task.release == new.held.release);
    if !is_asked && !story.is_import() {
        new.keep_manifest(&core.shelf);
        core.apply(&model, Event::Wanted(task(&new.held, 2))).await;
    }
    let core = drive(core, move |reported| story.is_over(reported)).await;
    let record = core.model(&model);
    let (version, variant) =
        record.active.map(|held| (held.release.version.to_string(), held.variant)).unzip();
    let cause = record.phase.cause().map(|why| why.kind);
    println!("\nends {}", json!([record.phase.word(), version, variant, cause]));
    println!("\nwrites {}", cut::writes());
}

fn child(dir: &Path, story: Story, act: Act, kill_at: usize) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "update::kills::child_that_updates_until_it_is_killed", "--nocapture"]);
    child.env("KILLS_DIR", dir).env("KILLS_STORY", format!("{story:?}"));
    child.env("KILLS_AT", kill_at.to_string()).env("KILLS_ACT", format!("{act:?}"));
    child.output().unwrap()
}

/// What a child said behind this word last.
fn said(output: &Output, word: &str) -> Option<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().rev().find_map(|line| line.strip_prefix(word).map(str::to_owned));
    line.map(|line| serde_json::from_str(&line).unwrap())
}

/// What the boot record names is whole, and what it calls active was tested here.
fn is_safe(dir: &Path, story: Story) -> Held {
    let (boot, _) = BootStore::open(dir, &crate::trusted_files::trusted_dir(dir)).unwrap();
    let shelf = Shelf::open(dir).unwrap();
    let record = boot.record().models[&name("digits")].clone();
    let whole = |held: &Held| {
        let manifest = shelf.manifest(held.release.digest).unwrap();
        shelf.check(&manifest, manifest.variant(&held.variant).unwrap()).unwrap();
    };
    [&record.active, &record.fallback].into_iter().flatten().for_each(whole);
    if let (Some(task), Some(variant)) = (record.phase.task(), record.phase.variant()) {
        whole(&Held { release: task.release.clone(), variant: variant.to_owned() });
    }
    let active = record.active.unwrap();
    let is_tested = record.self_test.is_some() && story != Story::OtherAnswers;
    assert!(active == story.old_release().held || is_tested, "{active:?}");
    active
}

/// Kills one at its `at`th write and starts it again.
fn killed_at(story: Story, at: usize) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), story);
    let act = if story.is_import() { Act::Import } else { Act::Start };
    let killed = child(dir.path(), story, act, at);
    assert!(said(&killed, "ends ").is_none() && !killed.status.success(), "not killed: {killed:?}");
    let mut after = match story {
        Story::ImportAgain => imported(dir.path()).1,
        _ => restarted(dir.path(), story),
    };
    if story == Story::Import && said(&after, "ends ") == Some(json!(["committed", "1.0.0", "int8", null])) {
        // Nothing of it counts yet; whoever imports imports again.
        after = imported(dir.path()).1;
    }
    assert_eq!(said(&after, "ends "), Some(story.end()), "{after:?}");
    is_safe(dir.path(), story);
}

/// The next start; it serves what the disk holds.
fn restarted(dir: &Path, story: Story) -> Output {
    let active = is_safe(dir, story);
    let after = child(dir, story, Act::Restart, NEVER);
    let serves = story.finds_room(&active).then(|| active.release.version.to_string());
    assert_eq!(said(&after, "serves "), Some(json!(serves)), "{after:?}");
    after
}

/// An import that is not killed, and the start after it.
fn imported(dir: &Path) -> (Output, Output) {
    let taken = child(dir, Story::Import, Act::Import, NEVER);
    assert_eq!(said(&taken, "ends "), Some(Value::Null), "{taken:?}");
    (taken, restarted(dir, Story::Import))
}

/// Without a kill; how many writes there are to kill it at.
fn whole(dir: &Path, story: Story) -> usize {
    prepare(dir, story);
    let (counted, ended) = if story.is_import() {
        imported(dir)
    } else {
        let whole = child(dir, story, Act::Start, NEVER);
        (whole.clone(), whole)
    };
    assert_eq!(said(&ended, "serves "), Some(json!("1.0.0")), "{ended:?}");
    assert_eq!(said(&ended, "ends "), Some(story.end()), "{ended:?}");
    let writes = said(&counted, "writes ").and_then(|writes| writes.as_u64()).unwrap();
    assert!(writes > 10, "{story:?} took only {writes} writes");
    usize::try_from(writes).unwrap()
}

#[test]
fn killed_after_any_write_it_serves_what_was_tested_and_decides_the_same() {
    let mut cases = Vec::new();
    for story in STORIES {
        let dir = tempfile::tempdir().unwrap();
        cases.extend((1..=whole(dir.path(), story)).map(|at| (story, at)));
    }
    let cases = Mutex::new(cases);
    std::thread::scope(|scope| {
        let work = || {
            while let Some((story, at)) = { cases.lock().unwrap().pop() } {
                let tried = std::panic::catch_unwind(|| killed_at(story, at));
                tried.unwrap_or_else(|_| panic!("{story:?}, killed at write {at}"));
            }
        };
        (0..AT_ONCE).for_each(|_| drop(scope.spawn(work)));
    });
}
