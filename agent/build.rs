//! Gives the build its time (a lower bound of the device's clock), its target and, where git knows it, its commit.
//!
//! Builds for development have no commit unless `FLOTILLA_COMMIT` gives one: they would be made anew by each commit,
//! and say the wrong one as soon as a file is edited.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-env-changed=FLOTILLA_COMMIT");
    let now_s = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let built_s =
        std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now_s);
    println!("cargo:rustc-env=FLOTILLA_BUILT_S={built_s}");
    println!("cargo:rustc-env=FLOTILLA_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    let given = std::env::var("FLOTILLA_COMMIT").ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = given.or_else(git_commit) {
        println!("cargo:rustc-env=FLOTILLA_COMMIT={commit}");
    }
}

/// The commit that is checked out; none outside of a clone or without git.
fn git_commit() -> Option<String> {
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return None;
    }
    // In a linked worktree `.git` is a file; git knows where its log is.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let said = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    (said.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
