//! ARM without a machine: instructions of one inference under QEMU's user-mode emulation, which repeat exactly.
//!
//! A plugin counts every instruction that the guest executes, up to each answer; what a command with one inference
//! takes, less what one with none takes, is the inference. Loading has run the model already, so that it is no first
//! one; and since counts repeat, one is enough: emulated arithmetic in f32 is a hundred times slower than the CPU's.
//! Instructions are no time: loads that wait and units that work side by side aren't seen. They tell how much work
//! the kernels need, and that the dot product is used.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::engine::Maker;
use super::models::{Models, scripts};
use super::userland::Userland;
use crate::package::{Profile, zigbuild};
use crate::run::{prepare, program, root, target_folder};
use crate::tools;

const TARGET: &str = "aarch64-unknown-linux-musl";
/// A CPU with nothing but NEON.
const PLAIN: Cpu = Cpu { name: "cortex-a53", tract_kind: "a53", part: "0xd03", more_features: "" };
/// A CPU with the dot product.
const DOT: Cpu = Cpu {
    name: "cortex-a76",
    tract_kind: "a75",
    part: "0xd0b",
    more_features: " atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp",
};
/// A CPU as the emulator, tract and /proc/cpuinfo name it: emulation shows the host's /proc/cpuinfo, so that what
/// reads it must be told.
#[derive(Clone, Copy)]
struct Cpu {
    name: &'static str,
    tract_kind: &'static str,
    part: &'static str,
    more_features: &'static str,
}

impl Cpu {
    fn cpuinfo(self) -> String {
        format!(
            "processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32 cpuid{}\n\
             CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {}\nCPU revision\t: 1\n",
            self.more_features, self.part
        )
    }
}

/// A figure of each net.
#[derive(Clone, Copy)]
struct Counted {
    key: &'static str,
    maker: Maker,
    variant: &'static str,
    cpu: Cpu,
}

const fn counted(key: &'static str, maker: Maker, variant: &'static str, cpu: Cpu) -> Counted {
    Counted { key, maker, variant, cpu }
}

const COUNTED: [Counted; 10] = [
    counted("ours_int8_dot_m", Maker::Ours, "int8", DOT),
    counted("ours_int8_neon_m", Maker::Ours, "int8", PLAIN),
    counted("ours_f32_neon_m", Maker::Ours, "f32", PLAIN),
    counted("tract_int8_dot_m", Maker::Tract, "int8", DOT),
    counted("tract_int8_neon_m", Maker::Tract, "int8", PLAIN),
    counted("tract_f32_dot_m", Maker::Tract, "f32", DOT),
    counted("tract_f32_neon_m", Maker::Tract, "f32", PLAIN),
    counted("ort_int8_dot_m", Maker::OnnxRuntime, "int8", DOT),
    counted("ort_int8_neon_m", Maker::OnnxRuntime, "int8", PLAIN),
    counted("ort_f32_neon_m", Maker::OnnxRuntime, "f32", PLAIN),
];

/// Millions of instructions of one inference; what can't be counted is null, with a note.
///
/// # Errors
/// When the emulator, a compiler or our runner is missing or fails.
pub(super) fn count(nets: &[String], models: &Models, python: &Path) -> Result<Value> {
    tools::ensure(&tools::QEMU_AARCH64)?;
    let plugin = plugin()?;
    // With the agent's features: then both share what is compiled below them, tract above all.
    let what = ["--package", "flotilla-agent", "--package", "inference", "--example", "bench-engine"];
    zigbuild(TARGET, Profile::Quick, &what)?;
    let runner = target_folder()?.join(TARGET).join("quick/examples/bench-engine");
    let others = Userland::ensure(python);
    let mut notes =
        vec!["OpenVINO isn't counted: only ONNX Runtime's package was tried under emulation".into()];
    if let Err(e) = &others {
        notes.push(format!("ONNX Runtime isn't counted: {e:#}"));
    }
    let bench = Bench { runner, plugin, folder: &models.folder, others: others.ok() };
    let mut rows: Map<String, Value> = nets.iter().map(|net| (net.clone(), json!({}))).collect();
    // The emulated /proc/cpuinfo is one file: the CPUs go one after the other.
    for cpu in [DOT, PLAIN] {
        eprintln!("counting instructions on an emulated {}", cpu.name);
        bench.show_cpu(cpu)?;
        for (net, key, counted) in bench.count(nets, cpu) {
            if let Err(e) = &counted {
                notes.push(format!("{net} {key}: {e:#}"));
            }
            rows[net][key] = counted.map_or(Value::Null, Value::from);
        }
    }
    Ok(json!({
        "unit": "million instructions of one inference, under qemu-user",
        "cpus": { "dot": DOT.name, "neon": PLAIN.name },
        "models": rows,
        "notes": notes,
    }))
}

