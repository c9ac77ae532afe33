//! The command line. Results go to stdout, talk to stderr.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use clap::{Args, Parser, Subcommand};
use protocol::{DeviceId, ModelName};

use crate::config::{Config, ConfigErrors, DEFAULT_STATE_DIR, Origin, RawConfig};

/// Where the configuration is looked for when no file is named; it may be absent there.
const DEFAULT_FILE: &str = "/etc/flotilla/agent.toml";

/// Runs signed models on this device and reports to its fleet.
#[derive(Debug, Parser)]
#[command(name = "flotilla-agent", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Where settings come from.
    #[command(flatten)]
    pub settings: Settings,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where settings come from; later ones win: file, environment (FLOTILLA_*), flags.
#[derive(Debug, Default, Args)]
pub struct Settings {
    /// Configuration file [default: /etc/flotilla/agent.toml if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "FLOTILLA_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets one key, e.g. --set link.keep_alive_s=10; may repeat
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder for identity, models and telemetry (the key state_dir)
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The file's text as it was read first.
    #[arg(skip)]
    pub text: OnceLock<Vec<u8>>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until stopped
    Run,
    /// Make this device's keys and get its certificate with a one-time token
    Enroll {
        /// The token's text, from the console or `flotilla device token`
        #[arg(long, env = "FLOTILLA_ENROLLMENT_TOKEN", hide_env_values = true)]
        token: String,
        /// The device's name; may be left out when the token fixes it
        #[arg(long)]
        device_id: Option<DeviceId>,
        /// Replace an existing identity
        #[arg(long)]
        force: bool,
    },
    /// Take a release from an archive made by `flotilla export`, while the agent is stopped
    Import {
        /// The archive; - reads standard input
        file: PathBuf,
    },
    /// Ask the running agent what runs, since when, what waits, what is wrong and what to do
    Status {
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at everything that the agent stands on, and say what to do where it is not well
    Doctor {
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a model over a CSV file, a JSONL file or a folder of pictures, without a server
    RunBatch(Batch),
    /// Check the configuration and say where each problem is
    CheckConfig,
}

/// What `run-batch` is asked.
#[derive(Debug, Args)]
pub struct Batch {
    /// The model; may be left out when this device holds one
    #[arg(long)]
    pub model: Option<ModelName>,
    /// A .csv file with a head, a .jsonl file of requests, or a folder of PNG and JPEG pictures
    #[arg(long, value_name = "PATH")]
    pub input: PathBuf,
    /// A .csv or .jsonl file; - prints JSONL
    #[arg(long, value_name = "PATH", default_value = "-")]
    pub output: PathBuf,
    /// The column of the CSV file that holds the true class: it is not fed, and right answers are counted
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub label: Option<String>,
    /// Draw no progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// The name of a column.
fn column(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        Err("expected the name of a column, got a blank")
    } else {
        Ok(text.to_owned())
    }
}

/// What was read at last, so that a later reading is not content with less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file; none when none was named and there was none at the usual place.
    file: Option<PathBuf>,
    /// Whether it gave any key.
    has_keys: bool,
}

impl Settings {
    /// The configuration from file, environment and flags.
    ///
    /// # Errors
    /// [`ConfigErrors`] with all problems.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        self.first().map(|(config, _)| config)
    }

    /// The same, with what [`Settings::again`] has to know.
    ///
    /// # Errors
    /// As above.
    pub fn first(&self) -> Result<(Config, Source), ConfigErrors> {
        let file = self.file();
        let raw = RawConfig::default();
        let raw = file.iter().fold(raw, |raw, file| raw.with_file_kept(file, &self.text));
        self.checked(raw, file)
    }

    /// The configuration of an agent that runs, anew. A file that was there is asked for, and one that gave keys still
    /// has to give some.
    ///
    /// # Errors
    /// As above; also for what is no regular file, because its text came only once.
    pub fn again(&self, before: &Source) -> Result<(Config, Source), ConfigErrors> {
        let file = before.file.clone().or_else(|| self.file());
        let raw = RawConfig::default();
        let raw = file.iter().fold(raw, |raw, file| raw.with_file_again(file, before.has_keys));
        self.checked(raw, file)
    }

