//! What became of samples since the agent started, counted exactly.

use std::collections::BTreeMap;

use protocol::sample::Strategy;
use serde::{Deserialize, Serialize};

/// Why an item that was chosen is not at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The disk did not keep up.
    Busy,
    /// The strategy had had its share of the day.
    Day,
    /// Larger than a sample may be.
    TooLarge,
    /// What was here is worth more.
    NoRoom,
    /// It was here and had to make room for one of more worth, a newer one or a lower quota.
    Displaced,
    /// The disk took it not.
    Disk,
    /// It was here and could not be read any more.
    Damaged,
    /// The server refused it for good.
    Refused,
    /// It was here when the consent was withdrawn.
    Withdrawn,
}

impl Cause {
    /// The name in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Day => "day",
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::Displaced => "displaced",
            Self::Disk => "disk",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Counters since the start, and what waits now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureFigures {
    /// Whether there is consent.
    pub is_on: bool,
    /// Samples that became durable.
    pub taken: BTreeMap<Strategy, u64>,
    /// Those that are not at the server and will not get there.
    pub dropped: BTreeMap<Cause, u64>,
    /// Samples that the server has stored.
    pub uploaded: u64,
    /// Samples that wait.
    pub waiting: u64,
    /// Their bytes on disk.
    pub waiting_bytes: u64,
    /// The bound of it.
    pub quota_bytes: u64,
}

impl CaptureFigures {
    /// Whether there is anything to tell.
    pub fn is_worth_telling(&self) -> bool {
        self.is_on || self.waiting > 0 || !self.taken.is_empty() || !self.dropped.is_empty()
    }

    pub(super) fn drop(&mut self, cause: Cause, count: u64) {
        if count > 0 {
            *self.dropped.entry(cause).or_default() += count;
        }
    }
}
