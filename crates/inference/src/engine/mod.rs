//! The fence around tract: bytes of an ONNX file go in, a thing that turns plain values into plain values
//! comes out. No other module of this crate but `int8::lower`, which reads the parsed file, names a tract type,
//! and panics of tract become errors here.

mod check;
mod load;
mod makeup;
mod plan;
mod trim;

pub(crate) use load::Engine;
pub use makeup::Makeup;
pub(crate) use makeup::count as count_makeup;
pub(crate) use plan::{Fed, Feed, Plan, Value, plain_f32};
pub(crate) use trim::trim;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest text of the runtime that an error repeats, in characters.
const MAX_WHY_CHARS: usize = 600;

/// Runs something of tract's; a panic comes back as its message. Every profile unwinds for this (decision 0007).
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| shorten(&panic_text(payload.as_ref())))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_WHY_CHARS {
        return line;
    }
    line.chars().take(MAX_WHY_CHARS).chain("...".chars()).collect()
}
