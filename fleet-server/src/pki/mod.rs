//! The fleet's own certificate authority: who is a device, and how TLS proves it.
//!
//! Made at first start, kept in `{data_dir}/ca` (mode 0600, fsynced). A lost or unreadable CA key is an error,
//! never a new CA: every enrolled device would be orphaned. Names in a certificate come from the server's
//! decision, never from a CSR. Revocation is the database's: [`crate::store`] says which serial is current, and
//! each connection asks. Tests stand in each module; `tests/link.rs` drives the whole with real TLS.

mod authority;
mod csr;
mod error;
mod files;
mod identity;
mod limiter;
mod tls;

pub mod enroll;
pub mod token;

pub use authority::{Authority, IssuedCertificate};
pub use csr::DeviceKey;
pub use error::PkiError;
pub use files::{read_secret, write_secret};
pub use identity::DeviceIdentity;
pub use limiter::FailureLimiter;
pub use tls::{ServerCertificate, TlsConfigs, client_config, keep_fresh};
