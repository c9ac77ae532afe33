//! A throw-away PostgreSQL from Debian's binaries, on a unix socket in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running PostgreSQL; ends with this value.
pub(crate) struct Postgres {
    child: Child,
    bin: PathBuf,
    dir: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub(crate) fn start() -> Self {
        let bin = newest_bin();
        let dir = tempfile::Builder::new().prefix("flotilla-pg").tempdir().unwrap();
        if is_root() {
            // The server refuses to run as root.
            run(Command::new("chown").arg("postgres:").arg(dir.path()));
        }
        let data = dir.path().join("data");
        let made = as_postgres(&bin.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let child = as_postgres(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, bin, dir };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.psql("SELECT 1") {
            assert!(Instant::now() < until, "PostgreSQL did not start within 30 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn psql(&self, sql: &str) -> bool {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-q", "-U", "postgres", "-d", "postgres", "-c", sql, "-h"]).arg(self.dir.path());
        psql.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// A new database's URL; empty, or a copy of `template`.
    pub(crate) fn database(&self, name: &str, template: Option<&str>) -> String {
        let template = template.map_or(String::new(), |template| format!(" TEMPLATE {template}"));
        assert!(self.psql(&format!("CREATE DATABASE {name}{template}")), "cannot make database {name}");
        format!("postgres://postgres@localhost/{name}?host={}", self.dir.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown.
        let _ = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn newest_bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .max();
    found.expect("PostgreSQL is missing; run: sudo apt-get install -y postgresql").1
}

fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=INT", "--"])
        .arg(program);
    // The folder of the test may not be readable by that user.
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
