//! The parts' configuration with their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::sample::MAX_SAMPLE_BYTES;

use super::{Network, Reader};

/// Everything, valid by type.
#[derive(Debug, Clone)]
pub struct Config {
    /// `data_dir`: database, blobs, CA, key files; default `./flotilla-data`.
    pub data_dir: PathBuf,
    /// `[https]`: console and REST.
    pub https: Https,
    /// `[device]`: metadata and blobs for devices.
    pub device: DevicePort,
    /// `[mqtt]`: the broker for devices.
    pub mqtt: Mqtt,
    /// `[authority]`: the fleet's certificate authority.
    pub authority: Authority,
    /// `[database]`.
    pub database: Database,
    /// `[blobs]`.
    pub blobs: Blobs,
    /// `[samples]`: what devices may send for retraining.
    pub samples: Samples,
    /// `[sessions]`: sign-in.
    pub sessions: Sessions,
    /// `[jobs]`: pace of background work.
    pub jobs: Jobs,
    /// `[retention]`: how long what is kept.
    pub retention: Retention,
    /// `[limits]`: bounds on requests.
    pub limits: Limits,
    /// `[log]`.
    pub log: Log,
    /// `shutdown_s`: how long tasks may drain; default 10.
    pub shutdown: Duration,
}

/// The port for people, scripts and enrolment: server certificate only.
#[derive(Debug, Clone)]
pub struct Https {
    /// `listen`, default `127.0.0.1:8443`.
    pub listen: SocketAddr,
    /// `public_url`: what others call this port; default `https://localhost:{port}`. Stands in enrolment tokens.
    pub public_url: Option<String>,
    /// `trusted_proxies`: addresses and networks whose `X-Forwarded-For` and `Forwarded` are believed; default none.
    pub trusted_proxies: Vec<Network>,
}

/// The port for devices' fetches: mutual TLS.
#[derive(Debug, Clone)]
pub struct DevicePort {
    /// `listen`, default `0.0.0.0:8444`.
    pub listen: SocketAddr,
    /// `public_url`, default `https://localhost:{port}`.
    pub public_url: Option<String>,
}

/// The port for devices' messages: mutual TLS.
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// `listen`, default `0.0.0.0:8883`.
    pub listen: SocketAddr,
    /// `public_url`, default `mqtts://localhost:{port}`.
    pub public_url: Option<String>,
    /// `reconnect_gap_ms`: time for each reconnect; the more devices are connected, the longer the time over which
    /// they are asked to spread, so that all of them together don't come at once. Default 5 ms; none for 0.
    pub reconnect_gap: Option<Duration>,
}

/// The fleet's own certificate authority under `data_dir/ca`.
#[derive(Debug, Clone)]
pub struct Authority {
    /// `names`: DNS names and IP addresses in the server's certificate; default localhost, 127.0.0.1, ::1.
    pub names: Vec<String>,
    /// `device_certificate_s`: validity of devices' certificates; default 90 days.
    pub device_certificate: Duration,
    /// `server_certificate_s`: validity of the server's certificate; default 90 days.
    pub server_certificate: Duration,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Database {
    /// `url`: `postgres://...` or `sqlite://path`; default `data_dir/flotilla.db`.
    pub url: String,
    /// `max_connections`, default 16.
    pub max_connections: u32,
}

/// The blob store.
#[derive(Debug, Clone)]
pub struct Blobs {
    /// `dir`, default `data_dir/blobs`.
    pub dir: PathBuf,
    /// `max_bytes`: largest blob; default 2 GiB.
    pub max_bytes: u64,
}

/// Captured samples.
#[derive(Debug, Clone)]
pub struct Samples {
    /// `device_bytes`: room for the samples of one device, 4 KiB beside the bytes of each; default 256 MiB.
    pub device_bytes: u64,
    /// `max_bytes`: largest sample; default and most 16 MiB.
    pub max_bytes: u64,
}

/// Sign-in.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// `lifetime_s`, default 12 hours.
    pub lifetime: Duration,
    /// `failures_per_minute`: wrong passwords of one user from one address before 429; default 10. One address may err
    /// five times as often over all users, one user ten times as often over all addresses.
    pub failures_per_minute: u32,
}

/// Pace of background work.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// `rollout_tick_s`, default 2.
    pub rollout_tick: Duration,
    /// `window_s`: length of a drift window; default 300.
    pub window: Duration,
    /// `window_tick_s`: how often windows are computed; default 15.
    pub window_tick: Duration,
    /// `window_late_s`: how long a window stays open for late panes before it is closed; default 60.
    pub window_late: Duration,
    /// `lease_s`: how long a runner owns a job without renewing; default 30.
    pub lease: Duration,
    /// `retention_tick_s`, default 1 hour.
    pub retention_tick: Duration,
}

