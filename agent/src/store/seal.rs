//! Optional encryption of record bodies at rest: ChaCha20-Poly1305, a random nonce for each record, bound to the
//! record's number and kind. It protects what models have seen against someone who reads the disk without the key: a
//! stolen card, a disk sent in for repair. With the key in the state directory that is only worth the key's removal;
//! with the key from systemd's credentials or another device it holds for the disk alone. Numbers, kinds, times and
//! lengths stay readable, and so does everything in a running agent's memory.

use std::path::{Path, PathBuf};

use protocol::telemetry::Kind;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::spool::SpoolError;
use crate::config;
use crate::durable::{self, DurableError};

const KEY_BYTES: usize = 32;
/// A key file may hold the key as hexadecimal text with a line end.
const MAX_FILE_BYTES: u64 = 80;
const FILE: &str = "spool.key";
/// Where systemd puts a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// What a sealed body is longer by: nonce and tag.
pub(super) const OVERHEAD_BYTES: usize = NONCE_LEN + 16;
/// The proof once more, beside the database: who looks at it while the agent runs, or must not change it, can't open
/// that. In its folder, so that it goes with it.
const PROOF_FILE: &str = "key.proof";
const MAX_PROOF_BYTES: u64 = 128;
/// Sealed when the key is first used, so that another key is found out at the next start.
const PROOF: &[u8] = b"flotilla spool key";

/// A key in use.
pub(super) struct Seal {
    key: LessSafeKey,
    pub(super) path: PathBuf,
    /// Text of a key that was made now and lies nowhere yet: what is already sealed needs another one.
    unkept: Option<String>,
}

