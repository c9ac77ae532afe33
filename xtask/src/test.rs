//! `cargo xtask test`: everything that can be checked, in an order that fails early.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::builds;
use crate::demo;
use crate::package::{self, Profile};
use crate::run::{cargo, check, output, play, program, root, target_folder};
use crate::serving::Serving;
use crate::tools;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these steps.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,
    /// Leave these steps out.
    #[arg(long, value_enum, value_delimiter = ',')]
    skip: Vec<Step>,
    /// Fail where a part of a step could not be played on this machine. What needs the network, the list of advisories, is
    /// only told.
    #[arg(long)]
    complete: bool,
}

/// The steps, in the order they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Step {
    /// rustfmt.
    Format,
    /// Arrows, fences, sizes, secrets.
    Tidy,
    /// The console's types, lints, unit tests and build.
    Console,
    /// clippy on every crate and test, warnings are errors.
    Lint,
    /// Licences, sources, bans and advisories of every dependency.
    Deny,
    /// Unit and integration tests of every crate, with a real PostgreSQL.
    Unit,
    /// The inference crate's tests on emulated ARM: aarch64 with and without the dot product, and 32 bits. Only when
    /// asked for, since it compiles the model runtime for two more targets. Installs qemu-user and Debian's cross
    /// compiler for armhf, and Rust's standard library for both.
    Emulated,
    /// Our TUF client and python-tuf's, each against the other's repositories; models signed by model-signing; key files
    /// of OpenSSL.
    Interop,
    /// The unmodified `tritonclient` from PyPI against a real agent.
    Client,
    /// A watched folder, a local broker (Debian's mosquitto) and batches of files, on a real agent.
    Local,
    /// The demo's story with its outcomes asserted, then the browser tests against that very fleet.
    Demo,
    /// The cross-built agent on an emulated device against the real server, then faults around a real fleet.
    Firmware,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let is_wanted = |step: &Step| {
        let is_chosen = if args.only.is_empty() { step.is_default() } else { args.only.contains(step) };
        is_chosen && !args.skip.contains(step)
    };
    crate::checkout::claim()?;
    let begun = Instant::now();
    let mut times: Vec<(Step, Duration)> = Vec::new();
    let mut not_played: Vec<String> = Vec::new();
    for step in Step::value_variants().iter().copied().filter(is_wanted) {
        println!("\n== {step:?}");
        let start = Instant::now();
        not_played.extend(step.run().with_context(|| {
            format!("step {step:?} failed; run it alone with: cargo xtask test --only {}", step.word())
        })?);
        times.push((step, start.elapsed()));
    }
    println!("\nwhat was played passed in {} s:", begun.elapsed().as_secs());
    for (step, time) in times {
        println!("  {:<10}{:>5} s", step.word(), time.as_secs());
    }
    tell(&not_played);
    let missing = not_played.iter().filter(|line| !line.starts_with(ADVISORIES)).count();
    if args.complete && missing > 0 {
        bail!("not complete: {missing} parts were not played on this machine");
    }
    Ok(())
}

/// Nobody shall take it for tested.
fn tell(not_played: &[String]) {
    if not_played.is_empty() {
        return println!("\nall of it was played");
    }
    println!("\n!! NOT TESTED on this machine, {} parts:", not_played.len());
    for line in not_played {
        println!("!!   {line}");
    }
}

impl Step {
    fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn is_default(self) -> bool {
        self != Self::Emulated
    }

    /// Returns what was not played.
    fn run(self) -> Result<Vec<String>> {
        match self {
            Self::Deny => return deny(),
            Self::Firmware => return firmware(),
            Self::Format => check(cargo().args(["fmt", "--all", "--", "--check"])),
            Self::Tidy => crate::tidy::main(),
            Self::Console => console(),
            Self::Lint => check(cargo().args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ])),
            Self::Unit => unit(),
            Self::Emulated => crate::emulated::main(),
            Self::Interop => interop(),
            Self::Client => client(),
            Self::Local => crate::local::main(),
            Self::Demo => story_and_browser(),
        }?;
        Ok(Vec::new())
    }
}

fn console() -> Result<()> {
    builds::install_console()?;
    check(&mut builds::npm(&["run", "--silent", "check"]))?;
    builds::console()
}

