//! Why the agent can't start.

use crate::durable::DurableError;
use crate::exit::Exit;
use crate::link::{self, IdentityError, ReportError, TlsError};
use crate::serve::ListenError;
use crate::store::SpoolError;

/// Why the agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state directory.
    #[error("the state directory can't be used")]
    State(#[source] DurableError),
    /// Another agent runs on the same state directory.
    #[error("another agent runs on {0}; stop it first, a service with: systemctl stop flotilla-agent")]
    Locked(String),
    /// Who this device is.
    #[error("no usable identity")]
    Identity(#[source] IdentityError),
    /// TLS.
    #[error("TLS can't be prepared")]
    Tls(#[source] TlsError),
    /// Signed reports.
    #[error("reports can't be signed")]
    Report(#[source] ReportError),
    /// The spool.
    #[error("the telemetry spool can't be opened")]
    Spool(#[source] SpoolError),
    /// The local API's address or socket.
    #[error("the local API can't start")]
    Listen(#[source] ListenError),
    /// The server's address.
    #[error("the identity names no usable server")]
    Address(#[source] link::http::FetchError),
}

impl AppError {
    /// The exit code: whether trying again can help decides what systemd does.
    pub fn exit(&self) -> Exit {
        use std::io::ErrorKind::{AddrInUse, AddrNotAvailable};
        match self {
            Self::Locked(_) => Exit::Unavailable,
            Self::Listen(error) if matches!(error.source.kind(), AddrInUse | AddrNotAvailable) => {
                Exit::Unavailable
            }
            Self::State(error) if error.is_unwritable() => Exit::Unavailable,
            Self::Identity(_) | Self::Listen(_) | Self::Address(_) | Self::Tls(_) | Self::State(_) => {
                Exit::Config
            }
            Self::Spool(error) if error.is_of_key() => Exit::Config,
            Self::Report(_) | Self::Spool(_) => Exit::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    fn listen(kind: ErrorKind) -> AppError {
        AppError::Listen(ListenError { place: "127.0.0.1:8500".into(), source: Error::from(kind) })
    }

    fn state(kind: ErrorKind) -> AppError {
        AppError::State(DurableError::Io { operation: "open", path: "x".into(), source: Error::from(kind) })
    }

    #[test]
    fn what_may_pass_is_unavailable_and_what_stays_is_config() {
        assert_eq!(AppError::Locked("x".into()).exit(), Exit::Unavailable);
        assert_eq!(listen(ErrorKind::AddrInUse).exit(), Exit::Unavailable);
        assert_eq!(listen(ErrorKind::PermissionDenied).exit(), Exit::Config);
        assert_eq!(state(ErrorKind::StorageFull).exit(), Exit::Unavailable);
        let other = AppError::Spool(SpoolError::OtherKey { path: "key".into() });
        assert_eq!(other.exit(), Exit::Config);
        assert_eq!(state(ErrorKind::PermissionDenied).exit(), Exit::Config);
    }
}
