//! RSA with PSS and SHA-256, for repositories made elsewhere. Not in the device build: nobody of ours signs with it.

use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

use super::{KeyError, pem};

/// `SEQUENCE { OBJECT IDENTIFIER rsaEncryption, NULL }` (RFC 8017).
const ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// An `RSAPublicKey` in DER. Modulus and exponent are checked with each signature: 2048 to 8192 bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// From PEM.
    pub(super) fn parse(public: &str) -> Result<Self, KeyError> {
        let der = pem::decode(public);
        let key = der.as_deref().and_then(public_key).map(<[u8]>::to_vec);
        key.map(Self).ok_or(KeyError::Malformed("RSA"))
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.0
    }

    /// The salt is as long as the hash, as the scheme's name means.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &self.0).verify(message, signature).is_ok()
    }
}

/// The key inside a `SubjectPublicKeyInfo`.
fn public_key(der: &[u8]) -> Option<&[u8]> {
    let (info, rest) = element(der, SEQUENCE)?;
    let bits = info.strip_prefix(&ALGORITHM)?;
    let (bits, more) = element(bits, BIT_STRING)?;
    let key = bits.strip_prefix(&[0])?;
    (rest.is_empty() && more.is_empty() && element(key, SEQUENCE)?.1.is_empty()).then_some(key)
}

/// Content of one DER element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), rest.get(2..)?),
        _ => return None,
    };
    (*first == tag && rest.len() >= length).then(|| rest.split_at(length))
}
