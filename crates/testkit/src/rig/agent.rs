//! One `flotilla-agent`, its own device with its own identity.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::process::{Process, free_port, wait_until};

/// What a test or the demo changes about an agent, by ordinary configuration.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// Device id to enrol under.
    pub device: String,
    /// A program that runs the agent, with its arguments: an emulator for another CPU.
    pub runner: Vec<String>,
    /// More lines of TOML, sections included (not `[serve]`).
    pub extra_config: String,
    /// More environment variables.
    pub env: Vec<(String, String)>,
}

/// An agent, running or not.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    folder: PathBuf,
    options: AgentOptions,
    port: u16,
    process: Option<Process>,
}

impl Agent {
    /// Writes the configuration and enrols with a one-time token; doesn't run it yet.
    ///
    /// # Errors
    /// When enrolment is refused; what the agent printed is in the error.
    pub fn enroll(binary: &Path, folder: &Path, options: AgentOptions, token: &str) -> Result<Self> {
        let agent = Self::configure(binary, folder, options)?;
        agent.try_enroll(token)?;
        Ok(agent)
    }

    /// Writes the configuration only.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn configure(binary: &Path, folder: &Path, options: AgentOptions) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let port = free_port()?;
        let config = format!(
            "state_dir = {state:?}\n\n[serve]\nlisten = \"127.0.0.1:{port}\"\n\n{extra}",
            state = folder.join("state").display().to_string(),
            extra = options.extra_config,
        );
        std::fs::write(folder.join("agent.toml"), config)?;
        Ok(Self { binary: binary.into(), folder: folder.into(), options, port, process: None })
    }

    /// Enrols with a one-time token.
    ///
    /// # Errors
    /// When it is refused; what the agent printed is in the error.
    pub fn try_enroll(&self, token: &str) -> Result<()> {
        let (program, mut args) = self.command();
        let config = self.folder.join("agent.toml").display().to_string();
        let words = ["enroll", "--config", &config, "--token", token, "--device-id", &self.options.device];
        args.extend(words.map(str::to_owned));
        let output =
            std::process::Command::new(program).args(args).envs(self.options.env.iter().cloned()).output()?;
        if !output.status.success() {
            bail!(
                "enrolment of {} failed: {}",
                self.options.device,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Runs another command of its binary with its configuration.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(&self, words: &[&str]) -> Result<std::process::Output> {
        self.run_with(&self.folder.join("agent.toml"), words)
    }

    /// As [`run`](Self::run), with another configuration.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run_with(&self, config: &Path, words: &[&str]) -> Result<std::process::Output> {
        let (program, mut args) = self.command();
        args.extend(words.iter().map(|word| (*word).to_owned()));
        args.extend(["--config".to_owned(), config.display().to_string()]);
        let mut command = std::process::Command::new(program);
        command.args(args).envs(self.options.env.iter().cloned());
        command.output().with_context(|| format!("cannot start {}", self.binary.display()))
    }

    /// Starts it and returns when its local API answers.
    ///
    /// # Errors
    /// When it ends or doesn't answer within a minute.
    pub fn start(&mut self) -> Result<()> {
        self.process = None;
        let (program, mut args) = self.command();
        args.extend(["run".into(), "--config".into(), self.folder.join("agent.toml").display().to_string()]);
        let log = self.folder.join("agent.log");
        // One device is no crowd: tests need not wait for its turn.
        let mut env = vec![("FLOTILLA_UPDATE_START_JITTER_S".to_owned(), "0".to_owned())];
        env.extend(self.options.env.iter().cloned());
        let mut process = Process::start(&self.options.device, &program, args, &env, &log)?;
        let live = format!("{}/v2/health/live", self.url());
        wait_until("the agent's local API", Duration::from_mins(1), || {
            process.check_running()?;
            Ok(ureq::get(&live).call().is_ok().then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it politely.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Environment variables from the next start on, in place of those it had.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.options.env = env;
    }

    /// Device id.
    pub fn device(&self) -> &str {
        &self.options.device
    }

    /// Address of its local API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its folder: `agent.toml`, `agent.log`, `state/`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What `flotilla-agent status --json` shows, asked over its local API.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn status(&self) -> Result<Value> {
        Ok(ureq::get(format!("{}/status", self.url())).call()?.body_mut().read_json()?)
    }

    /// The running process, to measure it or to signal it.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent doesn't run")
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    fn command(&self) -> (PathBuf, Vec<String>) {
        let binary = self.binary.display().to_string();
        match self.options.runner.split_first() {
            Some((runner, rest)) => (runner.into(), rest.iter().cloned().chain([binary]).collect()),
            None => (self.binary.clone(), Vec::new()),
        }
    }
}
