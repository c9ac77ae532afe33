//! Random names and secrets that the server makes.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::UnixMillis;
use sha2::{Digest, Sha256};

/// `N` random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A name that sorts by time of making and never repeats: 12 hex digits of milliseconds, 6 that count up in this
/// process and so keep the order within a millisecond, 8 of randomness.
pub fn ordered_id(now: UnixMillis) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & 0x00FF_FFFF;
    format!("{:012x}{count:06x}{}", now.0.max(0), hex::encode(random_bytes::<4>()))
}

/// A secret of 256 bits as text, with a prefix that secret scanners can find.
pub fn secret_text(prefix: &str) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()))
}

/// What is stored of a random secret. No salt and no stretching: 256 random bits can't be guessed.
pub fn secret_hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}