/// How long what is kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// `panes_s`, default 30 days.
    pub panes: Duration,
    /// `resources_s`, default 14 days.
    pub resources: Duration,
    /// `events_s`: devices' events, logs and records that could not be read; default 90 days.
    pub events: Duration,
    /// `samples_s`: captured samples, default 30 days; a release may say less.
    pub samples: Duration,
    /// `drift_s`: drift windows, default 400 days.
    pub drift: Duration,
    /// `drift_detail_s`: windows of drift before they are merged by the hour, default 2 days, a day at least.
    pub drift_detail: Duration,
    /// `drift_hours_s`: hours of drift before they are merged by the day, default 30 days, a day at least. As long as
    /// panes are kept, hours are too.
    pub drift_hours: Duration,
    /// `task_reports_s`: what devices said of their updates, default 180 days.
    pub task_reports: Duration,
    /// `rollouts_s`: journal and evidence of rollouts that are over, default 3 years.
    pub rollouts: Duration,
    /// `alerts_s`: closed alerts, default 400 days.
    pub alerts: Duration,
    /// `tokens_s`: enrolment tokens after their use or end, API tokens after their end, default 90 days.
    pub tokens: Duration,
    /// `orphan_blobs_s`: blobs that no release names, after their upload or the last question for them; default 7 days, a
    /// day at least.
    pub orphan_blobs: Duration,
    /// `audit_s`, default 3 years.
    pub audit: Duration,
}

/// Bounds on what others may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `json_bytes`: largest JSON body; default 4 MiB. Stops memory exhaustion by one request.
    pub json_bytes: usize,
    /// `request_s`: longest request that isn't an upload or a stream; default 60.
    pub request: Duration,
    /// `streams`: live streams at once; default 256.
    pub streams: usize,
    /// `streams_per_user`: of which one user may have so many; default 16. Stops one viewer from taking all.
    pub streams_per_user: usize,
    /// `stream_check_s`: how often a live stream looks whether its reader may still read; default 15.
    pub stream_check: Duration,
    /// `device_bytes_per_hour`: telemetry of a device that is stored in an hour; default 256 MiB, four full spools.
    /// Stops one device from filling the disk.
    pub device_bytes_per_hour: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One line, no colours, for journald and files.
    Plain,
}

/// The log on stderr.
#[derive(Debug, Clone)]
pub struct Log {
    /// `filter`: a tracing filter; default `info,mqtt5=warn`.
    pub filter: String,
    /// `format`: `text` or `plain`; default `text`.
    pub format: LogFormat,
}

const DAY: Duration = Duration::from_hours(24);
const ADDRESS: &str = "an address with port, e.g. 127.0.0.1:8443";

impl Config {
    /// Takes every key; problems are left in `reader`.
    pub fn read(reader: &mut Reader) -> Self {
        let data_dir = PathBuf::from(reader.text("data_dir", "flotilla-data"));
        let https = Https {
            listen: reader.value("https.listen", SocketAddr::from(([127, 0, 0, 1], 8443)), ADDRESS),
            public_url: url(reader, "https.public_url", "https://"),
            trusted_proxies: networks(reader, "https.trusted_proxies"),
        };
        let device = DevicePort {
            listen: reader.value("device.listen", SocketAddr::from(([0, 0, 0, 0], 8444)), ADDRESS),
            public_url: url(reader, "device.public_url", "https://"),
        };
        let mqtt = Mqtt {
            listen: reader.value("mqtt.listen", SocketAddr::from(([0, 0, 0, 0], 8883)), ADDRESS),
            public_url: url(reader, "mqtt.public_url", "mqtts://"),
            reconnect_gap: reconnect_gap(reader),
        };
        let database_url = sqlite_url(&data_dir.join("flotilla.db").display().to_string());
        Self {
            https,
            device,
            mqtt,
            authority: Authority::read(reader),
            database: Database::read(reader, &database_url),
            blobs: Blobs {
                dir: reader.value("blobs.dir", data_dir.join("blobs"), "a folder"),
                max_bytes: reader.value("blobs.max_bytes", 2 << 30, "a number of bytes"),
            },
            samples: Samples {
                device_bytes: reader.value("samples.device_bytes", 256 << 20, "a number of bytes"),
                max_bytes: reader.value("samples.max_bytes", MAX_SAMPLE_BYTES, "a number of bytes"),
            },
            sessions: Sessions {
                lifetime: reader.seconds("sessions.lifetime_s", DAY / 2),
                failures_per_minute: reader.value("sessions.failures_per_minute", 10, "a number"),
            },
            jobs: Jobs::read(reader),
            retention: Retention::read(reader),
            limits: Limits {
                json_bytes: reader.value("limits.json_bytes", 4 << 20, "a number of bytes"),
                request: reader.seconds("limits.request_s", Duration::from_mins(1)),
                streams: reader.value("limits.streams", 256, "a number"),
                streams_per_user: reader.value("limits.streams_per_user", 16, "a number"),
                stream_check: stream_check(reader),
                device_bytes_per_hour: reader.value(
                    "limits.device_bytes_per_hour",
                    256 << 20,
                    "a number of bytes",
                ),
            },
            log: Log::read(reader),
            shutdown: reader.seconds("shutdown_s", Duration::from_secs(10)),
            data_dir,
        }
    }
}

