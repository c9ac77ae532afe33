//! From bytes on a topic to a message: bounded, and every failure has a name. No database here.

use std::io::{ErrorKind, Read};

use protocol::decode_json;
use protocol::message::Status;
use protocol::report::SignedReport;
use protocol::telemetry::{Batch, MAX_BATCH_BYTES, MAX_COMPRESSED_BYTES};
use protocol::topic::{Channel, Topic};

use super::reject::Rejection;

/// A message that could be read; reports are not verified yet.
#[derive(Debug)]
pub(super) enum Message {
    Hello(SignedReport),
    Task(SignedReport),
    Telemetry(Batch),
    Status(Status),
}

/// Parses the topic of a message.
pub(super) fn topic(bytes: &[u8]) -> Result<Topic, Rejection> {
    Topic::parse(&String::from_utf8_lossy(bytes)).map_err(Rejection::Topic)
}

/// Parses the payload that belongs to `channel`.
pub(super) fn message(channel: Channel, payload: &[u8]) -> Result<Message, Rejection> {
    match channel {
        Channel::Hello => decode_json(payload).map(Message::Hello).map_err(Rejection::Decode),
        Channel::Task => decode_json(payload).map(Message::Task).map_err(Rejection::Decode),
        Channel::Status => decode_json(payload).map(Message::Status).map_err(Rejection::Decode),
        Channel::Telemetry => batch(payload).map(Message::Telemetry),
        // The server publishes there itself; nobody else may.
        Channel::Desired | Channel::Ack | Channel::Command => {
            Err(Rejection::Topic(protocol::topic::TopicError::Form(channel.path().into())))
        }
    }
}

fn batch(payload: &[u8]) -> Result<Batch, Rejection> {
    let plain = decompress(payload)?;
    let batch = Batch::decode(&plain).map_err(Rejection::Decode)?;
    // The database counts in 63 bits; no honest stream comes near.
    let highest = batch.records.last().map_or(batch.floor_seq, |record| record.seq.max(batch.floor_seq));
    if i64::try_from(highest).is_err() { Err(Rejection::Sequence(highest)) } else { Ok(batch) }
}

/// Decompresses at most [`MAX_BATCH_BYTES`]; one byte more is a bomb, and no more than that is ever held.
fn decompress(payload: &[u8]) -> Result<Vec<u8>, Rejection> {
    if payload.len() > MAX_COMPRESSED_BYTES {
        return Err(Rejection::TooLarge { max: MAX_COMPRESSED_BYTES, got: payload.len() });
    }
    let mut decoder = zstd::Decoder::with_buffer(payload).map_err(Rejection::Compression)?;
    // A frame may ask for a window of gigabytes before it yields a byte: 8 MiB is plenty for 4 MiB of content.
    decoder.window_log_max(23).map_err(Rejection::Compression)?;
    let mut plain = Vec::new();
    let bound = u64::try_from(MAX_BATCH_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    match decoder.take(bound).read_to_end(&mut plain) {
        Ok(_) if plain.len() > MAX_BATCH_BYTES => Err(Rejection::Bomb { max: MAX_BATCH_BYTES }),
        Ok(_) => Ok(plain),
        Err(e) if e.kind() == ErrorKind::OutOfMemory => Err(Rejection::Bomb { max: MAX_BATCH_BYTES }),
        Err(e) => Err(Rejection::Compression(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::telemetry::{Kind, Record};
    use protocol::{StreamId, UnixMillis, WIRE_VERSION};

    fn batch_with(seq: u64) -> Batch {
        let record = Record { seq, kind: Kind::Event, at: UnixMillis(0), body: vec![1].into() };
        Batch {
            v: WIRE_VERSION,
            stream: StreamId::new("s").unwrap(),
            floor_seq: 1,
            records: vec![record],
            from_seq: 0,
            dropped: vec![],
        }
    }

    fn packed(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 3).unwrap()
    }

    fn code(channel: Channel, payload: &[u8]) -> &'static str {
        message(channel, payload).unwrap_err().code()
    }

    #[test]
    fn a_batch_comes_through() {
        let Message::Telemetry(batch) =
            message(Channel::Telemetry, &packed(&batch_with(1).encode())).unwrap()
        else {
            panic!("not a batch");
        };
        assert_eq!(batch.records.len(), 1);
    }

    #[test]
    fn zstd_bombs_stop_one_byte_after_the_bound() {
        let bomb = packed(&vec![0; 512 * 1024 * 1024]);
        assert!(bomb.len() < MAX_COMPRESSED_BYTES, "it would be let in by its size");
        assert_eq!(code(Channel::Telemetry, &bomb), "zstd_bomb");
        assert_eq!(code(Channel::Telemetry, &packed(&vec![0; MAX_BATCH_BYTES + 1])), "zstd_bomb");
    }

    #[test]
    fn a_frame_that_asks_for_a_huge_window_is_refused_before_memory_is() {
        // Magic, then a frame header: no checksum, window descriptor of 2^31 bytes, no content size.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert!(["malformed_zstd", "zstd_bomb"].contains(&code(Channel::Telemetry, &frame)));
    }

    #[test]
    fn everything_malformed_has_its_name() {
        assert_eq!(code(Channel::Telemetry, b"not zstd"), "malformed_zstd");
        assert_eq!(code(Channel::Telemetry, &packed(b"\xff\x00 not cbor")), "malformed_cbor");
        assert_eq!(code(Channel::Telemetry, &vec![0; MAX_COMPRESSED_BYTES + 1]), "too_large");
        assert_eq!(code(Channel::Telemetry, &packed(&batch_with(u64::MAX).encode())), "bad_sequence");
        let truncated = packed(&batch_with(1).encode());
        assert_eq!(code(Channel::Telemetry, &truncated[..truncated.len() - 4]), "malformed_zstd");
        assert_eq!(code(Channel::Hello, b"{"), "malformed_json");
        assert_eq!(code(Channel::Task, br#"{"v":7}"#), "wire_version");
        assert_eq!(code(Channel::Status, &vec![b' '; protocol::MAX_CONTROL_BYTES + 1]), "too_large");
        assert_eq!(code(Channel::Desired, b"{}"), "bad_topic");
        assert_eq!(topic(b"fleet/v1/UPPER/x/up/hello").unwrap_err().code(), "bad_topic");
        assert_eq!(topic(b"\xff\xfe").unwrap_err().code(), "bad_topic");
    }
}
