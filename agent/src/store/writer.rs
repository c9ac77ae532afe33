//! The spool's one writing thread: group commit. Room is made in [`super::room`], what fails is mended in
//! [`super::mending`].
//! A group that could not be committed is kept and tried again, so a full disk loses nothing
//! that was accepted.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use protocol::UnixMillis;
use protocol::message::LossCause;
use protocol::telemetry::Kind;
use tokio::sync::{oneshot, watch};

use super::budget::{self, Budget};
use super::carried::{self, Carried, Losses};
use super::depth::{Amount, Depth};
use super::layout;
use super::mending::Condemned;
use super::note::{Note, Noted};
use super::opening::{self, Opened};
use super::spool::{AtWork, Bounds, Shared, SpoolError};
use super::sync::Durable;
use super::{policy, room};
use crate::config;
use crate::durable::cut;
use crate::health::Clock;

/// Records of one group at most; bounds the memory of a commit.
const MAX_GROUP: usize = 512;
/// No record is committed when the disk has less room than this: sled must not meet a full disk.
pub(super) const MIN_ROOM_BYTES: u64 = 8 * 1024 * 1024;
/// The longest that one step of a commit may take on a slow disk.
const STEP: Duration = Duration::from_mins(2);

/// What the writer is asked for.
pub(super) enum Order {
    Record {
        kind: Kind,
        at: UnixMillis,
        body: Vec<u8>,
        done: Option<oneshot::Sender<u64>>,
    },
    /// Everything up to the number, and these ranges above it.
    Acknowledged(u64, Vec<(u64, u64)>),
    /// A stored record that could not be read.
    Unreadable(u64),
    /// This database could not be read, and why.
    Damaged(Weak<Durable>, String),
    /// Something has changed that the next commit has to note.
    Look,
    Configure(Box<config::Spool>),
    Close,
}

pub(super) struct Waiting {
    pub(super) kind: Kind,
    at: UnixMillis,
    pub(super) body: Vec<u8>,
    done: Option<oneshot::Sender<u64>>,
    /// It fits into no bound: it gets its number, is counted as lost and is not stored.
    pub(super) is_dropped: bool,
}

