//! Checked names. A value of one of these types is safe in a topic, a path, a URL and a column.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest id in bytes; what a label in DNS allows.
pub const MAX_ID_BYTES: usize = 63;

/// Why a name from outside is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty or longer than the bound.
    #[error("{what} must have 1 to {max} characters, got {got}")]
    Length {
        /// Which kind of id.
        what: &'static str,
        /// The bound, in bytes.
        max: usize,
        /// What was given, in bytes.
        got: usize,
    },
    /// A character outside the alphabet, or at a place where it may not stand.
    #[error("{what} {value:?} may hold only {allowed}")]
    Alphabet {
        /// Which kind of id.
        what: &'static str,
        /// What was given, cut to 80 characters.
        value: String,
        /// The alphabet in words.
        allowed: &'static str,
    },
    /// A name that stands for something else already.
    #[error("{what} {value:?} is the name of a role of signed metadata; choose another")]
    Reserved {
        /// Which kind of id.
        what: &'static str,
        /// What was given.
        value: String,
    },
}

/// A model's name is also the name of the role that signs its releases.
const ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

fn check_name(what: &'static str, value: &str) -> Result<(), IdError> {
    if value.is_empty() || value.len() > MAX_ID_BYTES {
        return Err(IdError::Length { what, max: MAX_ID_BYTES, got: value.len() });
    }
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let bytes = value.as_bytes();
    let is_edge_ok = [bytes.first(), bytes.last()].iter().flatten().all(|b| b.is_ascii_alphanumeric());
    if bytes.iter().all(|b| is_inner(*b)) && is_edge_ok && !value.contains("..") {
        return Ok(());
    }
    Err(IdError::Alphabet {
        what,
        value: value.chars().take(80).collect(),
        allowed: "a-z, 0-9, '-', '_' and single '.', beginning and ending with a letter or digit",
    })
}

fn check_model(what: &'static str, value: &str) -> Result<(), IdError> {
    check_name(what, value)?;
    if ROLES.contains(&value) {
        return Err(IdError::Reserved { what, value: value.into() });
    }
    Ok(())
}

fn check_version(what: &'static str, value: &str) -> Result<(), IdError> {
    check_name(what, value)?;
    if value.as_bytes()[0].is_ascii_digit() {
        return Ok(());
    }
    Err(IdError::Alphabet {
        what,
        value: value.into(),
        allowed: "a version that begins with a digit, such as 1.0.0",
    })
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks a name from outside.
            ///
            /// # Errors
            /// [`IdError`] when it is empty, too long or holds a character outside the alphabet.
            pub fn new(value: impl Into<String>) -> Result<Self, IdError> {
                let value = value.into();
                $check($what, &value)?;
                Ok(Self(value))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                Self::new(value)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// Tenant; owns devices, models, keys and users' roles.
    ProjectId, "project id", check_name);
text_id!(
    /// One edge box within its project.
    DeviceId, "device id", check_name);
text_id!(
    /// A named task, e.g. `digits`.
    ModelName, "model name", check_model);
text_id!(
    /// Version of a release as people write it, e.g. `1.0.0`. Order comes from [`Counter`], never from this text.
    Version, "version", check_version);
text_id!(
    /// One rollout within its project.
    RolloutId, "rollout id", check_name);
text_id!(
    /// A telemetry stream: random, made with the spool, so that a wiped device starts a new one.
    StreamId, "stream id", check_name);

/// A release's counter within its model: what a device has committed never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counter(pub u64);

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Revision of a device's Desired; rises with each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The highest there is, 2^53. Signed numbers, a database and JSON readers of every language hold it exactly.
    pub const MAX: Self = Self(1 << 53);

    /// The one after it; none at or beyond [`Self::MAX`].
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then(|| Self(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of some bytes, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// From the 32 bytes that a hash function returned.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", &self.to_hex()[..12])
    }
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(value: &str) -> Result<Self, IdError> {
        if value.len() != 64 {
            return Err(IdError::Length { what: "sha-256 digest", max: 64, got: value.len() });
        }
        let mut bytes = [0; 32];
        let is_lower = !value.bytes().any(|b| b.is_ascii_uppercase());
        if is_lower && hex::decode_to_slice(value, &mut bytes).is_ok() {
            return Ok(Self(bytes));
        }
        let value = value.chars().take(80).collect();
        Err(IdError::Alphabet { what: "sha-256 digest", value, allowed: "64 lower-case hex digits" })
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Names one release exactly: `digest` is the SHA-256 of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// The release's version as people write it.
    pub version: Version,
    /// SHA-256 of the manifest's bytes.
    pub digest: Digest,
    /// The release's counter within its model.
    pub counter: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for bad in ["", "..", "a/b", "a..b", "+", "#", "a#", "A", ".a", "a.", "é", "a b", &"x".repeat(64)] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "cam-01", "line_3.cam", "0"] {
            assert_eq!(DeviceId::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_revision_ends_at_its_bound() {
        assert_eq!(Revision(41).next(), Some(Revision(42)));
        assert_eq!(Revision((1 << 53) - 1).next(), Some(Revision::MAX));
        for end in [Revision::MAX, Revision(u64::MAX)] {
            assert_eq!(end.next(), None);
        }
    }

    #[test]
    fn version_begins_with_a_digit() {
        assert!(Version::new("1.0.0-rc.1").is_ok());
        assert!(Version::new("latest").is_err());
    }

    #[test]
    fn digest_round_trips_and_refuses_upper_case() {
        let digest = Digest::from_bytes([0xAB; 32]);
        assert_eq!(digest.to_hex().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_hex().to_uppercase().parse::<Digest>().is_err());
        assert!("ab".parse::<Digest>().is_err());
    }

    #[test]
    fn deserialising_checks_too() {
        assert!(serde_json::from_str::<ModelName>("\"../etc\"").is_err());
        assert!(serde_json::from_str::<ModelName>("\"targets\"").is_err());
        assert!(ModelName::new("targets2").is_ok());
    }
}
