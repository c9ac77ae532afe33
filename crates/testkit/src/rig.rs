//! The real binaries as real processes on loopback, each with its own folder, log file and ports.
//!
//! Every process is ended by its own id when its handle drops: first politely, then by force. Nothing here
//! knows a shortcut into the product: it writes configuration files and calls command lines as a user would.

mod agent;
mod cli;
mod fleet;
mod process;
mod server;
mod tunnel;

pub use agent::{Agent, AgentOptions};
pub use cli::Cli;
pub use fleet::Fleet;
pub use process::{Process, free_port, wait_until};
pub use server::{Server, ServerOptions};
pub use tunnel::{CREDENTIALS, TunnelProxy};

use std::path::{Path, PathBuf};

/// Where the binaries are that a rig runs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `flotilla-server`.
    pub server: PathBuf,
    /// `flotilla-agent`.
    pub agent: PathBuf,
    /// `flotilla`.
    pub cli: PathBuf,
}

impl Binaries {
    /// The three binaries in one folder, as cargo leaves them.
    pub fn in_folder(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name);
        Self { server: at("flotilla-server"), agent: at("flotilla-agent"), cli: at("flotilla") }
    }
}
