//! `flotilla release ...`: build, renew, sign, publish, withdraw, inspect.

mod build;
mod inspect;
mod publish;
mod renew;
mod sign;
mod takers;
mod withdraw;
mod within;

use std::path::PathBuf;

use anyhow::Result;

use super::Context;
use crate::output::Format;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make the release folder from a spec and try every variant on its golden samples.
    Build(build::Args),
    /// Make an old release again under a new version and counter, e.g. to fence off a bad one.
    Renew(renew::Args),
    /// Sign the release for its model; makes the model's key and delegation if they are missing.
    Sign {
        /// The release folder.
        folder: PathBuf,
    },
    /// Upload missing blobs and publish the signed release.
    Publish {
        /// The release folder.
        folder: PathBuf,
    },
    /// Sign the model's releases anew without one, such as one that a stolen key signed, and publish that.
    Withdraw(withdraw::Args),
    /// Show a release and try each variant on this machine: a spec, a folder, or MODEL VERSION on the server.
    Inspect(inspect::Args),
    /// Measure one variant; what `inspect` starts.
    #[command(hide = true)]
    Probe(inspect::ProbeArgs),
}

/// Runs one of them. What needs no server needs no sign-in either.
///
/// # Errors
/// What could not be done.
pub(crate) async fn run(
    context: impl FnOnce() -> Result<Context>,
    format: Format,
    command: Command,
) -> Result<()> {
    match command {
        Command::Build(args) => build::run(&args, context, format).await,
        Command::Renew(args) => renew::run(&args, format),
        Command::Sign { folder } => sign::run(&context()?, &folder).await,
        Command::Publish { folder } => publish::run(&context()?, &folder).await,
        Command::Withdraw(args) => withdraw::run(&context()?, &args).await,
        Command::Inspect(args) => inspect::run(&args, context, format).await,
        Command::Probe(args) => inspect::probe(&args),
    }
}
