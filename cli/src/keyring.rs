//! The publisher's key folder of one project: `keys/{project}` under the settings folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::settings;

/// The folder that holds a project's keys and its trusted root.
///
/// # Errors
/// When no home is set.
pub(crate) fn folder(project: &str) -> Result<PathBuf> {
    Ok(settings::folder()?.join("keys").join(project))
}

/// SHA-256 of the trusted root as hex: of `root` if given, else of the one in the key folder; none if there is none.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn root_pin(root: Option<&Path>, project: &str) -> Result<Option<String>> {
    let path = match root {
        Some(path) => path.to_owned(),
        None => folder(project)?.join("root.json"),
    };
    if root.is_none() && !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(hex::encode(Sha256::digest(bytes))))
}
