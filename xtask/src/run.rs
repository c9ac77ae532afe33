//! Running other programs: always from the project's root, with what they are for in the error.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The project's root folder: of the checkout that cargo runs this for, else of the one that it was built in.
pub(crate) fn root() -> PathBuf {
    let run_for = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = run_for.filter(|folder| folder.ends_with("xtask"));
    let own = own.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    own.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's target folder.
///
/// # Errors
/// When cargo doesn't answer.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = metadata()?;
    Ok(PathBuf::from(metadata["target_directory"].as_str().context("cargo metadata names no target folder")?))
}

/// `cargo metadata` of the workspace's own packages.
///
/// # Errors
/// When cargo doesn't answer.
pub(crate) fn metadata() -> Result<serde_json::Value> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut command = program(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    // What cargo said about this package. ring's build script watches these names, so with them everything above
    // ring would be built anew whenever a plain `cargo` command and one of ours take turns.
    let of_this_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| of_this_package(name)) {
        command.env_remove(name);
    }
    command
}

/// A program, started from the root.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Runs to the end with the terminal's own input and output.
///
/// # Errors
/// When it can't be started or fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot start: {line}"))?;
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    Ok(())
}

/// What a rig's line begins with that tells what it did not play, and why.
const NOT_PLAYED: &str = "  --  ";

/// As [`check`], and returns what the rig says that it did not play.
///
/// # Errors
/// As [`check`].
pub(crate) fn play(command: &mut Command) -> Result<Vec<String>> {
    let line = shown(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start: {line}"))?;
    let output = child.stdout.take().context("no output")?;
    let mut not_played = Vec::new();
    for said in BufReader::new(output).lines() {
        let said = said.with_context(|| format!("not text: the output of {line}"))?;
        println!("{said}");
        not_played.extend(said.strip_prefix(NOT_PLAYED).map(str::to_owned));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    Ok(not_played)
}

/// As [`check`], for what prepares a command: its words go to the error stream, so that they don't mix with a result.
///
/// # Errors
/// As [`check`].
pub(crate) fn prepare(command: &mut Command) -> Result<()> {
    check(command.stdout(std::io::stderr()))
}

/// Runs to the end and returns what it printed.
///
/// # Errors
/// When it can't be started or fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start: {line}"))?;
    if !output.status.success() {
        bail!("failed ({}): {line}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("not text: the output of {line}"))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rig_did_not_play_is_heard_and_its_failure_too() {
        let say = |script: &str| play(Command::new("sh").args(["-c", script]));
        let heard = say("echo '  ok  one'; echo '  --  Disk NOT played: only root'; echo '  ok  two'");
        assert_eq!(heard.unwrap(), ["Disk NOT played: only root"]);
        assert!(say("echo '  --  Disk NOT played'; exit 3").is_err());
    }
}
