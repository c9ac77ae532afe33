//! Why the agent can't start.

use crate::durable::DurableError;
use crate::link::{self, IdentityError, ReportError, TlsError};
use crate::store::SpoolError;

/// Why the agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state directory.
    #[error("the state directory can't be used")]
    State(#[source] DurableError),
    /// Another agent runs on the same state directory.
    #[error("another agent runs on {0}")]
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
    /// The local API's address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The server's address.
    #[error("the identity names no usable server")]
    Address(#[source] link::http::FetchError),
}

impl AppError {
    /// Whether the configuration or the state directory must be changed before another try can help.
    pub fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Identity(_) | Self::Listen { .. } | Self::Address(_) | Self::Tls(_) | Self::State(_)
        )
    }
}
