//! Quantized models in int8 from end to end: the kernels, the lowering of ONNX graphs onto them, the program that
//! it makes and the report of what it made of which node.
//!
//! What the lowering doesn't understand stays tract's: single nodes as islands within the program, or the whole
//! model. Numbers follow ONNX's definitions of the quantized operators.

pub mod kernel;
pub(crate) mod lower;
pub(crate) mod program;
pub mod report;

pub use program::StepTime;

use kernel::{LEVEL_VARIABLE, Level};

/// Whether quantized graphs are lowered; [`Int8::On`] unless `FLOTILLA_INT8` says `off`, `false` or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int8 {
    /// Quantized graphs run in int8.
    On,
    /// Everything runs as tract runs it, for comparison.
    Off,
}

/// The environment variable that switches the lowering off.
pub const SWITCH_VARIABLE: &str = "FLOTILLA_INT8";

impl Int8 {
    /// What the environment says; on where it says something that isn't known (see [`unknown_switches`]).
    pub fn from_env() -> Self {
        Self::named(&std::env::var(SWITCH_VARIABLE).unwrap_or_default()).unwrap_or(Self::On)
    }

    fn named(value: &str) -> Option<Self> {
        let is_one_of = |words: &[&str]| words.iter().any(|word| value.trim().eq_ignore_ascii_case(word));
        if is_one_of(&["off", "false", "0"]) {
            return Some(Self::Off);
        }
        is_one_of(&["", "on", "true", "1"]).then_some(Self::On)
    }
}

/// What the environment says of int8 and nobody understands, in a sentence each: for a program to say once when it
/// starts, so that no comparison compares a thing with itself.
pub fn unknown_switches() -> Vec<String> {
    let value = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    unknown_of(value(SWITCH_VARIABLE).as_deref(), value(LEVEL_VARIABLE).as_deref())
}

fn unknown_of(switch: Option<&str>, level: Option<&str>) -> Vec<String> {
    let switch = switch.filter(|value| Int8::named(value).is_none());
    let switch =
        switch.map(|value| format!("{SWITCH_VARIABLE}={value:?} is neither on nor off: int8 stays on"));
    let level = level.filter(|value| !value.trim().is_empty() && Level::named(value).is_none());
    let level = level.map(|value| {
        let known = Level::ALL.map(Level::name).join(", ");
        format!("{LEVEL_VARIABLE}={value:?} is no level ({known}): the portable kernels run")
    });
    switch.into_iter().chain(level).collect()
}

#[cfg(test)]
mod tests {
    use super::{Int8, unknown_of};

    #[test]
    fn the_switch_reads_each_way_of_saying_off() {
        assert!(["off", "OFF", " false", "0"].iter().all(|value| Int8::named(value) == Some(Int8::Off)));
        assert!(["", "on", "1", "True"].iter().all(|value| Int8::named(value) == Some(Int8::On)));
        assert_eq!(Int8::named("nope"), None);
    }

    #[test]
    fn what_nobody_understands_is_said() {
        assert!(unknown_of(None, None).is_empty() && unknown_of(Some("off"), Some("avx2")).is_empty());
        let said = unknown_of(Some("of"), Some("avx9"));
        assert!(said.len() == 2 && said[0].contains("FLOTILLA_INT8=\"of\""), "{said:?}");
        assert!(said[1].contains("FLOTILLA_INT8_LEVEL=\"avx9\"") && said[1].contains("neon-dot"), "{said:?}");
    }
}
