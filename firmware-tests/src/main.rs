//! The real agent on emulated devices and under faults. `cargo xtask test --only firmware` runs all of it.
//!
//! Nothing of the product is replaced: the cross-built binary runs under an emulator against the real server, and
//! faults are made around the real processes, never inside them.

mod bench;
mod crash;
mod faults;
mod kills;
mod rest;
mod smoke;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The real agent on emulated devices and under faults")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enrol, fetch, verify, infer: the cross-built agent answers as this machine's own.
    Smoke(smoke::Args),
    /// Bad input, power cuts, full disks, wrong clocks: nothing is lost and the loop goes on.
    Faults(faults::Args),
    /// The disk as a power cut would leave it, at thousands of points: nothing durable is lost.
    Crash(crash::Args),
    /// Figures of the agent's parts; each is a test too.
    Bench(bench::Args),
    /// The agent, a broker and the server are killed at random: nothing is missing, nothing is there twice.
    Kills(kills::Args),
    /// What `kills` kills beside the server.
    #[command(hide = true)]
    KillWork(kills::work::Args),
    /// The work that `crash` records.
    #[command(hide = true)]
    CrashWork(crash::work::Args),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Smoke(args) => smoke::main(&args),
        Command::Faults(args) => faults::main(&args),
        Command::Crash(args) => crash::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Kills(args) => kills::main(&args),
        Command::KillWork(args) => kills::work::main(&args),
        Command::CrashWork(args) => crash::work::main(&args),
    }
}

/// The folder, empty.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))
}
