//! The executable itself against a simulated repository behind a real socket: command line, exit codes, folders, every
//! clause of the specification's client workflow, and what networks do to answers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod client;
mod names;
mod network;
mod usage;
