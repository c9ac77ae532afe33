//! `flotilla-agent run-batch`: a model over a CSV file, a JSONL file or a folder of pictures, without a server.
//!
//! Only a release that this device has verified and committed may run: it is taken from the boot record, and every
//! blob is hashed again while it is read. Nothing in the state directory is changed, and nothing is counted in the
//! telemetry: a batch is not what the device sees. Tests: in each module, and `cargo xtask test --only local`.
//! docs/LOCAL-API.md.

mod item;
mod output;
mod progress;
mod run;
mod sink;
mod source;

pub use run::{BatchError, Options, Summary, run};
