//! What can be seen without the network: hardware, state directory, disk, clock, certificates, the agent itself.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::UnixMillis;
use serde_json::Value;

use super::ahead::ClockAhead;
use super::finding::{Report, disk_advice};
use crate::config::Config;
use crate::durable;
use crate::health::{Clock, ProblemKind, ShownProblem, free_bytes, read_hardware, used_bytes};
use crate::link::{Identity, client_config};
use crate::shown::{bytes, duration, instant};
use crate::status::StatusError;

/// Less room than this and telemetry is no longer stored.
const LEAST_FREE_BYTES: u64 = 8 * 1024 * 1024;
/// A small synced write that takes longer than this makes every step of an update slow.
const SLOW_SYNC: Duration = Duration::from_millis(500);

/// Instructions that the kernels are fast with: architecture, names in `/proc/cpuinfo`, what is slow without them.
const FAST: [(&str, &[&str], &str); 4] = [
    ("x86_64", &["avx2", "fma"], "all models"),
    ("x86_64", &["avx512_vnni", "avx_vnni"], "int8 models"),
    ("aarch64", &["asimddp"], "int8 models"),
    ("armv7", &["neon"], "all models"),
];

pub(super) fn hardware(report: &mut Report, config: &Config) {
    let hardware = read_hardware(&config.device.class);
    let total = hardware.memory_bytes;
    report.ok(
        "cpu",
        format!(
            "{}, {} CPUs, {} memory, class {}",
            hardware.arch,
            hardware.cpus,
            bytes(total),
            hardware.class
        ),
    );
    let has = |name: &&str| hardware.cpu_features.iter().any(|feature| feature == name);
    for (arch, names, what) in FAST.iter().filter(|(arch, ..)| *arch == hardware.arch) {
        // VNNI has two names for the same thing; of the others all are wanted.
        let (is_there, names) = if *what == "int8 models" {
            (names.iter().any(has), names.join(" or "))
        } else {
            (names.iter().all(has), names.join(" and "))
        };
        if is_there {
            report.ok("cpu", format!("{names} for {what}"));
        } else {
            let todo = format!("nothing: {what} run with slower kernels; their latency budgets may not hold");
            report.warn("cpu", format!("this {arch} lacks {names}"), todo);
        }
    }
    let budget = config.update.memory_budget_bytes;
    if budget > total && total > 0 {
        let what =
            format!("update.memory_budget_bytes is {}, the device has {}", bytes(budget), bytes(total));
        report.warn("memory", what, "lower the budget, so that a model is refused before memory runs out");
    }
}

/// Returns whether the rest can be looked at.
pub(super) fn state_dir(report: &mut Report, config: &Config) -> bool {
    let dir = &config.state_dir;
    let shown = dir.display();
    let meta = match std::fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let todo = "enrolment makes it: `flotilla-agent enroll --token ...`; or set state_dir";
            report.fail("state_dir", format!("{shown} is not there"), todo);
            return false;
        }
        Err(error) => {
            report.fail("state_dir", format!("{shown} can't be looked at: {error}"), disk_advice(&error));
            return false;
        }
    };
    if !meta.is_dir() {
        report.fail("state_dir", format!("{shown} is no folder"), "set state_dir to a folder");
        return false;
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let todo = format!("chmod 700 {shown}: it holds the device's keys");
        report.warn("state_dir", format!("others may look into {shown} (mode {mode:o})"), todo);
    }
    let (probe, begun) = (dir.join("doctor-probe"), Instant::now());
    let written = durable::write_atomic(&probe, b"probe");
    let _gone = std::fs::remove_file(&probe);
    let took = begun.elapsed();
    match written {
        Ok(()) if took > SLOW_SYNC => {
            let what = format!("a small synced write to {shown} took {} ms", took.as_millis());
            report.warn(
                "state_dir",
                what,
                "a failing or overloaded disk; updates and telemetry will be slow",
            );
        }
        Ok(()) => {
            report.ok("state_dir", format!("{shown} takes synced writes ({} ms)", took.as_millis()));
        }
        Err(error) if error.is_denied() => {
            let todo = "run the doctor as the agent's user or as root; if it was, give state_dir to the agent's user";
            report.fail("state_dir", crate::chain(&error), todo);
        }
        // Room comes back by itself, or is made; the folder is as it should be.
        Err(error) if error.is_full() => {
            report.fail("disk", crate::chain(&error), ProblemKind::DiskLow.advice());
        }
        Err(error) => {
            let todo = "check that the disk is not read-only or failing";
            report.fail("state_dir", crate::chain(&error), todo);
        }
    }
    true
}

