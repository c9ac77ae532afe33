//! What is special about each kind of record: how long it is worth keeping, how soon it is made durable, and in which
//! order kinds are given up when the spool is full.

use std::time::Duration;

use protocol::telemetry::Kind;

use crate::config;

/// Kinds in the order in which they are dropped when the spool is full: last in line is kept longest.
pub(super) const DROP_ORDER: [Kind; 6] =
    [Kind::Log, Kind::Measurement, Kind::Sample, Kind::Resources, Kind::Event, Kind::Pane];

/// How long a record of `kind` is worth sending.
pub(super) fn ttl(config: &config::Spool, kind: Kind) -> Duration {
    match kind {
        Kind::Resources => config.resources_ttl.min(config.ttl),
        Kind::Log => config.log_ttl.min(config.ttl),
        Kind::Pane | Kind::Event | Kind::Sample | Kind::Measurement => config.ttl,
    }
}

/// The shortest of all: what is younger is of no kind too old.
pub(super) fn least_ttl(config: &config::Spool) -> Duration {
    Kind::ALL.into_iter().map(|kind| ttl(config, kind)).min().unwrap_or(config.ttl)
}

/// How long a record may wait in memory before it is committed: an event, and a
/// measurement that somebody waits for, not at all; readings and log lines, of which
/// the next ones tell as much, longer than what was counted.
pub(super) fn commit_after(config: &config::Spool, kind: Kind) -> Duration {
    match kind {
        Kind::Event | Kind::Measurement => Duration::ZERO,
        Kind::Pane | Kind::Sample => config.commit_after,
        Kind::Resources | Kind::Log => config.lazy_commit_after.max(config.commit_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_differ_in_age_and_haste_and_the_general_bound_holds_for_all() {
        let config = config::Spool { ttl: Duration::from_mins(1), ..config::Spool::default() };
        assert!(Kind::ALL.into_iter().all(|kind| ttl(&config, kind) <= config.ttl));
        let config = config::Spool::default();
        assert_eq!(least_ttl(&config), config.resources_ttl.min(config.log_ttl));
        assert!(commit_after(&config, Kind::Event).is_zero());
        assert!(commit_after(&config, Kind::Resources) > commit_after(&config, Kind::Pane));
    }
}
