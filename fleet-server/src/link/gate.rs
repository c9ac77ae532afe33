//! The question that every device connection answers before it gets anywhere: is this certificate current?

use std::future::Future;
use std::io;
use std::pin::Pin;

use crate::pki::{DeviceIdentity, PkiError};
use crate::store::StoreError;

/// Why a device connection is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// TLS failed: no certificate of our CA, an expired one, or no TLS at all.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// TLS let somebody in without a certificate.
    #[error("no client certificate")]
    NoCertificate,
    /// The certificate is ours but names no device.
    #[error("the certificate names no device")]
    NotADevice(#[source] PkiError),
    /// No such device is enrolled.
    #[error("the device is not enrolled")]
    UnknownDevice,
    /// The device was decommissioned.
    #[error("the device is decommissioned")]
    Decommissioned,
    /// A newer certificate has replaced this one.
    #[error("the certificate was superseded")]
    Superseded,
    /// The server holds as many connections as it may.
    #[error("too many connections")]
    TooManyConnections,
    /// The database didn't answer.
    #[error("the device can't be looked up")]
    Store(#[source] StoreError),
}

impl Refusal {
    /// Stable name, for counters and log fields.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::NoCertificate => "no_certificate",
            Self::NotADevice(_) => "not_a_device",
            Self::UnknownDevice => "unknown_device",
            Self::Decommissioned => "decommissioned",
            Self::Superseded => "superseded",
            Self::TooManyConnections => "too_many_connections",
            Self::Store(_) => "store",
        }
    }
}

/// Says whether a verified certificate is current. The MQTT front and the device port ask the same one.
pub trait Gate: Send + Sync {
    /// Lets the device in, or says why not. The first use of a renewed certificate retires its predecessor.
    fn admit<'a>(
        &'a self,
        identity: &'a DeviceIdentity,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

    /// Counts a refusal.
    fn refused(&self, refusal: &Refusal);
}
