//! `cargo xtask firmware-tests --floor crash`: one floor of the firmware tests, deeper than `cargo xtask test` goes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::builds;
use crate::run::{check, program, target_folder};
use crate::tools;

/// Crash states that `cargo xtask test` tries.
pub(crate) const CRASH_STATES: u32 = 2000;

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
    /// Agent and server killed at random; nothing is missing, nothing is there twice.
    Kills,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let binaries = builds::binaries()?;
    let folder = binaries.agent.parent().context("a binary lies in a folder")?;
    match args.floor {
        Floor::Crash => crash(&folder.join("firmware-tests"), args.states),
        Floor::Kills => {
            let mut kills = program(&folder.join("firmware-tests").to_string_lossy());
            kills
                .arg("kills")
                .arg("--binaries")
                .arg(folder)
                .arg("--folder")
                .arg(target_folder()?.join("kills"));
            check(kills.args(["--seconds", &(args.minutes * 60).to_string()]))
        }
    }
}

/// Tries crash states, in memory where there is a folder for that.
pub(crate) fn crash(firmware_tests: &Path, states: u32) -> Result<()> {
    tools::ensure(&tools::STORAGE_DAEMON)?;
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory.join(format!("flotilla-crash-{}", std::process::id()))
    } else {
        target_folder()?.join("crash")
    };
    let mut crash = program(&firmware_tests.to_string_lossy());
    crash.args(["crash", "--states", &states.to_string()]).arg("--folder").arg(&folder);
    let outcome = check(&mut crash);
    let _left_over = std::fs::remove_dir_all(&folder);
    outcome
}
