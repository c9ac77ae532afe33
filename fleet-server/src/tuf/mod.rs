//! The server's part of signed metadata: its online keys (snapshot, timestamp, director), publications checked
//! exactly as a device checks them, the device port, and each device's signed Desired.
//!
//! No key here can make a device run what a publisher did not sign: root, targets and the models' roles are signed
//! offline, and a publication that a device would refuse is refused here first.

pub mod device_port;
pub mod director;
pub mod keys;
pub mod publish;
pub mod refresh;

mod counters;
mod seal;
mod verify;

pub use seal::{SealError, SealKey};
