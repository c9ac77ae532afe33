//! Online keys at rest: their seeds are sealed by a key file in the data folder, so that a copy of the database
//! alone signs nothing. Whoever has both has the keys; what those can do is bounded by design, not by this.

use std::path::Path;

use protocol::ProjectId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::ids::random_bytes;
use crate::pki::{PkiError, read_secret, write_secret};

const SEED_BYTES: usize = 32;

/// Why a seed can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file can't be read or written.
    #[error("the key file of the online keys can't be used")]
    File(#[from] PkiError),
    /// The key file isn't 32 bytes.
    #[error("the key file of the online keys is damaged")]
    Damaged,
    /// Sealed by another key file, for another role, or changed.
    #[error("the {role} key of project {project} was not sealed by this key file")]
    Foreign {
        /// Which project.
        project: ProjectId,
        /// Which role.
        role: String,
    },
}

/// The key that seals the online keys' seeds.
pub struct SealKey(LessSafeKey);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// Loads the key file, or makes it (mode 0600, fsynced) when there is none.
    ///
    /// # Errors
    /// [`SealError`] when it can't be read, written or is damaged.
    pub fn load_or_create(path: &Path) -> Result<Self, SealError> {
        let bytes = if let Some(bytes) = read_secret(path)? {
            bytes
        } else {
            let bytes = random_bytes::<32>().to_vec();
            write_secret(path, &bytes)?;
            bytes
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::Damaged)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals a seed for one role of one project.
    pub fn seal(&self, project: &ProjectId, role: &str, seed: &[u8; SEED_BYTES]) -> Vec<u8> {
        let nonce = random_bytes::<NONCE_LEN>();
        let mut sealed = seed.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad(project, role)),
                &mut sealed,
            )
            .expect("32 bytes are far below the cipher's bound");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens a sealed seed.
    ///
    /// # Errors
    /// [`SealError::Foreign`] when it was sealed by another key, for something else, or was changed.
    pub fn open(
        &self,
        project: &ProjectId,
        role: &str,
        sealed: &[u8],
    ) -> Result<[u8; SEED_BYTES], SealError> {
        let foreign = || SealError::Foreign { project: project.clone(), role: role.to_owned() };
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let mut rest = rest.to_vec();
        let seed =
            self.0.open_in_place(nonce, Aad::from(aad(project, role)), &mut rest).map_err(|_| foreign())?;
        <[u8; SEED_BYTES]>::try_from(&*seed).map_err(|_| foreign())
    }
}

fn aad(project: &ProjectId, role: &str) -> Vec<u8> {
    format!("flotilla-online-key-v1\0{project}\0{role}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_opens_only_with_its_key_for_its_role() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let key = SealKey::load_or_create(&path).unwrap();
        let (a, b) = (ProjectId::new("a").unwrap(), ProjectId::new("b").unwrap());
        let mut sealed = key.seal(&a, "snapshot", &[7; 32]);
        let again = SealKey::load_or_create(&path).unwrap();
        assert_eq!(again.open(&a, "snapshot", &sealed).unwrap(), [7; 32]);
        assert!(again.open(&b, "snapshot", &sealed).is_err());
        assert!(again.open(&a, "director", &sealed).is_err());
        let other = SealKey::load_or_create(&folder.path().join("other.key")).unwrap();
        assert!(other.open(&a, "snapshot", &sealed).is_err());
        sealed[20] ^= 1;
        assert!(
            again.open(&a, "snapshot", &sealed).is_err() && again.open(&a, "snapshot", b"short").is_err()
        );
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(SealKey::load_or_create(&path), Err(SealError::Damaged)));
    }
}
