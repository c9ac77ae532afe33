//! One engine with one model: a process on the chosen core that answers lines of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::models::{Models, scripts};
use crate::run::program;

/// What the engines are started with.
pub(super) struct Programs {
    /// Our runner.
    pub(super) ours: PathBuf,
    /// A Python with the other engines.
    pub(super) python: PathBuf,
    /// The core that all of them share.
    pub(super) core: u32,
}

/// Whose runtime.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Ours,
    Tract,
    OnnxRuntime,
    OpenVino,
}

impl Maker {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Tract => "tract",
            Self::OnnxRuntime => "onnxruntime",
            Self::OpenVino => "openvino",
        }
    }
}

/// A running engine; dropping it ends the process.
pub(super) struct Engine {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts an engine for a model, with what masks the CPU's features.
    pub(super) fn start(
        programs: &Programs,
        models: &Models,
        (maker, net, variant): (Maker, &str, &str),
        mask: &[(&str, &str)],
    ) -> Result<Self> {
        let mut words: Vec<PathBuf> = match maker {
            Maker::Ours | Maker::Tract => vec![programs.ours.clone()],
            Maker::OnnxRuntime | Maker::OpenVino => {
                vec![programs.python.clone(), scripts().join("engine.py")]
            }
        };
        words.extend([maker.name().into(), models.folder.clone(), net.into(), variant.into()]);
        Self::spawn(programs, &words, mask)
    }

    /// Starts what measures the core's peak.
    pub(super) fn start_peak(programs: &Programs) -> Result<Self> {
        Self::spawn(programs, &[programs.ours.clone(), "peak".into()], &[])
    }

    fn spawn(programs: &Programs, words: &[PathBuf], mask: &[(&str, &str)]) -> Result<Self> {
        let mut command = program("taskset");
        command.args(["-c", &programs.core.to_string()]).args(words).envs(mask.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start taskset (Debian: util-linux)")?;
        let commands = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, commands, answers })
    }

    /// Sends a command and waits for its answer.
    pub(super) fn ask(&mut self, command: &str) -> Result<Value> {
        writeln!(self.commands, "{command}").with_context(|| format!("engine is gone at {command:?}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).with_context(|| format!("no answer to {command:?}"))?;
        if line.is_empty() {
            bail!("engine ended at {command:?}");
        }
        serde_json::from_str(&line).with_context(|| format!("answer to {command:?} is no JSON: {line}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last core that this process may use: the first one serves most interrupts.
pub(super) fn core() -> Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = list.and_then(|list| list.trim().rsplit([',', '-']).next()).context("no Cpus_allowed_list")?;
    last.parse().with_context(|| format!("{last:?} is no core"))
}

/// The CPU's name and what it has for 8-bit arithmetic.
pub(super) fn cpu_name() -> Result<String> {
    const ARITHMETIC: [&str; 4] = ["avx2", "avx_vnni", "avx512_vnni", "amx_int8"];
    let text = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let flags = value("flags").unwrap_or_default();
    let has: Vec<&str> =
        ARITHMETIC.into_iter().filter(|flag| flags.split_whitespace().any(|have| have == *flag)).collect();
    let (family, model) = (value("cpu family").unwrap_or_default(), value("model\t").unwrap_or_default());
    let name = value("model name").context("/proc/cpuinfo has no model name")?;
    Ok(format!("{name} (family {family}, model {model}): {}", has.join(" ")))
}

/// Whether the CPU has the tile multiplier, which an engine may use unless it is masked.
pub(super) fn has_amx() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" amx_int8"))
}
