//! Version 1 of the spool's keys and values. Frozen: a later layout gets its own file beside this one.
//!
//! Later agents add entries and the flag for sealed bodies; what lies here is read by all of them.
//!
//! A record lies in pieces of at most [`PIECE_BYTES`]. sled writes a tree leaf over 128 KiB to a file of its own
//! that it never syncs; with at most 27 items of 4 KiB in a leaf that can't happen.

use protocol::UnixMillis;
use protocol::telemetry::{Kind, Record};

use super::seal::{OVERHEAD_BYTES, Seal};

/// Largest value that is ever written.
pub(super) const PIECE_BYTES: usize = 4096;
/// Kind, time, length: what stands before the body in piece 0.
const HEAD_BYTES: usize = 1 + 8 + 4;

/// Key of the stream's id.
pub(super) const STREAM: &[u8] = b"m/stream";
/// Key of the next sequence number, big-endian.
pub(super) const NEXT_SEQ: &[u8] = b"m/next";
/// Key of the loss counters, CBOR of `Vec<Loss>`.
pub(super) const LOSSES: &[u8] = b"m/losses";
/// Key of the highest sequence number that may have been handed to the link, big-endian.
pub(super) const SENT: &[u8] = b"m/sent";
/// Key of what proves the sealing key.
pub(super) const SEAL: &[u8] = b"m/seal";
/// Key of the day's flash writes, CBOR of `(day, bytes)`.
pub(super) const WRITTEN: &[u8] = b"m/written";
const RECORD: u8 = b'r';
/// Set in the kind's byte of a sealed record.
const SEALED: u8 = 0x80;

/// Key of one piece of one record; keys sort by sequence number, then piece.
pub(super) fn key(seq: u64, piece: u16) -> [u8; 11] {
    let mut key = [RECORD; 11];
    key[1..9].copy_from_slice(&seq.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// Sequence number and piece of a record's key; none for other keys.
pub(super) fn parse_key(key: &[u8]) -> Option<(u64, u16)> {
    let (tag, rest) = key.split_first()?;
    let (seq, piece) = rest.split_at_checked(8)?;
    let piece = u16::from_be_bytes(piece.try_into().ok()?);
    (*tag == RECORD).then_some((u64::from_be_bytes(seq.try_into().ok()?), piece))
}

/// First key after all pieces of `seq`.
pub(super) fn after(seq: u64) -> [u8; 11] {
    key(seq.saturating_add(1), 0)
}

pub(super) fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Pane => 1,
        Kind::Resources => 2,
        Kind::Event => 3,
        Kind::Sample => 4,
        Kind::Log => 5,
        Kind::Measurement => 6,
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind_byte(*kind) == byte)
}

/// The pieces of a record, in order. `None` when the body is longer than the wire allows.
pub(super) fn pieces(kind: Kind, at: UnixMillis, body: &[u8], is_sealed: bool) -> Option<Vec<Vec<u8>>> {
    let most = protocol::telemetry::MAX_RECORD_BYTES + if is_sealed { OVERHEAD_BYTES } else { 0 };
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= most)?;
    let mut first = Vec::with_capacity(PIECE_BYTES.min(HEAD_BYTES + body.len()));
    first.push(kind_byte(kind) | if is_sealed { SEALED } else { 0 });
    first.extend_from_slice(&at.0.to_be_bytes());
    first.extend_from_slice(&length.to_be_bytes());
    let (head, rest) = body.split_at(body.len().min(PIECE_BYTES - HEAD_BYTES));
    first.extend_from_slice(head);
    Some(std::iter::once(first).chain(rest.chunks(PIECE_BYTES).map(<[u8]>::to_vec)).collect())
}

/// The keys of a record whose body has this length.
pub(super) fn keys(seq: u64, length: usize) -> impl Iterator<Item = [u8; 11]> {
    let rest = length.saturating_sub(PIECE_BYTES - HEAD_BYTES).div_ceil(PIECE_BYTES);
    (0..=u16::try_from(rest).unwrap_or(u16::MAX)).map(move |piece| key(seq, piece))
}

/// What piece 0 says about its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) at: UnixMillis,
    /// Of the body as it lies there.
    pub(super) length: usize,
    pub(super) is_sealed: bool,
}

/// Reads piece 0.
pub(super) fn head(first: &[u8]) -> Option<(Head, &[u8])> {
    let (kind, rest) = first.split_first()?;
    let (at, rest) = rest.split_at_checked(8)?;
    let (length, body) = rest.split_at_checked(4)?;
    let at = UnixMillis(i64::from_be_bytes(at.try_into().ok()?));
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let is_sealed = kind & SEALED != 0;
    Some((Head { kind: kind_of(kind & !SEALED)?, at, length, is_sealed }, body))
}

/// A record under assembly from its pieces.
pub(super) struct Assembly {
    seq: u64,
    head: Head,
    body: Vec<u8>,
}

impl Assembly {
    pub(super) fn begin(seq: u64, first: &[u8]) -> Option<Self> {
        let (head, body) = head(first)?;
        Some(Self { seq, head, body: body.to_vec() })
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn extend(&mut self, piece: &[u8]) {
        self.body.extend_from_slice(piece);
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Whether no piece is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.body.len() == self.head.length
    }

    /// The record as it was offered, if all of it was there and the seal opens.
    pub(super) fn finish(self, seal: Option<&Seal>) -> Option<Record> {
        let Head { kind, at, is_sealed, .. } = self.head;
        if !self.is_whole() {
            return None;
        }
        let body = if is_sealed { seal?.open(self.seq, kind, &self.body)? } else { self.body };
        Some(Record { seq: self.seq, kind, at, body: body.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(length: usize) -> Record {
        let body: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let pieces = pieces(Kind::Event, UnixMillis(-7), &body, false).unwrap();
        assert_eq!(keys(9, length).count(), pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let mut assembly = Assembly::begin(9, &pieces[0]).unwrap();
        pieces[1..].iter().for_each(|piece| assembly.extend(piece));
        let record = assembly.finish(None).unwrap();
        assert_eq!(*record.body, body);
        record
    }

    #[test]
    fn records_of_every_length_round_trip_in_bounded_pieces() {
        for length in [0, 1, 4082, 4083, 4084, 8179, 8180, protocol::telemetry::MAX_RECORD_BYTES] {
            let record = round_trip(length);
            assert_eq!((record.seq, record.kind, record.at), (9, Kind::Event, UnixMillis(-7)));
        }
        assert!(
            pieces(Kind::Log, UnixMillis(0), &vec![0; protocol::telemetry::MAX_RECORD_BYTES + 1], false)
                .is_none()
        );
    }

    #[test]
    fn keys_sort_by_sequence_then_piece_and_apart_from_the_rest() {
        assert!(key(1, 9) < key(2, 0) && key(255, 0) < key(256, 0));
        assert_eq!(parse_key(&key(7, 3)), Some((7, 3)));
        assert!(
            [STREAM, NEXT_SEQ, LOSSES, SENT, SEAL, WRITTEN]
                .iter()
                .all(|meta| parse_key(meta).is_none() && **meta < key(0, 0)[..])
        );
    }

    #[test]
    fn a_record_with_a_piece_missing_is_none() {
        let pieces = pieces(Kind::Pane, UnixMillis(0), &[1; 9000], false).unwrap();
        assert!(Assembly::begin(1, &pieces[0]).unwrap().finish(None).is_none());
        assert!(Assembly::begin(1, b"\x00short").is_none());
    }
}
