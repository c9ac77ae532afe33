//! Two checkouts that share a target folder. Tests have the paths of their files compiled in, and cargo takes what
//! another checkout has built for this one's, where nothing else has changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::run::{metadata, root, target_folder};

/// Which checkout has used the target folder last.
const NOTE: &str = "checkout";
/// What cargo adds to a package's name: a dash and 16 hexadecimal digits.
const SUFFIX: usize = 17;

/// Makes cargo build the workspace's own packages anew where another checkout has used the target folder last.
///
/// # Errors
/// When cargo doesn't answer, or the target folder can't be changed.
pub(crate) fn claim() -> Result<()> {
    let (target, here) = (target_folder()?, root().display().to_string());
    let note = target.join(NOTE);
    if fs::read_to_string(&note).is_ok_and(|last| last == here) {
        return Ok(());
    }
    let names = metadata()?;
    let names = names["packages"].as_array().context("cargo metadata lists no packages")?.iter();
    let names: BTreeSet<&str> = names.filter_map(|package| package["name"].as_str()).collect();
    fs::create_dir_all(&target)?;
    for profile in folders(&target)? {
        forget(&profile, &names)?;
        // Those of other targets lie one level deeper.
        folders(&profile)?.iter().try_for_each(|inner| forget(inner, &names))?;
    }
    fs::write(&note, here).with_context(|| format!("cannot write {}", note.display()))
}

fn folders(within: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(within).with_context(|| format!("cannot list {}", within.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn forget(profile: &Path, names: &BTreeSet<&str>) -> Result<()> {
    let built = profile.join(".fingerprint");
    if !built.is_dir() {
        return Ok(());
    }
    for folder in folders(&built)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name
            .split_at_checked(name.len().saturating_sub(SUFFIX))
            .is_some_and(|(name, _)| names.contains(name))
        {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}
