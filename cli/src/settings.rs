//! What `flotilla login` remembers: server, its CA, project and API token, in one file that only its owner reads.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// One signed-in server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Address, e.g. `https://fleet.example:8443`.
    pub(crate) server: String,
    /// The fleet's CA certificate as PEM; nothing else is trusted.
    pub(crate) ca: String,
    /// Project that commands work on unless `--project` says otherwise.
    pub(crate) project: String,
    /// Who signed in.
    pub(crate) user: String,
    /// API token.
    pub(crate) token: String,
    /// The token's id, to revoke it.
    pub(crate) token_id: String,
}

impl Settings {
    /// Reads the file; none if nobody has signed in.
    ///
    /// # Errors
    /// When it can't be read or isn't ours.
    pub(crate) fn load() -> Result<Option<Self>> {
        let path = file()?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let settings = serde_json::from_str(&text);
        settings
            .map(Some)
            .with_context(|| format!("{} is damaged; sign in again with: flotilla login", path.display()))
    }

    /// Writes the file, readable by its owner only.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn save(&self) -> Result<()> {
        let path = file()?;
        let shown = || format!("cannot write {}", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder()?).with_context(shown)?;
        let temporary = path.with_extension("new");
        let mut file = fs::OpenOptions::new();
        let mut file =
            file.write(true).create(true).truncate(true).mode(0o600).open(&temporary).with_context(shown)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
            .and_then(|()| file.sync_all())
            .with_context(shown)?;
        fs::rename(&temporary, &path).with_context(shown)
    }

    /// Forgets the server.
    ///
    /// # Errors
    /// When the file can't be removed.
    pub(crate) fn forget() -> Result<()> {
        let path = file()?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Our folder: `$XDG_CONFIG_HOME/flotilla`, or `~/.config/flotilla`. Keys live in `keys/{project}` under it.
///
/// # Errors
/// When neither variable is set.
pub(crate) fn folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match base {
        Some(base) => base,
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CONFIG_HOME nor HOME is set")?)
            .join(".config"),
    };
    Ok(base.join("flotilla"))
}

/// The project to work on without a server: as named, or the one that was signed in to.
///
/// # Errors
/// When neither names one.
pub(crate) fn project(named: Option<&str>) -> Result<String> {
    match named {
        Some(project) => Ok(project.to_owned()),
        None => Ok(Settings::load()?.context("name the project with --project, or sign in")?.project),
    }
}

fn file() -> Result<PathBuf> {
    Ok(folder()?.join("login.json"))
}
