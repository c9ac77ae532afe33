//! The local API as an application meets it: the real HTTP server on a port of its own, the real digits model.
#![expect(clippy::unwrap_used, reason = "what can't be set up must fail the test")]

mod binary;
mod broker;
mod capture;
mod digits;
mod folder;
mod limits;
mod protocol;
mod support;
mod unix;
