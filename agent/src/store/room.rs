//! Room in the spool: deletes what the server has, what is too old and what can't be read. A kind over its own bound
//! gives up the oldest of itself; when all of it is full, panes merge into wider windows, then the least important
//! records are dropped. Whatever is lost is counted in the same atomic
//! batch that loses it, so that a power cut can't lose a record without counting it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::UnixMillis;
use protocol::message::LossCause;
use protocol::telemetry::Kind;

use super::carried::{Losses, add};
use super::depth::{Amount, Depth};
use super::layout;
use super::merge::{Merged, Merger};
use super::policy;
use super::records::Records;
use super::spool::{SpoolError, is_expired};
use super::sync::Durable;
use super::writer::Writer;
use crate::durable::cut;

/// Target of the log lines, at level trace, that name each record that is about to be dropped.
pub const DROPPED: &str = "flotilla_agent::store::dropped";

/// Records deleted in one batch.
const DELETE_BATCH: usize = 1000;
/// How often records are looked through for old ones.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);
const HOUR_MS: i64 = 3600 * 1000;
/// Widest windows that panes merge into, before anything is dropped and before events and panes are.
const FIRST_WIDTHS_MS: [i64; 1] = [HOUR_MS];
const LAST_WIDTHS_MS: [i64; 2] = [6 * HOUR_MS, 24 * HOUR_MS];

/// No stream comes so far; an acknowledgement above it is a mistake or an attack on the counting.
const HIGHEST_SEQ: u64 = 1 << 62;

/// What of an acknowledgement can be true; its ranges rise and don't meet.
pub(super) fn believable(upto: u64, mut ahead: Vec<(u64, u64)>) -> (u64, Vec<(u64, u64)>) {
    ahead.retain(|(first, last)| first <= last && *last <= HIGHEST_SEQ);
    ahead.sort_unstable();
    ahead.dedup_by(|next, range| {
        let is_met = next.0 <= range.1;
        if is_met {
            range.1 = range.1.max(next.1);
        }
        is_met
    });
    (if upto <= HIGHEST_SEQ { upto } else { 0 }, ahead)
}

/// Whether one of the ranges has the number; they rise and don't meet.
fn has(ahead: &[(u64, u64)], seq: u64) -> bool {
    let behind = ahead.partition_point(|range| range.0 <= seq);
    behind > 0 && seq <= ahead[behind - 1].1
}

/// Said before the record goes: one that is there again after the next start was not dropped.
pub(super) fn tell_dropped(seq: u64, kind: Kind, cause: LossCause) {
    tracing::trace!(target: DROPPED, seq, ?kind, ?cause, "a record is dropped");
}

impl Writer {
    /// The server has everything up to `upto`, and these ranges above it.
    pub(super) fn delete_acknowledged(
        &mut self,
        durable: &Durable,
        upto: u64,
        ahead: &[(u64, u64)],
    ) -> Result<(), SpoolError> {
        self.skip_what_the_server_has(ahead.iter().map(|range| range.1).fold(upto, u64::max));
        let most = self.next_seq.saturating_sub(1);
        let upto = upto.min(most);
        let last = ahead.iter().map(|range| range.1.min(most)).max().unwrap_or(upto);
        self.delete_where(durable, None, |seq, _| match seq {
            seq if seq <= upto || has(ahead, seq) => Verdict::Delete,
            seq if seq > last => Verdict::Stop,
            _ => Verdict::Keep,
        })?;
        self.shared.visible(|v| v.floor_seq = v.floor_seq.max(upto + 1));
        Ok(())
    }

    /// An acknowledgement of numbers that were never given out here means that the state went back, e.g. to a restored
    /// image. New records under those numbers would count as repeated, so they get numbers that the server lacks.
    fn skip_what_the_server_has(&mut self, highest: u64) {
        if highest < self.next_seq {
            return;
        }
        tracing::warn!(
            highest,
            next = self.next_seq,
            "the server has more telemetry of this stream than its spool ever held: the state went back; numbers go on \
             above the server's"
        );
        self.next_seq = highest + 1;
        self.heights.durable.send_replace(highest);
    }

