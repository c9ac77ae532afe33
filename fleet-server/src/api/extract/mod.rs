//! Extractors: what a handler takes from a request, each with our error envelope.
//!
//! [`InProject`] is the only way into a project and [`Everywhere`] the only way to what concerns the whole
//! server; `tests/access.rs` walks every route and proves that one of them stands before it.

mod access;
mod client;
mod input;

pub(crate) use access::is_same_origin;
pub use access::{Admin, AnySession, Everywhere, InProject, MinRole, Operator, Publisher, SignedIn, Viewer};
pub use access::{SESSION_COOKIE, cookie_value};
pub use client::ClientAddress;
pub(crate) use input::cursor;
pub use input::{Json, Paging, Path, Query};
