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
    /// What the environment says.
    pub fn from_env() -> Self {
        Self::named(&std::env::var(SWITCH_VARIABLE).unwrap_or_default())
    }

    fn named(value: &str) -> Self {
        let is_off = ["off", "false", "0"].iter().any(|off| value.trim().eq_ignore_ascii_case(off));
        if is_off { Self::Off } else { Self::On }
    }
}

#[cfg(test)]
mod tests {
    use super::Int8;

    #[test]
    fn the_switch_reads_each_way_of_saying_off() {
        assert!(["off", "OFF", " false", "0"].iter().all(|value| Int8::named(value) == Int8::Off));
        assert!(["", "on", "1"].iter().all(|value| Int8::named(value) == Int8::On));
    }
}
