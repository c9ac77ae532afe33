//! First stage: every value as text of TOML, with where it came from. Knows no key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::proxy::USUAL;
use super::reader::{ConfigErrors, Problem};
use super::sections;

/// Prefix of the environment variables that set keys: `FLOTILLA_LINK_KEEP_ALIVE_S` is `link.keep_alive_s`.
pub(super) const ENV_PREFIX: &str = "FLOTILLA_";
/// Largest configuration file in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// All values by key (`section.name`), with their origin; not yet checked.
#[derive(Debug, Default)]
pub struct RawConfig {
    pub(super) values: BTreeMap<String, (Value, Origin)>,
    pub(super) problems: Vec<Problem>,
}

impl RawConfig {
    /// Reads a file. A file that is absent is an error: the caller decides whether to ask for one.
    #[must_use]
    pub fn with_file(mut self, path: &Path) -> Self {
        let origin = Origin::File(path.to_owned());
        let text = match crate::durable::read_named(path, MAX_FILE_BYTES) {
            Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(None) => return self.refuse(origin, "a readable TOML file", "no such file"),
            Err(error) => return self.refuse(origin, "a readable TOML file", &error.to_string()),
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.take_table(table, &origin),
            Err(error) => return self.refuse(origin, "valid TOML", error.to_string().trim()),
        }
        self
    }

    /// Takes the variables that begin with `FLOTILLA_` and a section of ours; others belong to other programs, but
    /// those that name a proxy stand in where nothing of ours names one.
    #[must_use]
    pub fn with_environment(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut proxies = BTreeMap::new();
        for (name, text) in variables {
            if USUAL.iter().any(|(usual, _)| *usual == name) && !text.is_empty() {
                proxies.insert(name, text);
                continue;
            }
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            if let Some(key) = sections::key_of_variable(&rest.to_ascii_lowercase()) {
                self.values.insert(key, (parse_value(&text), Origin::Environment(name)));
            }
        }
        for (name, key) in USUAL {
            if let Some(text) = proxies.remove(name) {
                let value = (Value::String(text), Origin::Environment(name.to_owned()));
                self.values.entry(key.to_owned()).or_insert(value);
            }
        }
        self
    }

    /// Takes `key=value` flags.
    #[must_use]
    pub fn with_flags<'a>(mut self, flags: impl Iterator<Item = &'a str>) -> Self {
        for flag in flags {
            match flag.split_once('=') {
                Some((key, text)) => {
                    self.values.insert(key.trim().to_owned(), (parse_value(text), Origin::Flag));
                }
                None => self = self.refuse(Origin::Flag, "--set key=value", flag),
            }
        }
        self
    }

    fn take_table(&mut self, table: toml::Table, origin: &Origin) {
        for (name, value) in table {
            match value {
                Value::Table(section) if !sections::is_table(&name) => {
                    for (inner, value) in section {
                        self.values.insert(format!("{name}.{inner}"), (value, origin.clone()));
                    }
                }
                value => {
                    self.values.insert(name, (value, origin.clone()));
                }
            }
        }
    }

    fn refuse(mut self, origin: Origin, expected: &str, value: &str) -> Self {
        self.problems.push(Problem {
            origin,
            key: None,
            value: value.to_owned(),
            why: format!("expected {expected}"),
        });
        self
    }

    /// Second stage.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong, not only the first.
    pub fn check(self) -> Result<super::Config, ConfigErrors> {
        sections::check(self)
    }
}

/// A value from text: TOML where it parses as one, else the text itself.
fn parse_value(text: &str) -> Value {
    let parsed = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}
