//! Gives the build its time (a lower bound of the device's clock), its target and, where git knows it, its commit.

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
    let log = Path::new("../.git/logs/HEAD");
    if !log.exists() {
        return None;
    }
    println!("cargo:rerun-if-changed={}", log.display());
    let said = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(said.stdout).ok()?;
    (said.status.success() && !commit.trim().is_empty()).then(|| commit.trim().to_owned())
}
