//! First stage: every value as text of TOML, with where it came from. Knows no key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use toml::Value;

use super::links;
use super::proxy::USUAL;
use super::reader::{ConfigErrors, Problem};
use super::sections;
use crate::durable::{self, DurableError};

/// Prefix of the environment variables that set keys: `FLOTILLA_LINK_KEEP_ALIVE_S` is `link.keep_alive_s`.
pub(super) const ENV_PREFIX: &str = "FLOTILLA_";
/// Variables of that prefix that set no key: the agent's own others, those of the command line, of the console's tests and
/// of our builds, which may be there where an agent is started.
const OTHERS: [&str; 19] = [
    "AGENT_CONFIG",
    "BUILT_S",
    "CA",
    "COMMIT",
    "ENROLLMENT_TOKEN",
    "INT8",
    "INT8_LEVEL",
    "MODEL",
    "NEW_PASSPHRASE",
    "NEW_PASSWORD",
    "PASSPHRASE",
    "PASSWORD",
    "PROJECT",
    "SCREENSHOTS",
    "SERVER",
    "TARGET",
    "TEST_LEVELS",
    "URL",
    "USER",
];
/// Those of the server begin so. The reader looks at them too: one may be a key of `serve` that was misspelt.
pub(super) const SERVERS: &str = "SERVER_";
/// The key of the agent's folder.
pub(super) const FOLDER: &str = "state_dir";
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
    /// Variables of our prefix that set no key: nobody's, or the server's.
    pub(super) unknown_variables: Vec<String>,
}

impl RawConfig {
    /// Reads a file. A file that is absent is an error: the caller decides whether to ask for one.
    #[must_use]
    pub fn with_file(self, path: &Path) -> Self {
        self.with_file_kept(path, &OnceLock::new())
    }

    /// The same; the text stays for whoever needs it again: a pipe gives it only once.
    #[must_use]
    pub fn with_file_kept(self, path: &Path, text: &OnceLock<Vec<u8>>) -> Self {
        let read = durable::read_named(path, MAX_FILE_BYTES);
        if let Ok(Some(bytes)) = &read {
            let _same = text.set(bytes.clone());
        }
        self.with_read(path, read)
    }

    /// Only the key `state_dir`, of a file that may be wrong in all else. It stands above every section.
    pub(crate) fn of_folder(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().take_while(|line| !line.trim_start().starts_with('['));
        let folder = lines.filter_map(|line| line.parse::<toml::Table>().ok()?.remove(FOLDER)).last();
        let origin = Origin::File(PathBuf::new());
        Self {
            values: folder.map(|folder| (FOLDER.to_owned(), (folder, origin))).into_iter().collect(),
            ..Self::default()
        }
    }

    /// What was said of the key `state_dir`.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.values.get(FOLDER)?.0.as_str().map(PathBuf::from)
    }

    /// Reads the file of an agent that runs. Defaults in place of what the agent was told would delete what it keeps:
    /// what can't be read a second time (a pipe) is refused, and so is a file that has lost all that it said.
    #[must_use]
    pub fn with_file_again(self, path: &Path, has_said: bool) -> Self {
        let raw = match durable::read_bounded(path, MAX_FILE_BYTES) {
            Err(DurableError::NoFile { .. }) => {
                let expected = "a regular file, as nothing else can be read again; restart the agent instead";
                return self.refuse(Origin::File(path.to_owned()), expected, "a pipe, a socket or a device");
            }
            read => self.with_read(path, read),
        };
        if has_said && raw.problems.is_empty() && raw.says_nothing() {
            let expected = "at least one key, as it said before; restart the agent to run without";
            return raw.refuse(Origin::File(path.to_owned()), expected, "an empty file");
        }
        raw
    }

    /// Whether no key was given so far.
    pub fn says_nothing(&self) -> bool {
        self.values.is_empty()
    }

    fn with_read(mut self, path: &Path, read: Result<Option<Vec<u8>>, DurableError>) -> Self {
        let origin = Origin::File(path.to_owned());
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return self.refuse(origin, "a readable TOML file", "no such file"),
            Err(error) => return self.refuse(origin, "a readable TOML file", &crate::chain(&error)),
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let value = format!("byte {:#04x} at offset {at}", error.as_bytes()[at]);
                return self.refuse(origin, "UTF-8 text", &value);
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.take_table(table, &origin),
            Err(error) => return self.refuse(origin, "valid TOML", error.to_string().trim()),
        }
        self
    }

    /// Takes the variables that begin with `FLOTILLA_` and a section of ours, and notes those that nobody knows; others
    /// belong to other programs, but those that name a proxy stand in where nothing of ours names one.
    #[must_use]
    pub fn with_environment<N, V>(mut self, variables: impl Iterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let mut proxies = BTreeMap::new();
        for (name, text) in variables {
            let Ok(name) = name.into().into_string() else { continue };
            let is_usual = USUAL.iter().any(|(usual, _)| *usual == name);
            let rest = name.strip_prefix(ENV_PREFIX);
            let text = text.into();
            if rest.is_some_and(|rest| links::is_link(rest, &text.to_string_lossy())) {
                continue;
            }
            let key = rest.and_then(|rest| sections::key_of_variable(&rest.to_ascii_lowercase()));
            if !is_usual && key.is_none() {
                if rest.is_some_and(|rest| !OTHERS.contains(&rest)) {
                    self.unknown_variables.push(name);
                }
                continue;
            }
            let text = match text.into_string() {
                Ok(text) => text,
                Err(text) => {
                    let value = text.to_string_lossy();
                    self = self.refuse(Origin::Environment(name), "UTF-8 text", &value);
                    continue;
                }
            };
            if let Some(key) = key {
                self.values.insert(key, (parse_value(&text), Origin::Environment(name)));
            } else if !text.is_empty() {
                proxies.insert(name, text);
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
                value if sections::is_section(&name) => self.problems.push(Problem {
                    origin: origin.clone(),
                    why: format!("expected one table, which begins with [{name}]"),
                    key: Some(name),
                    value: match value {
                        Value::Array(tables) => format!("an array of {}", tables.len()),
                        value => value.type_str().to_owned(),
                    },
                }),
                value => {
                    self.values.insert(name, (value, origin.clone()));
                }
            }
        }
    }

    /// Notes that a whole file, variable or flag is wrong.
    pub(crate) fn refuse(mut self, origin: Origin, expected: &str, value: &str) -> Self {
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