/// How far the stream has come, for whoever listens.
pub(super) struct Heights {
    /// The highest durable number.
    pub(super) durable: watch::Sender<u64>,
    /// The highest number that the link may hand over.
    pub(super) sendable: watch::Sender<u64>,
}

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) config: config::Spool,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) next_seq: u64,
    pub(super) heights: Heights,
    pub(super) group: Vec<Waiting>,
    /// When the group is due.
    commit_at: Option<Instant>,
    acknowledged: Option<(u64, Vec<(u64, u64)>)>,
    pub(super) unreadable: BTreeSet<u64>,
    /// The highest number that may have been sent, as it is noted on disk.
    pub(super) sent: u64,
    pub(super) expire_at: Instant,
    /// The time by which records age when the spool was opened, and that moment.
    pub(super) opened: (UnixMillis, Instant),
    pub(super) budget: Budget,
    /// What the database knows of the losses.
    pub(super) committed_losses: Losses,
    /// Losses of an earlier run, and of this one if the disk stays full.
    carried: Option<Carried>,
    /// What the database holds, beside it.
    note: Option<Note>,
    /// Whether the database of this run is known: its stream, its next sequence number and what it holds.
    pub(super) is_opened: bool,
    pub(super) is_closing: bool,
    /// Whether the last work failed: then it is tried again, whether or not an order comes.
    pub(super) has_failed: bool,
    /// Set while the database is not to be believed.
    pub(super) condemned: Option<Condemned>,
    pub(super) has_tried_at_the_end: bool,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        config: config::Spool,
        clock: Clock,
        shared: Arc<Shared>,
        heights: Heights,
    ) -> Self {
        Self {
            dir,
            opened: (clock.now(), Instant::now()),
            clock,
            shared,
            next_seq: 1,
            heights,
            group: Vec::new(),
            commit_at: None,
            acknowledged: None,
            unreadable: BTreeSet::new(),
            sent: 0,
            expire_at: Instant::now(),
            budget: Budget::new(config.write_bytes_per_day),
            committed_losses: Losses::new(),
            carried: None,
            note: None,
            is_opened: false,
            is_closing: false,
            has_failed: false,
            condemned: None,
            has_tried_at_the_end: false,
            config,
        }
    }

    /// Opens the database and takes over what it holds. Where the disk takes none this is said, and tried again
    /// when there is something to store. Returns what there is to report.
    pub(super) fn open(&mut self) -> Result<Option<String>, SpoolError> {
        self.take_carried();
        let opened = match opening::open(&self.dir, &self.config) {
            Ok(opened) => opened,
            Err(error) => {
                self.say_problem(&error);
                return Err(error);
            }
        };
        let opened = self.take_note(opened);
        let Opened { durable, stream, next_seq, depth, floor_seq, losses, sent, written, report } = opened;
        self.sent = sent;
        self.budget.resume(written.0, written.1);
        self.committed_losses.clone_from(&losses);
        (self.next_seq, self.is_opened) = (next_seq, true);
        self.shared.visible(|v| {
            (v.stream, v.depth, v.floor_seq, v.problem) = (stream, depth, floor_seq, None);
            // What was dropped until now counts too.
            for (key, count) in losses {
                *v.losses.entry(key).or_default() += count;
            }
        });
        *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(durable);
        self.heights.durable.send_replace(next_seq.saturating_sub(1));
        self.heights.sendable.send_replace(sent);
        Ok(report)
    }

    /// What was noted and the database lacks is lost: it counts from now on, and its numbers stay given.
    fn take_note(&mut self, mut opened: Opened) -> Opened {
        let noted = match Note::open(&self.dir) {
            Ok((note, noted)) => {
                self.note = Some(note);
                noted
            }
            Err(error) => {
                tracing::debug!(%error, "what the spool holds can't be noted");
                None
            }
        };
        let Some(noted) = noted else { return opened };
        self.opened = (noted.lived.min(self.clock.now()), Instant::now());
        let Some(missing) = noted.missing_in(&opened) else { return opened };
        opened.written = opened.written.max(noted.written);
        if missing.records == 0 && missing.losses.is_empty() && noted.stream != opened.stream {
            return opened;
        }
        if noted.stream == opened.stream {
            opened.next_seq = noted.next_seq;
            // Which of what is left was sent meanwhile, nobody knows.
            opened.sent = noted.next_seq.saturating_sub(1);
        }
        self.shared.visible(|v| {
            for (key, count) in missing.losses {
                *v.losses.entry(key).or_default() += count;
            }
        });
        let lost = format!("{} records that it held are lost, and counted", missing.records);
        opened.report = Some(match opened.report.take() {
            Some(report) => format!("{report}; {lost}"),
            None => format!("the telemetry spool is damaged: {lost}"),
        });
        opened
    }

    /// Notes what the database holds now.
    fn take_down(&mut self) {
        let (next_seq, losses) = (self.next_seq, &self.committed_losses);
        let written = (self.budget.day, self.budget.used);
        let lived = self.lived();
        let noted =
            self.shared.visible(|v| Noted::new(&v.stream, next_seq, &v.depth, losses, written, lived));
        if let Some(note) = &mut self.note {
            note.write(noted);
        }
    }

    /// What an earlier run had lost and could not store counts from now on.
    fn take_carried(&mut self) {
        if self.carried.is_some() {
            return;
        }
        match Carried::open(&self.dir) {
            Ok((carried, losses)) => {
                self.carried = Some(carried);
                self.shared.visible(|v| {
                    for (key, count) in losses {
                        *v.losses.entry(key).or_default() += count;
                    }
                });
            }
            Err(error) => tracing::debug!(error = crate::chain(&error), "no room is kept for losses yet"),
        }
    }

    /// Works until the spool closes; the database is closed then, whoever still holds a handle.
    pub(super) fn run(mut self, inbox: &Receiver<Order>) {
        while catch_unwind(AssertUnwindSafe(|| self.work_until_closed(inbox))).is_err() {
            self.has_panicked();
        }
        *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn work_until_closed(&mut self, inbox: &Receiver<Order>) {
        loop {
            self.gather(inbox);
            let is_last = self.is_closing && self.group.is_empty();
            if is_last && self.uncommitted_losses().is_empty() {
                return;
            }
            match self.work() {
                Ok(()) if is_last => return,
                Ok(()) => {
                    self.has_failed = false;
                    self.shared.visible(|v| v.problem = None);
                }
                Err(error) if self.is_closing && !self.mends_at_the_end(&error) => {
                    return self.carry(inbox, &error);
                }
                Err(_) if self.is_closing => {}
                Err(error) => self.recover(&error),
            }
        }
    }

    /// Waits for work, then gathers a group until the first of its records is due: at once when someone waits for
    /// durability, else by kind and by what the budget of flash writes permits.
    fn gather(&mut self, inbox: &Receiver<Order>) {
        if self.group.is_empty() && !self.has_failed && !self.is_to_close() {
            match inbox.recv() {
                Ok(order) => self.take(order),
                Err(_) => self.is_closing = true,
            }
        }
        while !self.is_to_close() && self.group.len() < MAX_GROUP {
            let wait =
                self.commit_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            match inbox.recv_timeout(wait) {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.is_closing = true,
            }
        }
        while self.is_closing && self.group.len() < MAX_GROUP {
            let Ok(order) = inbox.try_recv() else { return };
            self.take(order);
        }
    }

    /// A writer with a full group takes no order, so the end is marked beside the orders too.
    pub(super) fn is_to_close(&mut self) -> bool {
        self.is_closing |= self.shared.is_closing.load(Ordering::Relaxed);
        self.is_closing
    }

    /// The end, while the disk takes nothing: what waits is lost, and counted by the next run.
    fn carry(&mut self, inbox: &Receiver<Order>, error: &SpoolError) {
        for order in inbox.try_iter() {
            self.take(order);
        }
        let records = self.group.len();
        self.shared.visible(|v| {
            for waiting in self.group.drain(..).filter(|waiting| !waiting.is_dropped) {
                *v.losses.entry((waiting.kind, LossCause::Storage)).or_default() += 1;
            }
        });
        self.take_carried();
        let losses = self.uncommitted_losses();
        let kept = self.carried.as_mut().map(|carried| carried.write(&losses));
        let is_counted = matches!(kept, Some(Ok(())));
        tracing::error!(
            error = crate::chain(error),
            records,
            is_counted,
            "the spool closes with records it could not keep"
        );
    }

    fn uncommitted_losses(&self) -> Losses {
        self.shared.visible(|v| carried::beyond(&v.losses, &self.committed_losses))
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Record { kind, at, body, done } => {
                let wait = match done {
                    Some(_) => Duration::ZERO,
                    None => self.budget.stretch(policy::commit_after(&self.config, kind), self.clock.now()),
                };
                let due = Instant::now() + wait;
                self.commit_at = Some(self.commit_at.map_or(due, |at| at.min(due)));
                self.group.push(Waiting { kind, at, body, done, is_dropped: false });
            }
            Order::Acknowledged(upto, ahead) => {
                let (upto, ahead) = room::believable(upto, ahead);
                let before = self.acknowledged.take().map_or(0, |(upto, _)| upto);
                // The newest ranges stand for all: the server only ever adds to them.
                self.acknowledged = Some((upto.max(before), ahead));
            }
            Order::Unreadable(seq) => {
                self.unreadable.insert(seq);
            }
            Order::Damaged(of, why) => {
                let now = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // One that was written anew since is another one.
                if now.is_some_and(|now| Weak::ptr_eq(&of, &Arc::downgrade(&now))) {
                    self.condemn(&why);
                }
            }
            Order::Look => self.commit_at = Some(Instant::now()),
            Order::Configure(config) => {
                self.budget.per_day = config.write_bytes_per_day;
                self.shared.visible(|v| v.bounds = Bounds::new(&config));
                self.config = *config;
            }
            Order::Close => self.is_closing = true,
        }
    }

    fn work(&mut self) -> Result<(), SpoolError> {
        if let Some(condemned) = &self.condemned {
            return Err(SpoolError::Condemned(condemned.why.clone()));
        }
        let _watched = AtWork::begin(&self.shared, STEP);
        #[cfg(test)]
        super::faults::before_work(&self.dir);
        let durable = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(durable) = durable else { return Err(SpoolError::Closed) };
        // Whatever follows may write, a deletion as well.
        opening::check_room(&self.dir, MIN_ROOM_BYTES, "commit records to")?;
        if let Some((upto, ahead)) = self.acknowledged.clone() {
            self.delete_acknowledged(&durable, upto, &ahead)?;
            self.acknowledged = None;
        }
        self.shared.beat(STEP);
        self.make_room(&durable)?;
        self.shared.beat(STEP);
        self.commit(&durable)?;
        self.take_down();
        Ok(())
    }

    /// Applies the group as one atomic batch and makes it durable; only then anyone hears of it.
    fn commit(&mut self, durable: &Durable) -> Result<(), SpoolError> {
        let mut batch = sled::Batch::default();
        let (mut seq, mut stored) = (self.next_seq, Depth::default());
        for waiting in &self.group {
            if waiting.is_dropped {
                room::tell_dropped(seq, waiting.kind, LossCause::Full);
                seq += 1;
                continue;
            }
            let (body, is_sealed) = durable.stored(seq, waiting.kind, &waiting.body)?;
            let pieces = layout::pieces(waiting.kind, waiting.at, &body, is_sealed).unwrap_or_default();
            for (key, piece) in layout::keys(seq, body.len()).zip(pieces) {
                batch.insert(&key, piece);
            }
            stored.add(waiting.kind, Amount::record(body.len()));
            seq += 1;
        }
        let losses = self.add_losses(&mut batch, &Losses::new());
        let is_sending = self.shared.is_sending.load(Ordering::Relaxed);
        let sent = Some(seq - 1).filter(|sent| is_sending && *sent > self.sent);
        if seq == self.next_seq && losses.is_none() && sent.is_none() {
            self.commit_at = None;
            return Ok(());
        }
        batch.insert(layout::NEXT_SEQ, &seq.to_be_bytes());
        if let Some(sent) = sent {
            batch.insert(layout::SENT, &sent.to_be_bytes());
        }
        self.count_writes(&mut batch);
        durable.db.apply_batch(batch).map_err(|source| SpoolError::Sled { operation: "write", source })?;
        cut::written();
        durable.commit()?;
        self.losses_are_durable(losses);
        self.announce(seq, &stored);
        if let Some(sent) = sent {
            self.sent = sent;
            self.heights.sendable.send_replace(sent);
        }
        Ok(())
    }

    /// Puts the loss counters into the batch, with those that come with it, if they have changed; returns them then.
    pub(super) fn add_losses(&self, batch: &mut sled::Batch, coming: &Losses) -> Option<Losses> {
        let mut all = self.shared.visible(|v| v.losses.clone());
        carried::add(&mut all, coming);
        if all == self.committed_losses {
            return None;
        }
        let mut bytes = Vec::new();
        ciborium::into_writer(&carried::listed(&all), &mut bytes).ok()?;
        batch.insert(layout::LOSSES, bytes);
        Some(all)
    }

    pub(super) fn losses_are_durable(&mut self, committed: Option<Losses>) {
        let Some(committed) = committed else { return };
        self.committed_losses = committed;
        if let Some(Err(error)) = self.carried.as_mut().map(Carried::clear) {
            tracing::warn!(error = crate::chain(&error), "losses of the last run may be counted twice");
        }
    }

    fn count_writes(&mut self, batch: &mut sled::Batch) {
        let now = self.clock.now();
        self.budget.note(now, budget::written_bytes());
        let mut bytes = Vec::new();
        if ciborium::into_writer(&(self.budget.day, self.budget.used), &mut bytes).is_ok() {
            batch.insert(layout::WRITTEN, bytes);
        }
        let (budget, is_encrypted) = (self.budget, self.config.encrypt);
        self.shared.visible(|v| {
            v.figures.written_today_bytes = budget.used;
            v.figures.write_bytes_per_day = budget.per_day;
            v.figures.is_over_budget = budget.is_exceeded(now);
            v.figures.is_encrypted = is_encrypted;
        });
    }

    fn announce(&mut self, next_seq: u64, stored: &Depth) {
        let group = std::mem::take(&mut self.group);
        self.commit_at = None;
        let bytes: usize = group.iter().map(|w| w.body.len()).sum();
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.queued_records.fetch_sub(group.len(), Ordering::Relaxed);
        self.shared.visible(|v| {
            v.depth.add_all(stored);
            // Before anybody hears of the records.
            v.problem = None;
        });
        let first = self.next_seq;
        self.next_seq = next_seq;
        self.heights.durable.send_replace(next_seq - 1);
        for (seq, waiting) in (first..).zip(group) {
            if let Some(done) = waiting.done {
                let _gone = done.send(seq);
            }
        }
    }
}
