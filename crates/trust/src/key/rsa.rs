//! RSA with PSS and SHA-256, for repositories made elsewhere. Not in the device build: nobody of ours signs with it.
//!
//! The salt may have any length, as the reference implementation reads it: it signs with a salt as long as the hash,
//! others (Go's default among them) with the longest that fits. What is done here uses public numbers only.

use num_bigint::BigUint;
use sha2::{Digest as _, Sha256};

use super::{KeyError, pem};

/// `SEQUENCE { OBJECT IDENTIFIER rsaEncryption, NULL }` (RFC 8017).
const ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// The specification's lower bound; the upper one keeps a check within milliseconds.
const MODULUS_BITS: std::ops::RangeInclusive<u64> = 2048..=8192;
const MAX_EXPONENT_BITS: u64 = 33;
const HASH_BYTES: usize = 32;
const TRAILER: u8 = 0xbc;

/// Modulus and exponent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    modulus: BigUint,
    exponent: BigUint,
}

impl Key {
    /// From PEM.
    pub(super) fn parse(public: &str) -> Result<Self, KeyError> {
        let der = pem::decode(public);
        let key = der.as_deref().and_then(public_key).filter(Self::is_sound);
        key.ok_or(KeyError::Malformed("RSA"))
    }

    fn is_sound(&self) -> bool {
        MODULUS_BITS.contains(&self.modulus.bits())
            && self.modulus.bit(0)
            && self.exponent.bit(0)
            && (2..=MAX_EXPONENT_BITS).contains(&self.exponent.bits())
    }

    /// The modulus: whoever knows its factors signs for every exponent.
    pub(super) fn modulus(&self) -> Vec<u8> {
        self.modulus.to_bytes_be()
    }

    /// RSASSA-PSS-VERIFY (RFC 8017, section 8.1.2).
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let number = BigUint::from_bytes_be(signature);
        if bytes_of(self.modulus.bits()) != Some(signature.len()) || number >= self.modulus {
            return false;
        }
        let encoded = number.modpow(&self.exponent, &self.modulus).to_bytes_be();
        // The encoded message has one bit less than the modulus; 8 bits of the first byte count when that is even bytes.
        let bits = self.modulus.bits() - 1;
        let first_mask = 0xff >> ((8 - bits % 8) % 8);
        let encoded = bytes_of(bits).and_then(|length| padded(&encoded, length));
        encoded.is_some_and(|encoded| is_pss_of(message, &encoded, first_mask))
    }
}

/// EMSA-PSS-VERIFY (RFC 8017, section 9.1.2); `first_mask` covers the bits of the first byte that are in use.
fn is_pss_of(message: &[u8], encoded: &[u8], first_mask: u8) -> bool {
    // Steps 3 to 6.
    let Some((TRAILER, encoded)) = encoded.split_last().map(|(last, rest)| (*last, rest)) else {
        return false;
    };
    let Some(at) = encoded.len().checked_sub(HASH_BYTES).filter(|at| *at > 0) else { return false };
    let (masked, hash) = encoded.split_at(at);
    if masked[0] & !first_mask != 0 {
        return false;
    }
    // Steps 7 to 9.
    let mut block: Vec<u8> = masked.iter().zip(mask(hash)).map(|(byte, mask)| byte ^ mask).collect();
    block[0] &= first_mask;
    // Step 10, with the length of the salt read from where the zeros end.
    let Some(end) = block.iter().position(|byte| *byte != 0) else { return false };
    if block[end] != 1 {
        return false;
    }
    // Steps 11 to 14.
    let digest = Sha256::new().chain_update([0; 8]).chain_update(Sha256::digest(message));
    digest.chain_update(&block[end + 1..]).finalize()[..] == *hash
}

/// MGF1 with SHA-256 (RFC 8017, section B.2.1), as far as it is read.
fn mask(seed: &[u8]) -> impl Iterator<Item = u8> {
    (0_u32..).flat_map(move |n| {
        <[u8; 32]>::from(Sha256::new().chain_update(seed).chain_update(n.to_be_bytes()).finalize())
    })
}

/// How many bytes hold so many bits.
fn bytes_of(bits: u64) -> Option<usize> {
    usize::try_from(bits.div_ceil(8)).ok()
}

/// With zeros in front; `None` when it is longer.
fn padded(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(bytes.len())?;
    Some([&vec![0; zeros], bytes].concat())
}

/// The key inside a `SubjectPublicKeyInfo`.
fn public_key(der: &[u8]) -> Option<Key> {
    let (info, after_info) = element(der, SEQUENCE)?;
    let bits = info.strip_prefix(&ALGORITHM)?;
    let (bits, after_bits) = element(bits, BIT_STRING)?;
    let (key, after_key) = element(bits.strip_prefix(&[0])?, SEQUENCE)?;
    let (modulus, rest) = element(key, INTEGER)?;
    let (exponent, after_exponent) = element(rest, INTEGER)?;
    let is_all = [after_info, after_bits, after_key, after_exponent].iter().all(|after| after.is_empty());
    is_all.then_some(Key { modulus: positive(modulus)?, exponent: positive(exponent)? })
}

/// A positive number in DER's one way of writing it.
fn positive(bytes: &[u8]) -> Option<BigUint> {
    let is_shortest = match bytes {
        [0, second, ..] => *second >= 0x80,
        [first, ..] => (1..0x80).contains(first),
        [] => false,
    };
    is_shortest.then(|| BigUint::from_bytes_be(bytes))
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

#[cfg(test)]
mod tests;
