//! The publisher's key folder of one project, `keys/{project}` under the settings folder.
//!
//! `root.pem`, `targets.pem` and `models/{model}.pem` are encrypted with one passphrase unless its owner asked for
//! none; beside each stands its public half. Keys that take over once they are published wait in `next/`,
//! those that they replaced lie in `retired/`. `root.json` is the first root, to which new devices are pinned;
//! `metadata/` holds what was last published. Nothing private in here ever goes to the server.

mod file;
mod passphrase;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use trust::{Ed25519Signer, PublicKey, Signer as _};

use crate::settings;
use file::{Closed, is_encrypted};
pub(crate) use passphrase::new_passphrase;

/// Environment variable with the passphrase, for scripts.
const PASSPHRASE: &str = "FLOTILLA_PASSPHRASE";
/// The same for the one that takes its place.
const NEW_PASSPHRASE: &str = "FLOTILLA_NEW_PASSPHRASE";

/// What can be wrong with a key folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    /// No keys.
    #[error("no key {path}; make one with: {how}", path = path.display(), how = how_to_make(path))]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// A key must not be overwritten.
    #[error("{path} exists; a key is never overwritten", path = path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// The passphrase is wrong or the file is damaged.
    #[error("cannot decrypt {path}: wrong passphrase or damaged file", path = path.display())]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// The file asks for more than any of ours.
    #[error("{path} asks for more memory or time than the passphrase of a key takes; it is not opened", path = path.display())]
    TooCostly {
        /// Which file.
        path: PathBuf,
    },
    /// The two halves are of different keys.
    #[error("{path} and the public half beside it are not of one key", path = path.display())]
    Mixed {
        /// The private half.
        path: PathBuf,
    },
    /// Nobody to ask.
    #[error("no terminal to ask for the passphrase on; set {variable}")]
    NoPassphrase {
        /// The environment variable that would do.
        variable: &'static str,
    },
    /// Too short to protect anything.
    #[error("the passphrase must have at least {MIN_PASSPHRASE} characters (or say --no-passphrase)")]
    ShortPassphrase,
    /// Typed differently the second time.
    #[error("the two passphrases differ")]
    Mismatch,
}

/// The command that makes a key that is missing.
fn how_to_make(path: &Path) -> String {
    let private = path.to_str().and_then(|path| path.strip_suffix(".pub.json"));
    if private.is_some_and(|private| Path::new(&format!("{private}.pem")).exists()) {
        return "flotilla keys passphrase, with the same passphrase again".into();
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".pub.json").or_else(|| name.strip_suffix(".pem")).unwrap_or(name);
    if path.parent().is_some_and(|folder| folder.ends_with(MODELS)) {
        return format!("flotilla keys new --model {name}");
    }
    "flotilla keys init, or to join those who made the project's keys: flotilla keys new".into()
}

/// Where models' keys lie.
const MODELS: &str = "models";
/// Where keys wait that are not published yet.
const NEXT: &str = "next";
const MIN_PASSPHRASE: usize = 8;

/// Whose key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    /// The root role.
    Root,
    /// The top-level targets role.
    Targets,
    /// A model's role.
    Model(&'a str),
}

impl<'a> Owner<'a> {
    /// The role's name.
    pub(crate) fn role(self) -> &'a str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Model(model) => model,
        }
    }

    /// The owner of a key in a list.
    pub(crate) fn named(name: &'a str) -> Self {
        match name {
            "root" => Self::Root,
            "targets" => Self::Targets,
            model => Self::Model(model.strip_prefix("models/").unwrap_or(model)),
        }
    }

    fn file(self) -> PathBuf {
        match self {
            Self::Root => "root.pem".into(),
            Self::Targets => "targets.pem".into(),
            Self::Model(model) => Path::new(MODELS).join(format!("{model}.pem")),
        }
    }
}

/// How private keys are kept.
#[derive(Clone)]
pub(crate) enum Passphrase {
    /// Encrypted with this.
    Given(String),
    /// In the clear, because its owner said so.
    None,
}

