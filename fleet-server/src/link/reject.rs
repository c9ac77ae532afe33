//! Messages that are refused, each by a name that stands in the log, in a counter and among the device's events.

use protocol::topic::TopicError;
use protocol::{DecodeError, Revision};
use trust::TrustError;

use crate::store::StoreError;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Not a topic of ours; the broker's rules let no device publish there.
    #[error("the topic is not ours")]
    Topic(#[source] TopicError),
    /// The payload is not the message that belongs to the topic.
    #[error("the message can't be read")]
    Decode(#[source] DecodeError),
    /// Larger than allowed on the wire.
    #[error("{got} compressed bytes, at most {max} are allowed")]
    TooLarge {
        /// Bound in bytes.
        max: usize,
        /// Size in bytes.
        got: usize,
    },
    /// zstd data that is damaged.
    #[error("the batch is not zstd")]
    Compression(#[source] std::io::Error),
    /// zstd data that grows beyond every bound.
    #[error("the batch grows over {max} bytes when decompressed")]
    Bomb {
        /// Bound in bytes.
        max: usize,
    },
    /// A signed report that isn't this device's.
    #[error("the signed report is refused")]
    Untrusted(#[source] TrustError),
    /// A report with a counter that was taken before: a repeated delivery, or a replay.
    #[error("the report's counter {got} does not rise above {floor}")]
    Replayed {
        /// Highest counter taken.
        floor: u64,
        /// The report's.
        got: u64,
    },
    /// A hello of a new start of the device, signed by it, with a counter that was passed before.
    #[error(
        "the device started from an earlier state, e.g. a restored image: its report counter is {got}, and {floor} was \
         taken before; it was told to go on from there"
    )]
    WentBack {
        /// Highest counter taken.
        floor: u64,
        /// The report's.
        got: u64,
    },
    /// A revision of Desired that no director signs.
    #[error("desired_revision {0} is over {max}", max = Revision::MAX)]
    Revision(Revision),
    /// A sequence number that no honest stream reaches.
    #[error("sequence number {0} is out of range")]
    Sequence(u64),
    /// The device has had enough stored in this hour.
    #[error("at most {max_bytes} bytes of a device are stored in an hour; it keeps the rest for later")]
    OverBudget {
        /// Bound in bytes.
        max_bytes: u64,
    },
    /// The device has said enough in this hour.
    #[error("at most {max} hellos, status and task reports of a device are taken in an hour")]
    TooMany {
        /// Bound in messages.
        max: u32,
    },
    /// The device wanted to publish or subscribe where it may not.
    #[error("the device may not use the topic {topic:?}")]
    ForeignTopic {
        /// The topic or filter, cut.
        topic: String,
    },
    /// The database refuses what it says, for good.
    #[error("the message can't be stored")]
    Unstorable(#[source] StoreError),
    /// No such device is enrolled.
    #[error("the device is not enrolled")]
    UnknownDevice,
    /// The device was decommissioned.
    #[error("the device is decommissioned")]
    Decommissioned,
}

impl Rejection {
    /// Stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Topic(_) => "bad_topic",
            Self::Decode(DecodeError::TooLarge { .. }) | Self::TooLarge { .. } => "too_large",
            Self::Decode(DecodeError::Json { .. }) => "malformed_json",
            Self::Decode(DecodeError::Cbor { .. }) => "malformed_cbor",
            Self::Decode(DecodeError::Version { .. }) => "wire_version",
            Self::Decode(DecodeError::Bound { .. }) => "bound",
            Self::Compression(_) => "malformed_zstd",
            Self::Bomb { .. } => "zstd_bomb",
            Self::Untrusted(_) => "untrusted_report",
            Self::Replayed { .. } => "replayed_report",
            Self::WentBack { .. } => "state_went_back",
            Self::Revision(_) => "bad_revision",
            Self::Sequence(_) => "bad_sequence",
            Self::OverBudget { .. } => "over_budget",
            Self::TooMany { .. } => "too_many_messages",
            Self::ForeignTopic { .. } => "foreign_topic",
            Self::Unstorable(_) => "unstorable",
            Self::UnknownDevice => "unknown_device",
            Self::Decommissioned => "decommissioned",
        }
    }
}
