//! MQTT: the embedded broker behind our TLS front, the server's own session, ingest and downlink.
//!
//! The only room that knows an MQTT library. A device's words are taken only under its own identity (topic,
//! certificate, report key); an acknowledgement goes out only after the commit that it speaks of.

mod access;
mod apply;
mod broker;
mod budget;
mod counters;
mod decode;
mod downlink;
mod gate;
mod ingest;
mod records;
mod reject;
mod sequence;
mod session;
mod start;
mod words;

pub use broker::{BrokerError, BrokerLoop, EmbeddedBroker};
pub use counters::LinkCounters;
pub use gate::{Gate, Refusal};
pub use ingest::TaskHook;
pub use reject::Rejection;
pub use sequence::{Insert, Range, Received};
pub use session::{SessionError, Upstream};
pub use start::{Link, LinkIo, StoreGate, forget_connections};
