//! `cargo xtask tidy`: what no compiler checks. Arrows between rooms, fences around libraries, sizes of files,
//! and nothing committed that belongs to one machine or to nobody.

mod metrics;
mod threats;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{metadata, output, program, root};

/// Which of our packages each may name in its normal dependencies.
const ARROWS: [(&str, &[&str]); 13] = [
    ("protocol", &[]),
    ("trust", &["protocol"]),
    ("profile", &["protocol"]),
    ("rollout", &["protocol"]),
    ("release", &["protocol", "trust", "profile", "rollout"]),
    ("inference", &["protocol", "trust", "profile", "release"]),
    ("flotilla-agent", &["protocol", "trust", "profile", "release", "inference"]),
    ("flotilla-server", &["protocol", "trust", "profile", "release", "rollout"]),
    ("flotilla", &["protocol", "trust", "profile", "release", "inference"]),
    ("testkit", &["protocol", "trust", "release"]),
    ("tuf-client", &["protocol", "trust"]),
    ("firmware-tests", &["protocol", "trust", "release", "inference", "testkit", "flotilla-agent"]),
    ("xtask", &["testkit"]),
];

/// A library's path as it stands in code, and the only folders where it may stand.
const FENCES: [(&str, &[&str]); 5] = [
    ("sled::", &["agent/src/store"]),
    (
        "rumqttc::",
        &["agent/src/link", "agent/tests/api/broker.rs", "fleet-server/src/link", "fleet-server/tests"],
    ),
    ("mqtt5::", &["fleet-server/src/link"]),
    (
        "sqlx::",
        &[
            "fleet-server/src/store",
            "fleet-server/tests/store",
            "fleet-server/tests/link/sql.rs",
            "fleet-server/tests/rollouts/sql.rs",
        ],
    ),
    ("tract_onnx::", &["crates/inference"]),
];

/// Folders where keys of the configuration are read, and the heading below which the manual explains them.
const SETTINGS: [(&str, &str); 2] =
    [("agent/src/config/", "## Agent"), ("fleet-server/src/config/", "## Server")];
/// The manual of the configuration.
const SETTINGS_PAGE: &str = "docs/CONFIGURATION.md";

/// Longest file in production lines (what stands before its tests).
const MAX_LINES: usize = 600;

pub(crate) fn main() -> Result<()> {
    let files = tracked_files()?;
    let mut faults = arrows(&metadata()?)?;
    faults.extend(settings(&files)?);
    faults.extend(threats::faults(&files)?);
    faults.extend(metrics::faults(&files)?);
    for name in &files {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        faults.extend(fences(name, &text));
        faults.extend(size(name, &text));
        faults.extend(foreign(name, &text));
        faults.extend(unexplained(name, &text));
    }
    if faults.is_empty() {
        println!("tidy: {} files, no fault", files.len());
        return Ok(());
    }
    bail!("tidy found {} faults:\n  {}", faults.len(), faults.join("\n  "))
}

fn tracked_files() -> Result<Vec<String>> {
    let list = output(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))
        .context("tidy asks git which files belong to the project")?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn arrows(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            faults.push(format!("package {name} has no place on the plan (xtask/src/tidy.rs)"));
            continue;
        };
        let named = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string());
        for dependency in named.filter_map(|dependency| dependency["name"].as_str()) {
            if !allowed.contains(&dependency) {
                faults.push(format!("arrow the wrong way: {name} -> {dependency}"));
            }
        }
    }
    Ok(faults)
}

fn fences(name: &str, text: &str) -> Vec<String> {
    if !has_extension(name, &["rs"]) || name.starts_with("xtask/") {
        return Vec::new();
    }
    let broken = FENCES.iter().filter(|(library, rooms)| {
        let is_inside = rooms.iter().any(|room| name.starts_with(room));
        let is_used =
            text.lines().any(|line| !line.trim_start().starts_with("//") && names_path(line, library));
        is_used && !is_inside
    });
    broken.map(|(library, rooms)| format!("{name} names {library}, fenced to {}", rooms.join(", "))).collect()
}

/// Whether `line` names `library` as a path's first part, not as the end of a longer name.
fn names_path(line: &str, library: &str) -> bool {
    let is_start = |at: usize| {
        !line[..at]
            .chars()
            .next_back()
            .is_some_and(|before| before.is_alphanumeric() || "_:".contains(before))
    };
    line.match_indices(library).any(|(at, _)| is_start(at))
}

/// The manual names each key that is read, and no other.
fn settings(files: &[String]) -> Result<Vec<String>> {
    let read =
        |name: &str| fs::read_to_string(root().join(name)).with_context(|| format!("cannot read {name}"));
    let page = read(SETTINGS_PAGE)?;
    let mut faults = Vec::new();
    for (folder, heading) in SETTINGS {
        let is_source = |name: &&String| {
            name.starts_with(folder) && has_extension(name, &["rs"]) && !name.ends_with("/tests.rs")
        };
        let mut known = BTreeSet::new();
        for name in files.iter().filter(is_source) {
            known.extend(quoted_keys(before_tests(&read(name)?), '"'));
        }
        let chapter = page.split("\n## ").find(|chapter| chapter.starts_with(&heading[3..]));
        let explained = quoted_keys(chapter.unwrap_or_default(), '`');
        let missing =
            known.difference(&explained).map(|key| format!("{SETTINGS_PAGE} does not explain {key}"));
        let unknown = explained
            .difference(&known)
            .map(|key| format!("{SETTINGS_PAGE} explains {key}, which nobody reads"));
        faults.extend(missing.chain(unknown));
    }
    Ok(faults)
}

