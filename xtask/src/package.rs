//! `cargo xtask package --target T`: the static agent for a device, with zig as C compiler and linker.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::run::{check, output, program, root, target_folder};
use crate::tools;

/// Pinned, so that the same source gives the same agent.
const CROSS_TOOLS: [&str; 2] = ["cargo-zigbuild==0.24.0", "ziglang==0.17.0"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rust target triple; the known ones stand in cross/targets.toml.
    #[arg(long, default_value = "aarch64-unknown-linux-musl")]
    target: String,
    /// `size` is what ships; `quick` builds in a third of the time.
    #[arg(long, value_enum, default_value_t = Profile::Size)]
    profile: Profile,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Quick,
    Size,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Size => "size",
        }
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let agent = agent(&args.target, args.profile)?;
    println!("{}\n{} bytes", agent.display(), agent.metadata()?.len());
    Ok(())
}

/// Builds the static agent and says where it is.
///
/// # Errors
/// When a tool is missing, it doesn't build, or it is larger than `cross/targets.toml` allows.
pub(crate) fn agent(target: &str, profile: Profile) -> Result<PathBuf> {
    zigbuild(target, profile, &["--package", "flotilla-agent"])?;
    let agent = target_folder()?.join(target).join(profile.name()).join("flotilla-agent");
    let (bytes, ceiling) = (agent.metadata()?.len(), ceiling(target, profile)?);
    if bytes > ceiling {
        bail!(
            "the agent has {bytes} bytes; cross/targets.toml allows {ceiling} for {target}, {}",
            profile.name()
        );
    }
    Ok(agent)
}

/// Builds what `what` chooses as static programs for a device.
///
/// # Errors
/// When a tool is missing or it doesn't build.
pub(crate) fn zigbuild(target: &str, profile: Profile, what: &[&str]) -> Result<()> {
    let mut command = zig(target, "zigbuild")?;
    eprintln!(
        "building {} for {target}, profile {} (many minutes the first time)",
        what.last().copied().unwrap_or_default(),
        profile.name()
    );
    command.arg("--locked").args(what);
    check(command.args(["--profile", profile.name(), "--target", target]))
}

/// A command of cargo's for a device, with zig as C compiler and linker.
///
/// # Errors
/// When a tool is missing, or the target isn't one of ours.
pub(crate) fn zig(target: &str, verb: &str) -> Result<Command> {
    ceiling(target, Profile::Size)?;
    ensure_std(target)?;
    let tools = tools::python_env("cross", &CROSS_TOOLS)?;
    let path = std::env::var("PATH").unwrap_or_default();
    // Panic messages name source files: they shall not name folders of the machine that built them.
    let home = std::env::var("HOME").unwrap_or_default();
    let remap =
        format!("--remap-path-prefix={}=/flotilla --remap-path-prefix={home}=/build", root().display());
    let mut command = program(&tools.join("cargo-zigbuild").to_string_lossy());
    command.arg(verb).env("PATH", format!("{}:{path}", tools.display())).env("RUSTFLAGS", remap);
    Ok(command)
}

fn ceiling(target: &str, profile: Profile) -> Result<u64> {
    let file = root().join("cross/targets.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let targets: toml::Table = text.parse().with_context(|| format!("{} is not TOML", file.display()))?;
    let known = targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let entry = targets.get(target).with_context(|| format!("unknown target {target}; known: {known}"))?;
    let key = format!("{}_ceiling_bytes", profile.name());
    let bytes = entry.get(&key).and_then(toml::Value::as_integer);
    let bytes = bytes.with_context(|| format!("no {key} in cross/targets.toml"))?;
    u64::try_from(bytes).context("negative ceiling")
}

/// Makes sure that Rust's standard library is there for a target.
///
/// # Errors
/// When it can't be had.
pub(crate) fn ensure_std(target: &str) -> Result<()> {
    let libdir = output(program("rustc").args(["--print", "target-libdir", "--target", target]));
    let has_std = libdir.is_ok_and(|path| PathBuf::from(path.trim()).is_dir());
    if has_std {
        return Ok(());
    }
    eprintln!("installing Rust's standard library for {target}: rustup target add {target}");
    check(program("rustup").args(["target", "add", target])).with_context(|| {
        format!("Rust's standard library for {target} is missing; with rustup: rustup target add {target}")
    })
}