    /// Expires old records, then makes room for the group while a kind's bound or that of all is exceeded.
    pub(super) fn make_room(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        self.delete_unreadable(durable)?;
        self.expire(durable)?;
        for kind in policy::DROP_ORDER {
            self.keep_within_own(durable, kind)?;
        }
        self.keep_within_all(durable)
    }

    /// A kind over its own bound makes room by itself, whatever else there is. One that may fill everything has none.
    fn keep_within_own(&mut self, durable: &Durable, kind: Kind) -> Result<(), SpoolError> {
        let bound = self.config.bound(kind);
        let coming = self.coming(durable).of(kind).bytes;
        if bound >= self.config.max_bytes || self.held_of(kind) + coming <= bound {
            return Ok(());
        }
        let target = with_slack(bound).saturating_sub(coming);
        if kind == Kind::Pane {
            let widths: Vec<i64> = FIRST_WIDTHS_MS.into_iter().chain(LAST_WIDTHS_MS).collect();
            self.merge_panes(durable, &widths, |depth| depth.of(Kind::Pane).bytes > target)?;
        }
        self.drop_stored(durable, kind, self.held_of(kind).saturating_sub(target))?;
        self.drop_coming(durable, kind, coming.saturating_sub(bound));
        Ok(())
    }

    fn keep_within_all(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        let (max_bytes, coming) = (self.config.max_bytes, self.coming(durable).total().bytes);
        if self.held() + coming <= max_bytes {
            return Ok(());
        }
        let target = with_slack(max_bytes).saturating_sub(coming);
        self.merge_panes(durable, &FIRST_WIDTHS_MS, |depth| depth.total().bytes > target)?;
        for kind in policy::DROP_ORDER {
            if kind == Kind::Event {
                self.merge_panes(durable, &LAST_WIDTHS_MS, |depth| depth.total().bytes > target)?;
            }
            self.drop_stored(durable, kind, self.held().saturating_sub(target))?;
        }
        for kind in policy::DROP_ORDER {
            let excess = self.coming(durable).total().bytes.saturating_sub(max_bytes);
            self.drop_coming(durable, kind, excess);
        }
        Ok(())
    }

    fn held(&self) -> u64 {
        self.shared.visible(|v| v.depth.total().bytes)
    }

    fn held_of(&self, kind: Kind) -> u64 {
        self.shared.visible(|v| v.depth.of(kind).bytes)
    }

    /// What the group will take on disk.
    fn coming(&self, durable: &Durable) -> Depth {
        let mut coming = Depth::default();
        for waiting in self.group.iter().filter(|waiting| !waiting.is_dropped) {
            coming.add(waiting.kind, Amount::record(waiting.body.len() + durable.overhead_bytes()));
        }
        coming
    }

    fn delete_unreadable(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        let Some(last) = self.unreadable.last().copied() else { return Ok(()) };
        let unreadable = self.unreadable.clone();
        self.delete_where(durable, Some(LossCause::Storage), |seq, _| match seq {
            seq if unreadable.contains(&seq) => Verdict::Delete,
            seq if seq > last => Verdict::Stop,
            _ => Verdict::Keep,
        })?;
        self.unreadable.clear();
        Ok(())
    }

    fn expire(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        if self.expire_at > Instant::now() {
            return Ok(());
        }
        let (now, config) = (self.lived(), self.config.clone());
        let least = policy::least_ttl(&config);
        self.delete_where(durable, Some(LossCause::Expired), |_, head| {
            if is_expired(head.at, now, policy::ttl(&config, head.kind)) {
                Verdict::Delete
            } else if is_expired(head.at, now, least) {
                Verdict::Keep
            } else {
                Verdict::Stop
            }
        })?;
        self.expire_at = Instant::now() + EXPIRE_EVERY.min(least);
        Ok(())
    }

    /// Drops stored records of a kind from the oldest on, until so many bytes are free.
    fn drop_stored(&mut self, durable: &Durable, kind: Kind, mut excess: u64) -> Result<(), SpoolError> {
        if excess == 0 {
            return Ok(());
        }
        self.delete_where(durable, Some(LossCause::Full), |_, head| {
            if excess == 0 {
                return Verdict::Stop;
            }
            if head.kind != kind {
                return Verdict::Keep;
            }
            excess = excess.saturating_sub(size(head.length).max(1));
            Verdict::Delete
        })
    }

