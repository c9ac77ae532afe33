//! The files of a watched folder between looks: which ones are ready, and which ones are stuck. Pure: what the folder
//! holds comes from outside, and time is counted in looks, so that a wrong clock changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Looks in a row that must find a file unchanged before it is asked.
const SETTLED_LOOKS: u64 = 2;
/// Looks between two attempts for a file that is stuck.
const RETRY_LOOKS: u64 = 60;
/// Files that one look takes; the others come with the next ones.
const PER_LOOK: usize = 64;
/// Bound of the answers that are held because they can't be put away.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// Length and time of change.
pub(super) type Stamp = (u64, Option<SystemTime>);

/// What was said to a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) json: Vec<u8>,
    /// Whether it is the protocol's error.
    pub(super) is_refusal: bool,
}

/// Why a file is not ready although it doesn't change.
#[derive(Debug)]
pub(super) enum Stuck {
    /// It can't be read: it is tried again now and then.
    Unread,
    /// It was asked; its answer or the file itself could not be put away, which is tried again now and then.
    Held(Arc<Answer>),
    /// The same, and there was no memory left for its answer: it waits until it changes.
    Dropped,
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    /// Looks that found it unchanged.
    looks: u64,
    stuck: Option<(Stuck, u64, String)>,
}

impl File {
    /// Whether this look is one of those that try a stuck file again.
    fn is_due(&self, since: u64) -> bool {
        (self.looks - since).is_multiple_of(RETRY_LOOKS) && self.looks > since
    }

    fn is_ready(&self) -> bool {
        match &self.stuck {
            None => self.stamp.0 > 0 && self.looks >= SETTLED_LOOKS,
            Some((Stuck::Unread, since, _)) => self.is_due(*since),
            Some((Stuck::Held(_) | Stuck::Dropped, ..)) => false,
        }
    }
}

/// Everything that the last look has found.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<PathBuf, File>);

impl Files {
    /// Takes over what a look has found. A file with another stamp is another file.
    pub(super) fn found(&mut self, found: BTreeMap<PathBuf, Stamp>) {
        let mut before = std::mem::take(&mut self.0);
        let file = |(path, stamp): (PathBuf, Stamp)| {
            let same = before.remove(&path).filter(|file| file.stamp == stamp);
            let file = match same {
                Some(file) => File { looks: file.looks.saturating_add(1), ..file },
                None => File { stamp, looks: 0, stuck: None },
            };
            (path, file)
        };
        self.0 = found.into_iter().map(file).collect();
    }

    /// Files to ask now. An empty file is still to be written.
    pub(super) fn ready(&self) -> Vec<(PathBuf, Stamp)> {
        let ready = self.0.iter().filter(|(_, file)| file.is_ready());
        ready.map(|(path, file)| (path.clone(), file.stamp)).take(PER_LOOK).collect()
    }

    /// Files whose answers are here and are to be put away now.
    pub(super) fn due(&self) -> Vec<(PathBuf, Stamp, Arc<Answer>)> {
        let due = self.0.iter().filter_map(|(path, file)| match &file.stuck {
            Some((Stuck::Held(answer), since, _)) if file.is_due(*since) => {
                Some((path.clone(), file.stamp, answer.clone()))
            }
            _ => None,
        });
        due.take(PER_LOOK).collect()
    }

    /// A file could not be read or put away.
    pub(super) fn stick(&mut self, path: &Path, stuck: Stuck, why: String) {
        let stuck = match stuck {
            Stuck::Held(answer) if !self.has_room(path, answer.json.len()) => Stuck::Dropped,
            stuck => stuck,
        };
        if let Some(file) = self.0.get_mut(path) {
            file.stuck = Some((stuck, file.looks, why));
        }
    }

    /// A file is put away.
    pub(super) fn forget(&mut self, path: &Path) {
        self.0.remove(path);
    }

    /// How many files are stuck, and why the first one is.
    pub(super) fn problem(&self) -> Option<String> {
        let mut stuck = self.0.values().filter_map(|file| file.stuck.as_ref());
        let (_, _, why) = stuck.next()?;
        Some(match stuck.count() {
            0 => format!("a file can't be read or put away: {why}"),
            more => format!("{} files can't be read or put away, the first because of: {why}", more + 1),
        })
    }