pub(super) fn disk(report: &mut Report, config: &Config) {
    let dir = &config.state_dir;
    let free = match free_bytes(dir) {
        Ok(free) => free,
        Err(error) => {
            return report.fail("disk", crate::chain(&error), disk_advice(&error));
        }
    };
    let what = match std::fs::read_dir(dir) {
        Ok(_) => format!(
            "{} free; used by {}, all of {} {}",
            bytes(free),
            parts(dir),
            dir.display(),
            bytes(used_bytes(dir))
        ),
        Err(_) => format!("{} free; this user may not see what the agent uses", bytes(free)),
    };
    let wanted = config.update.keep_free_bytes.saturating_add(LEAST_FREE_BYTES);
    if free < LEAST_FREE_BYTES {
        report.fail("disk", what, "free room: no telemetry is stored and no release fetched below 8 MiB");
    } else if free < wanted {
        report.warn("disk", what, format!("free room up to {}: updates wait meanwhile", bytes(wanted)));
    } else {
        report.ok("disk", what);
    }
    if rustix::fs::statvfs(dir).is_ok_and(|stat| stat.f_files > 0 && stat.f_favail < 64) {
        report.fail("disk", "the file system has no inodes left", "remove small files from that disk");
    }
}

/// What the state directory is used for, without what takes nothing.
fn parts(dir: &Path) -> String {
    let used = |(name, part): (&str, &str)| (name.to_owned(), used_bytes(&dir.join(part)));
    let all = [
        ("models", "blobs"),
        ("manifests", "manifests"),
        ("signed metadata", "trusted"),
        ("telemetry", "spool"),
        ("telemetry moved aside (spool.quarantined, may be removed)", "spool.quarantined"),
        ("samples for retraining", "samples"),
    ];
    let taken = all.map(used).into_iter().filter(|(_, taken)| *taken > 0);
    let taken: Vec<String> = taken.map(|(name, taken)| format!("{name} {}", bytes(taken))).collect();
    if taken.is_empty() { "nothing yet".to_owned() } else { taken.join(", ") }
}

pub(super) fn clock(report: &mut Report, clock: &Clock) {
    if let Some(problem) = clock.problem() {
        let todo = "start the agent: it writes the files anew within the hour; while it is stopped they may be removed";
        report.warn("clock", problem.detail, todo);
    }
    let (floor, now) = (clock.floor(), clock.now());
    if clock.is_plausible() {
        report.ok("clock", format!("{}, after the proven bound {}", instant(now), instant(floor)));
    } else {
        let what = format!("stands before {}, which is known to have passed", instant(floor));
        report.warn("clock", what, ProblemKind::ClockImplausible.advice());
    }
}

/// Who this device is, which lies on the disk twice.
pub(super) fn identity(report: &mut Report, identity: &Identity, state_dir: &Path) {
    report.ok("identity", format!("{}/{}", identity.project, identity.device));
    for path in identity.unlike(state_dir).unwrap_or_default() {
        report.warn(
            "identity",
            format!("{} is damaged, gone or an earlier one; the other copy is used", path.display()),
            "restart the agent: it mends it; if it comes again, the disk is failing: replace it",
        );
    }
}

