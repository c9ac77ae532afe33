//! Losses that the database could not take any more, because the disk was full when the agent stopped: they lie in a
//! small file of two copies, whose room is taken while there is some, and are added up by the next run. A power cut
//! between both may count them twice, never not at all.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::message::{Loss, LossCause};
use protocol::telemetry::Kind;

use super::spool::SpoolError;
use crate::durable::TwoCopies;

/// Length of the file's body: every kind and cause fits, and a full disk takes it in place of what lies there.
const BODY_BYTES: usize = 4096;

/// Losses by kind and cause.
pub(super) type Losses = BTreeMap<(Kind, LossCause), u64>;

/// The file, once it could be opened or made.
pub(super) struct Carried {
    file: TwoCopies,
    is_empty: bool,
}

impl Carried {
    /// Opens or makes the file beside the spool, and what it carries.
    pub(super) fn open(spool: &Path) -> Result<(Self, Losses), SpoolError> {
        let path = spool.with_extension("lost");
        let (file, found) = match TwoCopies::open(&path) {
            Ok(opened) => opened,
            Err(crate::durable::DurableError::Corrupt { .. }) => (TwoCopies::begin_anew(&path), None),
            Err(error) => return Err(SpoolError::Files(error)),
        };
        let is_new = found.is_none();
        let losses: Vec<Loss> =
            found.and_then(|found| ciborium::from_reader(found.body.as_slice()).ok()).unwrap_or_default();
        let losses: Losses = losses.into_iter().map(|loss| ((loss.kind, loss.cause), loss.count)).collect();
        let mut carried = Self { file, is_empty: losses.is_empty() };
        if is_new {
            carried.write(&Losses::new())?;
        }
        Ok((carried, losses))
    }

    /// Keeps these losses for the next run.
    pub(super) fn write(&mut self, losses: &Losses) -> Result<(), SpoolError> {
        let mut body = Vec::new();
        ciborium::into_writer(&listed(losses), &mut body).map_err(|_| SpoolError::Entry("losses"))?;
        body.resize(body.len().max(BODY_BYTES), 0);
        self.file.write(&body).map_err(SpoolError::Files)?;
        self.is_empty = losses.is_empty();
        Ok(())
    }

    /// The database has them now.
    pub(super) fn clear(&mut self) -> Result<(), SpoolError> {
        if self.is_empty { Ok(()) } else { self.write(&Losses::new()) }
    }
}

/// Losses as they are stored and sent.
pub(super) fn listed(losses: &Losses) -> Vec<Loss> {
    let loss = |(key, count): (&(Kind, LossCause), &u64)| Loss { kind: key.0, cause: key.1, count: *count };
    losses.iter().map(loss).collect()
}

/// Adds `more` to `all`.
pub(super) fn add(all: &mut Losses, more: &Losses) {
    for (key, count) in more {
        *all.entry(*key).or_default() += count;
    }
}

/// What is in `all` and not yet in `known`.
pub(super) fn beyond(all: &Losses, known: &Losses) -> Losses {
    let more = |(key, count): (&(Kind, LossCause), &u64)| {
        let more = count.saturating_sub(known.get(key).copied().unwrap_or(0));
        (more > 0).then_some((*key, more))
    };
    all.iter().filter_map(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_wait_for_the_next_run_and_are_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        let lost = Losses::from([((Kind::Pane, LossCause::Storage), 7), ((Kind::Event, LossCause::Full), 1)]);
        let (mut carried, before) = Carried::open(&spool).unwrap();
        assert!(before.is_empty());
        carried.write(&lost).unwrap();
        let (mut carried, before) = Carried::open(&spool).unwrap();
        assert_eq!(before, lost);
        carried.clear().unwrap();
        assert!(Carried::open(&spool).unwrap().1.is_empty());
        let length = |copy| std::fs::metadata(spool.with_extension(copy)).unwrap().len();
        assert_eq!(length("lost.a"), length("lost.b"), "room for both is taken");
    }

    #[test]
    fn only_what_is_not_known_yet_is_carried() {
        let known = Losses::from([((Kind::Pane, LossCause::Full), 5)]);
        let all = Losses::from([((Kind::Pane, LossCause::Full), 7), ((Kind::Log, LossCause::Full), 1)]);
        let more = Losses::from([((Kind::Pane, LossCause::Full), 2), ((Kind::Log, LossCause::Full), 1)]);
        assert_eq!(beyond(&all, &known), more);
        assert!(beyond(&all, &all).is_empty());
    }
}
