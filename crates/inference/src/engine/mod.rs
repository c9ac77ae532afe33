//! The fence around tract: bytes of an ONNX file go in, a thing that turns plain values into plain values
//! comes out. No other module of this crate but `int8::lower`, which reads the parsed file, names a tract type,
//! and panics of tract become errors here.

mod check;
mod limits;
mod load;
mod makeup;
mod plan;
mod rewrite;
mod trim;

pub(crate) use load::Engine;
pub(crate) use makeup::count as count_makeup;
pub use makeup::{Makeup, TESTED_OPSETS};
pub(crate) use plan::{Fed, Feed, Plan, Value, plain_f32};
pub use trim::trim_heap;

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Longest text of the runtime that an error repeats, in characters.
const MAX_WHY_CHARS: usize = 600;

thread_local! {
    /// How many [`guarded`] calls this thread is in.
    static GUARDED: Cell<usize> = const { Cell::new(0) };
}

/// Runs something of tract's; a panic comes back as its message. Every profile unwinds for this (decision 0007).
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    GUARDED.set(GUARDED.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(GUARDED.get() - 1);
    result.map_err(|payload| shorten(&panic_text(payload.as_ref())))
}

/// Keeps panics of the runtime, which become errors, from being printed as well. For a program to call when it
/// starts: the hook is the process's. All other panics go to the hook that was there.
pub fn quiet_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() == 0 {
                before(info);
            }
        }));
    });
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

#[cfg(test)]
mod tests {
    use super::{GUARDED, guarded};

    #[test]
    fn a_panic_comes_back_as_its_message_and_the_guard_ends() {
        let inner = || guarded(|| panic!("index {} is out of bounds", 7)).map(|()| GUARDED.get());
        assert_eq!(inner(), Err("index 7 is out of bounds".to_owned()));
        assert_eq!((GUARDED.get(), guarded(|| GUARDED.get())), (0, Ok(1)));
    }
}
