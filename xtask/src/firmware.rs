//! `cargo xtask firmware-tests --floor crash`: one floor of the firmware tests, deeper than `cargo xtask test` goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::builds;
use crate::run::{play, program, target_folder};
use crate::tools;

/// Crash states that `cargo xtask test` tries.
pub(crate) const CRASH_STATES: u32 = 2000;
/// How long `cargo xtask test` kills.
pub(crate) const KILLS: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which floor.
    #[arg(long, value_enum)]
    floor: Floor,
    /// Crash states to try, at least.
    #[arg(long, default_value_t = 50_000)]
    states: u32,
    /// Minutes of kills.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Floor {
    /// The disk as a power cut would leave it, without a machine.
    Crash,
    /// Agent, broker and server killed at random; nothing is missing, nothing is there twice.
    Kills,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let binaries = builds::binaries()?;
    let folder = binaries.agent.parent().context("a binary lies in a folder")?;
    match args.floor {
        Floor::Crash => crash(folder, args.states),
        Floor::Kills => kills(folder, Duration::from_mins(args.minutes)),
    }
    .map(drop)
}

/// Returns what was not played. Half of the time with the server's own broker, which dies with it, half with a broker between that dies alone; then
/// records are counted over a full disk.
pub(crate) fn kills(folder: &Path, time: Duration) -> Result<Vec<String>> {
    tools::ensure(&tools::MOSQUITTO)?;
    let mut not_played = Vec::new();
    let seconds = time.as_secs().div_ceil(2).to_string();
    for more in [None, Some("--own-broker"), Some("--full-disk")] {
        let mut kills = program(&folder.join("firmware-tests").to_string_lossy());
        kills.arg("kills").arg("--binaries").arg(folder).arg("--folder").arg(target_folder()?.join("kills"));
        not_played.extend(play(kills.args(["--seconds", &seconds]).args(more))?);
    }
    Ok(not_played)
}

/// Tries crash states, in memory where there is a folder for that. Returns what was not tried.
pub(crate) fn crash(binaries: &Path, states: u32) -> Result<Vec<String>> {
    tools::ensure(&tools::STORAGE_DAEMON)?;
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory.join(format!("flotilla-crash-{}", std::process::id()))
    } else {
        target_folder()?.join("crash")
    };
    let mut crash = program(&binaries.join("firmware-tests").to_string_lossy());
    crash.args(["crash", "--states", &states.to_string()]).arg("--folder").arg(&folder);
    crash.arg("--binaries").arg(binaries);
    let outcome = play(&mut crash);
    let _left_over = std::fs::remove_dir_all(&folder);
    outcome
}
