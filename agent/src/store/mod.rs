//! The telemetry spool: records wait here, through any outage, until the server has stored them.
//!
//! sled is used nowhere else. It holds only what can be lost without harm to trust or booting; everything that is
//! lost is counted exactly. "Durable" means fsync: see [`sync`]. One thread owns all writes and commits in
//! groups; readers (the link) iterate without blocking it. Tests: `tests/spool_kill.rs` and in each module.

mod layout;
mod opening;
mod spool;
mod sync;
mod writer;

pub use spool::{Chunk, Depth, Spool, SpoolError, SpoolHandle};
