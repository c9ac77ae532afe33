//! A pane: what one device counted about one model in one window of time.

use protocol::{Digest, ModelName, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::reference::{Reference, Schema};

/// Largest pane in bytes; equal to the largest telemetry record.
pub const MAX_PANE_BYTES: usize = protocol::telemetry::MAX_RECORD_BYTES;
const FORMAT_VERSION: u16 = 1;
const MAX_SEGMENT_BYTES: usize = 120;
/// Longest window: panes of a full spool merge up to a day; clocks and zones leave some room.
const MAX_WINDOW_MS: i64 = 8 * 24 * 3600 * 1000;

/// Why a pane is refused.
#[derive(Debug, thiserror::Error)]
pub enum PaneError {
    /// Larger than [`MAX_PANE_BYTES`].
    #[error("the pane has {got} bytes, at most {MAX_PANE_BYTES} are allowed")]
    TooLarge {
        /// Size in bytes.
        got: usize,
    },
    /// Not CBOR, or not a pane.
    #[error("the pane is not valid CBOR for its type: {why}")]
    Cbor {
        /// Where and why.
        why: String,
    },
    /// A version of the format that this build does not know.
    #[error("the pane has format version {got}, this build knows {FORMAT_VERSION}")]
    Version {
        /// The version that it names.
        got: u16,
    },
    /// Counted on another schema.
    #[error("the pane was counted on schema {got}, the reference has {expected}")]
    Schema {
        /// Of the pane.
        got: Digest,
        /// Of the reference.
        expected: Digest,
    },
    /// Well-formed, but it cannot have come from counting.
    #[error("the pane breaks a bound: {why}")]
    Bound {
        /// Which bound.
        why: String,
    },
}

/// What a pane is about. The device comes with the telemetry that carried it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PaneKey {
    /// The model.
    pub model: ModelName,
    /// SHA-256 of the release's manifest.
    pub digest: Digest,
    /// Digest of the schema that was counted on.
    pub schema: Digest,
    /// Part of the traffic, e.g. `line=3`; empty: all of it.
    pub segment: String,
    /// First instant of the window.
    pub start: UnixMillis,
    /// First instant after the window.
    pub end: UnixMillis,
    /// Which run of the agent counted: panes that differ only in this add up.
    pub run: u64,
    /// A corrected pane has a higher revision and replaces the earlier one.
    pub revision: u32,
}

/// Counters of one model, schema, segment and window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pane {
    /// Format version.
    pub v: u16,
    /// What it is about.
    pub key: PaneKey,
    /// What was counted.
    pub counters: Counters,
}

impl Pane {
    /// An empty pane.
    pub fn new(key: PaneKey, schema: &Schema) -> Self {
        Self { v: FORMAT_VERSION, key, counters: Counters::new(schema) }
    }

    /// CBOR bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("writing our own types to memory can't fail");
        bytes
    }

    /// Parses a pane. It is not to be merged before [`Pane::check`].
    ///
    /// # Errors
    /// [`PaneError`] names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, PaneError> {
        if bytes.len() > MAX_PANE_BYTES {
            return Err(PaneError::TooLarge { got: bytes.len() });
        }
        let pane: Self = ciborium::de::from_reader_with_recursion_limit(bytes, 32)
            .map_err(|e| PaneError::Cbor { why: e.to_string() })?;
        if pane.v != FORMAT_VERSION {
            return Err(PaneError::Version { got: pane.v });
        }
        if let Some(why) = pane.key.fault() {
            return Err(PaneError::Bound { why: why.into() });
        }
        Ok(pane)
    }

    /// Refuses a pane that cannot have come from counting with `reference`.
    ///
    /// # Errors
    /// [`PaneError::Schema`] or [`PaneError::Bound`].
    pub fn check(&self, reference: &Reference) -> Result<(), PaneError> {
        let expected = reference.schema.digest();
        if self.key.schema != expected {
            return Err(PaneError::Schema { got: self.key.schema, expected });
        }
        match self.counters.fault(&reference.schema) {
            Some(why) => Err(PaneError::Bound { why }),
            None => Ok(()),
        }
    }

    /// Adds the counts of `other` and widens the window to hold both. Integer counts merge exactly, in any order.
    ///
    /// # Errors
    /// [`PaneError::Schema`] if the panes were counted on different schemas; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), PaneError> {
        if self.key.schema != other.key.schema {
            return Err(PaneError::Schema { got: other.key.schema, expected: self.key.schema });
        }
        self.key.start = self.key.start.min(other.key.start);
        self.key.end = self.key.end.max(other.key.end);
        self.counters.merge(&other.counters);
        Ok(())
    }
}

impl PaneKey {
    fn fault(&self) -> Option<&'static str> {
        if self.segment.len() > MAX_SEGMENT_BYTES {
            return Some("the segment's name is too long");
        }
        let length = self.end.millis_since(self.start);
        if self.start.0 < 0 || length <= 0 || length > MAX_WINDOW_MS {
            return Some("the window is empty, too long or before 1970");
        }
        None
    }
}
