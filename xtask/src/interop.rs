//! Our TUF client against repositories made by python-tuf, and python-tuf's client against ours.

use anyhow::{Context as _, Result};

use crate::run::{cargo, check, program, root, target_folder};
use crate::tools;

const FOLDER: &str = "crates/tuf-client/interop";

/// Builds the client by the command that others are told, and runs the scenarios.
///
/// # Errors
/// When a tool is missing or a scenario fails.
pub(crate) fn main() -> Result<()> {
    tools::ensure_file(&tools::LIBFAKETIME)?;
    let build = ["build", "--release", "--bin", "tuf-client", "--features", "conformance", "--locked"];
    check(cargo().args(build))?;
    let target = target_folder()?;
    let ours = target.join("interop");
    check(
        cargo()
            .args([
                "run",
                "--quiet",
                "--locked",
                "--package",
                "tuf-client",
                "--example",
                "make_repository",
                "--",
            ])
            .arg(&ours),
    )?;
    let requirements = root().join(FOLDER).join("requirements.txt");
    let requirements = std::fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let python = tools::python_env("tuf", &requirements.lines().collect::<Vec<_>>())?.join("python");
    check(
        program(&python.to_string_lossy())
            .arg(format!("{FOLDER}/run.py"))
            .arg("--client")
            .arg(target.join("release/tuf-client"))
            .arg("--ours")
            .arg(&ours),
    )
}
