//! Figures of the agent's own parts, measured by the parts themselves: `cargo xtask bench swap | spool | api | delta`.
//!
//! Each prints one JSON object on stdout and fails when what it measures is wrong, so that it is a test too. Figures that
//! only explain the others are under [`MORE`].

mod api;
mod delta;
mod device;
mod http;
mod spool;
mod swap;

use anyhow::Result;
use clap::Subcommand;

/// Key of the object with figures that nobody asked for; `cargo xtask bench NAME --json` leaves it out.
const MORE: &str = "more";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Clients without pause while one release replaces the other again and again.
    Swap(swap::Args),
    /// What the local API adds to an inference, and what it carries.
    Api(api::Args),
    /// Bytes of updates between pairs of models.
    Delta(delta::Args),
    /// Records made durable, what they take in memory and on disk.
    Spool(spool::Args),
}

pub(crate) fn main(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Swap(args) => swap::main(args),
        Bench::Api(args) => api::main(args),
        Bench::Delta(args) => delta::main(args),
        Bench::Spool(args) => spool::main(args),
    }
}
