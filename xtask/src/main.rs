//! The project's own commands: `cargo xtask demo | test | bench | fuzz | firmware-tests | tidy | package`.
//!
//! Each says what it does, installs what it needs from the ordinary package managers and says so, and never
//! takes a shortcut into the product: it calls the same binaries and command lines as a user.

mod bench;
mod builds;
mod checkout;
mod demo;
mod emulated;
mod firmware;
mod fuzz;
mod interop;
mod key_files;
mod local;
mod package;
mod run;
mod serving;
mod signed_model;
mod test;
mod tidy;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Flotilla's own commands")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole story: server, six devices, three rollouts, a drifting lens.
    Demo(demo::Args),
    /// Run everything that can be checked: format, lints, unit, integration, browser and firmware tests.
    Test(test::Args),
    /// Measure, and print the figures that the docs quote.
    Bench(bench::Args),
    /// Fuzz every parser of outside bytes with a nightly compiler and cargo-fuzz.
    Fuzz(fuzz::Args),
    /// Check arrows between rooms, fences, file sizes, paths and secrets.
    Tidy,
    /// Run one floor of the firmware tests in depth.
    FirmwareTests(firmware::Args),
    /// Build the static agent for a device.
    Package(package::Args),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Demo(args) => demo::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Tidy => tidy::main(),
        Command::FirmwareTests(args) => firmware::main(&args),
        Command::Package(args) => package::main(&args),
    }
}
