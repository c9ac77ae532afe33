//! The sections, each with its documented defaults, and the second stage that fills them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::capture::{self, Capture};
use super::filter::{self, Filter};
use super::inputs::{self, Folder, Mqtt};
use super::proxy::{Chosen, Proxies};
use super::raw::{FOLDER, RawConfig};
use super::reader::{ConfigErrors, Reader};
use super::spool::{self, Spool};
use crate::health::Bounds;
use crate::retry::Policy;

const SECTIONS: [&str; 11] =
    ["capture", "device", "folder", "health", "link", "log", "monitor", "mqtt", "serve", "spool", "update"];
const TOP_LEVEL: [&str; 1] = [FOLDER];
/// The agent's folder where nothing names one.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/flotilla";

/// The whole configuration, valid by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where identity, slots, metadata and spool live. Default `/var/lib/flotilla`.
    pub state_dir: PathBuf,
    /// `[device]`
    pub device: Device,
    /// `[link]`
    pub link: Link,
    /// `[update]`
    pub update: Update,
    /// `[serve]`
    pub serve: Serve,
    /// `[folder]`: none watched without `folder.watch`.
    pub folder: Option<Folder>,
    /// `[mqtt]`: none used without `mqtt.broker`.
    pub mqtt: Option<Mqtt>,
    /// `[monitor]`
    pub monitor: Monitor,
    /// `[capture]`
    pub capture: Capture,
    /// `[spool]`
    pub spool: Spool,
    /// `[health]`
    pub health: Health,
    /// `[log]`
    pub log: Log,
}

/// What the device says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Hardware class that releases and rollouts may ask for, e.g. `rpi4`. Default `generic`.
    pub class: String,
    /// Labels, reported in hello; the server's labels win. Default none.
    pub labels: BTreeMap<String, String>,
}

/// The connection to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Ping after so much silence; a dead peer is found within 2.5 of it. Default 30 s, 5 to 3600.
    pub keep_alive: Duration,
    /// Bound of TCP, TLS and CONNACK together. Default 15 s.
    pub connect_timeout: Duration,
    /// Delays between attempts to connect (`backoff_min_ms` 500, `backoff_max_s` 60).
    pub backoff: Policy,
    /// Telemetry batches on the way before the server has acknowledged. Default 4.
    pub window_batches: usize,
    /// Batches are sent again after so long without progress. Default 20 s.
    pub ack_timeout: Duration,
    /// A transfer below this average over 30 s is given up and resumed later. Default 1024 bytes/s.
    pub min_rate_bytes_s: u64,
    /// A transfer of models keeps below this average; 0 for no cap. Default 0.
    pub max_rate_bytes_s: u64,
    /// Hello is repeated after so long even when nothing changed. Default 300 s.
    pub hello_every: Duration,
    /// The proxy and its exceptions (`proxy`, `no_proxy`). Default: what `HTTPS_PROXY` and `NO_PROXY` say, else none.
    pub proxies: Proxies,
}

/// The update machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Probation, in place of what the release says; for tests and demonstrations. Default: the release's.
    pub probation: Option<Duration>,
    /// Bound of one step on this device (staging, self-test, swap). Default 300 s.
    pub step_timeout: Duration,
    /// Delays before a task that failed retryably is tried again (`retry_min_s` 5, `retry_max_s` 3600).
    pub retry: Policy,
    /// How often signed metadata is refreshed without being asked. Default 3600 s.
    pub refresh_every: Duration,
    /// Disk space that must stay free beside an update. Default 64 MiB.
    pub keep_free_bytes: u64,
    /// Memory that all loaded models may use together. Default 0: no bound but each release's own budget.
    pub memory_budget_bytes: u64,
    /// A fetch begins after a random time up to this, so that a fleet does not come at once. Default 5 s.
    pub start_jitter: Duration,
    /// Memory that applying a delta may take; above it, or with 0, the whole blob is fetched. Default 256 MiB.
    pub delta_max_memory_bytes: u64,
    /// Share of one core that candidates running beside (shadow) may use, in percent. Default 10.
    pub shadow_cpu_percent: u32,
}

