//! The fence around tract: bytes of an ONNX file go in, a thing that turns plain values into plain values
//! comes out. No other module of this crate but `int8::lower`, which reads the parsed file, names a tract type,
//! and panics of tract become errors here.

mod apart;
mod attributes;
mod blame;
mod check;
mod counted;
mod exact;
mod forest;
mod forms;
mod heap;
mod known;
mod limits;
mod load;
mod makeup;
mod mixing;
mod ops;
mod plan;
mod ranks;
mod reduced;
mod rewrite;
mod rows;
mod shapes;
mod sizes;
mod softmax;
mod spread;

pub(crate) use apart::Verdict;
pub use heap::{keep_tensors_in_heap, share_heap, trim_heap};
pub(crate) use load::Engine;
pub(crate) use makeup::count as count_makeup;
pub use makeup::{Makeup, TESTED_OPSETS};
pub(crate) use plan::{Fed, Feed, Plan, Value, plain_f32};
pub(crate) use rewrite::RANDOM;

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use tract_onnx::Onnx;
use tract_onnx::tract_hir::tract_core::knobs;

/// Longest text of the runtime that an error repeats, in characters.
const MAX_WHY_CHARS: usize = 600;
/// Longest name of a file that an error repeats.
const MAX_NAME_CHARS: usize = 100;

/// tract's reader of ONNX files. Every file comes through here.
fn onnx() -> Onnx {
    static ONCE: Once = Once::new();
    ONCE.call_once(avoid_amx);
    ops::onnx()
}

/// Takes AMX from tract's integer products, for the whole process, before tract looks at the CPU. Its kernels read one
/// operand in steps of 64 that was packed in steps of 4 (tract-linalg 0.23.9, `avx512amx_mmm_i32`): up to 480 bytes
/// behind the buffer, which ends the process where the buffer ends with a page. Our own kernels don't ask tract.
fn avoid_amx() {
    if cfg!(target_arch = "x86_64") {
        let asked = std::env::var(CPU_FEATURES).map_or_else(|_| String::new(), |asked| asked + ",");
        knobs::set_str(CPU_FEATURES, &format!("{asked}-amx-int8"));
    }
}

/// By this tract is told which features of the CPU to use.
const CPU_FEATURES: &str = "TRACT_CPU_ISA";

/// A name of a file as an error repeats it: short, and without what moves a terminal's cursor.
pub(crate) fn shown(name: &str) -> String {
    let mut chars = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut short: String = chars.by_ref().take(MAX_NAME_CHARS).collect();
    if chars.next().is_some() {
        short.push_str("...");
    }
    short
}

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
    use tract_onnx::tract_hir::tract_core::tract_linalg::knobs::TRACT_CPU_ISA;

    use super::{GUARDED, guarded, onnx, shown};

    #[test]
    fn tract_is_kept_from_amx_where_there_may_be_one() {
        onnx();
        let is_kept = TRACT_CPU_ISA.get().is_some_and(|features| features.ends_with("-amx-int8"));
        assert_eq!(is_kept, cfg!(target_arch = "x86_64"));
    }

    #[test]
    fn names_are_repeated_short_and_plain() {
        assert_eq!(shown("/model.0/Conv"), "/model.0/Conv");
        assert_eq!(shown("a\nb\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(shown(&"é".repeat(101)), "é".repeat(100) + "...");
    }

    #[test]
    fn a_panic_comes_back_as_its_message_and_the_guard_ends() {
        let inner = || guarded(|| panic!("index {} is out of bounds", 7)).map(|()| GUARDED.get());
        assert_eq!(inner(), Err("index 7 is out of bounds".to_owned()));
        assert_eq!((GUARDED.get(), guarded(|| GUARDED.get())), (0, Ok(1)));
    }
}
