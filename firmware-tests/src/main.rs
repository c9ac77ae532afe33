//! The real agent on emulated devices. `cargo xtask test --only firmware` runs the smoke test.
//!
//! Nothing of the product is replaced: the cross-built binary runs under an emulator against the real server.

mod smoke;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The real agent on emulated devices")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enrol, fetch, verify, infer: the cross-built agent answers as this machine's own.
    Smoke(smoke::Args),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Smoke(args) => smoke::main(&args),
    }
}