/// The local API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where applications and `status` connect. Default `127.0.0.1:8500`; `off` leaves only the unix socket.
    pub listen: Option<SocketAddr>,
    /// Path of a unix socket that serves the same. Default none.
    pub unix: Option<PathBuf>,
    /// Its permissions: 0600, 0660 or 0666. Default 0660: the agent's user and group.
    pub unix_mode: u32,
    /// Largest request body in bytes; four such bodies may be on their way at once. Default 16 MiB.
    pub max_body_bytes: usize,
    /// Inferences that may wait or run at once; one more is answered 503. Default 64.
    pub queue: usize,
    /// Inferences that run at once. Default 0: one for each core.
    pub threads: usize,
    /// An inference that has waited so long for its turn is answered 503. Default 500 ms.
    pub max_wait: Duration,
    /// Bound of one request, and of reading its body. Default 10 s.
    pub timeout: Duration,
    /// Bound of reading a request's head, the silence before it included. Default 30 s.
    pub header_timeout: Duration,
    /// Connections at once; one more is answered 503 and closed. Default 128.
    pub max_connections: usize,
}

impl Serve {
    /// What to say when others than this machine reach the API: it knows no sign-in.
    pub fn exposure(&self) -> Option<String> {
        let address = self.listen.filter(|address| !address.ip().is_loopback())?;
        Some(format!(
            "the local API listens on {address}: whoever reaches it may ask and label, without sign-in"
        ))
    }
}

/// What is measured and summarised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Length of a pane. Default 300 s.
    pub pane_window: Duration,
    /// How often resources are read. Default 60 s.
    pub resources_every: Duration,
    /// How long an inference waits for its label. Default 3600 s.
    pub label_ttl: Duration,
    /// Most inferences that wait for their label, of all models. Default 16,384.
    pub labels_remembered: usize,
}

/// Staying up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Starts that ended early, in a row, after which models are not loaded any more. Default 5.
    pub max_early_ends: u32,
    /// An agent that has run so long has not ended early. Default 60 s.
    pub settled_after: Duration,
    /// Bound of the orderly end. Default 10 s.
    pub drain: Duration,
    /// Resident memory of the agent: above `memory_soft_bytes` no candidate is loaded, above `memory_hard_bytes` the
    /// agent starts anew. Default 0 for both: no bound.
    pub memory: Bounds,
    /// Niceness of all its threads, 0 to 19. Default 0: as it was started.
    pub nice: u32,
}

/// Logging to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Levels, e.g. `info` or `info,flotilla_agent::link=debug`. Default `info`.
    pub filter: String,
    /// Whether lines carry the time; off where journald adds it. Default true.
    pub has_time: bool,
}

/// The key that an environment variable (without prefix, in lower case) sets; none if it is not ours.
pub(super) fn key_of_variable(rest: &str) -> Option<String> {
    if TOP_LEVEL.contains(&rest) {
        return Some(rest.to_owned());
    }
    let (section, name) = rest.split_once('_')?;
    SECTIONS.contains(&section).then(|| format!("{section}.{name}"))
}

/// Whether a top-level name is that of a table with keys.
pub(super) fn is_section(name: &str) -> bool {
    SECTIONS.contains(&name)
}

/// Whether a top-level name is a value of its own although it is a table.
pub(super) fn is_table(name: &str) -> bool {
    TOP_LEVEL.contains(&name)
}

const MIB: u64 = 1024 * 1024;
const DAY_S: u64 = 24 * 3600;
/// Longest path in a unix socket's address: 108 bytes on Linux, one of them for its end.
const MAX_SOCKET_BYTES: usize = 107;