/// The version whose settings `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";
/// What a line about them begins with.
const ADVISORIES: &str = "advisories";

fn deny() -> Result<Vec<String>> {
    let folder = tools::cache_folder()?.join("cargo-deny");
    let binary = folder.join("bin/cargo-deny");
    let version = || output(program(&binary.to_string_lossy()).arg("--version"));
    if !version().is_ok_and(|text| text.trim().ends_with(CARGO_DENY)) {
        println!("installing cargo-deny {CARGO_DENY}: cargo install --locked cargo-deny@{CARGO_DENY}");
        check(
            cargo()
                .args(["install", "--locked", "--quiet", &format!("cargo-deny@{CARGO_DENY}"), "--root"])
                .arg(&folder)
                .env_remove("CARGO_TARGET_DIR"),
        )?;
    }
    let deny = |what: &[&str]| {
        let mut command = program(&binary.to_string_lossy());
        command.args(["--workspace", "--all-features", "check", "--hide-inclusion-graph"]).args(what);
        command
    };
    check(&mut deny(&["bans", "licenses", "sources"]))?;
    // The advisories are in a git repository on the network. Without it the rest is still checked, and it is said.
    match output(&mut deny(&["advisories"])) {
        Ok(_) => println!("advisories ok"),
        Err(error) if is_unreachable(&format!("{error:#}")) => {
            let line = format!("{ADVISORIES} NOT checked: the advisory database can't be reached from here");
            println!("{line}");
            return Ok(vec![line]);
        }
        Err(error) => bail!("{error:#}"),
    }
    Ok(Vec::new())
}

fn is_unreachable(error: &str) -> bool {
    ["failed to fetch advisory database", "failed to open advisory database"]
        .iter()
        .any(|sign| error.contains(sign))
}

fn unit() -> Result<()> {
    tools::ensure_postgresql()?;
    check(cargo().args(["test", "--workspace", "--locked", "--quiet", "--no-fail-fast"]))
}

fn interop() -> Result<()> {
    crate::interop::main()?;
    crate::signed_model::main()?;
    crate::key_files::main()
}

fn client() -> Result<()> {
    let folder = root().join("agent/tests/tritonclient");
    let packages = std::fs::read_to_string(folder.join("requirements.txt"))?;
    let python = tools::python_env("tritonclient", &packages.lines().collect::<Vec<_>>())?;
    let serving = Serving::start(&builds::binaries()?, "client-test", Vec::new())?;
    let address = serving.agent.url();
    check(
        program(&python.join("python").to_string_lossy())
            .arg(folder.join("check.py"))
            .arg(address.trim_start_matches("http://"))
            .arg(demo::example("data/held_out.csv")),
    )
}

fn story_and_browser() -> Result<()> {
    let world = demo::once(6)?;
    println!("browser tests against the demo's fleet");
    demo::browse(&world, "e2e")
}

fn firmware() -> Result<Vec<String>> {
    tools::ensure(&tools::QEMU_AARCH64)?;
    tools::ensure_file(&tools::LIBFAKETIME)?;
    tools::ensure(&tools::PYTHON)?;
    tools::ensure(&tools::STORAGE_DAEMON)?;
    let binaries = builds::binaries()?;
    let agent = package::agent("aarch64-unknown-linux-musl", Profile::Quick)?;
    let folder = binaries.agent.parent().context("a binary lies in a folder")?;
    let rig = |what: &str| -> Result<Command> {
        let mut command = program(&folder.join("firmware-tests").to_string_lossy());
        command.arg(what).arg("--binaries").arg(folder).arg("--folder").arg(target_folder()?.join(what));
        Ok(command)
    };
    let mut not_played = play(rig("smoke")?.arg("--cross-agent").arg(agent))?;
    not_played.extend(play(&mut rig("faults")?)?);
    not_played.extend(crate::firmware::kills(folder, crate::firmware::KILLS)?);
    let swapped = crate::bench::run_part(folder, "swap")?;
    println!(
        "  ok  {} swaps under load: {} requests, none failed, none wrong",
        swapped["swaps"], swapped["requests"]
    );
    not_played.extend(crate::firmware::crash(folder, crate::firmware::CRASH_STATES)?);
    Ok(not_played)
}
