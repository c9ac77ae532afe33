//! ECDSA on P-256 with SHA-256: what many HSMs and KMSs offer. Signatures are DER, keys are PEM.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::{KeyError, pem};

/// `SubjectPublicKeyInfo` of every uncompressed P-256 key, up to the point (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// A point of the curve in uncompressed form. Whether it lies on the curve is checked with each signature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key([u8; POINT_BYTES]);

impl Key {
    /// From PEM, or from the point in hex as older Go repositories wrote it.
    pub(super) fn parse(public: &str) -> Result<Self, KeyError> {
        let malformed = KeyError::Malformed("ECDSA P-256");
        let point = match pem::decode(public) {
            Some(der) => der.strip_prefix(&SPKI_PREFIX).map(<[u8]>::to_vec),
            None => hex::decode(public).ok(),
        };
        let point = point.and_then(|point| <[u8; POINT_BYTES]>::try_from(point).ok());
        point.filter(|point| point[0] == UNCOMPRESSED).map(Self).ok_or(malformed)
    }

    pub(super) fn point(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, signature).is_ok()
    }
}

#[cfg(feature = "sign")]
pub use signing::EcdsaSigner;

#[cfg(feature = "sign")]
mod signing {
    use std::fmt;

    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::SPKI_PREFIX;
    use crate::key::{KeyError, PublicKey, SignError, Signer, pem};

    /// An ECDSA P-256 private key in memory.
    pub struct EcdsaSigner {
        pair: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl EcdsaSigner {
        /// A new key as PKCS#8 DER.
        ///
        /// # Errors
        /// [`KeyError::Malformed`] when the system gives no randomness.
        pub fn generate() -> Result<Vec<u8>, KeyError> {
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
            made.map(|der| der.as_ref().to_vec()).map_err(|_| KeyError::Malformed("new ECDSA P-256"))
        }

        /// From PKCS#8 DER with the public half in it, as OpenSSL and this crate write it.
        ///
        /// # Errors
        /// [`KeyError::Malformed`] when it is no such key.
        pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random);
            pair.map(|pair| Self { pair, random }).map_err(|_| KeyError::Malformed("ECDSA P-256 private"))
        }
    }

    impl fmt::Debug for EcdsaSigner {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "EcdsaSigner({})", self.public_key().id())
        }
    }

    impl Signer for EcdsaSigner {
        fn public_key(&self) -> PublicKey {
            let der = [&SPKI_PREFIX, self.pair.public_key().as_ref()].concat();
            PublicKey::pair("ecdsa", "ecdsa-sha2-nistp256", pem::encode(&der))
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
            let signature = self.pair.sign(&self.random, message);
            signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| SignError {
                key: self.public_key().id(),
                source: "the system gives no randomness".into(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{PublicKey, Signer as _};

    #[test]
    fn signature_verifies_only_for_its_key_and_message() {
        let [a, b] = [(), ()].map(|()| EcdsaSigner::from_pkcs8(&EcdsaSigner::generate().unwrap()).unwrap());
        let signature = a.sign(b"m").unwrap();
        assert!(a.public_key().verifies(b"m", &signature));
        assert!(!a.public_key().verifies(b"n", &signature));
        assert!(!b.public_key().verifies(b"m", &signature));
        assert!(!a.public_key().verifies(b"m", &[&signature[..], b"x"].concat()));
        assert!(!a.public_key().verifies(b"m", b""));
    }

    #[test]
    fn a2_one_key_in_pem_and_in_hex_is_one_key() {
        let signer = EcdsaSigner::from_pkcs8(&EcdsaSigner::generate().unwrap()).unwrap();
        let Ok(crate::key::Verifier::EcdsaP256(key)) = signer.public_key().verifier() else { panic!() };
        let hex = PublicKey::pair("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", hex::encode(key.point()));
        assert_eq!(hex.verifier().unwrap().identity(), signer.public_key().verifier().unwrap().identity());
        assert!(hex.verifies(b"m", &signer.sign(b"m").unwrap()));
        assert_ne!(hex.id(), signer.public_key().id());
    }

    #[test]
    fn what_is_no_uncompressed_point_is_no_key() {
        let compressed = [&[2_u8][..], &[7; 32]].concat();
        for bad in ["", "zz", &hex::encode(compressed), &hex::encode([5; 65]), &hex::encode([4; 66])] {
            assert!(Key::parse(bad).is_err(), "{bad}");
        }
        assert!(!Key([4; 65]).verifies(b"m", &[0x30; 70]), "not on the curve");
    }
}