impl Seal {
    /// The key that the configuration names; a new one, for [`Seal::keep`], when it names none and `is_wanted`.
    ///
    /// # Errors
    /// [`SpoolError::KeyFile`] and [`SpoolError::Key`].
    pub(super) fn load(
        config: &config::Spool,
        state_dir: &Path,
        is_wanted: bool,
    ) -> Result<Option<Self>, SpoolError> {
        let path = place(config, state_dir);
        match durable::read_bounded(&path, MAX_FILE_BYTES).map_err(SpoolError::KeyFile)? {
            Some(bytes) => match parse(&bytes) {
                Some(key) => Ok(Some(Self::with(&key, path))),
                None => Err(SpoolError::Key { path }),
            },
            None if !is_wanted => Ok(None),
            None if config.key_file.is_some() => Err(missing(path)),
            None => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(|_| SpoolError::Seal)?;
                Ok(Some(Self { unkept: Some(hex::encode(key)), ..Self::with(&key, path) }))
            }
        }
    }

    fn with(key: &[u8; KEY_BYTES], path: PathBuf) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the length is the algorithm's");
        Self { key: LessSafeKey::new(key), path, unkept: None }
    }

    /// Makes a new key durable, before anything is sealed with it.
    pub(super) fn keep(&self) -> Result<(), SpoolError> {
        let Some(text) = &self.unkept else { return Ok(()) };
        durable::write_atomic(&self.path, text.as_bytes()).map_err(SpoolError::Files)
    }

    /// Why what is sealed can't be opened: with another key, or with one that is gone where this one was just made.
    pub(super) fn refusal(&self) -> SpoolError {
        let path = self.path.clone();
        if self.unkept.is_some() { missing(path) } else { SpoolError::OtherKey { path } }
    }

    /// The sealed body of one record; none when the system has no randomness.
    pub(super) fn seal(&self, seq: u64, kind: Kind, body: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut text = body.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), context(seq, kind), &mut text)
            .ok()?;
        Some([&nonce[..], &text].concat())
    }

    /// The body of a sealed record; none when it was sealed with another key, for another place, or was changed.
    pub(super) fn open(&self, seq: u64, kind: Kind, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let length = self.key.open_in_place(nonce, context(seq, kind), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    /// Something that only this key opens.
    pub(super) fn proof(&self) -> Option<Vec<u8>> {
        self.seal(0, Kind::Log, PROOF)
    }

    /// Whether `proof` was made by this key.
    pub(super) fn has_made(&self, proof: &[u8]) -> bool {
        self.open(0, Kind::Log, proof).is_some_and(|text| text == PROOF)
    }
}

/// Where the key lies, or should.
fn place(config: &config::Spool, state_dir: &Path) -> PathBuf {
    config.key_file.as_ref().map_or_else(|| state_dir.join(FILE), |name| located(name))
}

fn missing(path: PathBuf) -> SpoolError {
    let source = std::io::ErrorKind::NotFound.into();
    SpoolError::KeyFile(DurableError::Io { operation: "read the key in", path, source })
}

/// What is sealed waits, and the configuration leads to no key.
pub(super) fn no_key(config: &config::Spool, state_dir: &Path) -> SpoolError {
    missing(place(config, state_dir))
}

fn context(seq: u64, kind: Kind) -> Aad<Vec<u8>> {
    Aad::from(
        [b"flotilla-spool-1".as_slice(), &seq.to_be_bytes(), &[super::layout::kind_byte(kind)]].concat(),
    )
}

/// Leaves the proof that the database holds in `dir` for [`check_key`].
///
/// # Errors
/// [`SpoolError::Files`].
pub(super) fn publish_proof(dir: &Path, proof: Option<&[u8]>) -> Result<(), SpoolError> {
    let path = dir.join(PROOF_FILE);
    let known = durable::read_bounded(&path, MAX_PROOF_BYTES).ok().flatten();
    match proof {
        Some(proof) if known.as_deref() != Some(proof) => durable::write_atomic(&path, proof),
        // One of another key would accuse the one that is right.
        None if known.is_some() => durable::clear(durable::Readers::Owner, &path)
            .map_err(|source| DurableError::Io { operation: "remove", path: path.clone(), source }),
        Some(_) | None => Ok(()),
    }
    .map_err(SpoolError::Files)
}

/// Whether the key that the configuration names can be used, for who looks at it beside the agent and leaves the
/// database alone. One that is made here, and one of systemd's credentials outside of its service, are not looked
/// for. Another key than the last one is told of even where nothing waits that needs the last one, which only the
/// database knows: the agent takes the new one then.
///
/// # Errors
/// [`SpoolError::KeyFile`], [`SpoolError::Key`] and [`SpoolError::OtherKey`].
pub fn check_key(config: &config::Spool, state_dir: &Path) -> Result<(), SpoolError> {
    let is_credential = |name: &PathBuf| name.is_relative() && std::env::var_os(CREDENTIALS).is_none();
    if config.key_file.as_ref().is_none_or(is_credential) {
        return Ok(());
    }
    let Some(seal) = Seal::load(config, state_dir, config.encrypt)? else { return Ok(()) };
    let proof = state_dir.join(super::spool::FOLDER).join(PROOF_FILE);
    match durable::read_bounded(&proof, MAX_PROOF_BYTES) {
        Ok(Some(proof)) if !seal.has_made(&proof) => Err(seal.refusal()),
        _ => Ok(()),
    }
}

/// A bare name is one of systemd's credentials.
fn located(name: &Path) -> PathBuf {
    match std::env::var_os(CREDENTIALS) {
        Some(folder) if name.is_relative() => PathBuf::from(folder).join(name),
        Some(_) | None => name.to_owned(),
    }
}

fn parse(bytes: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let text = || hex::decode(std::str::from_utf8(bytes).ok()?.trim()).ok();
    bytes.try_into().ok().or_else(|| text()?.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_opens_only_with_its_key_at_its_place_and_unchanged() {
        let with = |key: [u8; 32]| Seal::with(&key, PathBuf::new());
        let seal = with([7; 32]);
        let sealed = seal.seal(5, Kind::Pane, b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + OVERHEAD_BYTES);
        assert_eq!(seal.open(5, Kind::Pane, &sealed).as_deref(), Some(&b"secret"[..]));
        assert!(seal.open(6, Kind::Pane, &sealed).is_none() && seal.open(5, Kind::Log, &sealed).is_none());
        assert!(with([8; 32]).open(5, Kind::Pane, &sealed).is_none());
        let mut changed = sealed.clone();
        changed[20] ^= 1;
        assert!(seal.open(5, Kind::Pane, &changed).is_none() && seal.open(5, Kind::Pane, b"short").is_none());
        assert!(seal.has_made(&seal.proof().unwrap()) && !seal.has_made(&sealed));
    }

    #[test]
    fn keys_are_made_once_or_read_as_bytes_or_text() {
        let dir = tempfile::tempdir().unwrap();
        let config = config::Spool::default();
        assert!(Seal::load(&config, dir.path(), false).unwrap().is_none());
        let made = Seal::load(&config, dir.path(), true).unwrap().unwrap();
        assert!(Seal::load(&config, dir.path(), false).unwrap().is_none(), "it was not kept yet");
        made.keep().unwrap();
        let proof = made.proof().unwrap();
        assert!(Seal::load(&config, dir.path(), false).unwrap().unwrap().has_made(&proof));
        let path = dir.path().join("key");
        let named = config::Spool { key_file: Some(path.clone()), ..config };
        assert!(matches!(Seal::load(&named, dir.path(), true), Err(SpoolError::KeyFile(_))));
        let wanted = config::Spool { encrypt: true, ..named.clone() };
        assert!(check_key(&wanted, dir.path()).is_err_and(|error| error.is_of_key()));
        assert!(check_key(&named, dir.path()).is_ok(), "nothing is to be sealed");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Seal::load(&named, dir.path(), true), Err(SpoolError::Key { .. })));
        std::fs::write(&path, [9; 32]).unwrap();
        let proof = Seal::load(&named, dir.path(), true).unwrap().unwrap().proof().unwrap();
        std::fs::write(&path, format!("{}\n", hex::encode([9; 32]))).unwrap();
        assert!(Seal::load(&named, dir.path(), true).unwrap().unwrap().has_made(&proof));
    }
}