    /// Of a group that is over a bound by itself the oldest records are never stored. They get their numbers, and the
    /// commit that skips them counts them.
    fn drop_coming(&mut self, durable: &Durable, kind: Kind, mut excess: u64) {
        for waiting in self.group.iter_mut().filter(|waiting| waiting.kind == kind && !waiting.is_dropped) {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(size(waiting.body.len() + durable.overhead_bytes()).max(1));
            waiting.is_dropped = true;
            self.shared.visible(|v| *v.losses.entry((kind, LossCause::Full)).or_default() += 1);
        }
    }

    /// The time by which records age: it passes while the agent runs, and goes on at the next start where it was noted.
    /// A clock that jumps ahead, or is ahead at a start, makes nothing old.
    pub(super) fn lived(&self) -> UnixMillis {
        let (at, since) = self.opened;
        lived(at, since.elapsed(), self.clock.now())
    }

    /// Merges panes that were never sent, into wider and wider windows for as long as there is too much.
    fn merge_panes(
        &mut self,
        durable: &Durable,
        widths_ms: &[i64],
        is_too_much: impl Fn(&Depth) -> bool,
    ) -> Result<(), SpoolError> {
        for widest_ms in widths_ms {
            if self.shared.visible(|v| is_too_much(&v.depth)) {
                self.merge_within(durable, *widest_ms)?;
            }
        }
        Ok(())
    }

    fn merge_within(&mut self, durable: &Durable, widest_ms: i64) -> Result<(), SpoolError> {
        let (mut merger, mut heads) = (Merger::new(widest_ms), BTreeMap::new());
        let mut merged_any = false;
        for found in Records::new(durable, self.sent.saturating_add(1), self.next_seq) {
            let found = found?;
            let Some(record) = found.record.filter(|record| record.kind == Kind::Pane) else { continue };
            heads.insert(found.seq, found.head);
            if let Some(merged) = merger.add(found.seq, &record.body) {
                self.replace(durable, &merged, &heads)?;
                merged_any = true;
            }
        }
        for merged in merger.finish() {
            self.replace(durable, &merged, &heads)?;
            merged_any = true;
        }
        if merged_any {
            durable.commit()?;
            self.refresh_floor(durable)?;
        }
        Ok(())
    }

    /// The last record of the group becomes all of it; the others go. One atomic batch: counts are never there twice.
    fn replace(
        &mut self,
        durable: &Durable,
        merged: &Merged,
        heads: &BTreeMap<u64, layout::Head>,
    ) -> Result<(), SpoolError> {
        let mut batch = sled::Batch::default();
        let (mut before, mut last) = (Depth::default(), None);
        for (seq, head) in merged.seqs.iter().filter_map(|seq| Some((*seq, *heads.get(seq)?))) {
            layout::keys(seq, head.length).for_each(|key| batch.remove(&key));
            before.add(head.kind, Amount::record(head.length));
            last = Some((seq, head));
        }
        let Some((seq, head)) = last else { return Ok(()) };
        let (body, is_sealed) = durable.stored(seq, head.kind, &merged.body)?;
        let Some(pieces) = layout::pieces(head.kind, head.at, &body, is_sealed) else { return Ok(()) };
        for (key, piece) in layout::keys(seq, body.len()).zip(pieces) {
            batch.insert(&key, piece);
        }
        durable.db.apply_batch(batch).map_err(|source| SpoolError::Sled { operation: "merge", source })?;
        cut::written();
        let gone = u64::try_from(merged.seqs.len()).unwrap_or(1).saturating_sub(1);
        self.shared.visible(|v| {
            v.depth.take_all(&before);
            v.depth.add(head.kind, Amount::record(body.len()));
            v.figures.merged_panes += gone;
        });
        Ok(())
    }