pub(super) fn check(raw: RawConfig) -> Result<Config, ConfigErrors> {
    let mut r = Reader::new(raw);
    let config = Config {
        state_dir: r.optional_path(FOLDER).unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        device: Device { class: r.text("device.class", "generic"), labels: r.texts("device.labels") },
        link: link(&mut r),
        update: update(&mut r),
        serve: serve(&mut r),
        folder: inputs::folder(&mut r),
        mqtt: inputs::mqtt(&mut r),
        monitor: Monitor {
            pane_window: r.seconds("monitor.pane_window_s", 300, 1..=DAY_S),
            resources_every: r.seconds("monitor.resources_every_s", 60, 1..=DAY_S),
            label_ttl: r.seconds("monitor.label_ttl_s", 3600, 1..=30 * DAY_S),
            labels_remembered: usize::try_from(r.number("monitor.labels_remembered", 16_384, 1..=1_048_576))
                .unwrap_or(16_384),
        },
        capture: capture::capture(&mut r),
        spool: spool::spool(&mut r),
        health: health(&mut r),
        log: Log {
            filter: r.parsed("log.filter", Filter("info".into()), filter::EXPECTED).0,
            has_time: r.boolean("log.time", true),
        },
    };
    r.finish().map(|()| config)
}

fn link(r: &mut Reader) -> Link {
    let proxy = r.parsed("link.proxy", Chosen::default(), "http://[USER:PASSWORD@]HOST[:PORT], or off");
    let backoff_min = r.millis("link.backoff_min_ms", 500, 10..=60_000);
    let backoff_max = r.seconds("link.backoff_max_s", 60, 1..=DAY_S);
    let link = Link {
        keep_alive: r.seconds("link.keep_alive_s", 30, 5..=3600),
        connect_timeout: r.seconds("link.connect_timeout_s", 15, 1..=300),
        backoff: r.policy(("link.backoff_min_ms", backoff_min), ("link.backoff_max_s", backoff_max)),
        window_batches: usize::try_from(r.number("link.window_batches", 4, 1..=16)).unwrap_or(4),
        ack_timeout: r.seconds("link.ack_timeout_s", 20, 1..=3600),
        min_rate_bytes_s: r.number("link.min_rate_bytes_s", 1024, 1..=1024 * MIB),
        max_rate_bytes_s: r.number("link.max_rate_bytes_s", 0, 0..=1024 * MIB),
        hello_every: r.seconds("link.hello_every_s", 300, 5..=DAY_S),
        proxies: Proxies::new(proxy, &r.text("link.no_proxy", "")),
    };
    // Below twice the least rate every transfer could be given up as too slow.
    if link.max_rate_bytes_s != 0 && link.max_rate_bytes_s < link.min_rate_bytes_s.saturating_mul(2) {
        r.refuse("link.max_rate_bytes_s", "0, or at least twice link.min_rate_bytes_s");
    }
    link
}

fn update(r: &mut Reader) -> Update {
    let retry_min = r.seconds("update.retry_min_s", 5, 1..=DAY_S);
    let retry_max = r.seconds("update.retry_max_s", 3600, 1..=DAY_S);
    Update {
        probation: r.optional_number("update.probation_s", 0..=7 * DAY_S).map(Duration::from_secs),
        step_timeout: r.seconds("update.step_timeout_s", 300, 1..=DAY_S),
        retry: r.policy(("update.retry_min_s", retry_min), ("update.retry_max_s", retry_max)),
        refresh_every: r.seconds("update.refresh_every_s", 3600, 5..=30 * DAY_S),
        keep_free_bytes: r.number("update.keep_free_bytes", 64 * MIB, 0..=1024 * 1024 * MIB),
        memory_budget_bytes: r.number("update.memory_budget_bytes", 0, 0..=1024 * 1024 * MIB),
        start_jitter: r.seconds("update.start_jitter_s", 5, 0..=DAY_S),
        delta_max_memory_bytes: r.number("update.delta_max_memory_bytes", 256 * MIB, 0..=1024 * 1024 * MIB),
        shadow_cpu_percent: u32::try_from(r.number("update.shadow_cpu_percent", 10, 1..=100)).unwrap_or(10),
    }
}

