//! Reads typed values out of the raw ones and keeps every problem.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::capture::Rate;
use super::raw::{ENV_PREFIX, Origin, RawConfig, SERVERS};
use crate::retry::Policy;

/// A known key so many edits away is suggested in an unknown one's place.
const MAX_EDITS: usize = 3;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// Its key; none when a whole file or flag is wrong.
    pub key: Option<String>,
    /// The value as given, cut to 80 characters.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, value, why } = self;
        match key {
            Some(key) => write!(f, "{origin}: {key} = {value}: {why}"),
            None => write!(f, "{origin}: {value}: {why}"),
        }
    }
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
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

pub(super) struct Reader {
    values: BTreeMap<String, (Value, Origin)>,
    known: BTreeSet<String>,
    problems: Vec<Problem>,
    unknown_variables: Vec<String>,
}

impl Reader {
    pub(super) fn new(raw: RawConfig) -> Self {
        let RawConfig { values, problems, unknown_variables } = raw;
        Self { values, known: BTreeSet::new(), problems, unknown_variables }
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
                why: format!("expected {expected}"),
            };
            self.problems.push(problem);
        }
        parsed
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        let parse = |v: &Value| v.as_str().filter(|text| is_plain(text)).map(str::to_owned);
        self.read(key, "a text without control characters", parse).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        let parse =
            |v: &Value| v.as_str().filter(|path| path.starts_with('/') && is_plain(path)).map(PathBuf::from);
        self.read(key, "a path that begins with / and has no control characters", parse)
    }

    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        self.read(key, "a text", |v| v.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// Refuses a value that is valid alone, but not together with another one.
    pub(super) fn refuse(&mut self, key: &str, expected: &str) {
        self.read(key, expected, |_| None::<()>);
    }

    /// Refuses a least value above the most of the same: at the key that was given, at the least one's if both were.
    pub(super) fn in_order<T>(&mut self, (least_key, least): (&str, T), (most_key, most): (&str, T))
    where
        T: PartialOrd + fmt::Debug,
    {
        if least <= most {
            return;
        }
        if self.values.contains_key(least_key) {
            self.refuse(least_key, &format!("at most {most_key}, which is {most:?}"));
        } else {
            self.refuse(most_key, &format!("at least {least_key}, which is {least:?}"));
        }
    }

    /// Delays that grow from one bound to the other.
    pub(super) fn policy(&mut self, min: (&str, Duration), max: (&str, Duration)) -> Policy {
        self.in_order(min, max);
        Policy { min: min.1, max: max.1 }
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

    pub(super) fn rate(&mut self, key: &str, default: Rate) -> Rate {
        let number = |v: &Value| v.as_float().or_else(|| v.as_integer()?.to_string().parse().ok());
        self.read(key, "a number from 0 to 1", |v| Rate::new(number(v)?)).unwrap_or(default)
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
                    why: unknown(key, &self.known),
                });
            }
        }
        for name in self.unknown_variables {
            if is_of_server(&name, &self.known) {
                continue;
            }
            let why = unknown_variable(&name, &self.known);
            // Whatever it is meant for, it may be a secret.
            let value = "a value that is not shown".to_owned();
            self.problems.push(Problem { origin: Origin::Environment(name), key: None, value, why });
        }
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigErrors(self.problems)) }
    }
}

/// Whether a variable sets a key of the server's, which may be there where an agent is started. One that would be a key
/// of ours in `serve` is taken for that, misspelt: the server has none of these names.
fn is_of_server(name: &str, known: &BTreeSet<String>) -> bool {
    let rest = name.strip_prefix(ENV_PREFIX).and_then(|rest| rest.strip_prefix(SERVERS));
    rest.is_some_and(|rest| !known.contains(&format!("serve.{}", rest.to_ascii_lowercase())))
}

/// A key that nobody knows, with the known one that was probably meant.
fn unknown(key: &str, known: &BTreeSet<String>) -> String {
    match nearest(key, known.iter().cloned()) {
        Some(close) => format!("unknown key; did you mean {close}?"),
        None => "unknown key".to_owned(),
    }
}

/// The same of a variable.
fn unknown_variable(name: &str, known: &BTreeSet<String>) -> String {
    let variable = |key: &String| format!("{ENV_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase());
    match nearest(name, known.iter().map(variable)) {
        Some(close) => format!("unknown variable; did you mean {close}?"),
        None => format!("unknown variable; {ENV_PREFIX} is followed by a section and a key"),
    }
}

fn nearest(to: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let close = known.map(|candidate| (edits(to, &candidate), candidate)).min();
    close.filter(|(edits, _)| *edits <= MAX_EDITS).map(|(_, close)| close)
}

/// Characters to insert, remove or replace to make `b` of `a` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn shown(value: &Value) -> String {
    match value {
        // JSON has no word for it; TOML writes nan, inf and -inf.
        Value::Float(number) if !number.is_finite() => number.to_string().to_lowercase(),
        value => serde_json::to_string(value).unwrap_or_default().chars().take(80).collect(),
    }
}

/// What a terminal shows as it is, and a file's name may hold.
fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control)
}
