//! What can go wrong with keys and certificates.

use std::path::PathBuf;

/// Why the authority can't start, or refuses to issue.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the authority can't be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the authority can't be made durable.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate is there, its key is not. A new CA would orphan every enrolled device.
    #[error("{path} is missing although its certificate exists: restore it from a backup", path = path.display())]
    KeyLost {
        /// The key's file.
        path: PathBuf,
    },
    /// A stored file isn't what it should be.
    #[error("{path} does not hold a valid {what}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// Making a key or certificate failed.
    #[error("cannot make {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// A CSR is not one, proves no possession of its key, or uses a key we don't certify.
    #[error("certificate request refused: {0}")]
    BadCsr(&'static str),
    /// A client certificate doesn't name a device of ours.
    #[error("client certificate names no device: {0}")]
    NotADevice(&'static str),
    /// rustls refused a key, a certificate or a configuration.
    #[error("cannot configure TLS: {what}")]
    Tls {
        /// Which part.
        what: &'static str,
        /// Why.
        source: rustls::Error,
    },
    /// A configured name can't stand in a certificate.
    #[error("{name:?} cannot be a name in the server's certificate")]
    BadName {
        /// The name.
        name: String,
    },
}