fn before_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

/// What stands in quotes and looks like `section.key`.
fn quoted_keys(text: &str, quote: char) -> BTreeSet<String> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let is_key =
        |part: &&str| part.split_once('.').is_some_and(|(section, key)| is_word(section) && is_word(key));
    let is_file = |part: &&str| has_extension(part, &["db", "toml"]);
    let quoted = text.lines().flat_map(|line| line.split(quote).skip(1).step_by(2));
    quoted.filter(is_key).filter(|part| !is_file(part)).map(str::to_owned).collect()
}

fn size(name: &str, text: &str) -> Option<String> {
    // Generated files and catalogues of texts are data.
    let is_data = name.contains("/generated/") || name.contains("/i18n/") || name.ends_with(".d.ts");
    if !has_extension(name, &["rs", "ts", "tsx"]) || is_data {
        return None;
    }
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    (lines > MAX_LINES).then(|| format!("{name} has {lines} production lines, at most {MAX_LINES}"))
}

fn foreign(name: &str, text: &str) -> Vec<String> {
    if name == "Cargo.lock" || name == "xtask/src/tidy.rs" {
        return Vec::new();
    }
    // Written in two halves, so that this file doesn't hold what it looks for.
    let signs = [
        (concat!("/ro", "ot/"), "a path of one machine"),
        (concat!("/wo", "rk/main"), "a path of one machine"),
        (concat!("registry.np", "mjs"), "a package registry's host"),
        (concat!("files.python", "hosted"), "a package registry's host"),
        (concat!("deb.deb", "ian.org"), "a package registry's host"),
        (concat!("static.crates", ".io"), "a package registry's host"),
        (concat!("BEGIN PRIV", "ATE KEY"), "an unencrypted private key"),
        (concat!("BEGIN EC PRIV", "ATE KEY"), "an unencrypted private key"),
    ];
    let found = signs.iter().filter(|(sign, _)| text.contains(sign));
    found.map(|(sign, what)| format!("{name} holds {what}: {sign}")).collect()
}

/// Private functions too say what their callers must see to: clippy asks it of public ones only.
fn unexplained(name: &str, text: &str) -> Vec<String> {
    if !has_extension(name, &["rs"]) {
        return Vec::new();
    }
    let (mut is_explained, mut faults) = (false, Vec::new());
    for (place, line) in text.lines().map(str::trim_start).enumerate() {
        if line.starts_with("///") || line.starts_with("#[") {
            is_explained |= line.trim_end() == "/// # Safety";
            continue;
        }
        let is_unsafe = line.split('(').next().is_some_and(|head| {
            let mut words = head.split_whitespace().skip_while(|word| *word != "unsafe");
            words.next().is_some() && words.next() == Some("fn") && !line.starts_with("//")
        });
        if is_unsafe && !is_explained {
            faults.push(format!("{name}:{} is an unsafe function without a section # Safety", place + 1));
        }
        is_explained = false;
    }
    faults
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    Path::new(name).extension().is_some_and(|have| extensions.iter().any(|want| have == *want))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsafe_function_says_what_its_callers_must_see_to() {
        let text = "/// Adds.\n///\n/// # Safety\n/// AVX2.\n#[inline]\npub(super) unsafe fn a() {}\nunsafe fn b() {}\n";
        let faults = unexplained("crates/x/src/lib.rs", text);
        assert!(faults.len() == 1 && faults[0].contains("lib.rs:7"), "{faults:?}");
        assert!(unexplained("crates/x/src/lib.rs", "// an unsafe fn\nunsafe extern \"C\" {\n").is_empty());
    }

    #[test]
    fn a_fenced_library_outside_its_room_is_a_fault() {
        assert_eq!(fences("cli/src/main.rs", "use sled::Db;").len(), 1);
        assert!(fences("agent/src/store/spool.rs", "use sled::Db;").is_empty());
        assert!(fences("cli/src/main.rs", "// sled::Db is elsewhere").is_empty());
        assert!(fences("cli/src/main.rs", "let x = assembled::Db;").is_empty());
    }

    #[test]
    fn tests_do_not_count_as_production_lines() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert!(size("a.rs", &long).is_some());
        assert!(size("a.rs", &format!("x\n#[cfg(test)]\n{long}")).is_none());
        assert!(size("a.md", &long).is_none());
    }

    #[test]
    fn arrows_the_wrong_way_are_found() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "protocol", "dependencies": [{ "name": "trust", "kind": null, "path": "x" }] },
            { "name": "nobody", "dependencies": [] },
        ]});
        assert_eq!(arrows(&metadata).unwrap().len(), 2);
    }
}
