//! One child process: started with a log file, ended by its own id.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a process may take to end after a polite request.
const GRACE: Duration = Duration::from_secs(10);

/// A running child. Dropping it ends the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with everything it prints going to `log` (appended).
    ///
    /// # Errors
    /// When the log or the program can't be opened.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = S>,
        env: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open log {}", log.display()))?;
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name} from {}", program.display()))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the process has printed since its log began.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Fails with the end of its log if the process is no longer running.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("{} ended ({status}); its log ends with:\n{}", self.name, tail.join("\n"));
        }
        Ok(())
    }

    /// Asks the process to end (SIGTERM), waits, and ends it by force after the grace period.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal("TERM");
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
    }

    /// Ends the process as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Sends a signal by name, e.g. `TERM`, `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, signal: &str) {
        let _status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
    }

    /// Proportional set size in KiB, from the kernel's own account.
    ///
    /// # Errors
    /// When the process has ended or the kernel doesn't tell.
    pub fn pss_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
        line.trim().trim_end_matches("kB").trim().parse().context("Pss is not a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port on loopback that was free a moment ago.
///
/// # Errors
/// When loopback has none left.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Polls `condition` until it returns a value; an error of it counts as "not yet".
///
/// # Errors
/// After `limit`, naming `what` and the last error.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let last = condition();
        if let Ok(Some(value)) = last {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            let why = last.err().map(|e| format!(": {e:#}")).unwrap_or_default();
            bail!("{what} did not happen within {} s{why}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
