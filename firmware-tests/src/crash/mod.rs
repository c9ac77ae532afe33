//! Crash states (floor 1): one recording of real work on a real file system, the disk made anew as a power cut would
//! leave it at any point, and the agent's own code started on it. No machine, no clock, thousands of cuts.
//!
//! At work are the agent's own binary, which takes releases from a real server, and beside it a worker whose records
//! follow from their numbers. Promised is what had returned as durable, or what the device had said of itself, before the
//! cut: no record of the spool that was acknowledged is lost, the boot record is whole and not older, every release that it
//! names is whole, the trusted metadata is not older. Two deliberate bugs prove that the rig finds what it looks for.

mod check;
mod device;
mod disk;
mod log;
mod marks;
mod states;
pub(crate) mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use device::World;
pub(crate) use disk::Mounted;
use disk::{DEVICE, Recording, STATE};
use states::{KEPT, Kept, Random, Walker};
use work::Bug;

/// Rounds of work that are recorded.
const ROUNDS: u32 = 60;
/// Releases that the device takes meanwhile.
const RELEASES: u64 = 5;
/// Rounds with a deliberate bug.
const CONTROL_ROUNDS: u32 = 15;
/// Crash states that must show a deliberate bug.
const CONTROL_STATES: usize = 160;
/// Broken promises that are told in full.
const TOLD: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of flotilla-server, flotilla-agent and flotilla.
    #[arg(long)]
    binaries: PathBuf,
    /// Folder of examples/digits.
    #[arg(long, default_value = "examples/digits")]
    example: PathBuf,
    /// Folder to work in; cleared first. In memory it is fastest.
    #[arg(long)]
    folder: PathBuf,
    /// Crash states to try, at least.
    #[arg(long, default_value_t = 2000)]
    states: usize,
    /// Which parts of unflushed writes a disk keeps follows from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What came of the crash states of one recording.
#[derive(Debug, Default)]
struct Summary {
    states: usize,
    cuts: usize,
    /// States in which a promise was broken.
    broken: usize,
    examples: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = crate::fresh(&args.folder)?;
    if let Some(why) = missing() {
        println!("  --  crash states NOT tried: {why}");
        return Ok(());
    }
    let begun = Instant::now();
    let world = World::start(&folder, &args.binaries, &args.example, RELEASES)?;
    let honest = examine(&folder, None, Some(world), args.states, args.seed)?;
    ensure!(
        honest.broken == 0,
        "{} of {} crash states broke a promise:\n  {}",
        honest.broken,
        honest.states,
        honest.examples.join("\n  ")
    );
    println!(
        "  ok  {} crash states after {} cuts: every acknowledged record, a whole boot record, whole releases, \
         over {RELEASES} updates of a real agent ({} s)",
        honest.states,
        honest.cuts,
        begun.elapsed().as_secs()
    );
    for bug in [Bug::EarlyPromise, Bug::UnsyncedRename] {
        let found = examine(&folder, Some(bug), None, CONTROL_STATES, args.seed)?;
        if found.broken == 0 {
            bail!(
                "the rig is broken: the deliberate bug {} was not found in {} states",
                bug.word(),
                found.states
            );
        }
        println!(
            "  ok  deliberate bug {}: found in {} of {} crash states",
            bug.word(),
            found.broken,
            found.states
        );
    }
    Ok(())
}

/// Why this can't be done here, if it can't.
pub(crate) fn missing() -> Option<String> {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    let devices = ["/dev/fuse", "/dev/loop-control"];
    let device = devices.into_iter().find(|device| !Path::new(device).exists());
    match (is_root, device) {
        (false, _) => Some("mounting needs root".into()),
        (true, Some(device)) => Some(format!("{device} is missing")),
        (true, None) => None,
    }
}

fn examine(
    folder: &Path,
    bug: Option<Bug>,
    world: Option<World>,
    wanted: usize,
    seed: u64,
) -> Result<Summary> {
    let rounds = if bug.is_none() { ROUNDS } else { CONTROL_ROUNDS };
    let recording = disk::record(folder, rounds, bug, world.as_ref())?;
    let begin = states::begin(&recording).context("the recording has no mark")?;
    if world.is_some() {
        let told = states::last_told(&recording)?;
        ensure!(told.committed == RELEASES, "the log ends with a device that said {told:?}");
    }
    // What follows needs no server.
    drop(world);
    let cuts = states::cuts(&recording, begin);
    let mut summary = Summary::default();
    // Every cut, as often as needed: with other parts kept each time.
    let per_round = cuts.len() * KEPT.len();
    let rounds = wanted.div_ceil(per_round.max(1)).max(1);
    let stride = if rounds == 1 { (per_round / wanted.max(1)).max(1) } else { 1 };
    for round in 0..rounds {
        let chosen: Vec<usize> = cuts.iter().copied().step_by(stride).collect();
        let kept: &[Kept] = if round == 0 { &KEPT } else { &KEPT[2..] };
        try_all(folder, &recording, &chosen, kept, seed.wrapping_add(u64::try_from(round)?), &mut summary)?;
    }
    summary.cuts = cuts.len().div_ceil(stride);
    Ok(summary)
}

fn try_all(
    folder: &Path,
    recording: &Recording,
    cuts: &[usize],
    kept: &[Kept],
    seed: u64,
    summary: &mut Summary,
) -> Result<()> {
    let (mut walker, mut random) = (Walker::new(recording), Random::new(seed));
    let (image, files) = (folder.join("state.raw"), folder.join("files"));
    for cut in cuts {
        walker.go_to(*cut)?;
        for kept in kept {
            walker.image(&image, *kept, &mut random)?;
            let broken = match disk::read_state(&image, &files) {
                Ok(()) => {
                    let mut broken = check::work(&files.join(STATE), walker.promise());
                    broken.extend(check::of_device(&files.join(DEVICE), walker.told()));
                    broken
                }
                Err(error) => vec![format!("file system: {error:#}")],
            };
            std::fs::remove_file(&image)?;
            summary.states += 1;
            if broken.is_empty() {
                continue;
            }
            summary.broken += 1;
            if summary.examples.len() < TOLD {
                summary
                    .examples
                    .push(format!("cut after request {cut}, kept {kept:?}: {}", broken.join("; ")));
            }
        }
    }
    Ok(())
}
