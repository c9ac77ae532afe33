//! Three layers (file, environment, flags) flattened to keys; typed reading that collects every problem.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What the names of our variables begin with. The agent and the command line have others, so that all three can
/// share an environment.
const ENVIRONMENT_PREFIX: &str = "FLOTILLA_SERVER_";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A configuration file.
    File(String),
    /// An environment variable, by name.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value stands; `None` when a value is missing.
    pub source: Option<Source>,
    /// The key, e.g. `https.listen`.
    pub key: String,
    /// The value as written.
    pub value: String,
    /// What was expected instead.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, expected, .. } = self;
        match &self.source {
            Some(source) => write!(f, "{source}: {key} = {value:?}: expected {expected}"),
            None => write!(f, "{key}: expected {expected}"),
        }
    }
}

#[derive(Debug, Clone)]
struct Raw {
    value: String,
    source: Source,
}

/// Values by key, the strongest layer last; taken one by one, what is left over is unknown.
#[derive(Debug, Default)]
pub struct Reader {
    values: BTreeMap<String, Raw>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Adds a TOML file's values. Tables become dotted keys, lists become comma-separated text.
    pub fn add_file(&mut self, path: &str, text: &str) {
        match text.parse::<toml::Table>() {
            Ok(table) => self.add_table("", &table, path),
            Err(e) => self.problems.push(Problem {
                source: Some(Source::File(path.to_owned())),
                key: "(file)".to_owned(),
                value: String::new(),
                expected: format!("valid TOML: {}", e.message()),
            }),
        }
    }

    fn add_table(&mut self, prefix: &str, table: &toml::Table, path: &str) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let toml::Value::Table(inner) = value {
                self.add_table(&key, inner, path);
            } else {
                self.values.insert(key, Raw { value: plain(value), source: Source::File(path.to_owned()) });
            }
        }
    }

    /// Adds variables such as `FLOTILLA_SERVER_HTTPS__LISTEN` (two underscores stand for the dot).
    pub fn add_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX).filter(|key| !is_link(key)) {
                let key = key.to_ascii_lowercase().replace("__", ".");
                self.values.insert(key, Raw { value, source: Source::Environment(name.clone()) });
            }
        }
    }

    /// Adds one value from the command line.
    pub fn add_flag(&mut self, key: &str, value: impl Into<String>) {
        self.values.insert(key.to_owned(), Raw { value: value.into(), source: Source::Flag });
    }

    /// Notes a problem that a part found by itself.
    pub fn problem(&mut self, key: &str, value: &str, expected: impl Into<String>) {
        let (key, value, expected) = (key.to_owned(), value.to_owned(), expected.into());
        self.problems.push(Problem { source: None, key, value, expected });
    }

    /// Takes a value and parses it; on a problem the default stands in, so that reading goes on.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        default: T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        self.optional(key, expected, parse).unwrap_or(default)
    }

    /// Takes a value that may be left out.
    pub fn optional<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Raw { value, source } = self.values.remove(key)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            let (key, expected) = (key.to_owned(), expected.to_owned());
            self.problems.push(Problem { source: Some(source), key, value, expected });
        }
        parsed
    }

    /// Takes any text.
    pub fn text(&mut self, key: &str, default: &str) -> String {
        self.parsed(key, default.to_owned(), "text", |value| Some(value.to_owned()))
    }

    /// Takes a value by its type's `FromStr`.
    pub fn value<T: FromStr>(&mut self, key: &str, default: T, expected: &str) -> T {
        self.parsed(key, default, expected, |value| value.parse().ok())
    }

    /// Takes a number of whole or fractional seconds above zero; the key ends in `_s`.
    pub fn seconds(&mut self, key: &str, default: Duration) -> Duration {
        debug_assert!(key.ends_with("_s"), "{key} must carry its unit");
        self.parsed(key, default, "seconds above 0, e.g. 30 or 0.5", |value| {
            let seconds = value.parse::<f64>().ok().filter(|s| *s > 0.0 && *s < 1e9)?;
            Duration::try_from_secs_f64(seconds).ok()
        })
    }

    /// Takes a comma-separated list.
    pub fn list(&mut self, key: &str, default: &[&str]) -> Vec<String> {
        let default = default.iter().map(|item| (*item).to_owned()).collect();
        self.parsed(key, default, "a list of texts", |value| {
            Some(
                value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect(),
            )
        })
    }

    /// Every problem found, with the keys that nobody took.
    pub fn finish(mut self) -> Vec<Problem> {
        for (key, Raw { value, source }) in self.values {
            let expected = "a known key; this one is unknown".to_owned();
            self.problems.push(Problem { source: Some(source), key, value, expected });
        }
        self.problems
    }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Whether a container host has set it for a service called `flotilla-server`: Docker's links and Kubernetes name it so.
fn is_link(key: &str) -> bool {
    let words: Vec<&str> = key.split('_').collect();
    match words.as_slice() {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] | ["PORT"] => true,
        ["PORT", number, "TCP" | "UDP" | "SCTP"]
        | ["PORT", number, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"] => {
            number.parse::<u16>().is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_all_problems_come_together() {
        let mut reader = Reader::default();
        reader.add_file("a.toml", "typo = 1\n[https]\nlisten = '127.0.0.1:1'\n[jobs]\ntick_s = 'soon'");
        reader.add_environment([("FLOTILLA_SERVER_HTTPS__LISTEN".to_owned(), "127.0.0.1:2".to_owned())]);
        reader.add_flag("log.level", "debug");
        assert_eq!(reader.text("https.listen", ""), "127.0.0.1:2");
        assert_eq!(reader.text("log.level", "info"), "debug");
        assert_eq!(reader.seconds("jobs.tick_s", Duration::from_secs(2)), Duration::from_secs(2));
        let problems: Vec<_> = reader.finish().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].contains("a.toml") && problems[0].contains("tick_s") && problems[0].contains("soon")
        );
        assert!(problems[1].contains("typo"));
    }

    #[test]
    fn what_a_container_host_sets_for_the_service_is_left_alone() {
        let problems = |name: &str| {
            let mut reader = Reader::default();
            reader.add_environment([(format!("FLOTILLA_SERVER_{name}"), "tcp://10.0.0.1:1".to_owned())]);
            reader.finish().len()
        };
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTPS",
            "PORT",
            "PORT_8443_TCP",
            "PORT_8443_TCP_ADDR",
        ] {
            assert_eq!(problems(name), 0, "{name}");
        }
        for name in ["SERVICE", "PORTS", "PORT_TCP", "PORT_8443_HTTP", "PORT_8443_TCP_NAME", "LISTEN"] {
            assert_eq!(problems(name), 1, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_a_problem() {
        let mut reader = Reader::default();
        reader.add_file("a.toml", "[[[");
        assert_eq!(reader.finish().len(), 1);
    }
}
