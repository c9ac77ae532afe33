//! SIGKILL after every write of an update, one process for each: the real driver brings in a release from a server on
//! a socket, in a child that kills itself at the chosen write. Whatever the disk holds then, the next start serves a
//! release that was tested here, and the update ends as it would have.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use protocol::Revision;
use serde_json::{Value, json};
use trust::desired::Mode;

use super::rig::{Made, Rig, drive, mark, name, write_record};
use crate::durable::cut;
use crate::link::http::origin::Origin;
use crate::machine::{Event, Held, Phase, Record, Task};
use crate::monitor::Vitals;
use crate::slots::{BootStore, Shelf};

/// How the new release does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Good,
    OtherAnswers,
    Unhealthy,
}

const STORIES: [Story; 3] = [Story::Good, Story::OtherAnswers, Story::Unhealthy];
/// No write is this one.
const NEVER: usize = usize::MAX;
/// Children at a time: each waits a second for its probation.
const AT_ONCE: usize = 6;

impl Story {
    fn named(word: &str) -> Self {
        STORIES.into_iter().find(|story| format!("{story:?}") == word).unwrap()
    }

    /// Phase, active version and cause at the end.
    fn end(self) -> Value {
        match self {
            Self::Good => json!(["committed", "1.1.0", null]),
            Self::OtherAnswers => json!(["failed", "1.0.0", "golden_mismatch"]),
            Self::Unhealthy => json!(["rolled_back", "1.0.0", "probation_errors"]),
        }
    }

    fn new_release(self) -> Made {
        let made = Made::example("1.1.0", 2);
        if self == Self::OtherAnswers { made.with_other_answers() } else { made }
    }

    fn vitals(self) -> Vitals {
        let errors = if self == Self::Unhealthy { 100 } else { 0 };
        Vitals { requests: 100, errors, p95_us: 1 }
    }
}

/// Release 1 is committed and lies on the shelf.
fn prepare(dir: &Path, story: Story) {
    let (old, new) = (Made::example("1.0.0", 1), story.new_release());
    let shelf = Shelf::open(dir).unwrap();
    old.keep(&shelf);
    let mark = Some(mark(&old, &new));
    let phase = Phase::Committed { task: task(&old.held, 1) };
    write_record(dir, Record { phase, active: Some(old.held), mark, ..Record::default() });
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(update(Path::new(&dir), story, kill_at));
    // Threads of the server are still there.
    std::process::exit(0);
}

async fn update(dir: &Path, story: Story, kill_at: usize) {
    let (new, origin) = (story.new_release(), Origin::begin());
    for (blob, bytes) in &new.blobs {
        origin.put(format!("/blobs/v1/sha256/{}", blob.digest), bytes.clone());
    }
    cut::kill_at(kill_at);
    let mut core = Rig::core(dir, Some(origin.client()), story.vitals());
    core.config.start_jitter = std::time::Duration::ZERO;
    core.config.probation = Some(std::time::Duration::ZERO);
    core.start().await;
    let model = name("digits");
    let answers = core.table.active(&model).map(|loaded| loaded.release.version.to_string());
    println!("\nserves {}", json!(answers));
    if core.model(&model).phase.task().is_none_or(|task| task.release != new.held.release) {
        new.keep_manifest(&core.shelf);
        core.apply(&model, Event::Wanted(task(&new.held, 2))).await;
    }
    let core = drive(core, |reported| reported.models.iter().all(|model| model.phase.is_terminal())).await;
    let record = core.model(&model);
    let version = record.active.map(|held| held.release.version.to_string());
    println!("\nends {}", json!([record.phase.word(), version, record.phase.cause().map(|why| why.kind)]));
    println!("\nwrites {}", cut::writes());
}

fn child(dir: &Path, story: Story, kill_at: usize) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "update::kills::child_that_updates_until_it_is_killed", "--nocapture"]);
    child.env("KILLS_DIR", dir).env("KILLS_STORY", format!("{story:?}"));
    child.env("KILLS_AT", kill_at.to_string());
    child.output().unwrap()
}

/// What a child said behind this word last.
fn said(output: &Output, word: &str) -> Option<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().rev().find_map(|line| line.strip_prefix(word).map(str::to_owned));
    line.map(|line| serde_json::from_str(&line).unwrap())
}

/// What the boot record names is whole, and what it calls active was tested here.
fn is_safe(dir: &Path, story: Story) -> String {
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
    let active = record.active.unwrap().release.version.to_string();
    assert!(active == "1.0.0" || (record.self_test.is_some() && story != Story::OtherAnswers), "{active}");
    active
}

/// Kills one at its `at`th write and starts it again.
fn killed_at(story: Story, at: usize) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), story);
    let killed = child(dir.path(), story, at);
    assert!(said(&killed, "ends ").is_none() && !killed.status.success(), "not killed: {killed:?}");
    let active = is_safe(dir.path(), story);
    let after = child(dir.path(), story, NEVER);
    assert_eq!(said(&after, "serves "), Some(json!(active)), "{after:?}");
    assert_eq!(said(&after, "ends "), Some(story.end()), "{after:?}");
    is_safe(dir.path(), story);
}

#[test]
fn killed_after_any_write_it_serves_what_was_tested_and_decides_the_same() {
    let mut cases = Vec::new();
    for story in STORIES {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), story);
        let whole = child(dir.path(), story, NEVER);
        assert_eq!(said(&whole, "serves "), Some(json!("1.0.0")), "{whole:?}");
        assert_eq!(said(&whole, "ends "), Some(story.end()), "{whole:?}");
        let writes = said(&whole, "writes ").and_then(|writes| writes.as_u64()).unwrap();
        assert!(writes > 10, "{story:?} took only {writes} writes");
        cases.extend((1..=usize::try_from(writes).unwrap()).map(|at| (story, at)));
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
