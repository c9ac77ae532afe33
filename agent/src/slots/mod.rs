//! Releases on this device: content-addressed blobs shared by all, manifests by digest, the boot record that says
//! which release is in which slot, and the table of what answers now.
//!
//! The boot record is small, synced and kept in two copies; it alone decides what serves after a start, without a
//! network and whether or not metadata has expired.

mod boot;
mod load;
mod pace;
mod shelf;
mod table;

pub use boot::{BootRecord, BootStore, Kept};
pub use load::{LoadReleaseError, load};
pub use pace::{Pace, cpu_time};
pub use shelf::{Shelf, ShelfError};
pub use table::{Loaded, Table};