/// What counting needs.
struct Bench<'a> {
    runner: PathBuf,
    plugin: PathBuf,
    folder: &'a Path,
    /// Where engines run that need Python, if it could be had.
    others: Option<Userland>,
}

/// A net, a key and what was counted for it.
type Found<'n> = (&'n String, &'static str, Result<f64>);

impl Bench<'_> {
    fn show_cpu(&self, cpu: Cpu) -> Result<()> {
        self.others.as_ref().map_or(Ok(()), |userland| userland.show_cpu(&cpu.cpuinfo()))
    }

    /// All figures of one CPU, on as many cores as there are: counts don't depend on time.
    fn count<'n>(&self, nets: &'n [String], cpu: Cpu) -> Vec<Found<'n>> {
        let columns = COUNTED.iter().filter(|column| column.cpu.name == cpu.name);
        let jobs: Vec<_> =
            nets.iter().flat_map(|net| columns.clone().map(move |column| (net, *column))).collect();
        let waiting = Mutex::new(jobs.into_iter());
        let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
        let worker = || {
            let mut found = Vec::new();
            while let Some((net, column)) = next() {
                let start = Instant::now();
                let counted = self.one(net, column);
                let seconds = start.elapsed().as_secs();
                match &counted {
                    Ok(millions) => eprintln!("{net} {}: {millions} M ({seconds} s)", column.key),
                    Err(_) => eprintln!("{net} {}: failed ({seconds} s)", column.key),
                }
                found.push((net, column.key, counted));
            }
            found
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        })
    }

    fn one(&self, net: &str, column: Counted) -> Result<f64> {
        let said = self.run(net, column)?;
        let counts: Vec<u64> = said
            .lines()
            .filter_map(|line| line.strip_prefix("instructions "))
            .map(|count| count.parse().context("the plugin's count is no number"))
            .collect::<Result<_>>()?;
        per_inference(&counts)
    }

    /// What the plugin says of a process that loads the model and runs it.
    fn run(&self, net: &str, column: Counted) -> Result<String> {
        let mut child = self.command(net, column)?.spawn().context("cannot start qemu-aarch64")?;
        let mut commands = child.stdin.take().context("no standard input")?;
        writeln!(commands, "load\nrepeat 0\nrepeat 1").context("the emulated engine is gone")?;
        drop(commands);
        let output = child.wait_with_output().context("the emulated engine doesn't end")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("the emulated engine failed ({}): {}", output.status, said.trim());
        }
        Ok(said)
    }

    fn command(&self, net: &str, column: Counted) -> Result<Command> {
        let mut command = program("qemu-aarch64");
        command.args(["-cpu", column.cpu.name, "-plugin"]).arg(&self.plugin);
        match column.maker {
            Maker::Ours | Maker::Tract => {
                command.arg(&self.runner).env("TRACT_CPU_AARCH64_KIND", column.cpu.tract_kind);
            }
            Maker::OnnxRuntime | Maker::OpenVino => {
                let userland = self.others.as_ref().context("no Python for arm64")?;
                command.arg("-L").arg(&userland.root).arg(&userland.python).arg(scripts().join("engine.py"));
                command.env("PYTHONPATH", &userland.packages).env("PYTHONDONTWRITEBYTECODE", "1");
            }
        }
        command.arg(column.maker.name()).arg(self.folder).args([net, column.variant]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Millions of instructions of one inference, from the counts after loading, the command without an inference and
/// the one with it.
fn per_inference(counts: &[u64]) -> Result<f64> {
    let [loaded, without, with] = counts else {
        bail!("the plugin gave {} counts for 3 answers", counts.len());
    };
    let spent = |from: &u64, to: &u64| to.checked_sub(*from).context("the count fell");
    let answering = spent(loaded, without)?;
    let inference = spent(without, with)?.checked_sub(answering);
    let inference = inference.context("an inference took fewer instructions than none")?;
    Ok((inference as f64 / 1e3).round() / 1e3)
}

/// Compiles the plugin.
fn plugin() -> Result<PathBuf> {
    tools::ensure(&tools::C_COMPILER)?;
    let plugin = target_folder()?.join("qemu-instructions.so");
    let source = root().join("xtask/src/bench/int8/instructions.c");
    prepare(program("cc").args(["-O2", "-Wall", "-fPIC", "-shared", "-o"]).arg(&plugin).arg(source))?;
    Ok(plugin)
}

#[cfg(test)]
mod tests {
    use super::per_inference;

    #[test]
    fn loading_and_answering_dont_count() {
        let (load, answer, run) = (50_000_000, 1000, 7_000_000);
        let without = load + answer;
        let with = without + run + answer;
        assert!((per_inference(&[load, without, with]).unwrap() - 7.0).abs() < 1e-9);
        assert!(per_inference(&[load, without]).is_err());
        assert!(per_inference(&[load, with, with]).is_err());
    }
}
