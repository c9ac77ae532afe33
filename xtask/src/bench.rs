//! `cargo xtask bench NAME`: figures that the docs quote, measured on the machine that runs it.

mod delta;
mod footprint;
mod int8;
mod parts;

use anyhow::Result;
use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Memory, CPU and wake-ups of the agent: idle, serving digits, serving MobileNet v2 in int8.
    Footprint {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Quantized nets: ours, tract, ONNX Runtime and OpenVINO, one thread on one core.
    Int8(int8::Args),
    /// A hundred swaps of a release under clients without pause: requests, failures, wrong answers, latency.
    Swap(parts::Shown),
    /// What the local API adds to an inference of digits, and what it carries.
    Api(parts::Shown),
    /// Bytes that the update of a model takes, beside xdelta3 and bsdiff.
    Delta {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Durable records a second, memory over a million of them, disk per byte of them.
    Spool(parts::Shown),
}

pub(crate) use parts::run as run_part;

pub(crate) fn main(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Footprint { json } => footprint::main(*json),
        Bench::Int8(args) => int8::main(args),
        Bench::Swap(shown) => parts::main("swap", shown),
        Bench::Api(shown) => parts::main("api", shown),
        Bench::Delta { json } => delta::main(*json),
        Bench::Spool(shown) => parts::main("spool", shown),
    }
}
