//! `cargo xtask bench NAME`: figures that the docs quote, measured on the machine that runs it.

mod footprint;

use anyhow::Result;
use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Memory, CPU and wake-ups of the agent: idle, and serving digits.
    Footprint {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn main(args: &Args) -> Result<()> {
    match args.bench {
        Bench::Footprint { json } => footprint::main(json),
    }
}
