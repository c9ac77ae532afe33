//! Exit codes, as README lists them.

use std::process::ExitCode;

use crate::client::ClientError;

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// All went well.
    Ok = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// The server can't be reached or asks to come back later.
    Unavailable = 69,
    /// Not signed in, or not allowed.
    NoPermission = 77,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The code for an error that reached the top. Wrong usage is clap's own and ends with 2.
pub(crate) fn code_of(error: &anyhow::Error) -> Code {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::Refused { status: 503, .. }) => Code::Unavailable,
        Some(ClientError::Refused { status: 401 | 403, .. } | ClientError::NotSignedIn) => Code::NoPermission,
        _ => Code::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_decides_the_code() {
        let refused = |status| {
            anyhow::Error::new(ClientError::Refused {
                status,
                code: "c".into(),
                message: "m".into(),
                role: None,
            })
            .context("while")
        };
        assert_eq!(code_of(&refused(403)), Code::NoPermission);
        assert_eq!(code_of(&refused(503)), Code::Unavailable);
        assert_eq!(code_of(&refused(404)), Code::Failed);
        assert_eq!(code_of(&anyhow::anyhow!("other")), Code::Failed);
    }
}
