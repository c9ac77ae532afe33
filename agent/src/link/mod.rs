//! The way to the server: enrolment, MQTT session, HTTP fetches, certificate renewal; mutual TLS everywhere.
//!
//! Nothing that comes in here is believed: Desired, metadata and blobs go on to `trust` as bytes. Nothing that
//! must arrive is kept here either: the spool and the boot record hold it until the server has it. The MQTT client
//! library appears only in [`mqtt`] and in [`local`], which speaks to a broker of the device's own, not to the server.

pub mod enroll;
pub mod http;
pub mod identity;

mod admission;
#[cfg(test)]
pub(crate) mod alone;
mod local;
mod mqtt;
mod pump;
mod renew;
mod report;
mod samples;
mod session;
mod tls;

pub use admission::Admission;
pub use identity::{Identity, IdentityError, Validity, has_next};
pub use local::{LocalBroker, Message, Receipt, Said, Unsent};
pub use renew::{Links, RenewError, Renewal};
pub use report::{ReportError, Reporter};
pub use samples::SampleUpload;
pub use session::{Downlink, Inputs, LinkState, Session, host_and_port};
pub use tls::{TlsError, client_config, client_config_at};
