//! What goes between a session and its caller.

use std::collections::BTreeMap;

use crate::repository::Repository;

/// What the caller has stored, byte for byte as it was given.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The trusted root, from enrolment or from [`Step::Persist`].
    pub root: Vec<u8>,
    /// The other files by the names in [`File`].
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Stored {
    /// Only a trusted root, as after enrolment.
    pub fn new(root: impl Into<Vec<u8>>) -> Self {
        Self { root: root.into(), files: BTreeMap::new() }
    }

    /// Takes over a file as [`Step::Persist`] or [`Accepted::files`] gave it.
    pub fn put(&mut self, file: File) {
        if file.name == "root.json" {
            self.root = file.bytes;
        } else {
            self.files.insert(file.name, file.bytes);
        }
    }
}

/// When accepted files are to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storing {
    /// Together, once the whole chain is accepted; only roots go first. A refusal leaves the earlier state.
    #[default]
    WholeChain,
    /// Each role's file as it is accepted, by the letter of the specification (5.4.5, 5.5.7, 5.6.6).
    EachRole,
}

/// A file to store byte for byte under a name that is safe in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// `root.json`, `timestamp.json`, `snapshot.json`, `targets.json` or a delegated role's.
    pub name: String,
    /// Exactly as fetched.
    pub bytes: Vec<u8>,
}

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Path below the metadata base address, percent-encoded.
    pub path: String,
    /// Stop when more than this has come.
    pub max_bytes: u64,
}

/// The answer to a [`Fetch`]. A network failure is none: keep the session and try again, or drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The file.
    Bytes(Vec<u8>),
    /// The server has no such file.
    NotFound,
}

/// What the caller does next.
#[derive(Debug)]
pub enum Step {
    /// Fetch a file and feed it.
    Need(Fetch),
    /// Make this file durable now, then go on: a root (step 5.3.8), or with [`Storing::EachRole`] any role.
    Persist(File),
    /// Delete this stored file now, then go on: its keys were rotated (step 5.3.11).
    Forget(String),
    /// The whole chain is accepted.
    Done(Box<Accepted>),
}

/// The end of a session that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The trusted view.
    pub repository: Repository,
    /// Files that are new, to be stored together; none with [`Storing::EachRole`].
    pub files: Vec<File>,
}
