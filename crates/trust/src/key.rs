//! Public keys, their ids, and signing behind a trait.
//!
//! A key is known by its (keytype, scheme) pair; a pair that this build doesn't know never counts (attack A10), and
//! never stands in the way of the others. The id under which metadata lists a key is a name and nothing more: the
//! specification lets repositories choose it, so two ids may name one key, which then counts once (attack A2).

mod ecdsa;
mod pem;
#[cfg(feature = "rsa")]
mod rsa;
mod signer;

use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::json::Json;

#[cfg(feature = "sign")]
pub use ecdsa::EcdsaSigner;
pub use signer::{Ed25519Signer, SignError, Signer};

/// Names a key in metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From text, such as in a signature that was sent.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A pair that this build doesn't know.
    #[error("unknown key type {keytype:?} with scheme {scheme:?}")]
    Unknown {
        /// As written.
        keytype: String,
        /// As written.
        scheme: String,
    },
    /// The pair is known but the value is no such key.
    #[error("not a valid {0} public key")]
    Malformed(&'static str),
}

/// A key as it stands in metadata: any pair is kept, so that a newer repository can still be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    keytype: String,
    scheme: String,
    keyval: serde_json::Map<String, serde_json::Value>,
}

/// A key that can verify.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verifier {
    Ed25519(Box<VerifyingKey>),
    EcdsaP256(ecdsa::Key),
    #[cfg(feature = "rsa")]
    RsaPss(rsa::Key),
}

impl PublicKey {
    /// An ed25519 key from its 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when they are no point of the curve, or a weak one.
    pub fn ed25519(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = Self::ed25519_text(bytes);
        key.verifier().map(|_| key)
    }

    fn ed25519_text(bytes: &[u8; 32]) -> Self {
        Self::pair("ed25519", "ed25519", hex::encode(bytes))
    }

    fn pair(keytype: &str, scheme: &str, public: String) -> Self {
        let keyval = serde_json::Map::from_iter([("public".to_owned(), public.into())]);
        Self { keytype: keytype.into(), scheme: scheme.into(), keyval }
    }

    /// Its id: SHA-256 of its canonical form, as the specification recommends.
    pub fn id(&self) -> KeyId {
        let value =
            serde_json::json!({"keytype": self.keytype, "scheme": self.scheme, "keyval": self.keyval});
        let canonical = Json::from_value(&value).map(|json| json.canonical()).unwrap_or_default();
        KeyId(hex::encode(Sha256::digest(canonical)))
    }

    /// `ed25519`, ...
    pub fn keytype(&self) -> &str {
        &self.keytype
    }

    /// Whether this build can verify with it.
    ///
    /// # Errors
    /// [`KeyError`] says why not.
    pub fn check(&self) -> Result<(), KeyError> {
        self.verifier().map(|_| ())
    }

    /// Whether `signature` over `message` is this key's.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier().is_ok_and(|key| key.verifies(message, signature))
    }

    /// Whether both are the same key, however each is written.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.verifier(), other.verifier()) {
            (Ok(one), Ok(two)) => one == two,
            _ => self == other,
        }
    }

    pub(crate) fn verifier(&self) -> Result<Verifier, KeyError> {
        let public = self.keyval.get("public").and_then(|v| v.as_str()).unwrap_or_default();
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => ed25519(public),
            // Before version 1.0.0 of securesystemslib the scheme's name stood in both places.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                ecdsa::Key::parse(public).map(Verifier::EcdsaP256)
            }
            #[cfg(feature = "rsa")]
            ("rsa", "rsassa-pss-sha256") => rsa::Key::parse(public).map(Verifier::RsaPss),
            _ => Err(KeyError::Unknown { keytype: self.keytype.clone(), scheme: self.scheme.clone() }),
        }
    }
}

fn ed25519(public: &str) -> Result<Verifier, KeyError> {
    let malformed = KeyError::Malformed("ed25519");
    let mut bytes = [0; 32];
    hex::decode_to_slice(public, &mut bytes).map_err(|_| malformed.clone())?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| malformed.clone())?;
    if key.is_weak() { Err(malformed) } else { Ok(Verifier::Ed25519(Box::new(key))) }
}

impl Verifier {
    /// What makes two keys the same key, whatever id they are listed under.
    pub(crate) fn identity(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [b"ed25519:", &key.to_bytes()[..]].concat(),
            Self::EcdsaP256(key) => [b"ecdsa-p256:", key.point()].concat(),
            #[cfg(feature = "rsa")]
            Self::RsaPss(key) => [b"rsa:", &key.modulus()[..]].concat(),
        }
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::EcdsaP256(key) => key.verifies(message, signature),
            #[cfg(feature = "rsa")]
            Self::RsaPss(key) => key.verifies(message, signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_verifies_only_for_its_key_and_message() {
        let (a, b) = (Ed25519Signer::from_seed(&[1; 32]), Ed25519Signer::from_seed(&[2; 32]));
        let signature = a.sign(b"m").unwrap();
        assert!(a.public_key().verifies(b"m", &signature));
        assert!(!a.public_key().verifies(b"n", &signature));
        assert!(!b.public_key().verifies(b"m", &signature));
        assert!(!a.public_key().verifies(b"m", &signature[..63]));
    }

    #[test]
    fn a10_unknown_pairs_never_verify() {
        let key: PublicKey =
            serde_json::from_str(r#"{"keytype":"ed25519","scheme":"none","keyval":{"public":"00"}}"#)
                .unwrap();
        assert!(matches!(key.check(), Err(KeyError::Unknown { .. })));
        assert!(!key.verifies(b"", b""));
        assert!(PublicKey::ed25519(&[0; 32]).is_err(), "a weak point");
    }

    #[test]
    fn a10_a_key_is_never_read_as_one_of_another_type() {
        let ed25519 = hex::encode(Ed25519Signer::from_seed(&[1; 32]).public_bytes());
        for (keytype, scheme) in [
            ("ecdsa", "ecdsa-sha2-nistp256"),
            ("rsa", "rsassa-pss-sha256"),
            ("ed25519", "ecdsa-sha2-nistp256"),
        ] {
            let key = PublicKey::pair(keytype, scheme, ed25519.clone());
            assert!(key.check().is_err(), "{keytype} {scheme}");
        }
    }
}
