//! Filter expressions over device attributes: a typed subset of Google's AIP-160.
//!
//! ```text
//! class = "rpi4" AND labels.site = "porto-*" AND NOT (agent_version < "0.2.0" OR labels.canary:*)
//! ```
//! Fields: `device`, `class`, `arch`, `agent_version`, `version` (of the release that serves), `memory_bytes`,
//! `online`, `labels.<name>`. Text compares whole, with `*` at the end as "begins with"; versions compare by
//! their numeric parts. `field:*` asks whether the field is there. `AND` and `OR` don't mix without parentheses,
//! because AIP-160 and most people disagree about their order. The empty filter matches every device.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::facts::Facts;

mod parse;

/// Longest filter in bytes; stops expressions made to exhaust the parser.
pub const MAX_FILTER_BYTES: usize = 4096;

/// A parsed, checked filter. Keeps the text that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    text: String,
    root: Option<Expr>,
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter, at character {at}: {why}")]
pub struct FilterError {
    /// Position, counted in characters from 1.
    pub at: usize,
    /// What is wrong and what was expected.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compare { field: Field, op: Op, value: String },
    Has(Field),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Device,
    Class,
    Arch,
    AgentVersion,
    Version,
    MemoryBytes,
    Online,
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Filter {
    /// The filter that matches every device.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether it matches every device because it is empty.
    pub fn is_all(&self) -> bool {
        self.root.is_none()
    }

    /// Whether the device matches.
    pub fn matches(&self, facts: &Facts) -> bool {
        self.root.as_ref().is_none_or(|root| root.matches(facts))
    }
}

impl Expr {
    fn matches(&self, facts: &Facts) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|p| p.matches(facts)),
            Self::Any(parts) => parts.iter().any(|p| p.matches(facts)),
            Self::Not(inner) => !inner.matches(facts),
            Self::Has(field) => field.text(facts).is_some_and(|t| !t.is_empty()),
            Self::Compare { field, op, value } => field.compare(*op, value, facts),
        }
    }
}

impl Field {
    fn text(&self, facts: &Facts) -> Option<String> {
        match self {
            Self::Device => Some(facts.device.as_str().to_owned()),
            Self::Class => Some(facts.class.clone()),
            Self::Arch => Some(facts.arch.clone()),
            Self::AgentVersion => Some(facts.agent_version.clone()),
            Self::Version => facts.current.as_ref().map(|r| r.version.as_str().to_owned()),
            Self::MemoryBytes => Some(facts.memory_bytes.to_string()),
            Self::Online => Some(facts.is_online.to_string()),
            Self::Label(name) => facts.labels.get(name).cloned(),
        }
    }

    fn is_ordered(&self) -> bool {
        matches!(self, Self::AgentVersion | Self::Version | Self::MemoryBytes)
    }

    /// A field that isn't there is unequal to everything and in no order with anything.
    fn compare(&self, op: Op, value: &str, facts: &Facts) -> bool {
        let Some(have) = self.text(facts) else { return op == Op::NotEqual };
        let is_equal = match value.strip_suffix('*') {
            Some(prefix) => have.starts_with(prefix),
            None if self.is_ordered() => by_numeric_parts(&have, value) == Ordering::Equal,
            None => have == value,
        };
        match op {
            Op::Equal => is_equal,
            Op::NotEqual => !is_equal,
            Op::Less => by_numeric_parts(&have, value).is_lt(),
            Op::AtMost => by_numeric_parts(&have, value).is_le(),
            Op::Greater => by_numeric_parts(&have, value).is_gt(),
            Op::AtLeast => by_numeric_parts(&have, value).is_ge(),
        }
    }
}

/// Orders `1.9.0` before `1.10.0`; a version with a suffix (`1.0.0-rc.1`) comes before the one without.
fn by_numeric_parts(a: &str, b: &str) -> Ordering {
    fn halves(text: &str) -> (Vec<u64>, Option<&str>) {
        let (core, suffix) = text.split_once('-').map_or((text, None), |(c, s)| (c, Some(s)));
        let mut numbers: Vec<u64> = core.split('.').map(|p| p.parse().unwrap_or(0)).collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        (numbers, suffix)
    }
    let ((a_core, a_suffix), (b_core, b_suffix)) = (halves(a), halves(b));
    a_core.cmp(&b_core).then_with(|| match (a_suffix, b_suffix) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(x), Some(y)) => x.cmp(y),
    })
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let root = parse::parse(text)?;
        Ok(Self { text: text.trim().to_owned(), root })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::DeviceId;

    fn device() -> Facts {
        Facts {
            class: "rpi4".into(),
            agent_version: "0.10.1".into(),
            memory_bytes: 4_000_000_000,
            is_online: true,
            labels: [("site".to_owned(), "porto-1".to_owned())].into(),
            ..Facts::named(DeviceId::new("cam-01").unwrap())
        }
    }

    fn matches(text: &str) -> bool {
        text.parse::<Filter>().unwrap().matches(&device())
    }

    #[test]
    fn comparisons_follow_the_fields_type() {
        assert!(matches("") && matches("class = rpi4") && matches("class=\"rpi4\""));
        assert!(matches("agent_version > 0.9.0") && !matches("agent_version < 0.9.0"));
        assert!(matches("agent_version > 0.10.1-rc.1") && matches("agent_version = 0.10.1"));
        assert!(matches("memory_bytes >= 4000000000") && matches("online = true"));
        assert!(matches("labels.site = \"porto-*\"") && !matches("labels.site = lisboa"));
    }

    #[test]
    fn what_is_not_there_is_unequal_and_has_no_order() {
        assert!(!matches("version < 9") && !matches("version >= 0") && matches("version != 1.0.0"));
        assert!(matches("labels.site:*") && !matches("labels.zone:*") && matches("labels.zone != a"));
    }

    #[test]
    fn logic_nests_with_parentheses() {
        assert!(matches("NOT class = x AND (arch = arm OR device = cam-*)"));
        assert!(!matches("NOT (class = rpi4 OR class = x)"));
    }

    #[test]
    fn errors_name_place_and_remedy() {
        let why = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert!(why("colour = red").contains("known fields"));
        assert!(why("class < rpi4").contains("has no order"));
        assert!(why("class = a AND class = b OR class = c").contains("parentheses"));
        assert!(why("class =").contains("character 8"));
        assert!(why("online = maybe").contains("true or false"));
        assert!(why("memory_bytes > many").contains("number"));
        assert!(why("(class = a").contains(')'));
        assert!(why(&"(".repeat(200)).contains("nested"));
        assert!(why(&"x".repeat(5000)).contains("4096"));
        assert!(why("class = \"open").contains("quote"));
    }
}
