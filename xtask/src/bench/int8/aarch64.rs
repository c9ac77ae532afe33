//! ARM without a machine: instructions of one inference under QEMU's user-mode emulation, which repeat exactly.
//!
//! A plugin counts every instruction that the guest executes; a run with more inferences less a run with fewer,
//! divided by the difference, is one inference. Instructions are no time: loads that wait and units that work side
//! by side aren't seen. They tell how much work the kernels need, and that the dot product is used.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::engine::Maker;
use super::models::Models;
use crate::package::{Profile, zigbuild};
use crate::run::{check, program, root, target_folder};
use crate::tools;

const TARGET: &str = "aarch64-unknown-linux-musl";
/// A CPU with nothing but NEON, and how tract calls it (emulation shows the host's /proc/cpuinfo).
const PLAIN: Cpu = Cpu { name: "cortex-a53", tract_kind: "a53" };
/// A CPU with the dot product.
const DOT: Cpu = Cpu { name: "cortex-a76", tract_kind: "a75" };
/// Inferences of the shorter and of the longer run.
const RUNS: (u32, u32) = (1, 3);

#[derive(Clone, Copy)]
struct Cpu {
    name: &'static str,
    tract_kind: &'static str,
}

/// What is counted: key, whose runtime, variant, CPU.
const COUNTED: [(&str, Maker, &str, Cpu); 7] = [
    ("ours_int8_dot_m", Maker::Ours, "int8", DOT),
    ("ours_int8_neon_m", Maker::Ours, "int8", PLAIN),
    ("ours_f32_neon_m", Maker::Ours, "f32", PLAIN),
    ("tract_int8_dot_m", Maker::Tract, "int8", DOT),
    ("tract_int8_neon_m", Maker::Tract, "int8", PLAIN),
    ("tract_f32_dot_m", Maker::Tract, "f32", DOT),
    ("tract_f32_neon_m", Maker::Tract, "f32", PLAIN),
];

/// Millions of instructions of one inference.
///
/// # Errors
/// When the emulator, a compiler or our runner is missing or fails.
pub(super) fn count(nets: &[String], models: &Models) -> Result<Value> {
    tools::ensure(&tools::QEMU_AARCH64)?;
    let plugin = plugin()?;
    zigbuild(TARGET, Profile::Quick, &["--package", "inference", "--example", "bench-engine"])?;
    let runner = target_folder()?.join(TARGET).join("quick/examples/bench-engine");
    let mut rows = Map::new();
    let mut notes = vec![
        "OpenVINO and ONNX Runtime aren't counted: their packages for ARM need a whole ARM userland with Python"
            .to_owned(),
    ];
    for net in nets {
        eprintln!("{net}: counting instructions under emulation");
        let mut row = Map::new();
        for (key, maker, variant, cpu) in COUNTED {
            let job = Job { runner: &runner, plugin: &plugin, folder: &models.folder, cpu };
            let counted = job.count(maker, net, variant);
            if let Err(e) = &counted {
                notes.push(format!("{net} {key}: {e:#}"));
            }
            row.insert(key.into(), counted.map_or(Value::Null, Value::from));
        }
        rows.insert(net.clone(), Value::Object(row));
    }
    Ok(json!({
        "unit": "million instructions of one inference, under qemu-user",
        "cpus": { "dot": DOT.name, "neon": PLAIN.name },
        "models": rows,
        "notes": notes,
    }))
}

struct Job<'a> {
    runner: &'a Path,
    plugin: &'a Path,
    folder: &'a Path,
    cpu: Cpu,
}

impl Job<'_> {
    fn count(&self, maker: Maker, net: &str, variant: &str) -> Result<f64> {
        let (fewer, more) = RUNS;
        let less = self.total(maker, net, variant, fewer)?;
        let all = self.total(maker, net, variant, more)?;
        let spent = all.checked_sub(less).context("a longer run took fewer instructions")?;
        Ok((spent as f64 / f64::from(more - fewer) / 1e4).round() / 100.0)
    }

    /// Instructions of a process that loads the model and runs it so often.
    fn total(&self, maker: Maker, net: &str, variant: &str, runs: u32) -> Result<u64> {
        let mut child = program("qemu-aarch64")
            .args(["-cpu", self.cpu.name, "-plugin"])
            .arg(self.plugin)
            .arg(self.runner)
            .arg(maker.name())
            .arg(self.folder)
            .args([net, variant])
            .env("TRACT_CPU_AARCH64_KIND", self.cpu.tract_kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start qemu-aarch64")?;
        let mut commands = child.stdin.take().context("no standard input")?;
        writeln!(commands, "load\nrepeat {runs}").context("the emulated runner is gone")?;
        drop(commands);
        let output = child.wait_with_output().context("the emulated runner doesn't end")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("the emulated runner failed ({}): {}", output.status, said.trim());
        }
        let counted = said.lines().find_map(|line| line.strip_prefix("instructions "));
        counted.context("the plugin gave no count")?.parse().context("the plugin's count is no number")
    }
}

/// Compiles the plugin.
fn plugin() -> Result<PathBuf> {
    tools::ensure(&tools::C_COMPILER)?;
    let plugin = target_folder()?.join("qemu-instructions.so");
    let source = root().join("xtask/src/bench/int8/instructions.c");
    check(program("cc").args(["-O2", "-Wall", "-fPIC", "-shared", "-o"]).arg(&plugin).arg(source))?;
    Ok(plugin)
}
