//! Telemetry: records with sequence numbers, batched as CBOR. The caller compresses with zstd; this crate
//! does no compression, it only states the bounds.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::DecodeError;
use crate::ids::StreamId;
use crate::time::UnixMillis;
use crate::{WIRE_VERSION, message::Loss};

/// Largest batch on the wire in bytes, compressed. The broker's packet limit stands above it.
pub const MAX_COMPRESSED_BYTES: usize = 512 * 1024;
/// Largest batch in bytes, plain. Stops zstd bombs: decompression ends one byte after it.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Largest record body in bytes; checked before a record is queued, so that no record can block the spool.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;
/// Most records in a batch.
pub const MAX_BATCH_RECORDS: usize = 1000;

/// What a record holds. A higher priority is sent first after an outage and dropped last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A pane of counters (`profile::Pane`, CBOR).
    Pane,
    /// Resource readings of the device ([`Resources`], CBOR).
    Resources,
    /// Something that happened ([`DeviceEvent`], CBOR).
    Event,
    /// A captured sample for retraining.
    Sample,
    /// Log lines on request ([`LogLines`], CBOR).
    Log,
    /// What measuring a release on request found ([`Measurement`](crate::measurement::Measurement), CBOR).
    Measurement,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Pane, Self::Resources, Self::Event, Self::Sample, Self::Log, Self::Measurement];
}

/// One record of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the stream; given when the record is durable.
    pub seq: u64,
    /// What the body is.
    pub kind: Kind,
    /// The device's clock when the record was made.
    pub at: UnixMillis,
    /// CBOR of the type that `kind` names.
    pub body: ByteBuf,
}

/// One MQTT message on `up/telemetry`, before zstd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Wire version.
    pub v: u16,
    /// The stream that the sequence numbers belong to.
    pub stream: StreamId,
    /// Sequence number below which the device holds nothing any more: numbers under it that the server
    /// never saw were dropped and stand in `dropped`.
    pub floor_seq: u64,
    /// From here to its last record the batch is complete: numbers that it lacks were dropped, merged or stored
    /// before, and never come. 0: nothing is said about them.
    #[serde(default)]
    pub from_seq: u64,
    /// Records in rising order of `seq`; gaps are records that were dropped or merged.
    pub records: Vec<Record>,
    /// Totals of dropped records since the stream began.
    pub dropped: Vec<Loss>,
}

impl Batch {
    const WHAT: &'static str = "telemetry batch";

    /// CBOR bytes of this batch.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("writing our own types to memory can't fail");
        bytes
    }

    /// Parses plain (already decompressed) bytes and checks every bound.
    ///
    /// # Errors
    /// [`DecodeError`] names what is wrong; nothing of the batch is used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = Self::WHAT;
        if bytes.len() > MAX_BATCH_BYTES {
            return Err(DecodeError::TooLarge { what, max: MAX_BATCH_BYTES, got: bytes.len() });
        }
        let batch: Self = ciborium::de::from_reader_with_recursion_limit(bytes, 32)
            .map_err(|e| DecodeError::Cbor { what, why: e.to_string() })?;
        if batch.v != WIRE_VERSION {
            return Err(DecodeError::Version { what, got: batch.v });
        }
        batch.check().map_err(|why| DecodeError::Bound { what, why })?;
        Ok(batch)
    }

    fn check(&self) -> Result<(), String> {
        if self.records.len() > MAX_BATCH_RECORDS {
            return Err(format!("{} records, at most {MAX_BATCH_RECORDS}", self.records.len()));
        }
        if let Some(record) = self.records.iter().find(|r| r.body.len() > MAX_RECORD_BYTES) {
            return Err(format!(
                "record {} has {} bytes, at most {MAX_RECORD_BYTES}",
                record.seq,
                record.body.len()
            ));
        }
        if self.records.windows(2).any(|pair| pair[0].seq >= pair[1].seq) {
            return Err("sequence numbers do not rise".into());
        }
        if self.records.first().is_some_and(|first| first.seq < self.floor_seq) {
            return Err("a record lies below floor_seq".into());
        }
        if self.records.first().is_some_and(|first| first.seq < self.from_seq) {
            return Err("a record lies below from_seq".into());
        }
        Ok(())
    }
}

/// Resource readings of a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Resident memory of the agent in bytes.
    pub rss_bytes: u64,
    /// CPU time of the agent since its start in milliseconds.
    pub cpu_ms: u64,
    /// Free bytes on the disk of the state directory.
    pub disk_free_bytes: u64,
    /// Bytes that slots, spool and metadata use.
    pub disk_used_bytes: u64,
    /// Load average over one minute.
    pub load1: f64,
    /// Hottest thermal zone in degrees Celsius, where there is one.
    pub temperature_c: Option<f64>,
}

/// Something that happened on a device and that people may want to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEvent {
    /// Stable name, e.g. `clock_implausible`, `spool_quarantined`.
    pub name: String,
    /// One sentence.
    pub detail: String,
}

/// Log lines on request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLines {
    /// The command that asked for them.
    pub command_id: String,
    /// Newest last.
    pub lines: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seqs: &[u64]) -> Batch {
        let record =
            |seq: &u64| Record { seq: *seq, kind: Kind::Pane, at: UnixMillis(0), body: vec![1; 3].into() };
        Batch {
            v: WIRE_VERSION,
            stream: StreamId::new("s").unwrap(),
            floor_seq: 1,
            from_seq: 0,
            records: seqs.iter().map(record).collect(),
            dropped: vec![],
        }
    }

    #[test]
    fn batch_round_trips() {
        let batch = batch(&[1, 2, 5]);
        assert_eq!(Batch::decode(&batch.encode()).unwrap(), batch);
    }

    #[test]
    fn bounds_are_checked() {
        assert!(matches!(Batch::decode(&batch(&[2, 2]).encode()), Err(DecodeError::Bound { .. })));
        assert!(matches!(Batch::decode(&batch(&[0]).encode()), Err(DecodeError::Bound { .. })));
        assert!(Batch::decode(&Batch { from_seq: 2, ..batch(&[1]) }.encode()).is_err());
        let newer = Batch { v: 9, ..batch(&[1]) };
        assert!(matches!(Batch::decode(&newer.encode()), Err(DecodeError::Version { got: 9, .. })));
        assert!(Batch::decode(b"\xff\x00garbage").is_err());
    }

    #[test]
    fn a_length_that_promises_gigabytes_is_an_error() {
        assert!(Batch::decode(b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
