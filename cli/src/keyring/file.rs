//! One private key file: PKCS#8 version 1, which OpenSSL and Python read and write too, encrypted (PBES2 of scrypt and
//! AES-256-CBC) unless its owner asked for none.
//!
//! Version 2, which holds the public half as well, and other costs are read, too. The file itself says how much memory
//! and time its passphrase takes: what is above our bounds is refused before anything is computed.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use pkcs8::der::pem::PemLabel as _;
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use trust::Ed25519Signer;

/// scrypt of new files: N = 2^14, r = 8, p = 5, which OWASP counts as strong as N = 2^17 with p = 1. That one would
/// take 128 MiB, and OpenSSL opens nothing that takes more than 32. This crate's own tests make many; others call the
/// binary, which has no such switch.
const COST: (u8, u32, u32) = if cfg!(test) { (6, 8, 1) } else { (14, 8, 5) };
const SALT_BYTES: usize = 16;
const IV_BYTES: usize = 16;

/// Longest key file; one of ours has some 400 bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Most memory that a file may ask of scrypt, in its blocks of 128 bytes: 256 MiB.
const MAX_BLOCKS: u64 = 1 << 21;
/// Most work that a file may ask of scrypt: `N r p`, some twenty times that of a new one.
const MAX_WORK: u64 = 1 << 24;
/// Most rounds that a file may ask of PBKDF2, the usual scheme of other tools; 600,000 are recommended.
const MAX_ROUNDS: u32 = 10_000_000;

/// Why an encrypted key stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The passphrase is wrong or the file is damaged.
    Locked,
    /// It asks for more memory or time than it may.
    TooCostly,
}

/// A key file's text.
///
/// # Errors
/// When it can't be read, or is too long to be one.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut pem = String::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut pem)?;
    if pem.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(pem)
}

/// Whether it takes a passphrase.
pub(super) fn is_encrypted(pem: &str) -> bool {
    pem.contains("BEGIN ENCRYPTED PRIVATE KEY")
}

/// The text of a key file in the clear.
///
/// # Errors
/// Never for a key; the encoder's.
pub(super) fn plain(signer: &Ed25519Signer) -> Result<String> {
    Ok(version_1(signer).to_pkcs8_pem(LineEnding::LF)?.to_string())
}

/// The text of an encrypted key file.
///
/// # Errors
/// When the system gives no randomness.
pub(super) fn encrypted(signer: &Ed25519Signer, passphrase: &str) -> Result<String> {
    let mut random = [0; SALT_BYTES + IV_BYTES];
    getrandom::fill(&mut random).context("the system gives no randomness")?;
    let (salt, iv) = random.split_at(SALT_BYTES);
    let (log_n, r, p) = COST;
    let cost = scrypt::Params::new(log_n, r, p).context("scrypt refuses our own cost")?;
    let scheme = Parameters::generate_scrypt_aes256cbc(cost, salt, iv.try_into()?)?;
    let der = version_1(signer).to_pkcs8_der()?;
    let sealed = PrivateKeyInfoRef::try_from(der.as_bytes())?.encrypt_with_params(scheme, passphrase)?;
    Ok(sealed.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)?.to_string())
}

/// OpenSSL and others refuse the public half in a private key's file, so it isn't there.
fn version_1(signer: &Ed25519Signer) -> KeypairBytes {
    KeypairBytes { secret_key: signer.seed(), public_key: None }
}

/// Opens the text of a key file in the clear; none if it is no key of ours.
pub(super) fn open_plain(pem: &str) -> Option<Ed25519Signer> {
    SigningKey::from_pkcs8_pem(pem).ok().map(|key| Ed25519Signer::from_seed(&key.to_bytes()))
}

/// Opens the text of an encrypted key file.
///
/// # Errors
/// [`Closed`].
pub(super) fn open_encrypted(pem: &str, passphrase: &str) -> Result<Ed25519Signer, Closed> {
    let (label, document) = SecretDocument::from_pem(pem).map_err(|_| Closed::Locked)?;
    EncryptedPrivateKeyInfoRef::validate_pem_label(label).map_err(|_| Closed::Locked)?;
    let sealed = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| Closed::Locked)?;
    let scheme = sealed.encryption_algorithm.pbes2().ok_or(Closed::Locked)?;
    if !is_affordable(&scheme.kdf) {
        return Err(Closed::TooCostly);
    }
    let der = sealed.decrypt(passphrase).map_err(|_| Closed::Locked)?;
    let key = SigningKey::from_pkcs8_der(der.as_bytes()).map_err(|_| Closed::Locked)?;
    Ok(Ed25519Signer::from_seed(&key.to_bytes()))
}

