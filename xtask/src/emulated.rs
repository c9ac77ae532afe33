//! The inference crate's tests on other CPUs, under QEMU's user-mode emulation: aarch64 with and without the dot
//! product, and 32-bit ARM.
//!
//! They are the very tests that run on the host: every level against the reference over random shapes, quantized
//! models against ONNX Runtime's answers, the digits against their cards. The CPU's model decides which levels are
//! found at run time.

use std::process::Command;

use anyhow::Result;

use crate::package::{ensure_std, zig};
use crate::run::{cargo, check};
use crate::tools::{self, Tool};

/// 32-bit ARM with glibc: rustup has its standard library, and Debian a linker and a libc. Not linked statically: where
/// the program is larger than a branch reaches, GNU ld has memcpy's resolver called as ARM code, which it isn't.
const ARMV7: &str = "armv7-unknown-linux-gnueabihf";
const AARCH64: &str = "aarch64-unknown-linux-musl";

const NEEDED_FOR: &str = "the tests on emulated CPUs";
const QEMU_AARCH64: Tool = Tool { program: "qemu-aarch64", package: "qemu-user", needed_for: NEEDED_FOR };
const QEMU_ARM: Tool = Tool { program: "qemu-arm", package: "qemu-user", needed_for: NEEDED_FOR };
const LINKER: Tool =
    Tool { program: "arm-linux-gnueabihf-gcc", package: "gcc-arm-linux-gnueabihf", needed_for: NEEDED_FOR };
const LIBC: Tool = Tool {
    program: "/usr/arm-linux-gnueabihf/lib/libc.so",
    package: "libc6-dev-armhf-cross",
    needed_for: NEEDED_FOR,
};

/// What runs a test program, and what tract must be told, since it reads the host's /proc/cpuinfo.
struct Cpu {
    emulator: &'static str,
    model: &'static str,
    tract: (&'static str, &'static str),
    /// The levels that the tests must find.
    levels: &'static str,
}

const PLAIN: Cpu = Cpu {
    emulator: "qemu-aarch64",
    model: "cortex-a53",
    tract: ("TRACT_CPU_AARCH64_KIND", "a53"),
    levels: "scalar portable neon",
};
const DOT: Cpu = Cpu {
    emulator: "qemu-aarch64",
    model: "cortex-a76",
    tract: ("TRACT_CPU_AARCH64_KIND", "a75"),
    levels: "scalar portable neon neon-dot",
};
const SMALL: Cpu = Cpu {
    emulator: "qemu-arm -L /usr/arm-linux-gnueabihf",
    model: "cortex-a15",
    tract: ("TRACT_CPU_ARM32_NEON", "true"),
    levels: "scalar portable",
};

/// Builds the tests for each target once and runs them on each CPU.
///
/// # Errors
/// When a tool is missing or a test fails.
pub(crate) fn main() -> Result<()> {
    tools::ensure(&QEMU_AARCH64)?;
    for cpu in [PLAIN, DOT] {
        run(zig(AARCH64, "test")?, AARCH64, &cpu)?;
    }
    tools::ensure(&QEMU_ARM)?;
    tools::ensure(&LINKER)?;
    tools::ensure_file(&LIBC)?;
    ensure_std(ARMV7)?;
    let mut command = cargo();
    command.arg("test").env(variable(ARMV7, "LINKER"), LINKER.program);
    run(command, ARMV7, &SMALL)
}

fn run(mut command: Command, target: &str, cpu: &Cpu) -> Result<()> {
    let Cpu { emulator, model, tract, levels } = cpu;
    eprintln!("tests of the inference crate on an emulated {model} ({target}; minutes the first time)");
    command
        .args(["--locked", "--quiet", "--package", "inference", "--lib", "--test", "real"])
        .args(["--profile", "emulated", "--target", target])
        .env(variable(target, "RUNNER"), format!("{emulator} -cpu {model}"))
        .env("FLOTILLA_TEST_LEVELS", levels)
        .env(tract.0, tract.1);
    check(&mut command)
}

/// The environment variable that sets something of a target for cargo.
fn variable(target: &str, what: &str) -> String {
    format!("CARGO_TARGET_{}_{what}", target.to_uppercase().replace('-', "_"))
}
