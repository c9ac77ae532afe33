//! `cargo xtask fuzz`: libFuzzer on every parser of outside bytes. The seeds are replayed, and bent a little, by the
//! ordinary tests too (`crates/release/tests/fuzz.rs`); this is the long run, and it needs a nightly compiler.

use anyhow::{Context as _, Result};

use crate::run::{check, output, program, root};
use crate::tools;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target; all of them in turn if not given.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// The version that `fuzz/` is laid out for.
const CARGO_FUZZ: &str = "0.13.2";

/// Fuzzes. What is found lies in `fuzz/artifacts`; commit it as `fuzz/seeds/TARGET/found-NAME` with the repair.
///
/// # Errors
/// When something is found, or a tool can't be had.
pub(crate) fn main(args: &Args) -> Result<()> {
    output(program("rustup").args(["run", "nightly", "rustc", "--version"]))
        .context("fuzzing needs a nightly compiler; install it with: rustup toolchain install nightly")?;
    let folder = tools::cache_folder()?.join("cargo-fuzz");
    let binary = folder.join("bin/cargo-fuzz");
    let fuzz = |arguments: &[&str]| {
        let mut command = program("rustup");
        command.args(["run", "nightly"]).arg(&binary).arg("fuzz").args(arguments);
        // The compiler's, not the one that runs xtask.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
        command
    };
    if !output(&mut fuzz(&["--version"])).is_ok_and(|text| text.trim().ends_with(CARGO_FUZZ)) {
        println!("installing cargo-fuzz {CARGO_FUZZ}: cargo install --locked cargo-fuzz@{CARGO_FUZZ}");
        let version = format!("cargo-fuzz@{CARGO_FUZZ}");
        check(program("cargo").args(["install", "--locked", "--quiet", &version, "--root"]).arg(&folder))?;
    }
    let targets = match &args.target {
        Some(target) => vec![target.clone()],
        None => output(&mut fuzz(&["list"]))?.lines().map(str::to_owned).collect(),
    };
    for target in targets {
        let corpus = root().join("fuzz/corpus").join(&target);
        std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        println!("fuzzing {target} for {} s", args.seconds);
        let (seeds, corpus) = (format!("fuzz/seeds/{target}"), corpus.to_string_lossy().into_owned());
        let time = format!("-max_total_time={}", args.seconds);
        check(&mut fuzz(&[
            "run",
            &target,
            &corpus,
            &seeds,
            "--",
            &time,
            "-timeout=10",
            "-rss_limit_mb=1024",
        ]))?;
    }
    Ok(())
}
