//! `cargo xtask bench NAME`: figures that the docs quote, measured on the machine that runs it.

mod footprint;
mod int8;

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
    /// Quantized nets: ours, tract, ONNX Runtime and OpenVINO, one thread on one core.
    Int8(int8::Args),
}

pub(crate) fn main(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Footprint { json } => footprint::main(*json),
        Bench::Int8(args) => int8::main(args),
    }
}
