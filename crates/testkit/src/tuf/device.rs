//! A device that runs the client workflow over a simulated repository.

use protocol::UnixMillis;

use super::{Limits, NOW, Reply, Repository, Session, Sim, Step, Stored, Storing, TrustError};

/// What it has stored and what it has asked for.
pub struct Device {
    /// Its trusted files.
    pub stored: Stored,
    /// Paths that it fetched in its last run, as they stand in an address.
    pub asked: Vec<String>,
    /// Names that it was told to store or (`-name`) to delete in its last run, in order.
    pub told: Vec<String>,
    /// Its clock.
    pub now: UnixMillis,
    /// When files are stored.
    pub storing: Storing,
    /// Its bounds.
    pub limits: Limits,
}

impl Device {
    /// A device that was given this root.
    pub fn new(root: Vec<u8>) -> Self {
        Self {
            stored: Stored::new(root),
            asked: Vec::new(),
            told: Vec::new(),
            now: NOW,
            storing: Storing::EachRole,
            limits: Limits::default(),
        }
    }

    /// Refreshes the top-level roles.
    ///
    /// # Errors
    /// What was refused.
    pub fn refresh(&mut self, sim: &Sim) -> Result<Repository, TrustError> {
        self.find(sim, &[])
    }

    /// Refreshes and looks for targets.
    ///
    /// # Errors
    /// What was refused.
    pub fn find(&mut self, sim: &Sim, targets: &[&str]) -> Result<Repository, TrustError> {
        (self.asked, self.told) = (Vec::new(), Vec::new());
        let wanted = targets.iter().copied();
        let session = Session::new(self.stored.clone(), wanted, self.now, &self.limits)?;
        let mut session = session.storing(self.storing);
        loop {
            match session.next()? {
                Step::Need(fetch) => {
                    let served = sim.files.get(&percent_decode(&fetch.path)).cloned();
                    self.asked.push(fetch.path);
                    session.feed(served.map_or(Reply::NotFound, Reply::Bytes))?;
                }
                Step::Persist(file) => self.put(file),
                Step::Forget(name) => {
                    self.stored.files.remove(&name);
                    self.told.push(format!("-{name}"));
                }
                Step::Done(accepted) => {
                    accepted.files.into_iter().for_each(|file| self.put(file));
                    return Ok(accepted.repository);
                }
            }
        }
    }

    fn put(&mut self, file: trust::File) {
        self.told.push(file.name.clone());
        self.stored.put(file);
    }
}

/// Undoes percent-encoding.
///
/// # Panics
/// When what comes out is no UTF-8.
pub(super) fn percent_decode(path: &str) -> String {
    let mut out = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| hex::decode(digits).ok());
        if let (b'%', Some(byte)) = (first, hex) {
            out.extend(byte);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).expect("addresses are UTF-8")
}
