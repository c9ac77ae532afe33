//! The local API for applications: the Open Inference Protocol v2 over HTTP with JSON and binary tensors, on TCP
//! and on a unix socket; feedback for labels that come later, `/metrics` and `/status`. docs/LOCAL-API.md.
//!
//! Every request is bounded in size, time and place in the queue; overload is answered with 503 and Retry-After, before
//! the body is read where the queue is full already. It has an asynchronous thread of its own. Parsing, inference and writing the answer run on other threads,
//! but for what is known to take less than to wake one; the model is shared and a tensor goes from the socket's buffers straight into its typed vector. It listens where the
//! configuration says, by default on 127.0.0.1 only: there is no sign-in. Tests: `tests/api`, against the real
//! server and the real digits model.

mod answer;
mod body;
mod error;
mod feedback;
mod infer;
mod inner;
mod leftover;
mod listen;
mod metrics;
mod models;
mod object;
mod origin;
mod path;
mod refusals;
mod repository;
mod request;
mod routes;
mod stats;
mod thread;
mod threads;
mod turns;
mod unread;
mod work;

pub use inner::Refused;
pub use listen::{ListenError, Listening};
pub use work::{Api, StatusSource};