impl Authority {
    fn read(reader: &mut Reader) -> Self {
        Self {
            names: reader.list("authority.names", &["localhost", "127.0.0.1", "::1"]),
            device_certificate: reader.seconds("authority.device_certificate_s", DAY * 90),
            server_certificate: reader.seconds("authority.server_certificate_s", DAY * 90),
        }
    }
}

impl Database {
    fn read(reader: &mut Reader, default_url: &str) -> Self {
        let is_known = |url: &str| ["sqlite:", "postgres:", "postgresql:"].iter().any(|p| url.starts_with(p));
        let expected = "postgres://user@host/database or sqlite://path";
        Self {
            url: reader.parsed("database.url", default_url.to_owned(), expected, |value| {
                is_known(value).then(|| value.to_owned())
            }),
            max_connections: reader.parsed(
                "database.max_connections",
                16,
                "a number from 2 to 1000",
                |value| value.parse().ok().filter(|n| (2..=1000).contains(n)),
            ),
        }
    }
}

impl Jobs {
    fn read(reader: &mut Reader) -> Self {
        Self {
            rollout_tick: reader.seconds("jobs.rollout_tick_s", Duration::from_secs(2)),
            window: reader.seconds("jobs.window_s", Duration::from_mins(5)),
            window_tick: reader.seconds("jobs.window_tick_s", Duration::from_secs(15)),
            window_late: reader.seconds("jobs.window_late_s", Duration::from_mins(1)),
            lease: reader.seconds("jobs.lease_s", Duration::from_secs(30)),
            retention_tick: reader.seconds("jobs.retention_tick_s", Duration::from_hours(1)),
        }
    }
}

impl Retention {
    fn read(reader: &mut Reader) -> Self {
        Self {
            panes: reader.seconds("retention.panes_s", DAY * 30),
            resources: reader.seconds("retention.resources_s", DAY * 14),
            events: reader.seconds("retention.events_s", DAY * 90),
            samples: reader.seconds("retention.samples_s", DAY * 30),
            drift: reader.seconds("retention.drift_s", DAY * 400),
            drift_detail: a_day_at_least(reader, "retention.drift_detail_s", DAY * 2),
            drift_hours: a_day_at_least(reader, "retention.drift_hours_s", DAY * 30),
            task_reports: reader.seconds("retention.task_reports_s", DAY * 180),
            rollouts: reader.seconds("retention.rollouts_s", DAY * 1096),
            alerts: reader.seconds("retention.alerts_s", DAY * 400),
            tokens: reader.seconds("retention.tokens_s", DAY * 90),
            orphan_blobs: a_day_at_least(reader, "retention.orphan_blobs_s", DAY * 7),
            audit: reader.seconds("retention.audit_s", DAY * 1096),
        }
    }
}

impl Log {
    fn read(reader: &mut Reader) -> Self {
        Self {
            filter: reader.text("log.filter", "info,mqtt5=error"),
            format: reader.parsed("log.format", LogFormat::Text, "text or plain", |value| match value {
                "text" => Some(LogFormat::Text),
                "plain" => Some(LogFormat::Plain),
                _ => None,
            }),
        }
    }
}

/// A file's name as the path of a URL.
fn sqlite_url(path: &str) -> String {
    format!("sqlite://{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
}

fn reconnect_gap(reader: &mut Reader) -> Option<Duration> {
    let expected = "milliseconds from 0 (never) to 60000";
    let gap_ms = reader.parsed("mqtt.reconnect_gap_ms", 5, expected, |value| {
        value.parse::<u64>().ok().filter(|gap_ms| *gap_ms <= 60_000)
    });
    (gap_ms > 0).then(|| Duration::from_millis(gap_ms))
}

fn a_day_at_least(reader: &mut Reader, key: &str, default: Duration) -> Duration {
    reader.parsed(key, default, "seconds from 86400, which is a day", |value| {
        value.parse().ok().map(Duration::from_secs).filter(|age| *age >= DAY)
    })
}

/// Also the keep-alive of live streams: longer pauses would let proxies cut them, and rights outlive their end.
fn stream_check(reader: &mut Reader) -> Duration {
    reader.parsed("limits.stream_check_s", Duration::from_secs(15), "seconds from 1 to 30", |value| {
        value.parse().ok().filter(|seconds| (1..=30).contains(seconds)).map(Duration::from_secs)
    })
}

fn networks(reader: &mut Reader, key: &str) -> Vec<Network> {
    let expected = "addresses and networks, e.g. 10.0.0.7, fd00::/8";
    reader.parsed(key, Vec::new(), expected, |value| {
        value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| item.parse().ok())
            .collect()
    })
}

fn url(reader: &mut Reader, key: &str, scheme: &str) -> Option<String> {
    reader.optional(key, &format!("a URL that begins with {scheme}"), |value| {
        value.starts_with(scheme).then(|| value.trim_end_matches('/').to_owned())
    })
}