    /// Reads it anew each time, as [`Settings::again`]; what was accepted is what the next one is held against.
    pub fn rereader(
        self,
        source: Source,
    ) -> impl Fn() -> Result<Config, ConfigErrors> + Send + Sync + 'static {
        let source = Mutex::new(source);
        move || {
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let (config, now) = self.again(&source)?;
            *source = now;
            Ok(config)
        }
    }

    /// The agent's folder, as far as it can be told although the configuration is wrong. None where a file that was named
    /// says nothing of it: the usual folder is another agent's then.
    pub fn folder(&self) -> Option<PathBuf> {
        let raw = self.text.get().map_or_else(RawConfig::default, |text| RawConfig::of_folder(text));
        let named = self.with_surroundings(raw).folder();
        named.or_else(|| self.config.is_none().then(|| DEFAULT_STATE_DIR.into()))
    }

    fn file(&self) -> Option<PathBuf> {
        let default = PathBuf::from(DEFAULT_FILE);
        self.config.clone().or_else(|| default.exists().then_some(default))
    }

    fn checked(&self, raw: RawConfig, file: Option<PathBuf>) -> Result<(Config, Source), ConfigErrors> {
        let source = Source { file, has_keys: !raw.says_nothing() };
        let config = self.with_surroundings(raw).check()?;
        Ok((config, source))
    }

    /// With environment and flags.
    fn with_surroundings(&self, mut raw: RawConfig) -> RawConfig {
        // From the shell's own folder, as any command takes a path; the key itself must begin with /, because a daemon's
        // folder is another one each time.
        let state_dir =
            self.state_dir.as_ref().map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.clone()));
        if let Some(dir) = state_dir.as_ref().filter(|dir| dir.to_str().is_none()) {
            raw = raw.refuse(Origin::Flag, "--state-dir in UTF-8", &dir.to_string_lossy());
        }
        let state_dir = state_dir.map(|dir| format!("state_dir={}", dir.display()));
        let flags = self.set.iter().chain(&state_dir).map(String::as_str);
        raw.with_environment(std::env::vars_os()).with_flags(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn the_flag_takes_a_folder_from_here_and_the_key_takes_none() {
        let load = |args: &[&str]| {
            let args = ["flotilla-agent", "check-config"].iter().chain(args);
            Cli::try_parse_from(args).unwrap().settings.load()
        };
        let here = std::env::current_dir().unwrap();
        assert_eq!(load(&["--state-dir", "./cam-1"]).unwrap().state_dir, here.join("cam-1"));
        assert_eq!(load(&["--state-dir", "/x"]).unwrap().state_dir, std::path::Path::new("/x"));
        let refused = load(&["--set", "state_dir=cam-1"]).unwrap_err().to_string();
        assert!(refused.contains("state_dir = \"cam-1\": expected a path that begins with /"), "{refused}");
    }

    #[test]
    fn a_running_agent_asks_for_the_file_that_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let settings = Settings { config: Some(path.clone()), set: Vec::new(), ..Settings::default() };
        std::fs::write(&path, "").unwrap();
        let (_, empty) = settings.first().unwrap();
        let (config, same) = settings.again(&empty).unwrap();
        assert!(!config.capture.consent && same == empty, "it says no less than before");
        std::fs::write(&path, "[capture]\nconsent = true\n").unwrap();
        let (config, full) = settings.again(&empty).unwrap();
        assert!(config.capture.consent);
        std::fs::write(&path, "").unwrap();
        assert!(settings.again(&full).unwrap_err().to_string().contains("an empty file"));
        std::fs::remove_file(&path).unwrap();
        // As if it had been found at the usual place, where it may be absent at a start.
        let unnamed = Settings { config: None, ..settings };
        assert!(unnamed.again(&full).unwrap_err().to_string().contains("no such file"));
    }

    #[test]
    fn the_first_start_takes_its_configuration_from_a_pipe_and_no_reload_does() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"[capture]\nconsent = true\n").unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let settings = Settings { config: Some(path), set: Vec::new(), ..Settings::default() };
        let (config, source) = settings.first().unwrap();
        assert!(config.capture.consent);
        assert!(settings.again(&source).unwrap_err().to_string().contains("expected a regular file"));
    }

    #[test]
    fn the_folder_is_found_in_a_file_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        let folder = |text: &[u8], state_dir: Option<&str>| {
            std::fs::write(&file, text).unwrap();
            let state_dir = state_dir.map(PathBuf::from);
            let settings = Settings { config: Some(file.clone()), state_dir, ..Settings::default() };
            settings.load().unwrap_err();
            settings.folder()
        };
        let cam = Some(PathBuf::from("/cam-1"));
        assert_eq!(folder(b"state_dir = \"/cam-1\"\n[serve]\nlisten = 7\n", None), cam);
        assert_eq!(folder(b"x = [\nstate_dir = \"/cam-1\" # here\n[serve\n", None), cam);
        assert_eq!(folder(b"\xff\nstate_dir = \"/cam-1\"\n", None), cam);
        assert_eq!(folder(b"[serve\nstate_dir = \"/of-a-section\"\n", None), None);
        assert_eq!(folder(b"state_dir = 7", None), None);
        assert_eq!(folder(b"[", Some("/cam-1")), cam);
        std::fs::remove_file(&file).unwrap();
        let gone = Settings { config: Some(file), ..Settings::default() };
        assert!(gone.load().is_err() && gone.folder().is_none());
        assert_eq!(Settings::default().folder(), Some(DEFAULT_STATE_DIR.into()));
    }

    #[test]
    fn a_folder_that_is_no_text_is_refused_and_not_replaced_by_another() {
        let dir = PathBuf::from(std::ffi::OsStr::from_bytes(b"/caf\xe9"));
        let settings = Settings { state_dir: Some(dir), ..Settings::default() };
        let text = settings.load().unwrap_err().to_string();
        assert!(text.contains("expected --state-dir in UTF-8"), "{text}");
    }

    #[test]
    fn command_line_is_consistent_and_config_may_follow_the_command() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["flotilla-agent", "run", "--config", "a.toml", "--set", "log.filter=debug"])
                .unwrap();
        assert_eq!(cli.settings.config, Some("a.toml".into()));
        let batch = |label| {
            Cli::try_parse_from(["flotilla-agent", "run-batch", "--input", "a.csv", "--label", label])
        };
        assert!(batch("class").is_ok() && batch("").is_err() && batch(" ").is_err());
        let cli = Cli::try_parse_from(["flotilla-agent", "enroll", "--token", "t", "--device-id", "cam-1"])
            .unwrap();
        assert!(matches!(cli.command, Command::Enroll { device_id: Some(_), .. }));
        assert!(
            Cli::try_parse_from(["flotilla-agent", "enroll", "--token", "t", "--device-id", "../x"]).is_err()
        );
    }
}
