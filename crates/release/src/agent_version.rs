//! Versions of the agent, compared by number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `major.minor.patch`; a suffix after `-` or `+` is ignored in comparisons and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentVersion {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

/// Not three numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version such as 0.1.0")]
pub struct AgentVersionError(String);

impl FromStr for AgentVersion {
    type Err = AgentVersionError;

    fn from_str(text: &str) -> Result<Self, AgentVersionError> {
        let refuse = || AgentVersionError(text.chars().take(40).collect());
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next().and_then(Result::ok).ok_or_else(refuse);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if numbers.next().is_some() { Err(refuse()) } else { Ok(version) }
    }
}

impl fmt::Display for AgentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Serialize for AgentVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AgentVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_by_number() {
        let v = |text: &str| text.parse::<AgentVersion>().unwrap();
        assert!(v("0.10.0") > v("0.9.9") && v("1.0.0-rc.1") == v("1.0.0"));
        for bad in ["1", "1.0", "1.0.0.0", "a.b.c", "", "1.0.-1"] {
            assert!(bad.parse::<AgentVersion>().is_err(), "{bad}");
        }
    }
}