fn health(r: &mut Reader) -> Health {
    let (max_bytes, least_bytes) = (1024 * 1024 * MIB, 4 * MIB);
    let memory = Bounds {
        soft: r.number("health.memory_soft_bytes", 0, 0..=max_bytes),
        hard: r.number("health.memory_hard_bytes", 0, 0..=max_bytes),
    };
    for (key, bound) in [("health.memory_soft_bytes", memory.soft), ("health.memory_hard_bytes", memory.hard)]
    {
        // Less than an agent without models needs: it would never load one, or never stay up.
        if bound != 0 && bound < least_bytes {
            r.refuse(key, "0, or at least 4194304 (4 MiB)");
        }
    }
    if memory.hard != 0 && memory.hard < memory.soft {
        r.refuse("health.memory_hard_bytes", "0, or at least health.memory_soft_bytes");
    }
    Health {
        max_early_ends: u32::try_from(r.number("health.max_early_ends", 5, 1..=1000)).unwrap_or(u32::MAX),
        settled_after: r.seconds("health.settled_after_s", 60, 1..=3600),
        drain: r.seconds("health.drain_s", 10, 1..=600),
        memory,
        nice: u32::try_from(r.number("health.nice", 0, 0..=19)).unwrap_or(0),
    }
}

fn serve(r: &mut Reader) -> Serve {
    let serve = Serve {
        listen: r.parsed("serve.listen", Listen::default(), "an address such as 127.0.0.1:8500, or off").0,
        unix: r.optional_path("serve.unix"),
        unix_mode: r.parsed("serve.unix_mode", SocketMode(0o660), "\"0600\", \"0660\" or \"0666\"").0,
        max_body_bytes: usize::try_from(r.number("serve.max_body_bytes", 16 * MIB, 1024..=1024 * MIB))
            .unwrap_or(usize::MAX),
        queue: usize::try_from(r.number("serve.queue", 64, 1..=100_000)).unwrap_or(64),
        threads: usize::try_from(r.number("serve.threads", 0, 0..=1024)).unwrap_or(0),
        max_wait: r.millis("serve.max_wait_ms", 500, 1..=600_000),
        timeout: r.millis("serve.timeout_ms", 10_000, 1..=600_000),
        header_timeout: r.millis("serve.header_timeout_ms", 30_000, 100..=3_600_000),
        max_connections: usize::try_from(r.number("serve.max_connections", 128, 1..=100_000)).unwrap_or(128),
    };
    if serve.listen.is_none() && serve.unix.is_none() {
        r.refuse("serve.listen", "an address, or a path in serve.unix");
    }
    if serve.unix.as_ref().is_some_and(|path| path.as_os_str().len() > MAX_SOCKET_BYTES) {
        r.refuse(
            "serve.unix",
            &format!("a path of at most {MAX_SOCKET_BYTES} bytes: a socket's address holds no more"),
        );
    }
    // Threads beyond the places would never have anything to do.
    r.in_order(("serve.threads", serve.threads), ("serve.queue", serve.queue));
    serve
}

/// Who may open a socket: its user, its group too, or everybody.
struct SocketMode(u32);

#[derive(Debug)]
struct NoSocketMode;

impl std::str::FromStr for SocketMode {
    type Err = NoSocketMode;

    fn from_str(text: &str) -> Result<Self, NoSocketMode> {
        match text {
            "0600" => Ok(Self(0o600)),
            "0660" => Ok(Self(0o660)),
            "0666" => Ok(Self(0o666)),
            _ => Err(NoSocketMode),
        }
    }
}

/// An address to listen on, or `off`.
struct Listen(Option<SocketAddr>);

impl Default for Listen {
    fn default() -> Self {
        Self(Some(SocketAddr::from(([127, 0, 0, 1], 8500))))
    }
}

impl std::str::FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))) }
    }
}