impl Passphrase {
    /// For new keys: from the environment, or typed twice.
    ///
    /// # Errors
    /// [`KeyringError`] when it is too short or there is nobody to ask.
    pub(crate) fn for_new_keys(without: bool) -> Result<Self, KeyringError> {
        if without {
            return Ok(Self::None);
        }
        chosen(PASSPHRASE, "passphrase for the new keys: ").map(Self::Given)
    }
}

/// A passphrase from the environment, or typed twice.
fn chosen(variable: &'static str, prompt: &str) -> Result<String, KeyringError> {
    let passphrase = match std::env::var(variable) {
        Ok(passphrase) => passphrase,
        Err(_) => typed_twice(variable, prompt)?,
    };
    if passphrase.chars().count() < MIN_PASSPHRASE {
        return Err(KeyringError::ShortPassphrase);
    }
    Ok(passphrase)
}

fn typed_twice(variable: &'static str, prompt: &str) -> Result<String, KeyringError> {
    let ask =
        |prompt| rpassword::prompt_password(prompt).map_err(|_| KeyringError::NoPassphrase { variable });
    let first = ask(prompt)?;
    if first == ask("the same again: ")? { Ok(first) } else { Err(KeyringError::Mismatch) }
}

/// The key folder of one project, unlocked at the first private key that is needed.
pub(crate) struct Keyring {
    folder: PathBuf,
    passphrase: Option<Passphrase>,
}

/// A key in the folder.
#[derive(Debug)]
pub(crate) struct Listed {
    /// `root`, `targets` or `models/{model}`.
    pub(crate) name: String,
    /// Its public half.
    pub(crate) public: PublicKey,
    /// Whether the private half is encrypted.
    pub(crate) is_encrypted: bool,
}

impl Keyring {
    /// Of a project; nothing is read yet.
    ///
    /// # Errors
    /// When no home is set.
    pub(crate) fn of(project: &str) -> Result<Self> {
        Ok(Self { folder: folder(project)?, passphrase: None })
    }

