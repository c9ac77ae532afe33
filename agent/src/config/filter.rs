//! The log's filter: a level, or TARGET=LEVEL, several with commas between them. Stricter than the library that applies
//! it: there a word that is no level names a target, so that a mistyped level silences everything else.

use tracing::level_filters::LevelFilter;

/// A filter that says what it seems to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter(pub(super) String);

/// What was expected.
pub(super) const EXPECTED: &str =
    "off, error, warn, info, debug or trace, alone or as TARGET=LEVEL, with commas between several";

#[derive(Debug)]
pub(super) struct NoFilter;

impl std::str::FromStr for Filter {
    type Err = NoFilter;

    fn from_str(text: &str) -> Result<Self, NoFilter> {
        let is_valid = text.split(',').all(|part| match part.split_once('=') {
            None => is_level(part),
            Some((target, level)) => is_target(target) && is_level(level),
        });
        if is_valid { Ok(Self(text.to_owned())) } else { Err(NoFilter) }
    }
}

fn is_level(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic()) && word.parse::<LevelFilter>().is_ok()
}

/// A module's path, such as `flotilla_agent::link`.
fn is_target(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused_and_what_is_accepted_can_be_applied() {
        for valid in ["info", "off", "WARN", "info,flotilla_agent::link=debug", "a=off,b-c=trace,error"] {
            let filter: Filter = valid.parse().unwrap();
            assert!(filter.0.parse::<tracing_subscriber::filter::Targets>().is_ok(), "{valid}");
        }
        for wrong in [
            "",
            "inof",
            "&&&=x,,info=zzz",
            "info,",
            "flotilla_agent",
            "a=",
            "=info",
            "a=loud",
            "3",
            "a b=info",
        ] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
