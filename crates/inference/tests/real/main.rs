//! The real artifacts of `examples/digits` under the real runtime, small quantized models, and models made to hurt.
#![expect(clippy::unwrap_used, reason = "a missing fixture must fail the test")]

mod digits;
mod hostile;
mod quantized;
mod support;
