//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

/// Fetch and verify files of any TUF repository.
#[derive(Debug, Parser)]
#[command(name = "tuf-client", version, about)]
pub(crate) struct Args {
    /// Folder of the trusted metadata.
    #[arg(long, global = true)]
    metadata_dir: Option<PathBuf>,
    /// Address that the repository's metadata lies under.
    #[arg(long, global = true)]
    metadata_url: Option<String>,
    /// Path of a target; may repeat, in this order.
    #[arg(long, global = true, allow_hyphen_values = true)]
    target_name: Vec<String>,
    /// Address that the repository's targets lie under.
    #[arg(long, global = true)]
    target_base_url: Option<String>,
    /// Folder for the targets.
    #[arg(long, global = true)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start from this root; no network.
    Init {
        /// A root file that came by a trusted way.
        trusted_root: PathBuf,
    },
    /// Update the top-level metadata.
    Refresh,
    /// Refresh, then fetch and verify targets.
    Download,
}

/// Which targets to fetch from where into which folder.
pub(crate) struct Wanted<'a> {
    pub(crate) names: &'a [String],
    pub(crate) base_url: &'a str,
    pub(crate) folder: &'a Path,
}

impl Args {
    /// Reads the command line; what is wrong with it ends with 1 too, as every refusal does.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            let _ = error.print();
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        })
    }

    /// The folder of the trusted metadata.
    ///
    /// # Errors
    /// When it is missing.
    pub(crate) fn metadata_dir(&self) -> Result<&Path> {
        match &self.metadata_dir {
            Some(folder) => Ok(folder),
            None => bail!("--metadata-dir is missing"),
        }
    }

    /// The metadata's address.
    ///
    /// # Errors
    /// When it is missing.
    pub(crate) fn metadata_url(&self) -> Result<&str> {
        match &self.metadata_url {
            Some(url) => Ok(url),
            None => bail!("--metadata-url is missing"),
        }
    }

    /// The wanted targets.
    ///
    /// # Errors
    /// When an option is missing.
    pub(crate) fn wanted(&self) -> Result<Wanted<'_>> {
        if self.target_name.is_empty() {
            bail!("--target-name is missing");
        }
        let Some(base_url) = &self.target_base_url else { bail!("--target-base-url is missing") };
        let Some(folder) = &self.target_dir else { bail!("--target-dir is missing") };
        Ok(Wanted { names: &self.target_name, base_url, folder })
    }
}
