//! How a release runs on a device: `"replace"`, `"shadow"` or `{"ab": "20%"}`. Read by hand: a mode that lacks its share is told what it needs, in the words of the
//! plan and not of the programming language.

use std::fmt;

use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::amount::Percent;

/// How the release runs on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutMode))]
pub enum Mode {
    /// It takes the old release's place.
    #[default]
    Replace,
    /// It runs beside the old release and never answers.
    Shadow,
    /// This share of the targets, fixed by the seed, gets it; the others stay for comparison.
    Ab(Percent),
}

const NEEDS_SHARE: &str = r#"mode "ab" needs the share of the targets that gets the release: {"ab": "20%"}"#;

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Mode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a mode: "replace", "shadow" or {"ab": "20%"}"#)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Mode, E> {
        match word {
            "replace" => Ok(Mode::Replace),
            "shadow" => Ok(Mode::Shadow),
            "ab" => Err(E::custom(NEEDS_SHARE)),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mode, A::Error> {
        match map.next_key::<String>()?.as_deref() {
            Some("ab") => {}
            Some(other) => return Err(A::Error::invalid_value(Unexpected::Str(other), &self)),
            None => return Err(A::Error::invalid_value(Unexpected::Map, &self)),
        }
        let share = map.next_value::<Option<Percent>>()?.ok_or_else(|| A::Error::custom(NEEDS_SHARE))?;
        match map.next_key::<String>()? {
            Some(other) => Err(A::Error::invalid_value(Unexpected::Str(&other), &self)),
            None => Ok(Mode::Ab(share)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mode, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in [Mode::Replace, Mode::Shadow, Mode::Ab("12.5%".parse().unwrap())] {
            assert_eq!(read(&serde_json::to_string(&mode).unwrap()), Ok(mode));
        }
    }

    #[test]
    fn a_mode_that_is_none_is_told_what_it_should_be() {
        for bad in [r#""ab""#, r#"{"ab":null}"#] {
            let said = read(bad).unwrap_err();
            assert!(said.contains("needs the share") && said.contains(r#"{"ab": "20%"}"#), "{bad}: {said}");
        }
        for bad in [r#""canary""#, r#"{"share":"5%"}"#, r#"{"ab":"5%","x":1}"#, "{}", "7"] {
            let said = read(bad).unwrap_err();
            assert!(said.contains(r#"a mode: "replace", "shadow" or {"ab": "20%"}"#), "{bad}: {said}");
        }
        assert!(read(r#"{"ab":"200%"}"#).unwrap_err().contains("200%"));
    }
}