    #[cfg(test)]
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), passphrase: None }
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, owner: Owner<'_>) -> bool {
        self.folder.join(owner.file()).exists()
    }

    /// Makes a key and keeps it.
    ///
    /// # Errors
    /// When one is there already, or it can't be written.
    pub(crate) fn create(&self, owner: Owner<'_>, passphrase: &Passphrase) -> Result<Ed25519Signer> {
        Self::create_at(self.folder.join(owner.file()), passphrase)
    }

    /// Makes the keys of these owners, all or none. A key that is there already stays, but its passphrase must be
    /// known, so that one folder never ends up with two. Asks at most once; nothing asks again after it.
    ///
    /// # Errors
    /// When the passphrase can't be had or is wrong, or a key can't be written.
    pub(crate) fn create_missing(&mut self, owners: &[Owner<'_>], without_passphrase: bool) -> Result<()> {
        let (there, missing): (Vec<_>, Vec<_>) = owners.iter().copied().partition(|owner| self.has(*owner));
        let passphrase = match there.first() {
            Some(owner) => self.passphrase_of(*owner)?,
            None => Passphrase::for_new_keys(without_passphrase)?,
        };
        self.passphrase = Some(passphrase.clone());
        for (at, owner) in missing.iter().enumerate() {
            if let Err(error) = self.create(*owner, &passphrase) {
                // Nothing was signed with them yet: half a set would only be in the way of the next try.
                // One that appeared meanwhile is somebody else's.
                let is_foreign = matches!(error.downcast_ref(), Some(KeyringError::Exists { .. }));
                for owner in missing.iter().take(if is_foreign { at } else { at + 1 }) {
                    self.unmake(*owner);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn unmake(&self, owner: Owner<'_>) {
        let path = self.folder.join(owner.file());
        for path in [public_file(&path), path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    eprintln!("cannot remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    /// Makes the key that is to take the place of the present one; it waits in `next/`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn create_next(&self, owner: Owner<'_>, passphrase: &Passphrase) -> Result<Ed25519Signer> {
        Self::create_at(self.folder.join(NEXT).join(owner.file()), passphrase)
    }

    /// Whether such a key waits.
    pub(crate) fn has_next(&self, owner: Owner<'_>) -> bool {
        self.folder.join(NEXT).join(owner.file()).exists()
    }

    /// Opens a key that waits. A public half that got lost is made anew, so that the key can take its place.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_next(&mut self, owner: Owner<'_>) -> Result<Ed25519Signer> {
        let path = self.folder.join(NEXT).join(owner.file());
        let signer = self.open_at(path.clone())?;
        if !public_file(&path).exists() {
            write_private(&public_file(&path), &serde_json::to_vec_pretty(&signer.public_key())?)?;
        }
        Ok(signer)
    }

    /// Every key that waits.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(crate) fn waiting(&self) -> Result<Vec<Listed>> {
        Self { folder: self.folder.join(NEXT), passphrase: None }.list()
    }

    /// Every key that waits and holds its role by now takes its place; the present ones go to `retired/`, for files
    /// that they signed once. One that still waits for signatures goes on waiting.
    ///
    /// # Errors
    /// When a file can't be moved.
    pub(crate) fn promote_next(&self, holds: impl Fn(Owner<'_>, &PublicKey) -> bool) -> Result<Vec<String>> {
        let mut promoted = Vec::new();
        for key in self.waiting()? {
            if !holds(Owner::named(&key.name), &key.public) {
                continue;
            }
            let place = self.folder.join(format!("{}.pem", key.name));
            if let Ok(bytes) = fs::read(public_file(&place)) {
                let old: PublicKey = serde_json::from_slice(&bytes).context("a public half is damaged")?;
                let id: String = old.id().as_str().chars().take(16).collect();
                move_key(&place, &self.folder.join("retired").join(format!("{}-{id}.pem", key.name)))?;
            }
            move_key(&self.folder.join(NEXT).join(format!("{}.pem", key.name)), &place)?;
            promoted.push(key.name);
        }
        Ok(promoted)
    }

    fn create_at(path: PathBuf, passphrase: &Passphrase) -> Result<Ed25519Signer> {
        if path.exists() {
            return Err(KeyringError::Exists { path }.into());
        }
        let signer = Ed25519Signer::generate().context("the system gives no randomness")?;
        let pem = match passphrase {
            Passphrase::Given(passphrase) => file::encrypted(&signer, passphrase),
            Passphrase::None => file::plain(&signer),
        };
        let pem = pem.context("the key can't be encoded")?;
        // The public half first: alone it is in nobody's way, while a private one alone can't be listed or named.
        write_private(&public_file(&path), &serde_json::to_vec_pretty(&signer.public_key())?)?;
        write_private(&path, pem.as_bytes())?;
        Ok(signer)
    }

    /// Opens a private key, asking for the passphrase once.
    ///
    /// # Errors
    /// [`KeyringError`] when it is missing or stays locked.
    pub(crate) fn open(&mut self, owner: Owner<'_>) -> Result<Ed25519Signer> {
        self.open_at(self.folder.join(owner.file()))
    }

    fn open_at(&mut self, path: PathBuf) -> Result<Ed25519Signer> {
        let pem = match file::read(&path) {
            Ok(pem) => pem,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(KeyringError::Missing { path }.into());
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(self.open_pem(path, &pem)?)
    }

    fn open_pem(&mut self, path: PathBuf, pem: &str) -> Result<Ed25519Signer, KeyringError> {
        let opened = if is_encrypted(pem) {
            file::open_encrypted(pem, &self.unlock()?)
        } else {
            file::open_plain(pem).ok_or(Closed::Locked)
        };
        opened.map_err(|closed| match closed {
            Closed::Locked => KeyringError::Locked { path },
            Closed::TooCostly => KeyringError::TooCostly { path },
        })
    }

    /// How this folder's keys are kept, for one more key beside them.
    ///
    /// # Errors
    /// When the passphrase can't be had.
    pub(crate) fn same_passphrase(&mut self) -> Result<Passphrase> {
        let any = [Owner::Targets, Owner::Root].into_iter().find(|owner| self.has(*owner));
        self.passphrase_of(any.unwrap_or(Owner::Targets))
    }

    fn passphrase_of(&mut self, owner: Owner<'_>) -> Result<Passphrase> {
        let path = self.folder.join(owner.file());
        let pem = file::read(&path).map_err(|_| KeyringError::Missing { path })?;
        if !is_encrypted(&pem) {
            return Ok(Passphrase::None);
        }
        self.open(owner)?; // A mistyped passphrase must not lock a new key.
        Ok(Passphrase::Given(self.unlock()?))
    }

    fn unlock(&mut self) -> Result<String, KeyringError> {
        if let Some(Passphrase::Given(passphrase)) = &self.passphrase {
            return Ok(passphrase.clone());
        }
        let passphrase = match std::env::var(PASSPHRASE) {
            Ok(passphrase) => passphrase,
            Err(_) => rpassword::prompt_password("passphrase of the keys: ")
                .map_err(|_| KeyringError::NoPassphrase { variable: PASSPHRASE })?,
        };
        self.passphrase = Some(Passphrase::Given(passphrase.clone()));
        Ok(passphrase)
    }

    /// The public half of a key, which needs no passphrase.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub(crate) fn public(&self, owner: Owner<'_>) -> Result<PublicKey> {
        let path = public_file(&self.folder.join(owner.file()));
        let bytes = fs::read(&path).map_err(|_| KeyringError::Missing { path: path.clone() })?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Where a key's public half lies.
    pub(crate) fn public_path(&self, owner: Owner<'_>) -> PathBuf {
        public_file(&self.folder.join(owner.file()))
    }

    /// Every key in the folder. One without its public half is left out, and said.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(crate) fn list(&self) -> Result<Vec<Listed>> {
        let mut names: Vec<String> = vec!["root".into(), "targets".into()];
        if let Ok(models) = fs::read_dir(self.folder.join("models")) {
            let files =
                models.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
            let models = files.filter_map(|name| Some(format!("models/{}", name.strip_suffix(".pem")?)));
            names.extend(models);
        }
        names.sort();
        let mut listed = Vec::new();
        for name in names {
            let path = self.folder.join(format!("{name}.pem"));
            let Ok(pem) = file::read(&path) else { continue };
            let Ok(bytes) = fs::read(public_file(&path)) else {
                eprintln!(
                    "note: {} has no public half, so it is left out; flotilla keys passphrase makes it",
                    path.display()
                );
                continue;
            };
            let public =
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
            listed.push(Listed { name, public, is_encrypted: is_encrypted(&pem) });
        }
        Ok(listed)
    }

    /// A file that was kept, e.g. `root.json`; none if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_private(&self.folder.join(name), bytes)
    }
}

/// Moves both halves. The public one is at both places meanwhile: wherever this is cut off, the private one has it.
fn move_key(from: &Path, to: &Path) -> Result<()> {
    let shown = || format!("cannot move {} to {}", from.display(), to.display());
    let folder = to.parent().with_context(shown)?;
    write_private(&public_file(to), &fs::read(public_file(from)).with_context(shown)?)?;
    // A private half that got lost is replaced like any other.
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(shown),
        _ => {}
    }
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(shown)?;
    fs::remove_file(public_file(from)).with_context(shown)
}

fn public_file(private: &Path) -> PathBuf {
    private.with_extension("pub.json")
}

/// Writes through a temporary file, readable by its owner only, in folders that only its owner enters.
fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = || format!("cannot write {}", path.display());
    let parent = path.parent().with_context(shown)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).with_context(shown)?;
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).with_context(shown)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(shown)?;
    fs::rename(&temporary, path).with_context(shown)?;
    fs::File::open(parent).and_then(|folder| folder.sync_all()).with_context(shown)
}

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
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(hex::encode(Sha256::digest(bytes))))
}

#[cfg(test)]
mod tests;
