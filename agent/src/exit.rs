//! Exit codes: what a caller (systemd, a script, a test) may rely on. Listed in the README.

use std::process::ExitCode;

/// Why the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped by a signal and drained.
    Ok,
    /// A bug of ours, or a part that would not stay up.
    Internal,
    /// The command line is wrong.
    Usage,
    /// `run-batch` has written its output, but some items were refused; each says why there.
    Data,
    /// The server, or the agent that `status` asks, does not answer; or another agent runs on the same state
    /// directory, the local port is busy, or the disk takes no writes at the first start. Trying again may help.
    Unavailable,
    /// Memory stayed above the hard bound: start it anew.
    Memory,
    /// The server refused: a token that is unknown, used or expired. `import` refused the archive.
    NoPermission,
    /// The configuration or the state directory is wrong; trying again can't help.
    Config,
}

impl Exit {
    /// The number, as in sysexits.h.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Internal => 1,
            Self::Usage => 64,
            Self::Data => 65,
            Self::Unavailable => 69,
            Self::Memory => 75,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed() {
        let all = [
            Exit::Ok,
            Exit::Internal,
            Exit::Usage,
            Exit::Data,
            Exit::Unavailable,
            Exit::Memory,
            Exit::NoPermission,
            Exit::Config,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 64, 65, 69, 75, 77, 78]);
    }
}
