//! The `flotilla` command line, called as an operator or publisher would.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The command line with its own configuration folder.
#[derive(Debug, Clone)]
pub struct Cli {
    binary: PathBuf,
    home: PathBuf,
    folder: PathBuf,
}

impl Cli {
    /// With its configuration and keys under `home`; relative paths are seen from `folder`.
    pub fn new(binary: &Path, home: &Path, folder: &Path) -> Self {
        Self { binary: binary.into(), home: home.into(), folder: folder.into() }
    }

    /// Runs one command and returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the error.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with(args, &[])
    }

    /// Runs one command with more environment variables.
    ///
    /// # Errors
    /// When it fails; what it said is in the error.
    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String> {
        printed(args, self.output(args, env)?)
    }

    /// Runs one command with `--json` and parses what it printed.
    ///
    /// # Errors
    /// When it fails or doesn't print JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("flotilla {} --json printed: {text}", args.join(" ")))
    }

    /// Runs one command that may fail.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn output(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        command.output().with_context(|| format!("cannot start {}", self.binary.display()))
    }

    /// Runs one command with this on its stdin and returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the error.
    pub fn run_fed(&self, args: &[&str], stdin: &str) -> Result<String> {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        let mut pipe = child.stdin.take().context("the command line has no stdin")?;
        pipe.write_all(stdin.as_bytes())?;
        drop(pipe);
        printed(args, child.wait_with_output()?)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.folder).args(args);
        command.env("XDG_CONFIG_HOME", &self.home).env("HOME", &self.home).env("XDG_DATA_HOME", &self.home);
        command
    }
}

fn printed(args: &[&str], output: Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("flotilla {} failed ({}): {}", args.join(" "), output.status, said.trim());
    }
    String::from_utf8(output.stdout).context("the command line printed something that isn't text")
}
