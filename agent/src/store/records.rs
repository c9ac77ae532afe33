//! Walks the stored records in the order of their numbers, each put together from its pieces.

use std::iter::Peekable;

use protocol::telemetry::Record;

use super::layout::{self, Assembly, Head};
use super::spool::SpoolError;
use super::sync::Durable;

/// One stored record.
pub(super) struct Found {
    pub(super) seq: u64,
    pub(super) head: Head,
    /// Whether no piece is missing.
    pub(super) is_whole: bool,
    /// None when a piece is missing or the seal does not open.
    pub(super) record: Option<Record>,
}

/// The records of a range of numbers. Blocks on the disk.
pub(super) struct Records<'a> {
    durable: &'a Durable,
    entries: Peekable<sled::Iter>,
}

impl<'a> Records<'a> {
    /// From `from` on, up to `last` included.
    pub(super) fn new(durable: &'a Durable, from: u64, last: u64) -> Self {
        let entries = durable.db.range(layout::key(from, 0)..layout::after(last)).peekable();
        Self { durable, entries }
    }

    fn pieces_of(&mut self, assembly: &mut Assembly) -> Result<(), sled::Error> {
        while let Some(entry) = self.entries.next_if(|entry| belongs_to(entry, assembly.seq())) {
            assembly.extend(&entry?.1);
        }
        Ok(())
    }
}

fn belongs_to(entry: &Result<(sled::IVec, sled::IVec), sled::Error>, seq: u64) -> bool {
    let Ok((key, _)) = entry else { return true };
    layout::parse_key(key).is_some_and(|(of, piece)| of == seq && piece > 0)
}

impl Iterator for Records<'_> {
    type Item = Result<Found, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        let failed = |source| SpoolError::Sled { operation: "read", source };
        loop {
            let (key, value) = match self.entries.next()? {
                Ok(entry) => entry,
                Err(source) => return Some(Err(failed(source))),
            };
            // A piece without its beginning belongs to nothing.
            let Some((seq, 0)) = layout::parse_key(&key) else { continue };
            let Some(mut assembly) = Assembly::begin(seq, &value) else {
                return Some(Err(SpoolError::Entry("record")));
            };
            if let Err(source) = self.pieces_of(&mut assembly) {
                return Some(Err(failed(source)));
            }
            let (head, is_whole) = (assembly.head(), assembly.is_whole());
            let record = assembly.finish(self.durable.seal.as_ref());
            return Some(Ok(Found { seq, head, is_whole, record }));
        }
    }
}
