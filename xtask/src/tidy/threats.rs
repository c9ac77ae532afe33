//! The threat model against the tests: every attack has a line, and every test that a line names is there.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};

use crate::run::root;

const PAGE: &str = "docs/THREAT-MODEL.md";
/// Where the table of attacks begins and ends.
const CHAPTER: &str = "\n## Threats and the tests";
/// Attacks of the design, letter and highest number.
const ATTACKS: [(&str, u32); 9] =
    [("A", 10), ("R", 5), ("F", 4), ("FF", 3), ("M", 3), ("D", 6), ("K", 3), ("V", 2), ("X", 5)];

/// What is wrong with the page.
pub(super) fn faults(files: &[String]) -> Result<Vec<String>> {
    let page = fs::read_to_string(root().join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let mut tests = BTreeSet::new();
    for name in files.iter().filter(|name| super::has_extension(name, &["rs"])) {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        tests.extend(functions(&text));
    }
    Ok(compare(&page, &tests))
}

fn compare(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let table = page.split_once(CHAPTER).map_or("", |(_, rest)| rest);
    let table = table.split("\n## ").next().unwrap_or_default();
    let missing = attacks()
        .filter(|id| !table.lines().any(|line| names_attack(line, id)))
        .map(|id| format!("{PAGE} has no line for attack {id}"));
    let unknown = named_tests(table)
        .filter(|test| !tests.contains(*test))
        .map(|test| format!("{PAGE} names the test {test}, which isn't there"));
    missing.chain(unknown).collect()
}

fn attacks() -> impl Iterator<Item = String> {
    ATTACKS.iter().flat_map(|(letter, last)| (1..=*last).map(move |number| format!("{letter}{number}")))
}

/// Whether the first words of a row name the attack: `| A1 A2 what it is |`.
fn names_attack(line: &str, id: &str) -> bool {
    line.strip_prefix("| ").is_some_and(|row| {
        let is_id = |word: &&str| word.chars().next_back().is_some_and(|end| end.is_ascii_digit());
        row.split(' ').take_while(is_id).any(|word| word == id)
    })
}

/// What stands in backquotes and looks like a test: words joined by underscores.
fn named_tests(table: &str) -> impl Iterator<Item = &str> {
    let quoted = table.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|name| {
        name.matches('_').count() >= 2
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

fn functions(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let (_, name) = line.split_once("fn ")?;
        let (name, _) = name.split_once('(')?;
        Some(name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_without_a_line_and_tests_that_are_gone_are_found() {
        let row = |id: String| format!("| {id} what | trust `a1_there_it_is` |\n");
        let rows = attacks().map(row).collect::<Vec<_>>().concat();
        let page = |rows: &str| format!("{CHAPTER}\n{rows}\n## Known gaps\n`a1_not_looked_at_here`\n");
        let tests: BTreeSet<String> = functions("    fn a1_there_it_is() {").collect();
        assert!(compare(&page(&rows), &tests).is_empty());
        assert_eq!(compare(&page(&rows), &BTreeSet::new()).len(), attacks().count());
        let without = rows.replace("| FF1 ", "| ");
        assert_eq!(compare(&page(&without), &tests), [format!("{PAGE} has no line for attack FF1")]);
    }
}
