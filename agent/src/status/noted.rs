//! Where the running agent listens, noted in the state directory: `status` and `doctor` find it also when it was started
//! with another address than their own configuration names. A note is believed only if the agent that answers there
//! says that it is the same run, so one that a killed agent left behind leads nowhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config;
use crate::durable::{self, DurableError};

const FILE: &str = "api-address";
const MAX_BYTES: u64 = 8 * 1024;

/// The note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Of this run of the agent.
    pub boot_id: String,
    /// Its TCP address, with the port that the system chose.
    pub listen: Option<SocketAddr>,
    /// Its unix socket.
    pub unix: Option<PathBuf>,
}

impl Noted {
    /// What an agent of this configuration has bound.
    pub fn new(boot_id: String, listen: Option<SocketAddr>, config: &config::Serve) -> Self {
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self { boot_id, listen, unix: config.unix.as_ref().map(whole) }
    }

    /// Leaves the note in the state directory.
    ///
    /// # Errors
    /// [`DurableError`]; an older note may be left then, which nobody believes.
    pub fn leave(&self, state_dir: &Path) -> Result<(), DurableError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        durable::write_atomic(&state_dir.join(FILE), &bytes)
    }

    /// Takes the note away; nothing if there is none.
    pub fn take_away(state_dir: &Path) {
        let _gone = std::fs::remove_file(state_dir.join(FILE));
    }

    /// Whether this configuration leads to the same place.
    pub(super) fn is_where(&self, config: &config::Serve) -> bool {
        if self.listen.is_some() { self.listen == config.listen } else { self.unix == config.unix }
    }

    /// The note, if there is one that this user may read.
    pub(super) fn read(state_dir: &Path) -> Option<Self> {
        let bytes = durable::read_bounded(&state_dir.join(FILE), MAX_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}
