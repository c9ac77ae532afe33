//! Configuration: TOML file, then `FLOTILLA_SERVER_*` variables, then flags. Everything is checked before any port or
//! file is opened, all problems are reported together, unknown keys are errors. Each part owns its struct here
//! with documented defaults; nobody else reads files or variables.

mod networks;
mod parts;
mod reader;

pub use networks::{Network, NoNetwork};
pub use parts::{
    Authority, Blobs, Config, Database, DevicePort, Https, Jobs, Limits, Log, LogFormat, Mqtt, Retention,
    Samples, Sessions,
};
pub use reader::{Problem, Reader, Source};

use std::path::{Path, PathBuf};

/// The configuration is not usable; every problem is listed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named can't be read.
    #[error("cannot read configuration file {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Values are wrong, missing or unknown.
    #[error("the configuration has {} problem(s):\n  {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Invalid(Vec<Problem>),
}

/// Reads and checks everything: `file` if given, then `environment`, then `flags`.
///
/// # Errors
/// [`ConfigError`] with every problem at once.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Config, ConfigError> {
    let mut reader = Reader::default();
    if let Some(path) = file {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        reader.add_file(&path.display().to_string(), &std::fs::read_to_string(path).map_err(read)?);
    }
    reader.add_environment(environment);
    for (key, value) in flags {
        reader.add_flag(key, value);
    }
    let config = Config::read(&mut reader);
    let problems = reader.finish();
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
}
