//! The attacks of the threat model on the client workflow: each is refused by name, and a later good update works.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod delegations;
mod director;
mod freeze;
mod repo;
mod rollback;
mod signatures;
mod stolen_server;
mod workflow;
