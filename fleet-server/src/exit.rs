//! Exit codes of `flotilla-server`; the README lists them.

use std::process::{ExitCode, Termination};

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// As asked.
    Ok = 0,
    /// A bug or a broken machine; the log says what.
    Internal = 1,
    /// The command line is wrong (clap's own errors use 2 and are mapped to this).
    Usage = 64,
    /// Something that the server needs is not there: a port in use, a database that doesn't answer.
    Unavailable = 69,
    /// The configuration is wrong.
    Config = 78,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [Exit::Ok, Exit::Internal, Exit::Usage, Exit::Unavailable, Exit::Config].map(|e| e as u8);
        assert_eq!(codes, [0, 1, 64, 69, 78]);
    }
}
