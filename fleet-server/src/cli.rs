//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use flotilla_server::config::{self, Config, ConfigError};
use protocol::ProjectId;

/// Flotilla's server: keeps machine-learning models on a fleet of edge devices trustworthy.
#[derive(Debug, Parser)]
#[command(name = "flotilla-server", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server until Ctrl-C or SIGTERM.
    Run(Options),
    /// Check the configuration and print every problem.
    CheckConfig(Options),
    /// Give a user a new one-time password, when nobody can sign in to do it.
    ResetPassword {
        /// The user's name.
        user: String,
        /// Where the configuration comes from.
        #[command(flatten)]
        options: Options,
    },
    /// Forget the server's own signing keys of a project, because somebody may have copied them, and make others;
    /// devices take nothing new until a publisher has run `flotilla keys rotate server`.
    ForgetKeys {
        /// The project.
        #[arg(long, default_value = "default")]
        project: ProjectId,
        /// Where the configuration comes from.
        #[command(flatten)]
        options: Options,
    },
    /// Copy what a server can't make again to a new folder, while it runs; that folder is a data folder to start from.
    Backup {
        /// The new folder, best on another disk.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Where the configuration comes from.
        #[command(flatten)]
        options: Options,
    },
    /// Print the REST API's OpenAPI document.
    Openapi,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "FLOTILLA_SERVER_CONFIG")]
    config: Option<PathBuf>,
    /// Folder for database, blobs, certificates and keys (`data_dir`).
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address of console and REST API (`https.listen`).
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Any other key, e.g. `--set jobs.window_s=60`; may repeat.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "expected KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Options {
    /// Reads the configuration: file, then environment, then these options.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem at once.
    pub(crate) fn load(self) -> Result<Config, ConfigError> {
        let mut flags = self.set;
        flags.extend(self.data.map(|value| ("data_dir".to_owned(), value)));
        flags.extend(self.listen.map(|value| ("https.listen".to_owned(), value)));
        let environment = std::env::vars().filter(|(name, _)| name != "FLOTILLA_SERVER_CONFIG");
        config::load(self.config.as_deref(), environment, &flags)
    }
}
