//! What the spool's writer does when something fails. A full disk, a missing key: it says so, waits and tries again. A
//! database that could not be synced or read is condemned: it takes nothing more, and what can be read of it is
//! written anew ([`super::rescue`]); the stream and its numbers go on. What is lost by that is counted.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::carried::{Losses, add};
use super::opening::{self, Opened};
use super::rescue::{self, Meta};
use super::spool::{AtWork, SpoolError};
use super::writer::Writer;
use super::{layout, sync::Durable};
use crate::health::{Problem, ProblemKind};

/// Pause before failed work is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause before a database is written anew again: each time wears the flash.
const LONGEST: Duration = Duration::from_mins(1);
/// How long it may take to write a whole database anew, or to open one.
const MENDING: Duration = Duration::from_mins(15);

/// A database that is not to be believed.
pub(super) struct Condemned {
    pub(super) why: String,
    /// When it is to be written anew.
    due: Instant,
    pause: Duration,
}

impl Writer {
    /// After an error: says it and waits. What can be mended is mended when it is due.
    pub(super) fn recover(&mut self, error: &SpoolError) {
        self.has_failed = true;
        if !self.is_opened {
            std::thread::sleep(RETRY);
            let _watched = AtWork::begin(&self.shared, MENDING);
            if let Ok(Some(report)) = self.open() {
                tracing::warn!("{report}");
                self.shared.visible(|v| v.mishap = Some(Problem::new(ProblemKind::SpoolQuarantined, report)));
            }
            return;
        }
        if error.is_of_database() && self.condemned.is_none() {
            self.condemn(&crate::chain(error));
        } else if self.condemned.is_none() {
            self.say_problem(error);
        }
        std::thread::sleep(RETRY);
        if self.condemned.as_ref().is_some_and(|condemned| condemned.due <= Instant::now())
            && let Err(error) = self.mend()
        {
            self.say_problem(&error);
        }
    }

    /// Nothing more goes into this database.
    pub(super) fn condemn(&mut self, why: &str) {
        if self.condemned.is_some() {
            return;
        }
        self.has_failed = true;
        self.say_problem(&SpoolError::Condemned(why.into()));
        if self.is_opened
            && let Err(error) = rescue::mark(&self.dir, self.next_seq)
        {
            tracing::warn!(
                error = crate::chain(&error),
                "that the spool is not to be believed can't be noted yet"
            );
        }
        self.condemned = Some(Condemned { why: why.into(), due: Instant::now(), pause: RETRY });
    }

    /// Whether a last try has put right, at the end, what has just failed.
    pub(super) fn mends_at_the_end(&mut self, error: &SpoolError) -> bool {
        if !self.is_opened || !error.is_of_database() || self.has_tried_at_the_end {
            return false;
        }
        self.has_tried_at_the_end = true;
        self.condemn(&crate::chain(error));
        self.mend().is_ok()
    }

    /// The writer panicked. What it held in memory is believed, its database is not.
    pub(super) fn has_panicked(&mut self) {
        tracing::error!("the spool's thread panicked; it begins again");
        self.condemn("its writer panicked");
        std::thread::sleep(RETRY);
    }

    /// Writes the condemned database anew and goes on with the new one.
    fn mend(&mut self) -> Result<(), SpoolError> {
        let _watched = AtWork::begin(&self.shared, MENDING);
        if let Some(condemned) = &mut self.condemned {
            condemned.due = Instant::now() + condemned.pause;
            condemned.pause = (condemned.pause * 2).min(LONGEST);
        }
        let old = self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(old) = old {
            rescue::mark(&self.dir, self.next_seq)?;
            let (losses, depth) = self.shared.visible(|v| (v.losses.clone(), v.depth.clone()));
            let stream = self.shared.visible(|v| v.stream.clone());
            let written = (self.budget.day, self.budget.used);
            let meta = Meta { stream, next_seq: self.next_seq, sent: self.sent, losses, written };
            rescue::copy(&old, &self.dir, &self.config, &meta, &depth)?;
            // Nobody reads what is to be put aside; the copy is found by whoever opens next.
            *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let opened = opening::open(&self.dir, &self.config)?;
        self.adopt(opened)
    }

    /// Goes on with what was opened in the place of the database of this run, under the same stream and numbers.
    fn adopt(&mut self, opened: Opened) -> Result<(), SpoolError> {
        let Opened { durable, stream, depth, floor_seq, losses, .. } = opened;
        let expected = self.shared.visible(|v| (v.stream.clone(), v.depth.clone()));
        let is_same = stream == expected.0;
        if !is_same {
            // Even the copy could not be opened: the session that runs knows only the old stream.
            self.name_stream(&durable, &expected.0)?;
        }
        let missing = rescue::missing(&expected.1, &depth);
        let lost: u64 = missing.values().sum();
        self.losses_are_durable(Some(if is_same { losses } else { Losses::new() }));
        if lost == 0 {
            rescue::discard(&self.dir);
        }
        let why = self.condemned.take().map_or_else(String::new, |condemned| condemned.why);
        let detail =
            format!("{} ({why}); {lost} of its records are lost, and counted", rescue::WHAT_HAPPENED);
        tracing::warn!("{detail}");
        self.shared.visible(|v| {
            add(&mut v.losses, &missing);
            (v.depth, v.floor_seq) = (depth, v.floor_seq.max(floor_seq));
            v.mishap = Some(Problem::new(ProblemKind::SpoolQuarantined, detail));
        });
        *self.shared.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(durable);
        Ok(())
    }

    fn name_stream(&self, durable: &Durable, stream: &protocol::StreamId) -> Result<(), SpoolError> {
        let mut batch = sled::Batch::default();
        batch.insert(layout::STREAM, stream.as_str().as_bytes());
        batch.insert(layout::NEXT_SEQ, &self.next_seq.to_be_bytes());
        batch.insert(layout::SENT, &self.sent.to_be_bytes());
        durable.db.apply_batch(batch).map_err(|source| SpoolError::Sled { operation: "write", source })?;
        durable.commit()
    }

    pub(super) fn say_problem(&self, error: &SpoolError) {
        let why = crate::chain(error);
        let is_new = self.shared.visible(|v| v.problem.replace(error.problem()).is_none());
        if is_new {
            tracing::error!(why, "the spool can't store records; they wait in memory within bounds");
        }
    }
}