    /// How many files have been empty for so many looks, and which is the first of them.
    pub(super) fn empties(&self, looks: u64) -> Option<String> {
        let mut empty = self.0.iter().filter(|(_, file)| file.stamp.0 == 0 && file.looks >= looks);
        let (first, _) = empty.next()?;
        let first = first.file_name().unwrap_or_default().display();
        Some(match empty.count() {
            0 => format!("{first} is empty and so not asked"),
            more => format!("{first} and {more} others are empty and so not asked"),
        })
    }

    fn has_room(&self, path: &Path, bytes: usize) -> bool {
        let held = self.0.iter().filter(|(other, _)| *other != path).map(|(_, file)| match &file.stuck {
            Some((Stuck::Held(answer), ..)) => answer.json.len(),
            _ => 0,
        });
        held.sum::<usize>().saturating_add(bytes) <= MAX_HELD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(files: &mut Files, found: &[(&str, u64)]) -> Vec<String> {
        files.found(found.iter().map(|(name, length)| (PathBuf::from(name), (*length, None))).collect());
        files.ready().iter().map(|(path, _)| path.display().to_string()).collect()
    }

    fn held(bytes: usize) -> Stuck {
        Stuck::Held(Arc::new(Answer { json: vec![b' '; bytes], is_refusal: false }))
    }

    #[test]
    fn a_file_is_ready_after_two_looks_without_change_and_never_while_it_is_empty() {
        let mut files = Files::default();
        assert!(look(&mut files, &[("a", 1), ("b", 0)]).is_empty());
        assert!(look(&mut files, &[("a", 1), ("b", 0)]).is_empty());
        assert_eq!(look(&mut files, &[("a", 1), ("b", 0)]), ["a"]);
        assert_eq!(files.empties(3), None);
        assert!(look(&mut files, &[("a", 2), ("b", 0)]).is_empty(), "it grows again");
        assert_eq!(files.empties(3).as_deref(), Some("b is empty and so not asked"));
        for _ in 0..100 {
            assert!(!look(&mut files, &[("a", 2), ("b", 0)]).contains(&"b".to_owned()));
        }
    }

    #[test]
    fn a_stuck_file_is_not_asked_again_but_its_answer_is_put_away_now_and_then() {
        let mut files = Files::default();
        (0..3).for_each(|_| drop(look(&mut files, &[("a", 1), ("b", 1)])));
        files.stick(Path::new("a"), held(3), "no room".into());
        assert!(
            files
                .problem()
                .is_some_and(|problem| problem.contains("a file can't") && problem.contains("no room"))
        );
        let mut due = 0;
        for _ in 0..RETRY_LOOKS * 2 {
            assert_eq!(look(&mut files, &[("a", 1), ("b", 1)]), ["b"]);
            due += files.due().len();
        }
        assert_eq!(due, 2);
        (0..3).for_each(|_| drop(look(&mut files, &[("a", 9), ("b", 1)])));
        assert_eq!(
            look(&mut files, &[("a", 9), ("b", 1)]),
            ["a", "b"],
            "with another stamp it is another file"
        );
        assert_eq!(files.problem(), None);
    }

    #[test]
    fn an_unreadable_file_is_tried_again_now_and_then() {
        let mut files = Files::default();
        (0..3).for_each(|_| drop(look(&mut files, &[("a", 1)])));
        files.stick(Path::new("a"), Stuck::Unread, "denied".into());
        let asked = (0..RETRY_LOOKS * 2).filter(|_| !look(&mut files, &[("a", 1)]).is_empty()).count();
        assert_eq!(asked, 2);
    }

    #[test]
    fn answers_that_are_held_are_bounded_and_what_is_put_away_leaves_nothing() {
        let mut files = Files::default();
        (0..3).for_each(|_| drop(look(&mut files, &[("a", 1), ("b", 1)])));
        files.stick(Path::new("a"), held(MAX_HELD_BYTES), "full".into());
        files.stick(Path::new("b"), held(1), "full".into());
        (0..RETRY_LOOKS).for_each(|_| drop(look(&mut files, &[("a", 1), ("b", 1)])));
        assert_eq!(
            files.due().iter().map(|(path, ..)| path.clone()).collect::<Vec<_>>(),
            [PathBuf::from("a")]
        );
        files.forget(Path::new("a"));
        files.forget(Path::new("b"));
        assert_eq!((files.problem(), files.due().len()), (None, 0));
    }
}
