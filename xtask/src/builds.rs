//! Building what the other commands run: the console, then the binaries that embed it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use testkit::rig::Binaries;

use crate::run::{cargo, output, prepare, program, root, target_folder};
use crate::tools;

/// Folder of the web console.
pub(crate) fn console_folder() -> PathBuf {
    root().join("fleet-server/console")
}

/// An `npm` command in the console's folder.
pub(crate) fn npm(args: &[&str]) -> Command {
    let mut command = program("npm");
    command.args(args).current_dir(console_folder());
    command
}

/// Installs the console's packages when the lock file has changed since the last time.
///
/// # Errors
/// When Node.js is missing or a package can't be installed.
pub(crate) fn install_console() -> Result<()> {
    tools::ensure_node()?;
    let folder = console_folder();
    let lock = folder.join("package-lock.json");
    let wanted = std::fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let stamp = folder.join("node_modules/.flotilla-lock");
    if std::fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    eprintln!("installing the console's packages: npm ci");
    prepare(&mut npm(&["ci", "--no-audit", "--no-fund", "--loglevel=error"]))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Builds the console into `dist/`, unless it is newer than everything that it is made of.
///
/// # Errors
/// When it doesn't build.
pub(crate) fn console() -> Result<()> {
    install_console()?;
    let folder = console_folder();
    let sources = output(program("git").current_dir(&folder).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]));
    let newest = |files: &str| {
        files.lines().filter_map(|file| folder.join(file).metadata().ok()?.modified().ok()).max()
    };
    let built = folder.join("dist/index.html").metadata().and_then(|meta| meta.modified()).ok();
    let is_fresh = sources.is_ok_and(|files| built.is_some() && newest(&files) <= built);
    if is_fresh {
        return Ok(());
    }
    eprintln!("building the console: npm run build");
    prepare(&mut npm(&["run", "--silent", "build"]))
}

/// Builds console, server, agent and command line, and says where they are.
///
/// # Errors
/// When one doesn't build.
pub(crate) fn binaries() -> Result<Binaries> {
    console()?;
    eprintln!(
        "building flotilla-server, flotilla-agent and flotilla (minutes the first time, seconds after)"
    );
    // One test target makes cargo choose the same features of the dependencies as `cargo test --workspace`: without
    // it, a machine that runs both would compile most of them twice.
    prepare(cargo().args(["build", "--workspace", "--locked", "--bins", "--test", "asyncapi"]))?;
    Ok(Binaries::in_folder(&target_folder()?.join("debug")))
}
