//! What the link counts, for `/metrics`.

use crate::metrics::{Metrics, Number};

/// Counters of the link. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkCounters {
    metrics: Metrics,
    /// MQTT messages taken from the broker.
    pub(super) messages: Number,
    /// Telemetry records stored for the first time.
    pub(super) records: Number,
    /// Telemetry records that had been stored before.
    pub(super) duplicates: Number,
    /// Records whose body could not be read.
    pub(super) quarantined: Number,
    /// Messages given back to the broker unread.
    pub(super) overloaded: Number,
    /// Committed groups of messages.
    pub(super) commits: Number,
}

impl LinkCounters {
    /// Registers the link's numbers.
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]);
        Self {
            messages: counter("flotilla_link_messages_total", "MQTT messages taken from the broker."),
            records: counter("flotilla_link_records_total", "Telemetry records stored for the first time."),
            duplicates: counter("flotilla_link_duplicate_records_total", "Telemetry records stored before."),
            quarantined: counter(
                "flotilla_link_quarantined_records_total",
                "Records that could not be read.",
            ),
            overloaded: counter(
                "flotilla_link_overload_drops_total",
                "Messages given back to the broker unread.",
            ),
            commits: counter("flotilla_link_commits_total", "Groups of messages committed at once."),
            metrics: metrics.clone(),
        }
    }

    /// Counts a message that was refused by name.
    pub(super) fn reject(&self, code: &'static str) {
        let help = "Messages refused, by name of the reason.";
        self.metrics.counter("flotilla_link_rejected_messages_total", help, &[("code", code)]).add(1);
    }

    /// Counts a connection that was refused by name.
    pub(super) fn refuse(&self, code: &'static str) {
        let help = "Device connections refused, by name of the reason.";
        self.metrics.counter("flotilla_link_refused_connections_total", help, &[("code", code)]).add(1);
    }
}