fn is_affordable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Scrypt(cost) => {
            let (n, r) = (cost.cost_parameter, u64::from(cost.block_size));
            let p = u64::from(cost.parallelization);
            let blocks = n.max(p).checked_mul(r);
            let work = n.checked_mul(r).and_then(|blocks| blocks.checked_mul(p));
            // The library counts on N above 0.
            n > 1 && blocks.is_some_and(|b| b <= MAX_BLOCKS) && work.is_some_and(|w| w <= MAX_WORK)
        }
        Kdf::Pbkdf2(cost) => cost.iteration_count <= MAX_ROUNDS,
        // The library may learn others, of which nobody has said yet what they cost.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pkcs8::pkcs5::pbes2::{EncryptionScheme, Pbkdf2Params, Salt, ScryptParams};
    use trust::Signer as _;

    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -scrypt`; its passphrase is "correct horse".
    const OF_OPENSSL: &str = include_str!("../../tests/data/keys/openssl-scrypt.pem");
    /// The same key by `openssl pkey -aes256`, whose scheme is PBKDF2.
    const OF_OPENSSL_PBKDF2: &str = include_str!("../../tests/data/keys/openssl-pbkdf2.pem");

    #[test]
    fn files_of_openssl_and_of_earlier_versions_are_opened() {
        let keys = [OF_OPENSSL, OF_OPENSSL_PBKDF2].map(|pem| open_encrypted(pem, "correct horse").unwrap());
        assert_eq!(keys[0].public_key(), keys[1].public_key());
        // Version 2, N = 2^14, p = 1: as this program wrote them once.
        let older = SigningKey::from_bytes(&[7; 32]).to_pkcs8_encrypted_pem("correct horse", LineEnding::LF);
        let older = older.unwrap();
        let opened = open_encrypted(&older, "correct horse").unwrap();
        assert_eq!(opened.public_key(), Ed25519Signer::from_seed(&[7; 32]).public_key());
        assert_eq!(open_encrypted(&older, "wrong horse").err(), Some(Closed::Locked));
    }

    #[test]
    fn what_is_written_is_version_1_in_either_form() {
        let signer = Ed25519Signer::from_seed(&[7; 32]);
        // 48 bytes: version, algorithm and seed. The public half would make it longer.
        let (_, der) = SecretDocument::from_pem(&plain(&signer).unwrap()).unwrap();
        assert_eq!((der.as_bytes().len(), der.as_bytes()[4]), (48, 0));
        assert_eq!(open_plain(&plain(&signer).unwrap()).unwrap().public_key(), signer.public_key());
        let pem = encrypted(&signer, "correct horse").unwrap();
        let (_, der) = SecretDocument::from_pem(&pem).unwrap();
        let sealed = EncryptedPrivateKeyInfoRef::try_from(der.as_bytes()).unwrap();
        assert_eq!(sealed.decrypt("correct horse").unwrap().as_bytes().len(), 48);
        assert_eq!(open_encrypted(&pem, "correct horse").unwrap().public_key(), signer.public_key());
        assert_ne!(pem, encrypted(&signer, "correct horse").unwrap(), "each file has a salt of its own");
    }

    fn asking(kdf: Kdf) -> String {
        let encryption = EncryptionScheme::Aes256Cbc { iv: [0; 16] };
        let encryption_algorithm = Parameters { kdf, encryption }.into();
        let encrypted_data = pkcs8::der::asn1::OctetStringRef::new(&[0; 48]).unwrap();
        let sealed = EncryptedPrivateKeyInfoRef { encryption_algorithm, encrypted_data };
        let sealed = SecretDocument::try_from(sealed).unwrap();
        sealed.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).unwrap().to_string()
    }

    #[test]
    fn a_file_that_asks_for_too_much_is_refused_before_it_gets_it() {
        let scrypt = |cost_parameter, block_size, parallelization| {
            let salt = Salt::new([1; 16]).unwrap();
            let cost = ScryptParams { salt, cost_parameter, block_size, parallelization, key_length: None };
            open_encrypted(&asking(cost.into()), "x").err()
        };
        for (n, r, p) in [
            (1 << 40, 8, 1),
            (1 << 63, 65535, 65535),
            (1 << 19, 8, 1),
            (1 << 14, 8, 65535),
            (2, 65535, 65535),
            (1, 8, 1),
            (0, 8, 1),
        ] {
            assert_eq!(scrypt(n, r, p), Some(Closed::TooCostly), "N {n}, r {r}, p {p}");
        }
        assert_eq!(scrypt(1000, 8, 1), Some(Closed::Locked), "N is no power of two");
        assert_eq!(scrypt(1024, 0, 1), Some(Closed::Locked));
        assert_eq!(scrypt(1024, 8, 1), Some(Closed::Locked), "what it may ask for is tried");
        let rounds = Pbkdf2Params::hmac_sha256(MAX_ROUNDS + 1, &[1; 16]).unwrap();
        assert_eq!(open_encrypted(&asking(rounds.into()), "x").err(), Some(Closed::TooCostly));
    }

    #[test]
    fn what_is_no_key_file_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endless.pem");
        fs::write(&path, vec![b'x'; 100_000]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("longer than 65536 bytes"));
        for text in ["", "-----BEGIN ENCRYPTED PRIVATE KEY-----", &OF_OPENSSL[..200]] {
            assert_eq!(open_encrypted(text, "correct horse").err(), Some(Closed::Locked));
        }
        assert!(open_plain(OF_OPENSSL).is_none() && open_plain("").is_none());
    }
}
