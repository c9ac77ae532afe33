//! Tools that the commands need: found, or installed from the ordinary package managers, saying so.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::run::{output, prepare, program};

/// A program and the Debian package that brings it.
pub(crate) struct Tool {
    /// Program, or absolute paths of which one must exist.
    pub(crate) program: &'static str,
    /// Debian package.
    pub(crate) package: &'static str,
    /// What needs it.
    pub(crate) needed_for: &'static str,
}

/// Real browser for the console's tests and screenshots.
pub(crate) const CHROMIUM: Tool =
    Tool { program: "chromium", package: "chromium", needed_for: "browser tests" };
/// User-mode emulation of other CPUs.
pub(crate) const QEMU_AARCH64: Tool =
    Tool { program: "qemu-aarch64", package: "qemu-user", needed_for: "the emulated device" };
/// Compiles what emulators load.
pub(crate) const C_COMPILER: Tool =
    Tool { program: "cc", package: "gcc", needed_for: "counting instructions under emulation" };

/// Other tools' deltas, to compare with.
pub(crate) const XDELTA3: Tool =
    Tool { program: "xdelta3", package: "xdelta3", needed_for: "the comparison of deltas" };
/// See [`XDELTA3`].
pub(crate) const BSDIFF: Tool =
    Tool { program: "bsdiff", package: "bsdiff", needed_for: "the comparison of deltas" };

/// Shows a disk whose every write is logged.
pub(crate) const STORAGE_DAEMON: Tool =
    Tool { program: "qemu-storage-daemon", package: "qemu-utils", needed_for: "crash states" };

/// A broker as it runs beside applications on a device.
pub(crate) const MOSQUITTO: Tool =
    Tool { program: "mosquitto", package: "mosquitto", needed_for: "tests with a broker of its own" };
/// Its command lines to publish and to listen.
pub(crate) const MOSQUITTO_CLIENTS: Tool =
    Tool { program: "mosquitto_pub", package: "mosquitto-clients", needed_for: "the local broker's test" };

/// Changes the database of a server that was stolen; its library has SQLite.
pub(crate) const PYTHON: Tool =
    Tool { program: "python3", package: "python3", needed_for: "the fault with a stolen server" };

/// Another program that opens private keys.
pub(crate) const OPENSSL: Tool =
    Tool { program: "openssl", package: "openssl", needed_for: "key files of other programs" };

/// A library that gives a program another clock; it lies in a folder named by the machine's architecture.
pub(crate) const LIBFAKETIME: Tool = Tool {
    program: "faketime/libfaketimeMT.so.1",
    package: "libfaketime",
    needed_for: "the agent's test with a clock at 1970",
};

/// Makes sure that a library is there; installs its Debian package if not.
///
/// # Errors
/// With the one line that installs it, when that can't be done here.
pub(crate) fn ensure_file(tool: &Tool) -> Result<()> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    if folders.map(|folder| folder.join(tool.program)).any(|file| file.exists()) {
        return Ok(());
    }
    install_debian(&[tool.package], tool.needed_for)
}

/// Makes sure that a program is there; installs its Debian package if not.
///
/// # Errors
/// With the one line that installs it, when that can't be done here.
pub(crate) fn ensure(tool: &Tool) -> Result<()> {
    if find(tool.program).is_some() {
        return Ok(());
    }
    install_debian(&[tool.package], tool.needed_for)
}

/// Makes sure that PostgreSQL's server programs are there (they are not on the search path in Debian).
///
/// # Errors
/// With the one line that installs them, when that can't be done here.
pub(crate) fn ensure_postgresql() -> Result<()> {
    let has_server = std::fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|versions| versions.flatten().any(|version| version.path().join("bin/initdb").exists()));
    if has_server || find("initdb").is_some() {
        return Ok(());
    }
    install_debian(&["postgresql"], "the store's tests on PostgreSQL")
}

fn install_debian(packages: &[&str], needed_for: &str) -> Result<()> {
    let list = packages.join(" ");
    let line = format!("apt-get install -y {list}");
    let is_root = output(program("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0");
    if !is_root || find("apt-get").is_none() {
        bail!("{needed_for}: missing {list}; install it with: sudo {line}");
    }
    eprintln!("installing {list} for {needed_for}: {line}");
    let apt = |args: &[&str]| prepare(program("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat())
        .with_context(|| format!("{needed_for}: could not install {list}"))
}

/// Makes sure that Node.js and npm are there.
///
/// # Errors
/// With the one line that installs them.
pub(crate) fn ensure_node() -> Result<()> {
    if find("npm").is_some() {
        return Ok(());
    }
    bail!(
        "the web console needs Node.js 20 or newer with npm; install it, e.g. with: sudo apt-get install -y nodejs npm"
    )
}

/// A private Python environment in the user's cache with exactly these packages; made once.
///
/// # Errors
/// When Python is missing or a package can't be installed.
pub(crate) fn python_env(name: &str, packages: &[&str]) -> Result<PathBuf> {
    if find("python3").is_none() {
        install_debian(&["python3", "python3-venv"], name)?;
    }
    let folder = cache_folder()?.join("python").join(name);
    let stamp = folder.join("packages.txt");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(folder.join("bin"));
    }
    eprintln!("installing {} into {}", packages.join(" "), folder.display());
    prepare(program("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .context("python3 -m venv failed; on Debian: sudo apt-get install -y python3-venv")?;
    prepare(program(&folder.join("bin/pip").to_string_lossy()).args(["install", "--quiet"]).args(packages))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(folder.join("bin"))
}

/// Our folder in the user's cache directory.
///
/// # Errors
/// When it can't be made.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match base {
        Some(base) => base,
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let folder = base.join("flotilla");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Where a program is on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
