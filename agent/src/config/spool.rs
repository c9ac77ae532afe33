//! `[spool]`: how much telemetry waits, how long, and how it lies on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use protocol::telemetry::Kind;

use super::reader::Reader;

const MIB: u64 = 1024 * 1024;
const MOST_BYTES: u64 = 1024 * 1024 * MIB;
const DAY_S: u64 = 24 * 3600;
/// Least bound of a kind: whatever record comes, it fits, sealed too.
const LEAST_OF_KIND: u64 = 512 * 1024;

/// The telemetry spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Byte bound of the records that wait. Default 64 MiB.
    pub max_bytes: u64,
    /// Byte bounds of single kinds, where one is given; [`Spool::bound`] knows the others (`pane_max_bytes`,
    /// `event_max_bytes`, `measurement_max_bytes`, `resources_max_bytes`, `log_max_bytes`).
    pub max_bytes_of: BTreeMap<Kind, u64>,
    /// Records are made durable together after at most so long. Default 200 ms.
    pub commit_after: Duration,
    /// Readings and log lines may wait so long for their commit. Default 5 s.
    pub lazy_commit_after: Duration,
    /// Records older than this are dropped and counted. Default 30 days.
    pub ttl: Duration,
    /// The same for resource readings. Default 7 days.
    pub resources_ttl: Duration,
    /// The same for log lines. Default 7 days.
    pub log_ttl: Duration,
    /// Flash writes of the whole agent in a day (UTC); over it records are committed less often, up to a minute
    /// apart. Default 2 GiB; 0: no bound.
    pub write_bytes_per_day: u64,
    /// Whether record bodies are encrypted at rest. Default false.
    pub encrypt: bool,
    /// File with the key of 32 bytes (raw or hexadecimal); a name without a path is one of systemd's credentials.
    /// Default: `spool.key` in the state directory, made there.
    pub key_file: Option<PathBuf>,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            max_bytes: 64 * MIB,
            max_bytes_of: BTreeMap::new(),
            commit_after: Duration::from_millis(200),
            lazy_commit_after: Duration::from_secs(5),
            ttl: Duration::from_secs(30 * DAY_S),
            resources_ttl: Duration::from_secs(7 * DAY_S),
            log_ttl: Duration::from_secs(7 * DAY_S),
            write_bytes_per_day: 2048 * MIB,
            encrypt: false,
            key_file: None,
        }
    }
}

impl Spool {
    /// Byte bound of the waiting records of one kind, never above that of all. Default: counts and events may fill
    /// what is there; what later records of the kind tell as well, or what somebody can ask for again, may not.
    pub fn bound(&self, kind: Kind) -> u64 {
        let given = self.max_bytes_of.get(&kind).copied();
        let part = match kind {
            Kind::Pane | Kind::Event => 1,
            Kind::Measurement | Kind::Sample | Kind::Resources => 4,
            Kind::Log => 8,
        };
        given.unwrap_or_else(|| (self.max_bytes / part).max(LEAST_OF_KIND)).min(self.max_bytes)
    }
}

/// Kinds of which a record can wait here, each with the key of its bound. Samples wait in a store of their own.
const KEYS: [(Kind, &str); 5] = [
    (Kind::Pane, "spool.pane_max_bytes"),
    (Kind::Event, "spool.event_max_bytes"),
    (Kind::Measurement, "spool.measurement_max_bytes"),
    (Kind::Resources, "spool.resources_max_bytes"),
    (Kind::Log, "spool.log_max_bytes"),
];

pub(super) fn spool(r: &mut Reader) -> Spool {
    let ttl = |r: &mut Reader, key: &str, days: u64| r.seconds(key, days * DAY_S, 60..=3650 * DAY_S);
    let max_bytes = r.number("spool.max_bytes", 64 * MIB, MIB..=MOST_BYTES);
    Spool {
        max_bytes,
        max_bytes_of: bounds(r, max_bytes),
        commit_after: r.millis("spool.commit_after_ms", 200, 1..=60_000),
        lazy_commit_after: r.millis("spool.lazy_commit_after_ms", 5000, 1..=600_000),
        ttl: ttl(r, "spool.ttl_s", 30),
        resources_ttl: ttl(r, "spool.resources_ttl_s", 7),
        log_ttl: ttl(r, "spool.log_ttl_s", 7),
        write_bytes_per_day: r.number("spool.write_bytes_per_day", 2048 * MIB, 0..=MOST_BYTES),
        encrypt: r.boolean("spool.encrypt", false),
        key_file: r.optional_text("spool.key_file").map(PathBuf::from),
    }
}

/// A bound above that of all would never hold: whoever writes it expects something else.
fn bounds(r: &mut Reader, max_bytes: u64) -> BTreeMap<Kind, u64> {
    let mut bounds = BTreeMap::new();
    for (kind, key) in KEYS {
        let Some(bound) = r.optional_number(key, LEAST_OF_KIND..=MOST_BYTES) else { continue };
        if bound > max_bytes {
            r.refuse(key, &format!("at most spool.max_bytes, which is {max_bytes}"));
        }
        bounds.insert(kind, bound);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn with(flags: &[&str]) -> Result<Spool, String> {
        let checked = RawConfig::default().with_flags(flags.iter().copied()).check();
        checked.map(|config| config.spool).map_err(|errors| errors.to_string())
    }

    #[test]
    fn kinds_have_their_part_of_the_bound_or_what_is_said() {
        let spool = with(&[]).unwrap();
        assert_eq!(spool, Spool::default());
        assert_eq!((spool.bound(Kind::Log), spool.bound(Kind::Pane)), (8 * MIB, 64 * MIB));
        let spool = with(&["spool.log_max_bytes=33554432", "spool.event_max_bytes=1048576"]).unwrap();
        assert_eq!((spool.bound(Kind::Log), spool.bound(Kind::Event)), (32 * MIB, MIB));
        let least = with(&["spool.max_bytes=1048576"]).unwrap();
        assert!(Kind::ALL.iter().all(|kind| (LEAST_OF_KIND..=MIB).contains(&least.bound(*kind))));
        assert!(protocol::telemetry::MAX_RECORD_BYTES + 1024 < usize::try_from(LEAST_OF_KIND).unwrap());
    }

    #[test]
    fn a_bound_that_could_never_hold_is_refused_with_the_one_that_does() {
        let flags = ["spool.max_bytes=2097152", "spool.log_max_bytes=2097153", "spool.pane_max_bytes=1"];
        let text = with(&flags).unwrap_err();
        for part in [
            "spool.log_max_bytes = 2097153: expected at most spool.max_bytes, which is 2097152",
            "spool.pane_max_bytes = 1: expected a whole number from 524288",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(with(&["spool.log_max_bytes=67108865"]).is_err(), "also above the default");
    }
}
