//! SIGKILL after every write of an update, one process for each: the real driver brings in a release from a server on
//! a socket or from an archive, or the same release in another variant, in a child that kills itself at the chosen write.
//! Whatever the disk holds then, the next start serves a release that was tested here, and the update ends as it would have.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use protocol::{ProjectId, Revision};
use release::archive::{Name, Writer};
use serde_json::{Value, json};
use testkit::tuf::Sim;
use trust::desired::Mode;

use super::import::{Import, ImportError};
use super::rig::{Made, Rig, drive, mark, name, write_record};
use crate::durable::cut;
use crate::health::{Clock, ProblemKind, read_hardware};
use crate::link::http::origin::Origin;
use crate::machine::{Event, Held, Phase, Record, Task};
use crate::monitor::Vitals;
use crate::slots::{BootStore, Shelf};
use crate::trusted_files::{keep_first_root, trusted_dir};
use crate::update::metadata::TrustedStore;

/// How the new release does, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Good,
    OtherAnswers,
    Unhealthy,
    /// From an archive.
    Imported,
    /// The release that serves, in the variant that there is room for now.
    Refit,
}

const STORIES: [Story; 5] =
    [Story::Good, Story::OtherAnswers, Story::Unhealthy, Story::Imported, Story::Refit];
/// No write is this one.
const NEVER: usize = usize::MAX;
/// Children at a time: each waits a second for its probation.
const AT_ONCE: usize = 6;

impl Story {
    fn named(word: &str) -> Self {
        STORIES.into_iter().find(|story| format!("{story:?}") == word).unwrap()
    }

    /// Phase, what is active, and cause at the end.
    fn end(self) -> Value {
        match self {
            Self::Good | Self::Imported => json!(["committed", "1.1.0 int8", null]),
            Self::OtherAnswers => json!(["failed", "1.0.0 int8", "golden_mismatch"]),
            Self::Unhealthy => json!(["rolled_back", "1.0.0 int8", "probation_errors"]),
            Self::Refit => json!(["committed", "1.0.0 f32", null]),
        }
    }

    fn old_release(self) -> Made {
        let made = Made::example("1.0.0", 1);
        if self == Self::Refit { made.with_f32_first() } else { made }
    }

    fn new_release(self) -> Made {
        match self {
            Self::Refit => self.old_release(),
            Self::OtherAnswers => Made::example("1.1.0", 2).with_other_answers(),
            Self::Good | Self::Unhealthy | Self::Imported => Made::example("1.1.0", 2),
        }
    }

    fn vitals(self) -> Vitals {
        let errors = if self == Self::Unhealthy { 100 } else { 0 };
        Vitals { requests: 100, errors, p95_us: 1 }
    }
}

/// Release 1 is committed and lies on the shelf.
fn prepare(dir: &Path, story: Story) {
    let (old, new) = (story.old_release(), story.new_release());
    let shelf = Shelf::open(dir).unwrap();
    old.keep(&shelf);
    if story == Story::Refit {
        let manifest = shelf.manifest(old.held.release.digest).unwrap();
        let preferred = manifest.variant("f32").unwrap().model.digest;
        std::fs::remove_file(dir.join("blobs").join(preferred.to_hex())).unwrap();
    }
    let mark = Some(mark(&old, &new));
    let phase = Phase::Committed { task: task(&old.held, 1) };
    let active = Some(Held { variant: "int8".into(), ..old.held });
    write_record(dir, Record { phase, active, mark, ..Record::default() });
    keep_first_root(dir, &repository(&new).files["1.root.json"]).unwrap();
}

/// A repository that lists the release.
fn repository(new: &Made) -> Sim {
    let (mut sim, last) = (Sim::new(), json!("9500-01-01T00:00:00Z"));
    sim.root["expires"] = last.clone();
    sim.snapshot["expires"] = last.clone();
    sim.timestamp["expires"] = last.clone();
    sim.timestamp["signed_at"] = json!(trust::format_rfc3339(crate::health::built_at()));
    sim.role("targets")["expires"] = last;
    let version = &new.held.release.version;
    sim.add_target("targets", &format!("models/digits/{version}/manifest.json"), new.manifest());
    sim.put_root(&[]);
    sim.publish();
    sim
}

/// As `flotilla-agent import` takes it, once or again.
async fn import(dir: &Path, new: &Made) {
    let mut archive = Writer::new(Vec::new());
    let mut add = |name: Name, bytes: &[u8]| archive.add(&name, bytes.len() as u64, bytes).unwrap();
    for (file, bytes) in repository(new).files {
        add(Name::Metadata(file), &bytes);
    }
    add(Name::Manifest(new.held.release.digest), new.manifest());
    new.blobs.iter().for_each(|(blob, bytes)| add(Name::Blob(blob.digest), bytes));
    let (clock, shelf) = (Clock::open(dir).unwrap(), Shelf::open(dir).unwrap());
    let mut import = Import {
        state_dir: dir,
        clock: &clock,
        trusted: &TrustedStore::open(dir, ProjectId::new("p").unwrap(), None).unwrap(),
        shelf: &shelf,
        boot: &mut BootStore::open(dir, &trusted_dir(dir)).unwrap().0,
        hardware: &read_hardware("test"),
        keep_free_bytes: 0,
        memory_budget_bytes: 0,
    };
    let taken = import.take(archive.finish().unwrap().as_slice()).await;
    assert!(matches!(taken, Ok(_) | Err(ImportError::Known { .. })), "{taken:?}");
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
    if story == Story::Imported {
        import(dir, &new).await;
    }
    let mut core = Rig::core(dir, Some(origin.client()), story.vitals());
    core.config.start_jitter = std::time::Duration::ZERO;
    core.config.probation = Some(std::time::Duration::ZERO);
    core.start().await;
    let model = name("digits");
    let answers = core.table.active(&model);
    let answers = answers.map(|loaded| format!("{} {}", loaded.release.version, loaded.variant));
    println!("\nserves {}", json!(answers));
    if core.model(&model).phase.task().is_none_or(|task| task.release != new.held.release) {
        new.keep_manifest(&core.shelf);
        core.apply(&model, Event::Wanted(task(&new.held, 2))).await;
    }
    let core = drive(core, |reported| {
        let is_smaller = reported.problems.iter().any(|problem| problem.kind == ProblemKind::SmallerVariant);
        !is_smaller && reported.models.iter().all(|model| model.phase.is_terminal())
    })
    .await;
    let record = core.model(&model);
    let active = record.active.as_ref().map(named);
    println!("\nends {}", json!([record.phase.word(), active, record.phase.cause().map(|why| why.kind)]));
    println!("\nwrites {}", cut::writes());
}

fn named(held: &Held) -> String {
    format!("{} {}", held.release.version, held.variant)
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
    let (boot, _) = BootStore::open(dir, &trusted_dir(dir)).unwrap();
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
    let active = named(&record.active.unwrap());
    assert!(
        active == "1.0.0 int8" || (record.self_test.is_some() && story != Story::OtherAnswers),
        "{active}"
    );
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
        assert_eq!(said(&whole, "serves "), Some(json!("1.0.0 int8")), "{whole:?}");
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
