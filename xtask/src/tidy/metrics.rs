//! The page of metrics names each one that a program gives, and no other.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};

use super::{before_tests, has_extension};
use crate::run::root;

/// The page.
const PAGE: &str = "docs/METRICS.md";
/// Where names of metrics stand, and the heading below which the page explains them.
const SOURCES: [(&str, &str); 2] =
    [("agent/src/serve/metrics.rs", "## Agent"), ("fleet-server/src/", "## Server")];
/// What begins like a metric and is none: the names of our own crates.
const CRATES: [&str; 2] = ["flotilla_agent", "flotilla_server"];

/// What the page leaves out, and what it invents.
///
/// # Errors
/// When a file can't be read.
pub(super) fn faults(files: &[String]) -> Result<Vec<String>> {
    let read =
        |name: &str| fs::read_to_string(root().join(name)).with_context(|| format!("cannot read {name}"));
    let page = read(PAGE)?;
    let mut faults = Vec::new();
    for (source, heading) in SOURCES {
        let mut given = BTreeSet::new();
        for name in files.iter().filter(|name| name.starts_with(source) && has_extension(name, &["rs"])) {
            given.extend(names(before_tests(&read(name)?), '"'));
        }
        let chapter = page.split("\n## ").find(|chapter| chapter.starts_with(&heading[3..]));
        let explained = names(chapter.unwrap_or_default(), '`');
        faults.extend(given.difference(&explained).map(|name| format!("{PAGE} does not explain {name}")));
        faults.extend(
            explained.difference(&given).map(|name| format!("{PAGE} explains {name}, which nobody gives")),
        );
    }
    Ok(faults)
}

/// Names of metrics in quotes.
fn names(text: &str, quote: char) -> BTreeSet<String> {
    let is_name = |part: &&str| {
        part.starts_with("flotilla_")
            && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
    };
    let quoted = text.lines().flat_map(|line| line.split(quote).skip(1).step_by(2));
    quoted.filter(is_name).filter(|name| !CRATES.contains(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_quotes() {
        let found = names("a \"flotilla_x_total\" \"flotilla_agent\" \"other\"\nflotilla_y", '"');
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["flotilla_x_total"]);
    }
}
