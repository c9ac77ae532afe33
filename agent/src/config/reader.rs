//! Reads typed values out of the raw ones and keeps every problem.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::raw::{Origin, RawConfig};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// Its key; none when a whole file or flag is wrong.
    pub key: Option<String>,
    /// The value as given, cut to 80 characters.
    pub value: String,
    /// What was expected instead.
    pub expected: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(
    /// Never empty.
    pub Vec<Problem>,
);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s)", self.0.len())?;
        for Problem { origin, key, value, expected } in &self.0 {
            let key = key.as_deref().unwrap_or("-");
            write!(f, "\n  {origin}: {key} = {value}: expected {expected}")?;
        }
        Ok(())
    }
}

pub(super) struct Reader {
    values: BTreeMap<String, (Value, Origin)>,
    known: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn new(raw: RawConfig) -> Self {
        Self { values: raw.values, known: BTreeSet::new(), problems: raw.problems }
    }

    fn read<T>(&mut self, key: &str, expected: &str, parse: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        self.known.insert(key.to_owned());
        let (value, origin) = self.values.get(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let problem = Problem {
                origin: origin.clone(),
                key: Some(key.to_owned()),
                value: shown(value),
                expected: expected.to_owned(),
            };
            self.problems.push(problem);
        }
        parsed
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        self.read(key, "a text", |v| v.as_str().map(str::to_owned)).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn path(&mut self, key: &str, default: &str) -> PathBuf {
        self.text(key, default).into()
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self, key: &str, default: T, expected: &str) -> T {
        self.read(key, expected, |v| v.as_str()?.parse().ok()).unwrap_or(default)
    }

    pub(super) fn number(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |v: &Value| u64::try_from(v.as_integer()?).ok().filter(|n| range.contains(n));
        self.read(key, &expected, parse).unwrap_or(default)
    }

    pub(super) fn optional_number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |v| u64::try_from(v.as_integer()?).ok().filter(|n| range.contains(n)))
    }

    pub(super) fn seconds(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(key, default, range))
    }

    pub(super) fn millis(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(key, default, range))
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        self.read(key, "true or false", Value::as_bool).unwrap_or(default)
    }

    pub(super) fn texts(&mut self, key: &str) -> BTreeMap<String, String> {
        let parse = |v: &Value| {
            let pairs = v.as_table()?.iter();
            pairs.map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect::<Option<BTreeMap<_, _>>>()
        };
        self.read(key, "a table of texts", parse).unwrap_or_default()
    }

    /// Errors of all reads, and keys that nobody read.
    pub(super) fn finish(mut self) -> Result<(), ConfigErrors> {
        for (key, (value, origin)) in &self.values {
            if !self.known.contains(key) {
                self.problems.push(Problem {
                    origin: origin.clone(),
                    key: Some(key.clone()),
                    value: shown(value),
                    expected: format!("no such key; nearest known: {}", nearest(key, &self.known)),
                });
            }
        }
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigErrors(self.problems)) }
    }
}

/// The known key that shares the longest beginning and end with `key`.
fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> &'a str {
    let shared = |a: &str| {
        let front = a.bytes().zip(key.bytes()).take_while(|(x, y)| x == y).count();
        let back = a.bytes().rev().zip(key.bytes().rev()).take_while(|(x, y)| x == y).count();
        front + back
    };
    known.iter().max_by_key(|candidate| shared(candidate)).map_or("-", String::as_str)
}

fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default().chars().take(80).collect()
}