    /// Deletes records from the oldest on, in bounded atomic batches; each batch carries the loss counters that it
    /// changes.
    fn delete_where(
        &mut self,
        durable: &Durable,
        cause: Option<LossCause>,
        mut judge: impl FnMut(u64, layout::Head) -> Verdict,
    ) -> Result<(), SpoolError> {
        let mut from = layout::key(0, 0);
        loop {
            let mut found = Deletion::default();
            let mut is_end = true;
            for entry in durable.db.range(from..) {
                let (key, value) = entry.map_err(|source| SpoolError::Sled { operation: "read", source })?;
                let Some((seq, piece)) = layout::parse_key(&key) else { break };
                if piece == 0 {
                    if found.records >= DELETE_BATCH {
                        (from, is_end) = (layout::key(seq, 0), false);
                        break;
                    }
                    let Some((head, _)) = layout::head(&value) else {
                        return Err(SpoolError::Entry("record"));
                    };
                    match judge(seq, head) {
                        Verdict::Delete => found.count(seq, head),
                        Verdict::Keep => found.is_deleting = false,
                        Verdict::Stop => break,
                    }
                }
                if found.is_deleting {
                    found.batch.remove(key);
                }
            }
            self.apply(durable, cause, found)?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn apply(
        &mut self,
        durable: &Durable,
        cause: Option<LossCause>,
        found: Deletion,
    ) -> Result<(), SpoolError> {
        let Deletion { mut batch, records, gone, named, .. } = found;
        if records == 0 {
            return Ok(());
        }
        if let Some(cause) = cause {
            for (seq, kind) in named {
                tell_dropped(seq, kind, cause);
            }
        }
        let lost = |cause| gone.iter().map(move |(kind, amount)| ((kind, cause), amount.records)).collect();
        let lost: Losses = cause.map(lost).unwrap_or_default();
        let losses = self.add_losses(&mut batch, &lost);
        durable.db.apply_batch(batch).map_err(|source| SpoolError::Sled { operation: "delete", source })?;
        cut::written();
        // They are gone for every reader now. If the disk doesn't take it, the database is written anew as it is.
        self.shared.visible(|v| {
            v.depth.take_all(&gone);
            add(&mut v.losses, &lost);
        });
        durable.commit()?;
        self.losses_are_durable(losses);
        self.refresh_floor(durable)
    }

    fn refresh_floor(&self, durable: &Durable) -> Result<(), SpoolError> {
        let first = durable.db.range(layout::key(0, 0)..).next().transpose();
        let first = first.map_err(|source| SpoolError::Sled { operation: "read", source })?;
        let floor = first.and_then(|(key, _)| layout::parse_key(&key)).map_or(self.next_seq, |(seq, _)| seq);
        self.shared.visible(|v| v.floor_seq = v.floor_seq.max(floor));
        Ok(())
    }
}

/// A sixteenth more room than needed, so that a full spool doesn't scan for every record.
fn with_slack(bound: u64) -> u64 {
    bound - bound / 16
}

fn lived(from: UnixMillis, passed: Duration, now: UnixMillis) -> UnixMillis {
    from.plus_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)).min(now)
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

enum Verdict {
    Delete,
    Keep,
    Stop,
}

#[derive(Default)]
struct Deletion {
    batch: sled::Batch,
    records: usize,
    gone: Depth,
    /// The same, one by one.
    named: Vec<(u64, Kind)>,
    is_deleting: bool,
}

impl Deletion {
    fn count(&mut self, seq: u64, head: layout::Head) {
        self.is_deleting = true;
        self.records += 1;
        self.named.push((seq, head.kind));
        self.gone.add(head.kind, Amount::record(head.length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_an_acknowledgement_are_put_in_order_and_searched() {
        let above = HIGHEST_SEQ + 1;
        let (upto, ahead) =
            believable(above, vec![(20, 30), (5, 9), (8, 12), (40, 39), (50, above), (13, 13)]);
        assert_eq!((upto, &ahead[..]), (0, &[(5, 12), (13, 13), (20, 30)][..]));
        let inside: Vec<u64> = (0..60).filter(|seq| has(&ahead, *seq)).collect();
        assert_eq!(inside, (5..=13).chain(20..=30).collect::<Vec<_>>());
        assert!(!has(&[], 1));
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_old() {
        let (from, hour) = (UnixMillis(1_000_000), Duration::from_hours(1));
        let at = |now| lived(from, hour, UnixMillis(now)).0;
        assert_eq!(at(4_600_000), 4_600_000);
        assert_eq!(at(90_000_000_000), 4_600_000, "ahead");
        assert_eq!(at(5), 5, "back");
    }
}
