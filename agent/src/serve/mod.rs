//! The local API for applications: the Open Inference Protocol v2 over HTTP with JSON tensors, feedback for
//! labels that come later, `/metrics` and `/status`.
//!
//! Every request is bounded in size, time and place in the queue; overload is answered at once with 503 and
//! Retry-After. Parsing, inference and writing the answer run on blocking threads, never on the async ones, and
//! the model is shared, not copied. It listens where the configuration says, by default on 127.0.0.1 only: there
//! is no sign-in. Tests: `tests/api.rs`, against the real server and the real digits model.

mod answer;
mod error;
mod feedback;
mod infer;
mod listen;
mod metrics;
mod models;
mod work;

pub use listen::{ServeError, router, run};
pub use work::{Api, StatusSource};