/// `heard` is the time that the server says it is.
pub(super) fn certificates(
    report: &mut Report,
    identity: &Identity,
    now: UnixMillis,
    heard: Option<UnixMillis>,
) {
    match identity.validity() {
        Ok(validity) => match validity.problem(now) {
            Some(problem) if now > validity.not_after => {
                match (ClockAhead::of(validity.not_after, now, heard), heard) {
                    (Some(ahead), _) => report.fail("certificate", ahead.to_string(), ClockAhead::ADVICE),
                    (None, Some(_)) => report.fail("certificate", problem.detail, enrol_again()),
                    (None, None) => {
                        let what = format!("{}; by its clock it is {}", problem.detail, instant(now));
                        report.fail("certificate", what, problem.kind.advice());
                    }
                }
            }
            Some(problem) => report.warn("certificate", problem.detail, problem.kind.advice()),
            None if now < validity.not_before => {
                let what = format!("is valid only from {} on", instant(validity.not_before));
                report.fail("certificate", what, "set the device's clock");
            }
            None => {
                let left = duration(validity.not_after.millis_since(now));
                let what = format!("valid for {left} more, is renewed from {} on", instant(validity.due()));
                report.ok("certificate", what);
            }
        },
        Err(error) => report.fail("certificate", crate::chain(&error), enrol_again()),
    }
    match identity.ca_validity() {
        Ok(ca) if now > ca.not_after => {
            report.fail("certificate", "the fleet's CA has expired", enrol_again());
        }
        Ok(_) => {}
        Err(error) => report.fail("certificate", crate::chain(&error), enrol_again()),
    }
}

fn enrol_again() -> &'static str {
    "enrol this device again with a new token: `flotilla-agent enroll --force --token ...`"
}

/// Who may ask without any sign-in.
pub(super) fn exposure(report: &mut Report, config: &Config) {
    if let Some(exposure) = config.serve.exposure() {
        report.warn(
            "local_api",
            exposure,
            "set serve.listen to 127.0.0.1:8500 or use serve.unix, or keep others out by a firewall",
        );
    }
}

/// Whether the agent runs, and what it says is wrong.
pub(super) fn agent(report: &mut Report, config: &Config, running: Result<&Value, &StatusError>) {
    let Ok(status) = running else {
        let is_locked = is_locked(&config.state_dir);
        if let (true, Err(StatusError::Refused { status: 503, why, .. })) = (is_locked, running) {
            let todo = "the agent is well and has too much to do: find who asks so much (`ss -tnp`), or raise what is full \
                        (serve.max_connections, serve.queue)";
            report.warn("agent", format!("its local API is {why}"), todo);
        } else if is_locked {
            let todo = "wait a moment; if it stays, restart it: `systemctl restart flotilla-agent`";
            report.fail(
                "agent",
                "an agent holds the state directory but its local API does not answer",
                todo,
            );
        } else {
            report.warn("agent", "does not run", "start it: `systemctl start flotilla-agent`");
            port_is_free(report, config);
        }
        return;
    };
    let version = status["agent_version"].as_str().unwrap_or("?");
    let up = status["uptime_s"].as_i64().unwrap_or(0).saturating_mul(1000);
    let state = if status["is_online"] == true { "connected" } else { "NOT connected" };
    report.ok("agent", format!("runs, version {version}, up {}, {state}", duration(up)));
    let attention = serde_json::from_value::<Vec<ShownProblem>>(status["attention"].clone());
    for problem in attention.unwrap_or_default() {
        report.warn("agent", problem.what, problem.todo);
    }
}

fn port_is_free(report: &mut Report, config: &Config) {
    let Some(address) = config.serve.listen else { return };
    if let Err(error) = TcpListener::bind(address) {
        let todo = format!("find who uses it (`ss -ltnp`), or set serve.listen: {error}");
        report.fail("local_api", format!("{address} can't be listened on"), todo);
    }
}

fn is_locked(state_dir: &Path) -> bool {
    let Ok(folder) = std::fs::File::open(state_dir) else { return false };
    let tried = rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockShared);
    tried == Err(rustix::io::Errno::WOULDBLOCK)
}

/// TLS with the device's own key and certificate.
pub(super) fn tls(
    report: &mut Report,
    identity: &Identity,
    clock: &Clock,
) -> Option<std::sync::Arc<rustls::ClientConfig>> {
    client_config(identity, clock)
        .map_err(|error| report.fail("certificate", crate::chain(&error), enrol_again()))
        .ok()
}
