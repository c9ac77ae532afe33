//! `flotilla`: the publisher's and operator's command line.
//!
//! Results go to stdout (a table for people, `--json` for programs), talk goes to stderr. Private keys never
//! leave this machine. Tests: `tests/`.

use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod chain;
mod client;
mod commands;
mod exit;
mod expired;
mod folder;
mod keyring;
mod metadata;
mod oms;
mod output;
mod pending;
mod replace;
mod rotation;
mod session;
mod settings;
mod spec;

fn main() -> ExitCode {
    inference::quiet_caught_panics();
    let args = args::Args::parse();
    for unknown in inference::int8::unknown_switches() {
        eprintln!("warning: {unknown}");
    }
    match commands::run(args) {
        Ok(()) => exit::Code::Ok.into(),
        // Whoever read our output has read enough, as `head` does.
        Err(error) if output::is_closed(&error) => exit::Code::Ok.into(),
        Err(error) => {
            eprintln!("error: {}", output::shown(&format!("{error:#}")));
            exit::code_of(&error).into()
        }
    }
}
