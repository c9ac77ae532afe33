//! The telemetry spool: records wait here, through any outage, until the server has stored them; beside it the samples
//! that were captured for retraining.
//!
//! sled is used nowhere else. It holds only what can be lost without harm to trust or booting; everything that is
//! lost is counted exactly. "Durable" means fsync: see [`sync`]. One thread owns all writes and commits in
//! groups; readers (the link) iterate without blocking it. When full, panes merge before anything is dropped. Tests:
//! `tests/spool`, `firmware-tests crash` and in each module.

mod budget;
mod carried;
mod depth;
mod layout;
mod mending;
mod merge;
mod note;
mod opening;
mod patience;
mod policy;
mod records;
mod rescue;
mod room;
mod samples;
mod seal;
mod spool;
mod sync;
mod writer;

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod kills;

pub use room::DROPPED;
pub use samples::{Bounds, Held, Put, Samples};
pub use seal::check_key;
pub use spool::{Chunk, Figures, Spool, SpoolError, SpoolHandle, WaitingKind};
