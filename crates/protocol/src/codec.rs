//! Bounded JSON for control messages.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::WIRE_VERSION;

/// Largest control message in bytes. Stops memory exhaustion by one message; the broker refuses larger packets too.
pub const MAX_CONTROL_BYTES: usize = 256 * 1024;

/// Why bytes from the wire are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Over the bound; nothing was parsed.
    #[error("{what} has {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Which message.
        what: &'static str,
        /// Bound in bytes.
        max: usize,
        /// Size in bytes.
        got: usize,
    },
    /// Not JSON, or not this message.
    #[error("{what} is not valid JSON for its type")]
    Json {
        /// Which message.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Not CBOR, or not this message.
    #[error("{what} is not valid CBOR for its type: {why}")]
    Cbor {
        /// Which message.
        what: &'static str,
        /// Where and why.
        why: String,
    },
    /// Written by a build that speaks another version of the wire.
    #[error("{what} speaks wire version {got}, this build speaks {WIRE_VERSION}")]
    Version {
        /// Which message.
        what: &'static str,
        /// The version that it names.
        got: u16,
    },
    /// Well-formed, but a bound of the message itself is broken.
    #[error("{what} breaks a bound: {why}")]
    Bound {
        /// Which message.
        what: &'static str,
        /// Which bound.
        why: String,
    },
}

/// A message that names its wire version as `v`.
pub trait Versioned {
    /// The message's name in errors and logs.
    const WHAT: &'static str;
}

#[derive(serde::Deserialize)]
struct VersionOnly {
    v: u16,
}

#[derive(serde::Serialize)]
struct WithVersion<'a, T> {
    v: u16,
    #[serde(flatten)]
    message: &'a T,
}

/// Parses one control message: bound first, then version, then the type. Unknown fields are ignored.
///
/// # Errors
/// [`DecodeError`] names the message and what is wrong with it.
pub fn decode_json<T: Versioned + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = T::WHAT;
    if bytes.len() > MAX_CONTROL_BYTES {
        return Err(DecodeError::TooLarge { what, max: MAX_CONTROL_BYTES, got: bytes.len() });
    }
    let VersionOnly { v } =
        serde_json::from_slice(bytes).map_err(|source| DecodeError::Json { what, source })?;
    if v != WIRE_VERSION {
        return Err(DecodeError::Version { what, got: v });
    }
    serde_json::from_slice(bytes).map_err(|source| DecodeError::Json { what, source })
}

/// Writes one control message with its wire version.
pub fn encode_json<T: Versioned + Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(&WithVersion { v: WIRE_VERSION, message })
        .expect("our own message types have only string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Ack;

    #[test]
    fn unknown_fields_are_ignored_and_unknown_versions_refused() {
        let ok = br#"{"v":1,"stream":"s1","upto_seq":7,"later":"field"}"#;
        assert_eq!(decode_json::<Ack>(ok).unwrap().upto_seq, 7);
        let newer = br#"{"v":2,"stream":"s1","upto_seq":7}"#;
        assert!(matches!(decode_json::<Ack>(newer), Err(DecodeError::Version { got: 2, .. })));
    }

    #[test]
    fn bound_comes_before_parsing() {
        let bytes = vec![b'['; MAX_CONTROL_BYTES + 1];
        assert!(matches!(decode_json::<Ack>(&bytes), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let mut bytes = br#"{"v":1,"stream":"#.to_vec();
        bytes.extend(std::iter::repeat_n(b'[', 100_000));
        assert!(matches!(decode_json::<Ack>(&bytes), Err(DecodeError::Json { .. })));
    }
}
