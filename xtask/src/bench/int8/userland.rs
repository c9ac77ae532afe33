//! A small ARM userland for the emulator: Debian's Python for arm64 and ONNX Runtime's package for it.
//!
//! The packages are downloaded and unpacked into our cache folder; nothing of it is installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::models;
use crate::run::{prepare, program};
use crate::tools;

/// What Debian brings: Python, and the C++ library that ONNX Runtime needs.
const DEBIAN: [&str; 2] = ["python3", "libstdc++6"];
/// What PyPI brings, in the versions of the models' requirements.
const PYPI: [&str; 2] = ["onnxruntime", "numpy"];
/// The platforms whose wheels the userland can load.
const PLATFORMS: [&str; 3] = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"];

/// Where it lies.
pub(super) struct Userland {
    /// What the emulator shows as the root of ARM's files.
    pub(super) root: PathBuf,
    /// Its Python.
    pub(super) python: PathBuf,
    /// The Python packages.
    pub(super) packages: PathBuf,
}

impl Userland {
    /// Unpacks it, once for these versions.
    ///
    /// # Errors
    /// When a package can't be downloaded or unpacked, as on a machine without apt-get.
    pub(super) fn ensure(host_python: &Path) -> Result<Self> {
        let folder = tools::cache_folder()?.join("arm64-python");
        let wanted = pinned()?;
        let stamp = folder.join("packages.txt");
        let (root, packages) = (folder.join("root"), folder.join("packages"));
        if !fs::read_to_string(&stamp).is_ok_and(|have| have == wanted.join("\n")) {
            eprintln!("unpacking Python and ONNX Runtime for arm64 in {}", folder.display());
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            debian(&folder, &root)?;
            let version = python(&root)?.1;
            pypi(host_python, &packages, &version, &wanted)?;
            fs::write(&stamp, wanted.join("\n"))
                .with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        let python = python(&root)?.0;
        Ok(Self { root, python, packages })
    }

    /// Makes the emulated process see this CPU: ONNX Runtime reads the text of /proc/cpuinfo.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn show_cpu(&self, cpuinfo: &str) -> Result<()> {
        let folder = self.root.join("proc");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("cpuinfo");
        fs::write(&file, cpuinfo).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Lines of the requirements that name our packages.
fn pinned() -> Result<Vec<String>> {
    let all = models::requirements()?;
    let is_ours = |line: &&String| line.split("==").next().is_some_and(|name| PYPI.contains(&name));
    Ok(all.iter().filter(is_ours).cloned().collect())
}

/// Downloads Debian's packages with their dependencies through a package manager's state of its own.
fn debian(folder: &Path, root: &Path) -> Result<()> {
    if tools::find("apt-get").is_none() || tools::find("dpkg").is_none() {
        bail!("Python for arm64 comes from Debian's packages; there is no apt-get here");
    }
    for part in ["apt/state/lists/partial", "apt/cache/archives/partial", "root"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    }
    let apt = folder.join("apt");
    let settings = format!(
        "APT::Architecture \"arm64\";\nAPT::Architectures {{ \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
         Dir::State \"{0}/state\";\nDir::State::status \"{0}/state/status\";\nDir::Cache \"{0}/cache\";\nDir::Log \"{0}\";\n",
        apt.display()
    );
    let file = apt.join("apt.conf");
    fs::write(&file, settings).with_context(|| format!("cannot write {}", file.display()))?;
    let status = apt.join("state/status");
    fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
    let run = |args: &[&str]| {
        prepare(program("apt-get").args(args).env("APT_CONFIG", &file).stdout(std::io::stderr()))
    };
    run(&["update", "-qq"])?;
    run(&[&["install", "-y", "-qq", "--no-install-recommends", "--download-only"], &DEBIAN[..]].concat())?;
    for package in entries(&apt.join("cache/archives"))?.into_iter().filter(|p| p.extension().is_some()) {
        prepare(program("dpkg").arg("-x").args([&package, root]))?;
    }
    fs::remove_dir_all(&apt).with_context(|| format!("cannot remove {}", apt.display()))
}

/// Installs wheels for the userland with this machine's pip.
fn pypi(host_python: &Path, packages: &Path, version: &str, wanted: &[String]) -> Result<()> {
    let mut command = program(&host_python.to_string_lossy());
    command.args(["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"]);
    command.args(["--python-version", version, "--implementation", "cp"]);
    command.args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]));
    prepare(command.arg("--target").arg(packages).args(wanted).stdout(std::io::stderr()))
}

/// The userland's Python and its version, e.g. `3.11`.
fn python(root: &Path) -> Result<(PathBuf, String)> {
    let version = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("python")?;
        name.split_once('.')?.1.parse::<u32>().ok()?;
        Some((path.clone(), name.to_owned()))
    };
    let folder = root.join("usr/bin");
    entries(&folder)?
        .iter()
        .find_map(version)
        .with_context(|| format!("no python3.* in {}", folder.display()))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(found.flatten().map(|entry| entry.path()).collect())
}
