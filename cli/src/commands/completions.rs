//! `flotilla completions SHELL`.

use std::io;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Which shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// bash, zsh, fish, elvish or powershell.
    shell: Shell,
}

/// Prints the script.
#[expect(clippy::unnecessary_wraps, reason = "every command has the same form")]
pub(crate) fn run(args: &Args) -> Result<()> {
    clap_complete::generate(args.shell, &mut crate::args::Args::command(), "flotilla", &mut io::stdout());
    Ok(())
}
