//! Another passphrase for key files that are there: every one is opened before the first is written, and each is
//! replaced as a whole. After a power cut between two of them the same command goes on where it stopped.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use trust::{Ed25519Signer, KeyId, PublicKey, Signer as _};

use super::{Keyring, KeyringError, NEW_PASSPHRASE, chosen, file, public_file, write_private};

/// Where private keys lie: those in use, those that wait, those that were replaced.
const FOLDERS: [&str; 6] = ["", "models", "next", "next/models", "retired", "retired/models"];

/// A key under its new passphrase.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Its file's name in the key folder, without `.pem`.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: KeyId,
}

/// The passphrase that is to come, from the environment or typed twice.
///
/// # Errors
/// When there is nobody to ask, or it is too short.
pub(crate) fn new_passphrase() -> Result<String, KeyringError> {
    chosen(NEW_PASSPHRASE, "new passphrase of the keys: ")
}

/// A key file that was read.
struct KeyFile {
    name: String,
    path: PathBuf,
    pem: String,
}

impl Keyring {
    /// Changes the passphrase of the named keys, or of all. Keys in the clear are encrypted from now on; a public half
    /// that is missing is written, as beside a key of another program. The new one is asked for when the present one is
    /// known to be right.
    ///
    /// # Errors
    /// When a passphrase can't be had or is wrong, or a file can't be written; what was not reached then stays as it was.
    pub(crate) fn change_passphrase(
        &mut self,
        names: &[String],
        new: impl FnOnce() -> Result<String, KeyringError>,
    ) -> Result<Vec<Changed>> {
        let files = self.chosen_files(names)?;
        let mut keys = Vec::new();
        for file in &files {
            match self.open_pem(file.path.clone(), &file.pem) {
                // Perhaps an earlier run was cut off after this one.
                Err(KeyringError::Locked { .. }) => keys.push(None),
                opened => keys.push(Some(opened?)),
            }
        }
        if keys.iter().all(Option::is_none) {
            return Err(KeyringError::Locked { path: files[0].path.clone() }.into());
        }
        let new = new()?;
        let mut written = Vec::new();
        for (key, file) in keys.into_iter().zip(files) {
            let locked = || KeyringError::Locked { path: file.path.clone() };
            let key = match key {
                Some(key) => key,
                None => file::open_encrypted(&file.pem, &new).map_err(|_| locked())?,
            };
            belongs(&key, &file.path)?;
            written.push((begin(&file.path, &key, &new)?, key.public_key(), file));
        }
        written.into_iter().map(|(begun, public, file)| commit(begun, &public, file)).collect()
    }

    /// Names of the other encrypted keys of this folder, which keep their passphrase.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(crate) fn encrypted_beside(&self, changed: &[Changed]) -> Result<Vec<String>> {
        let is_other = |file: &KeyFile| {
            file::is_encrypted(&file.pem) && !changed.iter().any(|changed| changed.name == file.name)
        };
        Ok(self.key_files()?.into_iter().filter(is_other).map(|file| file.name).collect())
    }

    fn chosen_files(&self, names: &[String]) -> Result<Vec<KeyFile>> {
        let files = self.key_files()?;
        let there = || files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ");
        if files.is_empty() {
            bail!("{} holds no keys", self.folder.display());
        }
        let is_named = |file: &KeyFile, name: &String| {
            let name = name.as_str();
            file.name == name || file.name.strip_prefix("models/") == Some(name)
        };
        if let Some(name) = names.iter().find(|name| !files.iter().any(|file| is_named(file, name))) {
            bail!("{} holds no key {name:?}, but: {}", self.folder.display(), there());
        }
        let is_wanted = |file: &KeyFile| names.is_empty() || names.iter().any(|name| is_named(file, name));
        Ok(files.into_iter().filter(is_wanted).collect())
    }

    fn key_files(&self) -> Result<Vec<KeyFile>> {
        let mut files = Vec::new();
        for folder in FOLDERS {
            let shown = || format!("cannot list {}", self.folder.join(folder).display());
            let entries = match fs::read_dir(self.folder.join(folder)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.with_context(shown)?,
            };
            for entry in entries {
                let path = entry.with_context(shown)?.path();
                let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some(name) = file_name.strip_suffix(".pem") else { continue };
                let name = Path::new(folder).join(name).to_string_lossy().into_owned();
                let pem = file::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                files.push(KeyFile { name, path, pem });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }
}

/// Whoever opens a file by another's key would find it out at the next signature, with the old passphrase gone.
fn belongs(key: &Ed25519Signer, path: &Path) -> Result<()> {
    let public = public_file(path);
    let bytes = match fs::read(&public) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes.with_context(|| format!("cannot read {}", public.display()))?,
    };
    let listed: PublicKey =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", public.display()))?;
    if listed.is_same(&key.public_key()) {
        return Ok(());
    }
    Err(KeyringError::Mixed { path: path.to_owned() }.into())
}

/// The new file beside the old one; it vanishes unless it is committed. Only its owner reads it.
fn begin(path: &Path, key: &Ed25519Signer, passphrase: &str) -> Result<tempfile::NamedTempFile> {
    let shown = || format!("cannot write {}", path.display());
    let pem = file::encrypted(key, passphrase).context("the key can't be encoded")?;
    let mut begun =
        tempfile::NamedTempFile::new_in(path.parent().with_context(shown)?).with_context(shown)?;
    begun.write_all(pem.as_bytes()).with_context(shown)?;
    begun.as_file().sync_all().with_context(shown)?;
    Ok(begun)
}

fn commit(begun: tempfile::NamedTempFile, key: &PublicKey, file: KeyFile) -> Result<Changed> {
    let shown = || format!("cannot write {}", file.path.display());
    begun.persist(&file.path).map_err(|error| error.error).with_context(shown)?;
    let folder = file.path.parent().with_context(shown)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(shown)?;
    let public = public_file(&file.path);
    if !public.exists() {
        write_private(&public, &serde_json::to_vec_pretty(key)?)?;
    }
    Ok(Changed { name: file.name, id: key.id() })
}
